"""Segment files: the contents, one record behind the other.

    seg/00000000.seg    head, content, head, content, …      (`livemail.storage.spool.HEAD`)
    seg/acknowledged    how far they were committed          (`livemail.storage.lmdb.mark`)

One segment is the *tail*, the others never change again.  The index says how many octets of the tail count; what a crash left
behind them was never acknowledged and is cut off when the store is opened (`livemail.storage.lmdb.recovery`).  A large message
is a segment of its own: its spool file, renamed.

A record is trusted only after its head was compared with what the index expects, and its crc32 where it is read whole.

Order of a commit: write the records, flush the file (and the folder, when a file is new) while the index's transaction is
filled, and only when that is done commit the index.  Order of a removal: commit the index, then unlink.  A crash between leaves a file no
index row names: removed at the next start.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from livemail.mail.content import CHUNK_OCTETS, Content
from livemail.mail.errors import StorageFailed
from livemail.storage.failpoints import failpoint
from livemail.storage.lmdb.mark import Committed, MarkWriter, end_mark
from livemail.storage.spool import HEAD, MAGIC, MemoryContent, SpooledContent

MAX_OPEN: Final = 64
_IOVECS: Final = 512


class Location(NamedTuple):
    """Where a content lies.  offset: of its first octet; the record's head is before it."""

    segment: int
    offset: int
    size: int
    crc: int


class SegmentGone(Exception):
    """The segment was removed since the index was asked where the content lies: ask again."""


def segment_path(folder: Path, number: int) -> Path:
    """Return the path of a segment."""
    return folder / f"{number:08d}.seg"


def segment_numbers(folder: Path) -> list[int]:
    """Return the numbers of all segments in the folder, ascending."""
    return sorted(int(path.stem) for path in folder.glob("*.seg") if path.stem.isdecimal())


def sync_folder(folder: Path) -> None:
    """Flush a folder, so that files made, renamed or removed in it stay so."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# ---------------------------------------------------------------------------------------------------------- reading


class OpenSegment:
    """A descriptor shared by readers, closed by the last."""

    __slots__ = ("fd", "holders", "number")

    def __init__(self, number: int, fd: int) -> None:
        self.number = number
        self.fd = fd
        self.holders = 1

    def release(self) -> None:
        """Give back one hold."""
        self.holders -= 1
        if not self.holders:
            os.close(self.fd)

    def verify_head(self, location: Location, digest: bytes) -> None:
        """Compare the record's head with the index.  Raises StorageFailed."""
        head = os.pread(self.fd, HEAD.size, location.offset - HEAD.size)
        if head != HEAD.pack(MAGIC, digest, location.size, location.crc):
            raise self.damaged(location, "the record's head is not what the index expects")

    def read_whole(self, location: Location, digest: bytes) -> bytes:
        """Return a content in one read, everything compared.  Raises StorageFailed."""
        record = os.pread(self.fd, HEAD.size + location.size, location.offset - HEAD.size)
        content = record[HEAD.size :]
        if record[: HEAD.size] != HEAD.pack(MAGIC, digest, location.size, location.crc):
            raise self.damaged(location, "the record's head is not what the index expects")
        if len(content) != location.size or zlib.crc32(content) != location.crc:
            raise self.damaged(location, "the content's checksum is wrong")
        return content

    def damaged(self, location: Location, what: str) -> StorageFailed:
        """Return the error for a record that cannot be trusted."""
        return StorageFailed(
            "The message is damaged on disk",
            reason=f"segment {self.number}, offset {location.offset - HEAD.size}: {what}",
        )


class SegmentReader:
    """Open segments, at most `MAX_OPEN` beside those in use.  For one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: OrderedDict[int, OpenSegment] = OrderedDict()

    def open(self, number: int) -> OpenSegment:
        """Return a segment; it stays valid until the next call unless ``holders`` is raised.  Raises SegmentGone."""
        segment = self._open.get(number)
        if segment is not None:
            self._open.move_to_end(number)
            return segment
        try:
            fd = os.open(segment_path(self._folder, number), os.O_RDONLY)
        except FileNotFoundError:
            raise SegmentGone from None
        segment = self._open[number] = OpenSegment(number, fd)
        if len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)[1].release()
        return segment

    def forget(self, numbers: Iterable[int]) -> None:
        """Segments were removed: let go of their space."""
        for number in numbers:
            segment = self._open.pop(number, None)
            if segment is not None:
                segment.release()

    def close(self) -> None:
        """Let go of every segment not held by a reader."""
        self.forget(list(self._open))


# ---------------------------------------------------------------------------------------------------------- writing


class Tail:
    """The segment that grows, and the numbers of those to come.  The writer's thread only.

    number, size: what the index will say after the next commit; `rewind` goes back to what it says now.
    """

    def __init__(self, folder: Path, number: int, size: int, next_number: int, limit: int) -> None:
        """limit: octets at which a segment is closed."""
        self.folder = folder
        self._limit = limit
        self._fd = -1
        self._fd_number = -1
        self._is_unflushed = self._is_folder_changed = False
        self._mark = MarkWriter(folder)
        self._committed = (number, size, next_number)
        self.number, self.size, self.next_number = self._committed

    def write(self, contents: Sequence[Content], *, may_advance: bool = True) -> list[Location]:
        """Write contents, each with a digest of its own; `flush` must follow.  Raises OSError; then `rewind`.

        may_advance: the tail is closed first when it is full; never twice in one commit.
        """
        locations: list[Location | None] = [None] * len(contents)
        pieces: list[bytes] = []
        is_folder_changed = False
        start = at = -1
        for index, content in enumerate(contents):
            if isinstance(content, SpooledContent) and content.is_adoptable:
                locations[index] = self._adopt(content)
                is_folder_changed = True
                continue
            if start < 0:
                is_folder_changed |= self._open_tail(may_advance=may_advance)
                start = at = self.size
            if isinstance(content, MemoryContent):
                crc = content.crc
                pieces += (HEAD.pack(MAGIC, content.digest, content.size, crc), content.data)
            else:
                at = self._write_pieces(pieces, start)
                pieces = []
                crc = self._write_chunks(content, at)
                start = at + HEAD.size + content.size
            locations[index] = Location(self.number, at + HEAD.size, content.size, crc)
            at += HEAD.size + content.size
        if start >= 0:
            self.size = self._write_pieces(pieces, start)
            failpoint("segment-written")
        self._is_unflushed = start >= 0
        self._is_folder_changed = is_folder_changed
        return [location for location in locations if location is not None]

    def flush(self) -> None:
        """Flush what was written, while another thread may fill the index.  Raises OSError; then `rewind`."""
        if self._is_unflushed:
            os.fdatasync(self._fd)
        if self._is_folder_changed:
            sync_folder(self.folder)

    def commit(self) -> None:
        """The index has been committed with ``number``, ``size`` and ``next_number``."""
        if self.is_changed:
            self._mark.note(Committed(self.next_number, self.number, self.size))
            self._committed = (self.number, self.size, self.next_number)

    def rewind(self) -> None:
        """The commit did not happen: what was written since counts no more.

        Numbers are not used again: a content whose file was renamed still holds it under the number it got.
        """
        if self.number != self._committed[0]:
            self.close()
            segment_path(self.folder, self.number).unlink(missing_ok=True)
        self.number, self.size, _ = self._committed
        if self._fd >= 0 and os.fstat(self._fd).st_size > self.size:
            # Gives the space back when it was the disk that was full.
            os.ftruncate(self._fd, self.size)
        if not self.size:
            # Its name was never flushed: who writes next makes it anew, and flushes the folder.
            self.close()

    def seal(self) -> None:
        """A flush failed: the kernel may have dropped what was written, and calls it clean.  Nothing is written to that file again.

        What was flushed in it before stays; what follows goes to a new segment.
        """
        is_touched = self._fd >= 0
        self.close()
        number, size, _ = self._committed
        with contextlib.suppress(OSError):  # The next start cuts or removes what cannot be now.
            if self.number != number or not size:
                segment_path(self.folder, self.number).unlink(missing_ok=True)
            elif is_touched:
                os.truncate(segment_path(self.folder, number), size)
        if is_touched:
            self.advance()
        # Where `rewind` goes back to from now on; the index learns it with the next content.
        self._committed = (self.number, self.size, self.next_number)

    @property
    def is_changed(self) -> bool:
        """Whether the index must be told."""
        return (self.number, self.size, self.next_number) != self._committed

    def advance(self) -> None:
        """Close the tail; the next content begins a new segment."""
        self.number, self.size = self.next_number, 0
        self.next_number += 1

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = self._fd_number = -1

    def finish(self, *, is_idle: bool) -> None:
        """Nothing more will be written.  is_idle: all that was has been committed or undone."""
        self.close()
        self._mark.close()
        if is_idle:
            end_mark(self.folder)

    def _open_tail(self, *, may_advance: bool) -> bool:
        """Open the tail's file, a new one when it is full.  Returns whether a file was made."""
        if may_advance and self.size >= self._limit:
            self.advance()
        if self._fd_number == self.number:
            return False
        self.close()
        is_new = self.size == 0
        flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if is_new else 0)
        self._fd = os.open(segment_path(self.folder, self.number), flags, 0o600)
        self._fd_number = self.number
        if is_new:
            failpoint("segment-created")
        return is_new

    def _adopt(self, content: SpooledContent) -> Location:
        number = self.next_number
        self.next_number += 1
        content.rename(segment_path(self.folder, number))
        failpoint("segment-renamed")
        return Location(number, HEAD.size, content.size, content.crc)

    def _write_pieces(self, pieces: Sequence[bytes], at: int) -> int:
        """Write pieces one behind the other; return the offset behind the last."""
        for first in range(0, len(pieces), _IOVECS):
            some = pieces[first : first + _IOVECS]
            total = sum(map(len, some))
            written = os.pwritev(self._fd, some, at)
            if written < total:
                # A short write says that the disk is full, but only the next one says why.
                rest = memoryview(b"".join(some))[written:]
                done = at + written
                while rest:
                    count = os.pwrite(self._fd, rest, done)
                    rest = rest[count:]
                    done += count
            at += total
        return at

    def _write_chunks(self, content: Content, at: int) -> int:
        """Write a record whose content is not one piece of memory; return its crc32."""
        crc = 0
        for offset in range(0, content.size, CHUNK_OCTETS):
            chunk = content.read(offset, CHUNK_OCTETS)
            crc = zlib.crc32(chunk, crc)
            self._write_pieces([chunk], at + HEAD.size + offset)
        self._write_pieces([HEAD.pack(MAGIC, content.digest, content.size, crc)], at)
        return crc
