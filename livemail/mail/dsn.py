"""What DSN parameters hold: xtext, ENVID, ORCPT with its ASCII and UTF-8 address types.  RFC 3461 §4, RFC 6533 §3.

xtext carries what an SMTP parameter cannot: ``+2B`` for ``+``.  An original recipient of type ``utf-8`` has an escape of its own,
``\\x{3B4}``, that leaves the value valid xtext; `Recipient.original` keeps ORCPT as it came, because a relay hands it on as
it came, and `parse_original` says what it means.  Everything here is linear in its argument, which is at most 500 octets.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import msgspec

from livemail.mail.address import Address
from livemail.mail.errors import WireError

MAX_ENVID_OCTETS: Final = 100
"""Octets of ENVID before decoding.  RFC 3461 §4.4."""

MAX_ORIGINAL_OCTETS: Final = 500
"""Octets of ORCPT before decoding, type included.  RFC 3461 §4.2."""

_XTEXT: Final = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_PLAIN: Final = re.compile(r"[!-*,-<>-~]*")
_XCHAR: Final = re.compile(rb"\+([0-9A-F]{2})")
_TYPE: Final = re.compile(rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?")
_ESCAPE: Final = re.compile(r"\\x\{([1-9A-Fa-f][0-9A-Fa-f]{0,5}|0[1-9])\}")
# RFC 6533 §3: QCHAR is printable ASCII without plus, equals sign and backslash.
_QCHARS: Final = frozenset(chr(at) for at in range(0x21, 0x7F)) - frozenset("+=\\")


class OriginalRecipient(msgspec.Struct, frozen=True):
    """Whom the sender named.  type: lower-case address type (``rfc822``, ``utf-8``, …).  address: decoded, printable text."""

    type: str
    address: str


def _bad(text: str) -> WireError:
    return WireError(text, code=501, enhanced="5.5.4")


def encode_xtext(text: str) -> str:
    """Encode as xtext; characters outside printable ASCII become the escapes of their UTF-8 octets.  RFC 3461 §4."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        chr(octet) if 0x21 <= octet <= 0x7E and octet not in b"+=" else f"+{octet:02X}" for octet in text.encode()
    )


def _octets(value: bytes) -> bytes:
    if not _XTEXT.fullmatch(value):
        raise _bad("Malformed xtext")
    return _XCHAR.sub(lambda found: bytes((int(found[1], 16),)), value)


def decode_xtext(value: bytes) -> str:
    """Decode xtext; octets that are not UTF-8 become backslash escapes.  RFC 3461 §4.  Raises WireError (501 5.5.4)."""
    return _octets(value).decode("utf-8", "backslashreplace")


def _decode_printable(value: bytes, what: str) -> str:
    octets = _octets(value)
    if not (octets.isascii() and octets.decode("ascii").isprintable()):
        raise _bad(f"{what} holds printable ASCII only")
    return octets.decode("ascii")


def parse_envid(value: bytes) -> str:
    """Parse ENVID and decode it: printable ASCII, spaces included.  RFC 3461 §4.4.  Raises WireError (501 5.5.4)."""
    if not 1 <= len(value) <= MAX_ENVID_OCTETS:
        raise _bad(f"ENVID takes 1 to {MAX_ENVID_OCTETS} octets of xtext")
    return _decode_printable(value, "ENVID")


def parse_original(value: bytes, *, smtputf8: bool = True) -> OriginalRecipient:
    """Parse ORCPT's value, as RCPT has it.  RFC 3461 §4.2, RFC 6533 §3.

    smtputf8: whether the value may hold UTF-8 as it is (only type ``utf-8`` ever may).  Raises WireError (501 5.5.4).
    """
    if len(value) > MAX_ORIGINAL_OCTETS:
        raise _bad(f"ORCPT takes at most {MAX_ORIGINAL_OCTETS} octets")
    kind, semicolon, rest = value.partition(b";")
    if not semicolon or not rest or not _TYPE.fullmatch(kind):
        raise _bad("ORCPT takes a type, a semicolon and an address")
    name = kind.decode("ascii").lower()
    if name == "utf-8":
        return OriginalRecipient(name, _decode_utf8_address(rest, smtputf8=smtputf8))
    return OriginalRecipient(name, _decode_printable(rest, "ORCPT of this type"))


def _decode_utf8_address(rest: bytes, *, smtputf8: bool) -> str:
    """Decode the three forms of RFC 6533 §3: utf-8-addr-xtext, utf-8-addr-unitext, and the address as it is."""
    if not rest.isascii() and not smtputf8:
        raise _bad("UTF-8 in ORCPT needs SMTPUTF8")
    try:
        text = rest.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("ORCPT is not UTF-8") from None
    literal = _ESCAPE.sub("", text)
    if any(character.isascii() and character not in _QCHARS for character in literal):
        raise _bad("Malformed utf-8 address in ORCPT")
    decoded = _ESCAPE.sub(_character, text)
    if not all(character == " " or is_visible(character) for character in decoded):
        raise _bad("Invisible character in ORCPT")
    return decoded


def _character(found: re.Match[str]) -> str:
    point = int(found[1], 16)
    if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF or chr(point) in _QCHARS:
        raise _bad("ORCPT escapes what is no character, or needs no escape")
    return chr(point)


def is_visible(character: str) -> bool:
    """Whether a character shows, and shows where it stands: no controls, no bidirectional overrides, nothing unassigned."""
    return unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def escape_utf8_address(address: str, *, ascii_only: bool) -> str:
    """Render an address as utf-8-addr-xtext (``ascii_only``), else as utf-8-addr-unitext.  RFC 6533 §3."""
    return "".join(
        character if character in _QCHARS or not (ascii_only or character.isascii()) else f"\\x{{{ord(character):02X}}}"
        for character in address
    )


def original_of(address: Address) -> str:
    """Make ORCPT's value for an address, as a host that takes a recipient without one makes it.  RFC 3461 §5.2.1, RFC 6533 §3.

    The value is ASCII, so that it can be said to any peer with DSN.
    """
    text = str(address)
    if text.isascii():
        return f"rfc822;{encode_xtext(text)}"
    return f"utf-8;{escape_utf8_address(text, ascii_only=True)}"
