"""What others wrote, made fit to stand in a report: no control characters, no line ends, no way to begin a field.

Addresses, replies, subjects and host names come from strangers.  Everything that goes into a header field, a delivery-status
field or the text for people passes one of these functions, whatever was checked before.  RFC 5322 §2.2.
"""

from __future__ import annotations

import quopri
import re
from contextlib import suppress
from email.errors import HeaderParseError
from email.header import Header, decode_header, make_header
from email.utils import formatdate
from typing import Final

from livemail.mail.dsn import is_visible

_MESSAGE_ID: Final = re.compile(rb"<[!-;=?-~]{1,250}@[!-;=?-~]{1,250}>")
_HOST: Final = re.compile(r"[^A-Za-z0-9.:\[\]_-]+")
_FOLDED: Final = re.compile(rb"\r?\n[ \t]")
_FIELD: Final = re.compile(rb"^(subject|message-id)[ \t]*:((?:[^\r\n]|\r?\n[ \t])*)", re.IGNORECASE | re.MULTILINE)
_NEWLINES: Final = re.compile(rb"\r\n|\r|\n")

MAX_RAW_FIELD: Final = 2000


def visible(text: str, limit: int = 512) -> str:
    """Return text on one line, what does not show or is blank replaced by ``?``, white space by one space, cut at ``limit``."""
    if text.isascii() and text.isprintable():
        return text[:limit]
    cleaned = "".join(
        character if is_visible(character) and not character.isspace() else " " if character in " \t\r\n" else "?"
        for character in text[: 2 * limit]
    )
    return " ".join(cleaned.split())[:limit]


def ascii_visible(text: str, limit: int = 512) -> str:
    """Return `visible` with ``?`` for what is not ASCII."""
    return visible(text, limit).encode("ascii", "replace").decode("ascii")


def host_name(text: str) -> str:
    """Return what of a host's name or address may stand behind ``dns;``."""
    return _HOST.sub("", text)[:255]


def header_fields(header: bytes) -> tuple[str, str]:
    """Return the subject (decoded, on one line) and the Message-ID of a header, "" for what it has not.

    The first of several counts.  A Message-ID that is none is left out: it would go into References.
    """
    found: dict[bytes, bytes] = {}
    for match in _FIELD.finditer(header):
        found.setdefault(match[1].lower(), _FOLDED.sub(b" ", match[2])[:MAX_RAW_FIELD].strip())
    message_id = found.get(b"message-id", b"")
    return (
        decode_subject(found.get(b"subject", b"")),
        message_id.decode("ascii") if _MESSAGE_ID.fullmatch(message_id) else "",
    )


def decode_subject(raw: bytes) -> str:
    """Decode a Subject, RFC 2047 or UTF-8, to one visible line of at most 150 characters."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if "=?" in text:
        with suppress(LookupError, ValueError, HeaderParseError):
            text = str(make_header(decode_header(text)))
    return visible(text, 150).strip()


def field(name: str, value: str) -> bytes:
    """Render one header field with its CRLF; text outside ASCII as encoded-words.  value: `visible` already."""
    if value.isascii():
        return f"{name}: {fold(value, len(name) + 2)}\r\n".encode("ascii")
    encoded = Header(value, "utf-8", header_name=name, maxlinelen=76).encode(linesep="\r\n")
    return f"{name}: {encoded}\r\n".encode("ascii")


def fold(value: str, used: int) -> str:
    """Fold a value at spaces so that lines have at most 78 characters where words allow.  RFC 5322 §2.2.3."""
    if used + len(value) <= 78:
        return value
    lines: list[str] = []
    line = ""
    room = 78 - used
    for word in value.split(" "):
        # A line that held nothing but white space would be an obsolete fold, and to some the end of the header.
        if line and word and len(line) + 1 + len(word) > room:
            lines.append(line)
            line, room = word, 76
        else:
            line = f"{line} {word}" if line else word
    return "\r\n ".join([*lines, line])


def crlf(octets: bytes) -> bytes:
    """Return octets in which every line ends with CRLF, and no NUL is left."""
    return _NEWLINES.sub(b"\r\n", octets).replace(b"\0", b"")


def quoted_printable(text: str) -> bytes:
    """Encode text with CRLF line ends as quoted-printable.  RFC 2045 §6.7."""
    return crlf(quopri.encodestring(text.replace("\r\n", "\n").encode()))


def date_time(seconds: float) -> str:
    """Render a time as a date-time in UTC.  RFC 5322 §3.3."""
    return formatdate(seconds)[:-5] + "+0000"
