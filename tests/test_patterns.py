"""The regular expressions mean the same on every Python that is supported, 3.11.2 of Debian 12 among them."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from re import _constants as codes
from re import _parser as parser
from typing import Any

import pytest

import livemail
from livemail.imap.render.picks import _pattern as picking
from livemail.mail.message.fields import _named as naming


def patterns() -> Iterator[re.Pattern[Any]]:
    """Those kept in modules, and one of each kind that is made from an argument."""
    for found in pkgutil.walk_packages(livemail.__path__, "livemail."):
        if found.name != "livemail.__main__":
            for value in vars(importlib.import_module(found.name)).values():
                if isinstance(value, re.Pattern):
                    yield value
    yield picking(frozenset({b"from", b"date"}))
    yield naming(b"from")


def backtracks(node: Any) -> bool:
    """Whether a piece of a parsed pattern can be matched in more than one way."""
    for code, argument in node:
        if code in {codes.BRANCH, codes.MAX_REPEAT, codes.MIN_REPEAT}:
            return True
        if any(backtracks(inner) for inner in insides(argument)):
            return True
    return False


def insides(argument: Any) -> Iterator[Any]:
    if isinstance(argument, parser.SubPattern):
        yield argument
    elif isinstance(argument, tuple | list):
        for each in argument:
            yield from insides(each)


def misread(node: Any) -> bool:
    """Whether it holds a possessive repeat, or an atomic group, of something that can backtrack.

    Before 3.11.5 such a one matches too little, or what it should not.  CPython gh-106052.
    """
    for code, argument in node:
        inside = list(insides(argument))
        if code is codes.POSSESSIVE_REPEAT and any(map(backtracks, inside)):
            return True
        if any(map(misread, inside)):
            return True
    return False


@pytest.mark.parametrize("pattern", [rb"(?:a|bc)*+", rb"(?:x(?!a+b)y)++", rb"(?:(?:ab*c)?+d)?"])
def test_a_pattern_that_older_pythons_misread_is_recognised(pattern: bytes) -> None:
    assert misread(parser.parse(pattern))


def test_no_pattern_is_misread_by_older_pythons() -> None:
    found = list(patterns())
    assert len(found) > 30
    assert [each.pattern for each in found if misread(parser.parse(each.pattern, each.flags & ~re.UNICODE))] == []
