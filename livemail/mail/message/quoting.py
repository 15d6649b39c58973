"""Strings in ENVELOPE and BODYSTRUCTURE: quoted where they can be, else literals.  RFC 9051 §4.3, §9 (string, nstring).

Both data items are rendered once, when a message enters the store, and sent to any client later, so they use only what
every client understands: quoted strings of US-ASCII without controls, and synchronised literals ``{n}`` for the rest
(8-bit octets, controls).  A literal cannot hold NUL (RFC 9051 §9: CHAR8 is %x01-ff), so NUL is dropped here; the
octets of the message keep it.
"""

from __future__ import annotations

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
