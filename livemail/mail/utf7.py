"""Modified UTF-7, the spelling of mailbox names on the wire.  RFC 3501 §5.1.3.

Decoding is strict: a name has exactly one spelling, the one `encode` makes, and any other (``x&AGE-`` for ``xa``, a
shift that is not closed, stray bits) is refused.  Two spellings of one name are how access checks are walked around.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

from livemail.mail.errors import InvalidName

_PRINTABLE: Final = frozenset(map(chr, range(0x20, 0x7F)))
_ATOM: Final = re.compile(rb"(?!NIL\Z)[A-Za-z0-9._/\-]+", re.IGNORECASE)


def to_astring(name: str) -> bytes:
    """Render a mailbox name in a response: encoded, and quoted unless it is a plain word."""
    encoded = encode(name)
    if _ATOM.fullmatch(encoded):
        return encoded
    return b'"' + encoded.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def encode(name: str) -> bytes:
    """Encode a mailbox name; the result is printable ASCII."""
    if name.isascii() and "&" not in name and name.isprintable():
        return name.encode("ascii")
    pieces: list[bytes] = []
    shifted: list[str] = []
    for character in name:
        if character in _PRINTABLE:
            if shifted:
                pieces.append(_shift("".join(shifted)))
                shifted.clear()
            pieces.append(b"&-" if character == "&" else character.encode("ascii"))
        else:
            shifted.append(character)
    if shifted:
        pieces.append(_shift("".join(shifted)))
    return b"".join(pieces)


def _shift(text: str) -> bytes:
    base64 = binascii.b2a_base64(text.encode("utf-16-be", "surrogatepass"), newline=False)
    return b"&" + base64.rstrip(b"=").replace(b"/", b",") + b"-"


def decode(spelling: bytes) -> str:
    """Decode a mailbox name.  Raises InvalidName for anything `encode` would not have written."""
    try:
        if b"&" not in spelling:
            name = spelling.decode("ascii")
        else:
            # The wire's "," and "-" are not base64 of Python's; its "/" would be, so it is refused by the comparison.
            head, *shifts = spelling.split(b"&")
            name = head.decode("ascii") + "".join(map(_unshift, shifts))
        if encode(name) == spelling:
            return name
    except (ValueError, UnicodeError):
        pass
    raise InvalidName("The mailbox name is not valid modified UTF-7")


def _unshift(piece: bytes) -> str:
    """piece: from behind a ``&`` to the next one or the end."""
    base64, dash, plain = piece.partition(b"-")
    if not dash:
        raise ValueError("shift without end")
    if not base64:
        return "&" + plain.decode("ascii")
    padded = base64.replace(b",", b"/") + b"=" * (-len(base64) % 4)
    return binascii.a2b_base64(padded, strict_mode=True).decode("utf-16-be") + plain.decode("ascii")
