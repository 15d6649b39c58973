"""Content: the octets of one message, wherever they lie until they are stored.  RFC 5321 §2.3.1.

A content sink makes it while the octets arrive; storage takes it into a segment.  Whoever holds a Content closes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from livemail.mail.message.outline import Outlined
from livemail.mail.message.summary import Summary

CHUNK_OCTETS: Final = 256 * 1024


class Content(Protocol):
    """Complete content before it is stored; CRLF line endings as received, no dot-stuffing."""

    @property
    def size(self) -> int:
        """Octets."""

    @property
    def digest(self) -> bytes:
        """16 octets: the store's keyed BLAKE2b-128 of the content."""

    @property
    def outline(self) -> Outlined:
        """What delivery must know; cheap, where the summary may have to be made first."""

    @property
    def summary(self) -> Summary:
        """What one pass over the octets finds."""

    def read(self, offset: int, length: int) -> bytes:
        """Return the octets [offset, offset+length), fewer at the end.  Never blocks for longer than a disk read."""

    def close(self) -> None:
        """Give back memory and spool file.  Allowed more than once, and after the content was stored."""


def chunks(content: Content, size: int = CHUNK_OCTETS) -> Iterator[bytes]:
    """Yield the whole content in chunks of at most ``size`` octets."""
    for offset in range(0, content.size, size):
        yield content.read(offset, size)
