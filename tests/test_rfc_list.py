"""livemail/rfc.txt: what the code cites is in it.  What the server advertises is in tests/system/test_advertised.py."""

from __future__ import annotations

import re

import pytest

from tests.rfc_list import PACKAGE, cited, read


def test_every_rfc_the_code_cites_is_listed() -> None:
    listed = {entry.number for entry in read()}
    missing = {
        f"RFC {number}, {path.relative_to(PACKAGE)}"
        for path in PACKAGE.rglob("*.py")
        for number in cited(path.read_text("utf-8"))
        if number not in listed
    }
    assert missing == set()


def test_every_rfc_is_listed_once() -> None:
    numbers = [entry.number for entry in read()]
    assert len(set(numbers)) == len(numbers)


def test_what_is_not_whole_says_why_and_what_is_not_there_is_advertised_nowhere() -> None:
    for entry in read():
        assert entry.status == "yes" or re.search(r"[:;,] \S+ \S+", entry.text), entry
        assert entry.status != "no" or (not entry.names and ":" in entry.text), entry


def test_citations_are_found_alone_in_lists_and_across_lines() -> None:
    assert cited("(RFC\n    5890 §2.3) and RFC 2045, 2046 and 9051 §7; RFC822, RFC 3501, 3 times; # RFC\n# 2180") == {
        5890, 2045, 2046, 9051, 3501, 2180,
    }  # fmt: skip


def test_a_line_of_another_form_is_an_error() -> None:
    for line in ("RFC 1  yes  x", "1  maybe  x", "1 yes x", "1  yes  "):
        with pytest.raises(ValueError, match="not of the form"):
            read(line)
