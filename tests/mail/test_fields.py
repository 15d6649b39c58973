"""Header fields, addresses, dates, and decoding, on clean and on broken input.  RFC 5322, 2047, 9051 §6.4.5."""

from __future__ import annotations

import base64
import datetime
import email.utils
import encodings.aliases
import quopri
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemail.mail.message.addresses import MailboxTriple, parse_addresses, render_addresses
from livemail.mail.message.dates import parse_date
from livemail.mail.message.decoding import TextDecoder, decode_octets, decode_text, decode_words
from livemail.mail.message.fields import header_values, parse_fields, select_fields

_HEADER = b"From x@y Thu\r\nTo: a\r\n\tb\r\nSubject : s\r\ngarbage\r\nto: c\r\nX-Y:\r\nLast: z\r\n\r\n"


def test_fields_are_taken_octet_for_octet() -> None:
    assert select_fields(_HEADER, frozenset((b"to", b"x-y"))) == b"To: a\r\n\tb\r\nto: c\r\nX-Y:\r\n"
    assert select_fields(_HEADER, frozenset((b"to",)), exclude=True) == b"Subject : s\r\nX-Y:\r\nLast: z\r\n"
    assert select_fields(_HEADER, frozenset((b"absent",))) == b""


def test_a_last_field_without_line_end_gets_one() -> None:
    assert select_fields(b"A: 1\r\nB: 2", frozenset((b"b",))) == b"B: 2\r\n"


def test_values_are_unfolded() -> None:
    assert header_values(_HEADER, b"TO") == [b"a\tb", b"c"]
    assert header_values(_HEADER, b"subject") == [b"s"]
    assert header_values(_HEADER, b"x-y") == [b""]
    assert header_values(b"A.B: 1\r\nAxB: 2\r\n", b"a.b") == [b"1"]


def test_fields_of_bare_line_feeds_are_fields() -> None:
    assert [name for _, name, _ in parse_fields(b"A: 1\n 2\nB: 3\n\n")] == [b"A", b"B"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"a@b", [(None, b"a", b"b")]),
        (b'A B <a@b>, "C, D" <c@d>', [(b"A B", b"a", b"b"), (b"C, D", b"c", b"d")]),
        (
            b"A Group:Ed Jones <joe@where.test>,joe@here.test;, x@y",
            [
                (None, b"A Group", None), (b"Ed Jones", b"joe", b"where.test"), (None, b"joe", b"here.test"),
                (None, None, None), (None, b"x", b"y"),
            ],
        ),
        (b"Undisclosed recipients:;", [(None, b"Undisclosed recipients", None), (None, None, None)]),
        (b"unclosed: a@b", [(None, b"unclosed", None), (None, b"a", b"b"), (None, None, None)]),
        (b"Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", [(b"Pete", b"pete", b"silly.test")]),
        (b'"Joe \\"Q\\"" <j@b>', [(b'Joe "Q"', b"j", b"b")]),
        (b"<@a,@b:c@d>", [(None, b"c", b"d")]),
        (b"a@b (Comment (nested))", [(b"Comment (nested)", b"a", b"b")]),
        (b'"a b"@c.d', [(None, b"a b", b"c.d")]),
        (b"x@[192.0.2.1]", [(None, b"x", b"[192.0.2.1]")]),
        (b"local", [(None, b"local", b"")]),
        (b"a <b@c", [(b"a", b"b", b"c")]),
        (b", ,<>, ;", []),
        (b"\xe9 <a@b>", [(b"\xe9", b"a", b"b")]),
        (b"", []),
    ],
)  # fmt: skip
def test_address_lists(value: bytes, expected: list[MailboxTriple]) -> None:
    assert parse_addresses(value) == expected


def test_addresses_agree_with_the_standard_library_on_plain_lists() -> None:
    rng = random.Random(5322)
    for _ in range(200):
        pairs = [
            (
                rng.choice(["", "Ann Lee", "Lee, Ann", 'say "hi"', "J. (x) Doe"]),
                f"u{rng.randrange(99)}@h{rng.randrange(9)}.test",
            )
            for _ in range(rng.randrange(1, 6))
        ]
        value = ", ".join(email.utils.formataddr(pair) for pair in pairs)
        ours = [
            ((name or b"").decode(), f"{(local or b'').decode()}@{(domain or b'').decode()}")
            for name, local, domain in parse_addresses(value.encode())
        ]
        assert ours == pairs


def test_addresses_end_at_the_limit() -> None:
    assert len(parse_addresses(b"a@b," * 100, 7)) == 7
    assert len(parse_addresses(b"(x) a@b," * 100, 7)) == 7


@given(
    st.lists(
        st.sampled_from(
            [b"a", b"@", b"<", b">", b",", b";", b":", b'"', b"\\", b"(", b")", b"[", b"]", b" ", b"\xe9", b"\0"]
        )
    ).map(b"".join)
)
def test_any_address_list_renders_as_a_list_or_nil(value: bytes) -> None:
    rendered = render_addresses(value)
    assert rendered == b"NIL" or (rendered.startswith(b"((") and rendered.endswith(b"))"))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Fri, 21 Nov 1997 09:55:06 -0600", "1997-11-21T09:55:06-06:00"),
        ("1 Jan 70 00:00:00 GMT", "1970-01-01T00:00:00+00:00"),
        ("Mon, 29 Feb 2024 23:59:60 +0000 (UTC)", "2024-03-01T00:00:00+00:00"),
        ("Sat, 31 Dec 2022 1:02 PST", "2022-12-31T01:02:00-08:00"),
        ("5-Apr-2003 10:00:00 +0530", "2003-04-05T10:00:00+05:30"),
        ("Mon Apr  7 12:00:00 2003", "2003-04-07T12:00:00+00:00"),
        ("1 Jan 1900 00:00:00 +0000", "1900-01-01T00:00:00+00:00"),
        ("Tue, 1 Mar 2100 00:00:00 +0000", "2100-03-01T00:00:00+00:00"),
    ],
)
def test_dates_are_read(written: str, expected: str) -> None:
    moment = datetime.datetime.fromisoformat(expected)
    offset = moment.utcoffset()
    assert offset is not None
    assert parse_date(written.encode()) == (int(moment.timestamp()), offset // datetime.timedelta(minutes=1))


@pytest.mark.parametrize(
    "raw", [b"", b"never", b"31 Foo 2020 00:00:00 +0000", b"99 Jan 2020 00:00", b"1 Jan 2020 25:00", b"\xff" * 50]
)
def test_what_is_no_date_is_none(raw: bytes) -> None:
    assert parse_date(raw) is None


@settings(max_examples=200)
@given(st.integers(-(10**9), 4 * 10**9), st.integers(-720, 840))
def test_dates_agree_with_the_standard_library(seconds: int, minutes: int) -> None:
    zone = datetime.timezone(datetime.timedelta(minutes=minutes))
    moment = datetime.datetime.fromtimestamp(seconds, zone)
    assert parse_date(email.utils.format_datetime(moment).encode()) == (int(moment.timestamp()), minutes)


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_reading_a_date_never_raises(raw: bytes) -> None:
    parse_date(raw)
    parse_date(b"1 Jan " + raw)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain", "plain"),
        (b"=?iso-8859-1?Q?a_=E9?=", "a é"),
        (b"(=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=)", "(ab)"),
        (b"=?utf-8?b?w6?= =?utf-8?b?qQ==?=", "é"),
        (b"=?utf-8?q?=C3?= =?utf-8?q?=A9?= x", "é x"),
        (b"=?utf-8?q?a?= b =?utf-8?q?c?=", "a b c"),
        (b"=?utf-8*en?q?a?=", "a"),
        (b"=?nonsense?q?=E9?=", "é"),
        (b"=?utf-8?x?a?= =?utf-8?q?a", "=?utf-8?x?a?= =?utf-8?q?a"),
        (b"=?utf-8?b?????=", "=?utf-8?b?????="),
        (b"=?rot13?q?a?= =?zlib?b?AAAA?= =?idna?q?xn--?=", "a\0\0\0xn--"),
        (b"caf\xc3\xa9 \xe9", "cafÃ© é"),
        (b"caf\xc3\xa9", "café"),
    ],
)
def test_encoded_words(raw: bytes, text: str) -> None:
    assert decode_words(raw) == text


@pytest.mark.parametrize(
    ("encoding", "charset", "raw", "text"),
    [
        ("base64", "utf-8", b"w6kg\r\nYWJj\r\n", "é abc"),
        ("base64", "utf-8", b"w6k", "é"),
        ("quoted-printable", "iso-8859-1", b"a=E9=\r\nb =\r\nc\r\nd=3D", "aéb c\r\nd="),
        ("7bit", "us-ascii", b"a\xc3\xa9", "aé"),
        ("8bit", "", b"\xe9\xc3\xa9", "éé"),
        ("8bit", "no-such-set", b"\xe9", "é"),
        ("x-unknown", "utf-8", b"a\xff", "a\ufffd"),
        ("base64", "utf-16", b"//5hAGIA", "ab"),
        ("8bit", "iso-2022-jp", b'\x1b$B$"\x1b(B', "あ"),
    ],
)
def test_text_parts_decode_whole_and_octet_by_octet(encoding: str, charset: str, raw: bytes, text: str) -> None:
    whole = decode_text(raw, encoding, charset)
    assert whole == text
    decoder = TextDecoder(encoding, charset)
    assert "".join(decoder.feed(raw[at : at + 1]) for at in range(len(raw))) + decoder.finish() == whole


def _codec_names() -> list[str]:
    return sorted(
        {*encodings.aliases.aliases, *encodings.aliases.aliases.values(), "idna", "undefined", "unicode_escape"}
    )


@pytest.mark.parametrize("charset", _codec_names())
def test_no_character_set_python_knows_makes_decoding_fail(charset: str) -> None:
    for raw in (b"", b"\xff\xfe\xfd" * 5, b"+AGE-\\u0041&#;=?", bytes(range(256))):
        assert isinstance(decode_octets(raw, charset), str)
        assert isinstance(decode_text(raw, "8bit", charset), str)


@settings(max_examples=300)
@given(
    st.binary(max_size=200),
    st.sampled_from(["base64", "quoted-printable", "8bit"]),
    st.sampled_from(["utf-8", "", "utf-16", "hz", "utf-7"]),
    st.integers(1, 9),
)
def test_decoding_in_windows_never_raises(raw: bytes, encoding: str, charset: str, size: int) -> None:
    decoder = TextDecoder(encoding, charset)
    for at in range(0, len(raw), size):
        decoder.feed(raw[at : at + size])
    decoder.finish()
    decode_words(raw)


@settings(max_examples=200)
@given(st.text(max_size=100), st.integers(1, 9))
def test_base64_and_quoted_printable_survive_any_window(text: str, size: int) -> None:
    raw = text.encode()
    printable = quopri.encodestring(raw)
    for encoding, encoded, expected in (
        ("base64", base64.encodebytes(raw), text),
        # quopri makes all line ends those of the first line.
        ("quoted-printable", printable, quopri.decodestring(printable).decode()),
    ):
        decoder = TextDecoder(encoding, "utf-8")
        decoded = (
            "".join(decoder.feed(encoded[at : at + size]) for at in range(0, len(encoded), size)) + decoder.finish()
        )
        assert decoded == expected
