"""Strings in ENVELOPE and BODYSTRUCTURE: quoted where they can be, else literals.  RFC 9051 §4.3, §9 (string, nstring).

Both data items are rendered once, when a message enters the store, and sent to any client later, so they use only what
every client understands: quoted strings of US-ASCII without controls, and synchronised literals ``{n}`` for the rest
(8-bit octets, controls).  A literal cannot hold NUL (RFC 9051 §9: CHAR8 is %x01-ff), so NUL is dropped here; the
octets of the message keep it.
"""

from __future__ import annotations

import re
from typing import Final

NIL: Final = b"NIL"

_PLAIN: Final = bytes(octet for octet in range(0x20, 0x7F) if octet not in b'"\\') + b"\t"


def string(value: bytes) -> bytes:
    """Render a string; ``value`` is any octets."""
    # translate with deletions is the cheapest question about all octets: 60 ns, a fullmatch costs 300 ns.
    rest = value.translate(None, _PLAIN)
    if not rest:
        return b'"%b"' % value
    if not rest.translate(None, b'"\\'):
        return b'"%b"' % value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    if b"\0" in rest:
        return string(value.replace(b"\0", b""))
    return b"{%d}\r\n%b" % (len(value), value)


def nstring(value: bytes | None) -> bytes:
    """Render a string or, for None, NIL."""
    return NIL if value is None else string(value)


Value = bytes | None | list["Value"]
"""A string, NIL, or a parenthesised list."""

_ATOM: Final = re.compile(rb"[^ ()\"]+")
_QUOTED: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_LITERAL: Final = re.compile(rb"\{([0-9]+)\}\r\n")
MAX_NESTING: Final = 100


def read_value(octets: bytes) -> Value:
    """Read one value as ENVELOPE and BODYSTRUCTURE are rendered.  Raises ValueError for anything else."""
    value, end = _read(octets, 0, 0)
    if end != len(octets):
        raise ValueError(f"something stands behind the value, at octet {end}")
    return value


def _read(octets: bytes, at: int, depth: int) -> tuple[Value, int]:
    first = octets[at : at + 1]
    if first == b"(":
        if depth == MAX_NESTING:
            raise ValueError(f"lists are nested deeper than {MAX_NESTING}")
        at += 1
        values: list[Value] = []
        while octets[at : at + 1] != b")":
            value, at = _read(octets, at + (octets[at : at + 1] == b" "), depth + 1)
            values.append(value)
        return values, at + 1
    if first == b'"' and (match := _QUOTED.match(octets, at)):
        return _ESCAPED.sub(rb"\1", match[1]), match.end()
    if first == b"{" and (match := _LITERAL.match(octets, at)):
        end = match.end() + int(match[1])
        if end > len(octets):
            raise ValueError(f"the literal at octet {at} is cut short")
        return octets[match.end() : end], end
    match = _ATOM.match(octets, at)
    if match is None:
        raise ValueError(f"no value at octet {at}")
    return (None if match[0] == NIL else match[0]), match.end()
