"""Nothing a sender writes costs more than its length.  security.md rows 26 and 27 (CVE-2024-23184, CVE-2024-27859).

Costs are compared between an input and one eight times as long: quadratic work would cost 64 times as much, and 24 times
is refused, so the check holds on a slow or busy machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from livemail.mail.message.addresses import parse_addresses
from livemail.mail.message.dates import parse_date
from livemail.mail.message.decoding import decode_text, decode_words
from livemail.mail.message.fields import header_values, parse_fields, select_fields
from livemail.mail.message.outline import outline
from livemail.mail.message.parameters import parse_disposition, parse_media_type, strip_comments
from livemail.mail.message.scanner import Limits, scan

_WIDE = Limits(header_octets=1 << 30, total_header_octets=1 << 30, addresses=1 << 30, parameters=1 << 30, parts=1 << 30)

_BAIT = [
    b"(", b")", b"((", b"a@", b"<", b"<<a@", b'"', b'\\"', b'"\\', b",", b":", b";", b"a:b,", b"=?", b"=?a?q?", b"=?a?b?a?= ",
    b"=?utf-8?q?a?=", b" ", b"\t", b"[", b"[]", b"\\", b"; a=", b'; a="', b"; a*0=b", b";a*0*=", b"a b ", b"1 ", b"1 Jan ",
    b"\r\n ", b"\r\n", b"\n", b"\r", b"*", b"-", b"--", b"=", b"=\n", b"=A", b"A:", b"A: b\r\n", b"a <b@c>,", b"(x) a@b,", b"x",
    b"<a@b>", b"%", b"/", b"a/b;",
]  # fmt: skip

_READERS: dict[str, Callable[[bytes], object]] = {
    "addresses": lambda raw: parse_addresses(raw, 1 << 30),
    "date": parse_date,
    "words": decode_words,
    "media type": lambda raw: parse_media_type(b"a/b" + raw, 1 << 30),
    "disposition": lambda raw: parse_disposition(b"a " + raw, 1 << 30),
    "comments": strip_comments,
    "fields": lambda raw: (parse_fields(raw), header_values(raw, b"a"), select_fields(raw, frozenset((b"a",)))),
    "base64": lambda raw: decode_text(raw, "base64", "utf-8"),
    "quoted-printable": lambda raw: decode_text(raw, "quoted-printable", "utf-8"),
    "header": lambda raw: scan(b"From: " + raw + b"\r\nSubject: " + raw + b"\r\nContent-Type: " + raw, _WIDE),
    "outline": lambda raw: outline(b"Message-ID: " + raw + b"\r\n" + raw),
    "body": lambda raw: scan(b"Content-Type: multipart/mixed; boundary=-\r\n\r\n" + raw),
}


def _cost(reader: Callable[[bytes], object], raw: bytes) -> float:
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        reader(raw)
        best = min(best, time.process_time() - started)
    return best


@pytest.mark.parametrize("name", _READERS)
def test_bait_costs_its_length(name: str) -> None:
    reader = _READERS[name]
    for bait in _BAIT:
        for end in (b"", b"!", b'"', b">", b"?="):
            small, large = bait * (2_000 // len(bait)) + end, bait * (16_000 // len(bait)) + end
            assert _cost(reader, large) < 24 * _cost(reader, small) + 0.002, (bait, end)


@pytest.mark.parametrize(
    ("prefix", "piece", "count"),
    [
        (b"To: ", b"user%d@example.org, ", 100_000),
        (b"Content-Type: text/plain", b"; filename*%d*=abc", 50_000),
        (b"Content-Disposition: attachment", b"; p%d=abc", 50_000),
        (b"References: ", b"<%d@example.org>\r\n ", 100_000),
    ],
)
def test_rows_of_many_pieces_cost_their_length(prefix: bytes, piece: bytes, count: int) -> None:
    def content(pieces: int) -> bytes:
        return prefix + b"".join([piece % number for number in range(pieces)]) + b"\r\n\r\nbody"

    def reader(raw: bytes) -> object:
        return scan(raw, _WIDE)

    assert _cost(reader, content(count)) < 24 * _cost(reader, content(count // 8)) + 0.002
    cut = scan(content(count))
    assert len(cut.envelope) + len(cut.structure) < 2 * Limits().header_octets
