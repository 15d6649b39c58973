"""Compaction: segments in which much is dead are emptied, and go.

    choose     closed segments whose dead share reaches a threshold, the worst first.  Never the tail, which is still
               written, nor a large message's own segment, which goes with the message.  The command closes a tail that
               has come so far; the background leaves it alone.
    walk       records lie one behind the other, so that their heads lead through a segment.  The index is asked about a
               few hundred at a time, in a transaction that ends before a content is read: no page is pinned.
    copy       a slice of living contents, read and verified in a thread, goes to the writer as one more request.  It is
               written behind the tail and flushed like mail that comes in, and in the same commit the index points there
               (`livemail.storage.lmdb.operations.compaction.Relocate`), if it still pointed to the old place.
    remove     with the last living content the old segment is removed as any that has died.

A delivery waits for one slice at most.  In the background a pause follows each, so long that compaction has a tenth of
the time.  A content larger than a slice goes through a spool file, flushed before the writer sees it, and becomes a segment.

A crash leaves each content in its old place or in the new one, both flushed; copies that nobody points to are cut off or
counted as dead.  Whoever reads holds the segment's file open, or finds it gone and asks the index again.  A backup opens every
segment before it copies the index.  A record that is damaged stays where it is, with its segment, and the log says so:
`livemail store check` names it, a backup may have it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from livemail.interfaces.mending import Compacted
from livemail.interfaces.runtime import RunBlocking
from livemail.interfaces.storage import Progress
from livemail.mail.content import Content
from livemail.mail.errors import MailError, StorageFailed, StorageFull
from livemail.storage.disk import Disk
from livemail.storage.lmdb.deleted.reading import read_all_kept
from livemail.storage.lmdb.operations.compaction import EndTail, Relocate
from livemail.storage.lmdb.operations.group import Operation
from livemail.storage.lmdb.records import BLOB, SEGMENT, TAIL, U32
from livemail.storage.lmdb.schema import Environment, Tables
from livemail.storage.lmdb.segments import Location, OpenSegment, SegmentGone, segment_path
from livemail.storage.lmdb.unindexed import read_kept
from livemail.storage.spool import HEAD, MAGIC, MemoryContent, Spool

SLICE_OCTETS: Final = 1024 * 1024
SLICE_CONTENTS: Final = 200
WALK_RECORDS: Final = 500
SCAN_ROWS: Final = 5000
CHUNK_OCTETS: Final = 256 * 1024
COMPACT_SECONDS: Final = 60.0
SHARE: Final = 10
"""One part in so many of the time is compaction's."""
PAUSE_SECONDS: Final = 0.02
DEFAULT_PERCENT: Final = 50

_log = Logger()

Place = tuple[bytes, Location]


class RecordDamaged(Exception):
    """A record cannot be read or trusted.  The text says which."""


class Move(Protocol):
    """Runs an operation in the writer, which writes the contents anew though it has them."""

    def __call__(self, operation: Operation, contents: Sequence[Content], /) -> Awaitable[Any]:
        """Done when it is durable."""


class Totals(NamedTuple):
    """One row of ``seg``.  octets: of the whole segment; is_tail: it is still written; is_kept: repair must see it first."""

    number: int
    octets: int
    dead: int
    is_adopted: bool
    is_tail: bool
    is_kept: bool

    def is_due(self, percent: int) -> bool:
        """Whether so much is dead that its contents should move."""
        return not (self.is_adopted or self.is_kept) and 0 < self.dead >= self.octets * percent / 100


class Slice(NamedTuple):
    """What goes to the writer at once.  large: a content that needs a file instead; at: how far the walk is, in octets."""

    places: list[Place]
    contents: list[MemoryContent]
    large: Place | None
    at: int


def read_totals(environment: Environment, tables: Tables, after: int) -> list[Totals]:
    """Return the next rows behind segment ``after``, in a transaction of its own."""
    found: list[Totals] = []
    with environment.begin() as txn:
        row = txn.get(b"tail", db=tables.meta)
        tail = TAIL.unpack(row)[0] if row else -1
        kept = {span.segment for span in read_kept(txn, tables)}
        cursor = txn.cursor(tables.seg)
        if cursor.set_range(U32.pack(after + 1)):
            for key, value in cursor.iternext():
                number = U32.unpack(key)[0]
                octets, dead, state = SEGMENT.unpack(value)
                found.append(Totals(number, octets, dead, bool(state), number == tail, number in kept))
                if len(found) == SCAN_ROWS:
                    break
    return found


class Walk:
    """The living contents of a closed segment, in the order in which they lie.  For one thread at a time."""

    def __init__(self, environment: Environment, tables: Tables, folder: Path, totals: Totals) -> None:
        """Raises SegmentGone, OSError."""
        self._environment = environment
        self._tables = tables
        self._end = totals.octets
        self._at = 0
        self._waiting: deque[Place] = deque()
        try:
            fd = os.open(segment_path(folder, totals.number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SegmentGone from None
        self._segment = OpenSegment(totals.number, fd)

    def close(self) -> None:
        """Close the file."""
        self._segment.release()

    def next(self) -> Slice | None:
        """Return the next slice, None behind the last.  Raises RecordDamaged."""
        try:
            return self._next()
        except StorageFailed as error:
            raise RecordDamaged(error.reason) from None
        except OSError as error:
            raise RecordDamaged(f"segment {self._segment.number}: {error.strerror}") from error

    def _next(self) -> Slice | None:
        places: list[Place] = []
        contents: list[MemoryContent] = []
        octets = 0
        while self._waiting or self._look():
            digest, location = self._waiting[0]
            if places and (octets + location.size > SLICE_OCTETS or len(places) == SLICE_CONTENTS):
                break
            self._waiting.popleft()
            if location.size > SLICE_OCTETS:
                return Slice([], [], (digest, location), location.offset + location.size)
            data = self._segment.read_whole(location, digest)
            places.append((digest, location))
            contents.append(MemoryContent(data, digest, location.crc))
            octets += location.size
        if not places:
            return None
        last = places[-1][1]
        return Slice(places, contents, None, last.offset + last.size)

    def read(self, location: Location, offset: int) -> bytes:
        """Return the next octets of a large content.  Raises RecordDamaged."""
        try:
            return os.pread(self._segment.fd, min(CHUNK_OCTETS, location.size - offset), location.offset + offset)
        except OSError as error:
            raise RecordDamaged(f"segment {self._segment.number}: {error.strerror}") from error

    def damaged(self, location: Location) -> RecordDamaged:
        """Return the error for a large content that is not what it was."""
        return RecordDamaged(self._segment.damaged(location, "the content's checksum is wrong").reason)

    def _look(self) -> bool:
        """Find more contents that live; False when the segment has no more."""
        while self._at < self._end:
            records = self._heads()
            with self._environment.begin() as txn:
                for digest, location in records:
                    row = txn.get(digest, db=self._tables.blob)
                    known = Location(*BLOB.unpack(row)[1:]) if row is not None else None
                    if known == location:
                        self._waiting.append((digest, location))
                    elif known is not None and known[:2] == location[:2]:
                        raise self._segment.damaged(known, "the record's head is not what the index expects")
            if self._waiting:
                return True
        return False

    def _heads(self) -> list[Place]:
        records: list[Place] = []
        while self._at < self._end and len(records) < WALK_RECORDS:
            head = os.pread(self._segment.fd, HEAD.size, self._at)
            magic, digest, size, crc = HEAD.unpack(head) if len(head) == HEAD.size else (b"", b"", 0, 0)
            location = Location(self._segment.number, self._at + HEAD.size, size, crc)
            if magic != MAGIC or location.offset + size > self._end:
                raise self._segment.damaged(location, "no record begins here")
            records.append((digest, location))
            self._at = location.offset + size
        return records


class Compaction:
    """Empties segments, asked for or by itself."""

    def __init__(
        self,
        environment: Environment,
        tables: Tables,
        folder: Path,
        spool: Spool,
        disk: Disk,
        percent: int,
        move: Move,
        run_blocking: RunBlocking,
    ) -> None:
        """folder: of the segments.  percent: dead share from which a segment is due in the background, 0 for no background.

        run_blocking: raises StorageFailed when the store is closed, which waits for what runs.
        """
        self._environment = environment
        self._tables = tables
        self._folder = folder
        self._spool = spool
        self._disk = disk
        self._percent = percent
        self._move = move
        self._run_blocking = run_blocking
        self._lock = DeferredLock()
        self._clock: IReactorTime | None = None
        self._call: IDelayedCall | None = None
        self._pause_ends: Deferred[None] | None = None
        self._damaged: set[int] = set()
        self._is_full = False

    # ------------------------------------------------------------------------------------------------------- asked for

    async def run(self, percent: int | None, progress: Progress | None = None) -> Compacted:
        """Empty every segment that is due.  percent: dead share, None for the setting's.

        Raises StorageFull below the disk's reserve, StorageFailed, Overloaded.
        """
        if percent is None:
            percent = self._percent or DEFAULT_PERCENT
        await self._lock.acquire()
        try:
            self._refuse_if_full()
            before = await self._totals()
            aimed = {each.number: each for each in before if each.is_due(percent)}
            if any(each.is_tail for each in aimed.values()):
                await self._move(EndTail(percent), ())
            # More of the tail may be written by now; it may also be gone.
            aimed |= {each.number: each for each in await self._totals() if each.number in aimed}
            closed = sorted((each for each in aimed.values() if not each.is_tail), key=_living_share)
            total, done, moved = _octets(closed), 0, 0
            skipped: list[str] = []

            async def tell(at: int) -> None:
                if progress is not None:
                    progress(done + at, total, "octets")

            for each in closed:
                copied, problem = await self._empty(each, tell)
                moved += copied
                skipped += [problem] if problem else []
                done += each.octets
                await tell(0)
            after = await self._totals()
        finally:
            self._lock.release()
        gone = aimed.keys() - {each.number for each in after}
        returned = sum(aimed[number].octets for number in gone) - moved
        deleted = await self._run_blocking(self._read_kept)
        return Compacted(_octets(before), _octets(after), returned, len(gone), moved, tuple(skipped), deleted)

    def _read_kept(self) -> int:
        with self._environment.begin() as txn:
            return read_all_kept(txn, self._tables).octets

    async def _totals(self) -> list[Totals]:
        found: list[Totals] = []
        while some := await self._run_blocking(
            read_totals, self._environment, self._tables, found[-1].number if found else -1
        ):
            found += some
        return found

    def _refuse_if_full(self) -> None:
        if self._disk.is_full():
            raise StorageFull(
                "Compaction needs some room before it returns more, and less than the reserve is free on the disk",
                reason="below the reserve",
            )

    async def _empty(self, totals: Totals, after_slice: Callable[[int], Awaitable[None]]) -> tuple[int, str]:
        """Move what lives in a segment.  after_slice: told how far it is.  Returns the octets copied, and what is damaged."""
        moved = 0
        try:
            walk = await self._run_blocking(Walk, self._environment, self._tables, self._folder, totals)
        except SegmentGone:
            return 0, ""  # Emptied by an expunge meanwhile; or missing, which is the check's to tell.
        try:
            while (part := await self._run_blocking(walk.next)) is not None:
                self._refuse_if_full()
                if part.large is not None:
                    await self._move_large(walk, part.large)
                    moved += HEAD.size + part.large[1].size
                else:
                    await self._move(Relocate(part.places), part.contents)
                    moved += sum(HEAD.size + content.size for content in part.contents)
                await after_slice(part.at)
        except RecordDamaged as error:
            self._damaged.add(totals.number)
            _log.error("compaction leaves a segment where it is, for it is damaged: {what}", what=str(error))
            return moved, str(error)
        finally:
            walk.close()
        return moved, ""

    async def _move_large(self, walk: Walk, place: Place) -> None:
        """Copy a content to a spool file, which becomes a segment.  Raises RecordDamaged, StorageFull."""
        digest, location = place
        sink = self._spool.new_content()
        try:
            offset = 0
            while offset < location.size:
                chunk = await self._run_blocking(walk.read, location, offset)
                if not chunk:
                    break
                sink.write(chunk)
                offset += len(chunk)
            content = await sink.finish()
        except BaseException:
            sink.abort()
            raise
        try:
            if content.digest != digest:
                raise walk.damaged(location)
            await self._move(Relocate([place]), [content])
        finally:
            content.close()

    # ------------------------------------------------------------------------------------------------------- by itself

    def run_with(self, clock: IReactorTime) -> None:
        """Look after segments as time passes on ``clock``."""
        if self._percent:
            self._clock = clock
            self._call = clock.callLater(COMPACT_SECONDS, self._begin_round)

    def close(self) -> None:
        """No more rounds; the one that runs ends with its slice."""
        self._clock = None
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._resume()

    def _begin_round(self) -> None:
        Deferred.fromCoroutine(self._round()).addBoth(self._round_ended)

    def _round_ended(self, result: object) -> None:
        if isinstance(result, Failure):
            _log.failure("compaction failed", result)
        if self._clock is not None:
            self._call = self._clock.callLater(COMPACT_SECONDS, self._begin_round)

    async def _round(self) -> None:
        try:
            due = [
                each
                for each in await self._totals()
                if each.is_due(self._percent) and not each.is_tail and each.number not in self._damaged
            ]
            for each in sorted(due, key=_living_share):
                # Before a command that waits, and when the store is closed.
                if self._clock is None or self._lock.locked:
                    return
                self._refuse_if_full()
                self._is_full = False
                await self._empty_quietly(each)
        except StorageFull as error:
            if not self._is_full:
                _log.warn("{error}", error=str(error))
            self._is_full = True
        except MailError as error:
            if self._clock is not None:
                _log.warn("compaction ended early and will be tried again: {error!r}", error=error)

    async def _empty_quietly(self, totals: Totals) -> None:
        """Empty one segment, with a pause after each slice."""
        await self._lock.acquire()
        try:
            began = self._seconds()

            async def pause(_at: int) -> None:
                nonlocal began
                await self._pause(max(PAUSE_SECONDS, (SHARE - 1) * (self._seconds() - began)))
                began = self._seconds()

            moved, problem = await self._empty(totals, pause)
            left = await self._run_blocking(read_totals, self._environment, self._tables, totals.number - 1)
        finally:
            self._lock.release()
        if not problem and totals.number not in {each.number for each in left[:1]}:
            _log.info(
                "compaction: segment {number} is gone, {returned} octets returned, {moved} copied",
                number=totals.number,
                returned=totals.octets - moved,
                moved=moved,
            )

    def _seconds(self) -> float:
        return float(self._clock.seconds()) if self._clock is not None else 0.0

    async def _pause(self, seconds: float) -> None:
        """Wait; not for a command's sake, and not when the store is closed."""
        if self._clock is None or self._lock.waiting:
            return
        self._pause_ends = Deferred()
        self._call = self._clock.callLater(seconds, self._resume)
        await self._pause_ends

    def _resume(self) -> None:
        ends, self._pause_ends = self._pause_ends, None
        if ends is not None:
            ends.callback(None)


def _living_share(totals: Totals) -> float:
    return 1 - totals.dead / totals.octets


def _octets(totals: Sequence[Totals]) -> int:
    return sum(each.octets for each in totals)
