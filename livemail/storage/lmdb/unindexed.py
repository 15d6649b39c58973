"""Octets of segments that the index does not know, but that may have been acknowledged: kept until `livemail store repair`.

    meta    "kept" segment u32    u64: the offset from which on the segment's octets are kept, to its end

Recovery keeps them, the check tells of them, repair files their messages in lost+found.  The segment's row in ``seg`` counts them
as living, so that it is neither removed nor emptied, and a backup has them.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from livemail.mail.content import CHUNK_OCTETS
from livemail.storage.lmdb.records import SEGMENT, U32, U64
from livemail.storage.lmdb.rows import Transaction
from livemail.storage.lmdb.schema import Tables
from livemail.storage.lmdb.segments import Location, segment_path
from livemail.storage.spool import HEAD, MAGIC

_PREFIX: Final = b"kept"


class Span(NamedTuple):
    """Octets of a segment, from ``begin`` to before ``end``."""

    segment: int
    begin: int
    end: int

    @property
    def octets(self) -> int:
        """How many they are."""
        return self.end - self.begin

    @property
    def where(self) -> str:
        """For people."""
        return f"segment {self.segment}, offset {self.begin}"


class Record(NamedTuple):
    """A record, as its head says."""

    digest: bytes
    location: Location

    @property
    def octets(self) -> int:
        """Its octets in the segment."""
        return HEAD.size + self.location.size


def keep(txn: Transaction, tables: Tables, span: Span) -> None:
    """Keep a span that reaches to the segment's end; the segment must not be written to any more."""
    row = txn.get(U32.pack(span.segment), db=tables.seg)
    _, dead, state = SEGMENT.unpack(row) if row is not None else (0, 0, 0)
    txn.put(U32.pack(span.segment), SEGMENT.pack(span.end, dead, state), db=tables.seg)
    txn.put(kept_key(span.segment), U64.pack(span.begin), db=tables.meta)


def kept_key(segment: int) -> bytes:
    """Return the key of a kept span's row in ``meta``."""
    return _PREFIX + U32.pack(segment)


def read_kept(txn: Transaction, tables: Tables) -> list[Span]:
    """Return the spans that are kept, by segment."""
    spans = []
    cursor = txn.cursor(tables.meta)
    if cursor.set_range(_PREFIX):
        for key, value in cursor.iternext():
            if not key.startswith(_PREFIX):
                break
            number = key[len(_PREFIX) :]
            row = txn.get(number, db=tables.seg)
            end = SEGMENT.unpack(row)[0] if row is not None else 0
            spans.append(Span(U32.unpack(number)[0], U64.unpack(value)[0], end))
    return spans


def read_heads(folder: Path, span: Span) -> Iterator[tuple[int, Record]]:
    """Read the heads of a span's records, one behind the other; yields (descriptor of the segment, record).

    It ends where no record begins.  A file that is missing has none.
    """
    try:
        fd = os.open(segment_path(folder, span.segment), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        at = span.begin
        while len(head := os.pread(fd, HEAD.size, at)) == HEAD.size:
            magic, digest, size, crc = HEAD.unpack(head)
            at += HEAD.size
            if magic != MAGIC or at + size > span.end:
                break
            yield fd, Record(digest, Location(span.segment, at, size, crc))
            at += size
    finally:
        os.close(fd)


def read_records(folder: Path, span: Span) -> Iterator[Record]:
    """Read a span's records and verify each; those whose octets are wrong are left out."""
    for fd, record in read_heads(folder, span):
        if _crc(fd, record.location) == record.location.crc:
            yield record


def _crc(fd: int, location: Location) -> int:
    crc, end = 0, location.offset + location.size
    for offset in range(location.offset, end, CHUNK_OCTETS):
        crc = zlib.crc32(os.pread(fd, min(CHUNK_OCTETS, end - offset), offset), crc)
    return crc
