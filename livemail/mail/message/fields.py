"""Header fields as ranges of octets: which there are, what they hold, which of them to send.  RFC 5322 §2.2, §3.6.8.

A field begins at the beginning of a line with a name and a colon, and goes on over every following line that begins
with a space or a tab.  Lines that are neither (the ``From `` of an mbox, garbage) belong to no field and are passed over.
CRLF and a bare LF both end a line here: what is stored is what was received, and reading it never fails.

Every pattern runs in linear time: names are matched possessively, values consume whole lines.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

# The groups: the whole field with its line ends, its name, its value with folding and the last line end.
_FIELD: Final = re.compile(rb"^(([!-9;-~]++)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+\n?))", re.MULTILINE)
_WHITE: Final = b" \t\r\n"


def parse_fields(header: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Return (field, name, raw value) of every field in order.

    field: octet for octet with folding and line end.  name: as written.  raw value: behind the colon, with line ends.
    """
    return _FIELD.findall(header)


def unfold(value: bytes) -> bytes:
    """Return a raw value on one line, without white space around it.  RFC 5322 §2.2.3."""
    value = value.strip(_WHITE)
    if b"\n" in value:
        value = value.replace(b"\r\n", b"").replace(b"\n", b"")
    return value


@lru_cache(maxsize=256)
def _named(name: bytes) -> re.Pattern[bytes]:
    pattern = rb"^%b[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)" % re.escape(name)
    return re.compile(pattern, re.MULTILINE | re.IGNORECASE)


def header_values(header: bytes, name: bytes) -> list[bytes]:
    """Return the unfolded values of all fields of a name, in order.

    header: fields with their line ends; the blank line may be there.  name: in any case, without the colon.
    """
    return [unfold(value) for value in _named(name).findall(header)]


def select_fields(header: bytes, names: frozenset[bytes], *, exclude: bool = False) -> bytes:
    """Return the fields with (or, with ``exclude``, without) one of the names, octet for octet and in order.

    names: lower-case.  Neither the blank line nor lines outside any field are part of the result.
    RFC 9051 §6.4.5 HEADER.FIELDS, HEADER.FIELDS.NOT.
    """
    chosen = b"".join(
        [field for field, name, _ in _FIELD.findall(header) if (name.lower() in names) is not exclude],
    )
    if chosen and not chosen.endswith(b"\n"):  # The header ended with the message: whatever follows begins a line.
        chosen += b"\r\n"
    return chosen
