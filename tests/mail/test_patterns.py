"""Patterns of mailbox names."""

from __future__ import annotations

import pytest

from livemail.mail.patterns import compile_pattern


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", {"INBOX", "a", "a/b", "a/b/c"}),
        ("%", {"INBOX", "a"}),
        ("a/%", {"a/b"}),
        ("a*", {"a", "a/b", "a/b/c"}),
        ("*%*c", {"a/b/c"}),
        ("a/b", {"a/b"}),
        ("", set()),
        ("%/%", {"a/b"}),
    ],
)
def test_patterns(pattern, names):
    assert {name for name in ("INBOX", "a", "a/b", "a/b/c") if compile_pattern(pattern)(name)} == names


def test_a_pattern_made_to_take_long_does_not():
    assert not compile_pattern("*%" * 400 + "b")("a/" * 400)
