"""Fuzz target: everything that reads a message.  Invariant: nothing is raised, and any cut gives the same Summary."""

from __future__ import annotations

import contextlib

from livemail.mail.message.decoding import decode_text, decode_words
from livemail.mail.message.fields import header_values, select_fields
from livemail.mail.message.outline import outline
from livemail.mail.message.quoting import Value, nstring, read_value
from livemail.mail.message.scanner import Limits, Scanner, scan
from livemail.mail.message.sections import section_range
from livemail.mail.message.structure import basic_body
from livemail.mail.message.summary import Part, decode_parts

_SMALL = Limits(depth=3, parts=6, header_octets=64, total_header_octets=200, addresses=3, parameters=2)


def fuzz_one(data: bytes) -> None:
    """Read ``data`` as a message in every way; the first octet chooses where it is cut."""
    cut = data[0] * 4 if data else 0
    summary = scan(data)
    for limits in (Limits(), _SMALL):
        scanner = Scanner(limits)
        scanner.feed(data[:cut])
        scanner.feed(data[cut:])
        assert scanner.finish() == scan(data, limits)
    known = outline(data)
    assert known.header_size == summary.header_size
    assert (known.message_id, known.received_count) == (summary.message_id, summary.received_count)
    assert (known.has_bare_newline, known.has_8bit) == (summary.has_bare_newline, summary.has_8bit)
    basic_body(summary.structure)
    envelope = read_value(summary.envelope)
    assert isinstance(envelope, list)
    assert len(envelope) == 10
    assert _rendered(envelope) == summary.envelope
    read_value(summary.structure)
    with contextlib.suppress(ValueError):
        read_value(data)
    header = data[: summary.header_size]
    select_fields(header, frozenset((b"subject", b"to")))
    for value in header_values(header, b"subject"):
        decode_words(value)
    root = decode_parts(summary.parts)
    _walk(root, (), root, data)


def _rendered(value: Value) -> bytes:
    if isinstance(value, list):
        # Addresses stand one behind the other; everything else behind a space.
        between = b"" if value and isinstance(value[0], list) else b" "
        return b"(%b)" % between.join(map(_rendered, value))
    return nstring(value)


def _walk(root: Part, path: tuple[int, ...], part: Part, data: bytes) -> None:
    for section in ("", "HEADER", "TEXT", "MIME"):
        found = section_range(root, path, section)
        assert found is None or 0 <= found[0] <= found[1] <= len(data)
    if not part.children:
        decode_text(data[part.body : part.end], part.encoding, part.charset)
    for number, child in enumerate(part.children, start=1):
        _walk(root, (*path, number), child, data)
