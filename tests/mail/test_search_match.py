"""Search programs against messages.  RFC 9051 §6.4.4."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Coroutine
from typing import TypeVar

import pytest

from livemail.interfaces import storage
from livemail.mail import search, search_match
from livemail.mail.flags import ANSWERED, SEEN
from livemail.mail.ids import UIDSet
from livemail.mail.message.scanner import scan
from livemail.mail.message.summary import decode_parts
from livemail.mail.search_match import InMemory, Needs, compile_search

_T = TypeVar("_T")

_MESSAGE = (
    "From: =?utf-8?q?J=C3=B6rg?= <joerg@example.org>\r\nSubject: Die\r\n Stra\u00dfe\r\nX-Empty:\r\n"
    "Date: Mon, 1 Jan 2024 00:30:00 +0200\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    "preamble-word\r\n--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
    "Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe aus dem Nor=\r\nden\r\n"
    "--b\r\nContent-Type: application/pdf; name=report.pdf\r\n\r\npdf-octets\r\n"
    "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: =?utf-8?b?w4RyZ2Vy?=\r\n\r\ninner text\r\n--b--\r\n"
).encode()

_ROW = (7, SEEN, 0b10, 99, 1_704_063_600, 60, len(_MESSAGE), 0, 0, 0, 0)
"""2023-12-31T23:00:00Z, written as 2024-01-01T00:00:00+0100."""

_KEYWORDS = ("Other", "$Forwarded")


def _now(coroutine: Coroutine[object, None, _T]) -> _T:
    """Run what never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: _T = stop.value
        return value
    raise AssertionError("it suspended")


def _verdicts(key: search.SearchKey, message: bytes = _MESSAGE, prefix: bytes = b"") -> list[bool | None]:
    summary = scan(message)
    header = prefix + message[: summary.header_size]
    matcher = compile_search(key)
    by_content = matcher.by_content(
        _ROW, _KEYWORDS, header, InMemory(prefix + message), decode_parts(summary.parts), len(prefix), is_recent=True
    )
    return [
        matcher.by_row(_ROW, _KEYWORDS, is_recent=True),
        matcher.by_header(_ROW, _KEYWORDS, header, is_recent=True),
        _now(by_content),
    ]


def test_columns_are_those_of_storage() -> None:
    for name in ("UID_", "FLAGS", "KEYWORDS", "MODSEQ", "DATE", "ZONE", "SIZE"):
        assert getattr(search_match, name) == getattr(storage, name)


@pytest.mark.parametrize(
    ("key", "matches"),
    [
        (search.Everything(), True),
        (search.UIDs(UIDSet([(7, 9)])), True),
        (search.UIDs(UIDSet([(8, 9)])), False),
        (search.HasFlag(SEEN), True),
        (search.HasFlag(ANSWERED), False),
        (search.HasKeyword("$forwarded"), True),
        (search.HasKeyword("other"), False),
        (search.HasKeyword("unknown"), False),
        (search.IsRecent(), True),
        (search.SizeIs("larger", len(_MESSAGE)), False),
        (search.SizeIs("larger", len(_MESSAGE) - 1), True),
        (search.SizeIs("smaller", len(_MESSAGE)), False),
        (search.SizeIs("smaller", len(_MESSAGE) + 1), True),
        (search.DateIs("internal", "on", datetime.date(2024, 1, 1)), True),
        (search.DateIs("internal", "before", datetime.date(2024, 1, 1)), False),
        (search.DateIs("internal", "since", datetime.date(2024, 1, 1)), True),
        (search.ModSeqAtLeast(99), True),
        (search.ModSeqAtLeast(100), False),
        (search.Not(search.HasFlag(SEEN)), False),
        (search.AllOf((search.HasFlag(SEEN), search.IsRecent())), True),
        (search.AnyOf((search.HasFlag(ANSWERED), search.IsRecent())), True),
        (search.AllOf((search.TextContains("body", "x"), search.HasFlag(ANSWERED))), False),
        (search.AnyOf((search.TextContains("body", "x"), search.HasFlag(SEEN))), True),
    ],
)
def test_the_row_decides(key: search.SearchKey, matches: bool) -> None:
    assert _verdicts(key) == [matches, matches, matches]


@pytest.mark.parametrize(
    ("key", "matches", "needs"),
    [
        (search.HeaderContains("from", "jÖRG"), True, Needs.FIELDS),
        (search.HeaderContains("from", "EXAMPLE.ORG"), True, Needs.FIELDS),
        (search.HeaderContains("subject", "die strasse"), True, Needs.FIELDS),
        (search.HeaderContains("subject", "ärger"), False, Needs.FIELDS),
        (search.HeaderContains("x-empty", ""), True, Needs.HEADER),
        (search.HeaderContains("x-absent", ""), False, Needs.HEADER),
        (search.HeaderContains("x", ""), False, Needs.HEADER),
        (search.Not(search.HeaderContains("to", "")), True, Needs.FIELDS),
        (search.DateIs("sent", "on", datetime.date(2024, 1, 1)), True, Needs.FIELDS),
        (search.DateIs("sent", "before", datetime.date(2024, 1, 1)), False, Needs.FIELDS),
    ],
)
def test_the_header_decides(key: search.SearchKey, matches: bool, needs: Needs) -> None:
    assert compile_search(key).needs is needs
    assert _verdicts(key) == [None, matches, matches]


@pytest.mark.parametrize(
    ("where", "text", "matches"),
    [
        ("body", "GRÜSSE AUS DEM NORDEN", True),
        ("body", "inner text", True),
        ("body", "ärger", True),
        ("body", "report.pdf", True),
        ("body", "strasse", False),
        ("text", "strasse", True),
        ("text", "joerg", True),
        ("text", "jörg", True),
        ("body", "pdf-octets", False),
        ("body", "preamble-word", False),
        ("body", "", True),
    ],
)
@pytest.mark.parametrize("prefix", [b"", b"Return-Path: <x@y>\r\n"])
def test_the_content_decides(where: str, text: str, matches: bool, prefix: bytes) -> None:
    key = search.TextContains("text" if where == "text" else "body", text)
    assert compile_search(key).needs is Needs.CONTENT
    assert _verdicts(key, prefix=prefix) == [None, None, matches]


def test_the_prefix_is_header() -> None:
    prefix = b"Delivered-To: someone@example.net\r\n"
    assert _verdicts(search.HeaderContains("delivered-to", "someone"), prefix=prefix)[1:] == [True, True]
    assert _verdicts(search.TextContains("text", "someone@"), prefix=prefix)[2]


def test_texts_across_windows_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_match, "_WINDOW_OCTETS", 7)
    text = "needle in an \u00fcberlong haystack " * 3
    for encoding, body in (("8bit", text.encode()), ("base64", base64.encodebytes(text.encode()))):
        message = (
            f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + body
        )
        for wanted in ("NEEDLE IN AN ÜBERLONG HAYSTACK", "haystack needle"):
            assert _verdicts(search.TextContains("body", wanted), message)[2]
        assert not _verdicts(search.TextContains("body", "haystackneedle"), message)[2]


def test_windows_hold_bounded_octets() -> None:
    class Counting:
        def __init__(self, content: bytes) -> None:
            self.content = content
            self.longest = 0

        async def read(self, offset: int, length: int) -> bytes:
            self.longest = max(self.longest, length)
            return self.content[offset : offset + length]

    message = b"Subject: x\r\n\r\n" + b"a" * 3_000_000
    summary = scan(message)
    source = Counting(message)
    matcher = compile_search(search.TextContains("body", "b"))
    assert not _now(
        matcher.by_content(_ROW, (), message[: summary.header_size], source, decode_parts(summary.parts)),
    )
    assert source.longest <= 256 * 1024


def test_reading_ends_when_every_text_was_found() -> None:
    class Once:
        reads = 0

        async def read(self, offset: int, length: int) -> bytes:
            self.reads += 1
            return (b"a" * 3_000_000)[offset : offset + length]

    source = Once()
    matcher = compile_search(search.AnyOf((search.TextContains("body", "aa"), search.TextContains("body", "a"))))
    assert _now(matcher.by_content(_ROW, (), b"", source, decode_parts(scan(b"\r\n" + b"a" * 2_999_998).parts)))
    assert source.reads == 1
