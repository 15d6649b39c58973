"""The cursor: what each piece of the grammar takes and refuses."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import Any

import pytest

from livemail.imap.grammar.cursor import Cursor
from livemail.mail.errors import InvalidName, WireError
from livemail.mail.flags import DELETED, SEEN


def read(method: str, text: bytes, *arguments: Any) -> Any:
    cursor = Cursor([text])
    value = getattr(cursor, method)(*arguments)
    cursor.end()
    return value


TAKEN: list[tuple[str, bytes, Any]] = [
    ("atom", b"a.b-c$", "a.b-c$"),
    ("atom", b"BODY[1]"[:6], "BODY[1"),
    ("word", b"rfc822.size", "RFC822.SIZE"),
    ("number", b"0", 0),
    ("number", b"4294967295", 2**32 - 1),
    ("number64", b"9223372036854775807", 2**63 - 1),
    ("astring", b"a]b", b"a]b"),
    ("astring", b'"a b"', b"a b"),
    ("string", b'""', b""),
    ("string", b'"\\"\\\\"', b'"\\'),
    ("nstring", b"nil", None),
    ("nstring", b'"NIL"', b"NIL"),
    ("mailbox", b"inbox", "INBOX"),
    ("mailbox", b'"caf&AOk-/"', "caf\u00e9"),
    ("list_pattern", b"%/*", "%/*"),
    ("list_pattern", b'""', ""),
    ("list_pattern", b"&AOk-%", "\u00e9%"),
    ("flag_list", b"()", (0, ())),
    ("flag_list", b"(\\seen $Fwd \\Deleted $fwd)", (SEEN | DELETED, ("$Fwd",))),
    ("flags", b"\\Seen foo", (SEEN, ("foo",))),
    ("flags", b"(\\Seen)", (SEEN, ())),
    ("date", b"1-Feb-1994", datetime.date(1994, 2, 1)),
    ("date", b'"29-feb-2024"', datetime.date(2024, 2, 29)),
    ("date_time", b'" 1-Jan-1970 00:00:00 +0000"', (0, 0)),
    ("date_time", b'"01-Jan-1970 01:00:00 +0130"', (-1800, 90)),
    ("date_time", b'"17-Jul-1996 02:44:25 -0700"', (837596665, -420)),
    ("date_time", b'"31-Dec-1969 23:59:60 +0000"', (0, 0)),
]

REFUSED: list[tuple[str, bytes]] = [
    ("atom", b""),
    ("atom", b"(x"),
    ("atom", b"{"),
    ("word", b"["),
    ("number", b"-1"),
    ("number", b"4294967296"),
    ("number", b"1" * 21),
    ("number", b"1" * 5000),
    ("number64", b"9223372036854775808"),
    ("string", b"abc"),
    ("string", b'"abc'),
    ("string", b'"abc\\"'),
    ("string", b'"a\\bc"'),
    ("string", b'"\xc3\xa9"'),
    ("string", b'"a\rb"'),
    ("string", b'"a\nb"'),
    ("string", b'"a\0b"'),
    ("astring", b""),
    ("astring", b"\xff"),
    ("nstring", b"NO"),
    ("flag_list", b"\\Seen"),
    ("flag_list", b"(\\Seen"),
    ("flag_list", b"( \\Seen)"),
    ("flag_list", b"(\\Seen )"),
    ("flag_list", b"(\\Recent)"),
    ("flag_list", b"(\\Bogus)"),
    ("flag_list", b"(" + b"k" * 256 + b")"),
    ("flag_list", b"((a))"),
    ("flags", b""),
    ("date", b"30-Feb-1994"),
    ("date", b"1-Foo-1994"),
    ("date", b"1-Feb-94"),
    ("date", b'"1-Feb-1994'),
    ("date_time", b" 1-Feb-1994 00:00:00 +0000"),
    ("date_time", b'"1-Feb-1994 00:00:00 +0000"'),
    ("date_time", b'" 1-Feb-1994 24:00:00 +0000"'),
    ("date_time", b'" 1-Feb-1994 00:60:00 +0000"'),
    ("date_time", b'" 1-Feb-1994 00:00:61 +0000"'),
    ("date_time", b'" 1-Feb-1994 00:00:00 +2400"'),
    ("date_time", b'" 1-Feb-1994 00:00:00 +0060"'),
    ("date_time", b'" 1-Feb-0000 00:00:00 +0000"'),
    ("date_time", b'"31-Apr-1994 00:00:00 +0000"'),
    ("sequence_set", b"$"),
    ("sequence_set", b""),
]


@pytest.mark.parametrize(("method", "text", "value"), TAKEN)
def test_the_cursor_takes(method: str, text: bytes, value: Any) -> None:
    assert read(method, text) == value


@pytest.mark.parametrize(("method", "text"), REFUSED)
def test_the_cursor_refuses(method: str, text: bytes) -> None:
    with pytest.raises(WireError):
        read(method, text)


@pytest.mark.parametrize("text", [b'"x&AGE-"', b'"x&y"', b'""', b"a//b", b"../x", b"/etc/x", b"~root/x", b'"a*"'])
def test_a_name_nobody_can_have_is_a_refusal_and_not_an_error(text: bytes) -> None:
    with pytest.raises(InvalidName):
        read("mailbox", text)


@pytest.mark.parametrize("octets", [b"\xff\xfe", b"caf\xc3\xa9", b"a\r\nb"])
def test_a_literal_is_no_way_around_the_spelling_of_names(octets: bytes) -> None:
    with pytest.raises(InvalidName):
        Cursor([b"", b""], [octets]).mailbox()


def test_a_literal_is_a_string_anywhere() -> None:
    cursor = Cursor([b"", b" x ", b""], [b"one\r\n", b""])
    assert cursor.peek() == ord("{")
    assert cursor.at_literal()
    assert cursor.astring() == b"one\r\n"
    cursor.space()
    assert cursor.atom() == "x"
    cursor.space()
    assert not cursor.at_end()
    assert cursor.nstring() == b""
    assert cursor.peek() == -1
    cursor.end()


def test_no_word_runs_across_a_literal() -> None:
    cursor = Cursor([b"ab", b"cd"], [b"x"])
    assert cursor.atom() == "ab"
    with pytest.raises(WireError):
        cursor.atom()
    with pytest.raises(WireError):
        cursor.space()


def test_utf8_where_it_was_agreed_on() -> None:
    assert Cursor([b'"\xc3\xa9"'], utf8=True).string() == b"\xc3\xa9"
    assert Cursor([b'"\xc3\xa9"'], utf8=True).mailbox() == "\u00e9"
    with pytest.raises(WireError):
        Cursor([b'"\xff"'], utf8=True).string()
    with pytest.raises(InvalidName):
        Cursor([b"", b""], [b"\xff"], utf8=True).mailbox()


def test_take_compares_without_case_and_consumes_only_what_it_names() -> None:
    cursor = Cursor([b"CharSet x"])
    assert not cursor.take(b"charsets")
    assert cursor.take(b"charset")
    cursor.space()
    with pytest.raises(WireError):
        cursor.space()


@pytest.mark.parametrize(
    "make", [lambda n: b'"' + b"\\\\" * n, lambda n: b"(" + b"a " * n, lambda n: b'"' + b"a\\" * n + b'"']
)
def test_long_bait_costs_what_it_is_long(make: Callable[[int], bytes]) -> None:
    # A pattern that tries again would need hours for this; the limit is the test's patience, not a measure.
    begun = time.process_time()
    for method in ("astring", "flag_list", "string", "list_pattern"):
        with pytest.raises((WireError, InvalidName)):
            read(method, make(200_000))
    assert time.process_time() - begun < 10
