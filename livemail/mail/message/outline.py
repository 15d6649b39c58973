"""The little that mail on its way must know of a message: where its header ends, its id, its hops, what octets occur.

A message that is only passed on needs no ENVELOPE and no structure, and for one that is filed the writer makes them while it waits
for the disk.  So a small message is scanned (`livemail.mail.message.scanner`) when somebody asks for its summary, and
the connection that brings it looks at its outline alone: 7 µs for one of 4 KB instead of 45.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from livemail.mail.message.fields import parse_fields
from livemail.mail.message.scanner import MESSAGE_ID, Limits, scan

_HEADER_OCTETS: Final = Limits().header_octets


class Outlined(Protocol):
    """What `Outline` and `livemail.mail.message.summary.Summary`, where these are explained, have in common."""

    @property
    def header_size(self) -> int: ...

    @property
    def message_id(self) -> bytes: ...

    @property
    def received_count(self) -> int: ...

    @property
    def has_bare_newline(self) -> bool: ...

    @property
    def has_8bit(self) -> bool: ...


class Outline(msgspec.Struct, frozen=True):
    """See `Outlined`."""

    header_size: int
    message_id: bytes
    received_count: int
    has_bare_newline: bool
    has_8bit: bool


def outline(content: bytes) -> Outlined:
    """Return of a whole message what `scan` would say of it."""
    # Each CR or LF alone makes one line more than there are CRLF.  To count the three takes twice as long.
    is_open = content != b"" and not content.endswith((b"\r", b"\n"))
    if len(content.splitlines()) != content.count(b"\r\n") + is_open:
        return scan(content)  # It is refused, or comes from where lines end otherwise.
    end = content.find(b"\r\n\r\n")
    header_size = 2 if content.startswith(b"\r\n") else end + 4 if end >= 0 else len(content)
    if header_size > _HEADER_OCTETS:
        return scan(content)
    message_id: bytes | None = None
    received = 0
    for _, name, value in parse_fields(content[:header_size]):
        key = name.lower()
        if key == b"received":
            received += 1
        elif key == b"message-id" and message_id is None:
            found = MESSAGE_ID.search(value)
            message_id = found[0] if found else b""
    return Outline(header_size, message_id or b"", received, has_bare_newline=False, has_8bit=not content.isascii())
