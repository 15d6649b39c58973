"""One stored message, open for reading."""

from __future__ import annotations

import os
import zlib

from zope.interface import implementer

from livemail.interfaces.storage import IContentReader
from livemail.mail.errors import StorageFailed
from livemail.storage.lmdb.segments import Location, OpenSegment


@implementer(IContentReader)
class StoredContent:
    """Prefix and content.  Holds the segment's descriptor, so that a removed segment's octets stay until it is closed."""

    def __init__(self, segment: OpenSegment, location: Location, prefix: bytes) -> None:
        segment.holders += 1
        self.prefix_size = len(prefix)
        self.size = len(prefix) + location.size
        self._segment: OpenSegment | None = segment
        self._location = location
        self._prefix = prefix
        self._crc = 0
        self._checked = 0

    async def read(self, offset: int, length: int) -> bytes:
        """Return the octets [offset, offset+length), fewer at the end.  Raises StorageFailed for a damaged record.

        The checksum is compared when the last octet is read, if all were read in order.
        """
        if self._segment is None:
            raise StorageFailed(reason="read from a closed content")
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        prefix = self._prefix[offset:end]
        first = max(0, offset - self.prefix_size)
        count = end - self.prefix_size - first
        if count <= 0:
            return prefix
        octets = os.pread(self._segment.fd, count, self._location.offset + first)
        if len(octets) != count:
            raise self._segment.damaged(self._location, "the file ends inside the content")
        if first == self._checked:
            self._crc = zlib.crc32(octets, self._crc)
            self._checked += count
            if self._checked == self._location.size and self._crc != self._location.crc:
                raise self._segment.damaged(self._location, "the content's checksum is wrong")
        return prefix + octets if prefix else octets

    def close(self) -> None:
        """Give the descriptor back."""
        if self._segment is not None:
            self._segment.release()
            self._segment = None
