"""The committer: turns a group of works into one durable commit.

It owns the tail segment and every write transaction.  It runs in the writer's thread, or in a process of its own
(`livemail.storage.lmdb.writer_process`), so it knows neither the reactor nor Deferreds, and says what happened in its
answers.

What goes wrong                            what happens
    an operation raises MailError          it alone is refused: it changed nothing
    anything else inside the transaction   the transaction is thrown away and each work gets a group of its own
    the disk is full (also quota, limits)  works that bring content get StorageFull; those that make room may use up the
                                           reserve file; nothing needs a restart when space returns
    writing or flushing contents fails     the kernel may have dropped the pages, so that file is never flushed again: every work
    otherwise                              of the group gets StorageFailed, the segment is sealed at what was flushed, the next
                                           group writes a new one; nothing needs a restart when the disk is well again
    the index fails                        the shard has failed, every work gets StorageFailed until the store is reopened
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from typing import Any

import lmdb
import msgspec

from livemail.mail.content import Content
from livemail.mail.errors import MailError, StorageFailed, StorageFull
from livemail.storage.disk import FULL_ERRORS, Disk, ReserveFile
from livemail.storage.failpoints import failpoint
from livemail.storage.lmdb.flushing import Flusher, FlushFailed
from livemail.storage.lmdb.ledger import Due, Ledger
from livemail.storage.lmdb.operations.group import ContentMissing, Event, Group, Operation
from livemail.storage.lmdb.operations.warnings import file_warnings, write_warnings
from livemail.storage.lmdb.readers import ReaderWatch
from livemail.storage.lmdb.schema import Environment, Tables
from livemail.storage.lmdb.segments import Location, Tail, segment_path
from livemail.storage.quota import Quotas
from livemail.storage.settings import StorageSettings
from livemail.storage.spool import SpooledContent

HOUSEKEEPING_SECONDS = 60.0

FATAL_ERRORS = frozenset({errno.EIO, errno.EROFS, errno.ENXIO, errno.ENODEV})
"""What the disk answers when it is the disk that is broken."""


class Work(msgspec.Struct, eq=False):
    """One operation of a group.

    index: its place in the group.  origin: what its events name as theirs, None when nobody is.  contents: what it brings; frees: whether it
    makes room on a full disk.  in_files: digests of those contents that no segment needs: they become files of a Maildir.
    moves: its contents are stored, and are written anew all the same.
    """

    index: int
    operation: Operation
    origin: int | None
    contents: Sequence[Content]
    frees: bool
    in_files: frozenset[bytes] = frozenset()
    moves: bool = False


class Answer(msgspec.Struct):
    """What a group came to: (index, result, None) or (index, None, exception) for each work, and what to do about it.

    events: to publish, in order.  removed: segments that are gone.  adopted: spool files that are segments now, by the
    name they had.  moved: spool files that were renamed for nothing: name they had → name they have.  used: digests of
    the contents that are referred to.  notes: (level, text) for the log.  failure: why the shard accepts nothing more.
    """

    results: list[tuple[int, Any, BaseException | None]]
    events: list[Event] = msgspec.field(default_factory=list)
    removed: list[int] = msgspec.field(default_factory=list)
    adopted: list[str] = msgspec.field(default_factory=list)
    moved: dict[str, str] = msgspec.field(default_factory=dict)
    used: set[bytes] = msgspec.field(default_factory=set)
    notes: list[tuple[str, str]] = msgspec.field(default_factory=list)
    failure: str = ""


class DiskFailed(Exception):
    """What was written for this group may be lost."""


class Committer:
    """Commits groups, one after the other; for one thread."""

    def __init__(
        self,
        environment: Environment,
        tables: Tables,
        tail: Tail,
        settings: StorageSettings,
        disk: Disk,
        reserve: ReserveFile,
        quotas: Quotas,
        hash_key: bytes,
    ) -> None:
        """quotas: what may be held.  hash_key: of the digests, for the messages the committer writes itself."""
        self._environment = environment
        self._tables = tables
        self._tail = tail
        self._settings = settings
        self._disk = disk
        self._reserve = reserve
        self._ledger = Ledger(quotas)
        self._hash_key = hash_key
        self._flusher = Flusher()
        self._now = 0
        self._failure = ""
        self._notes: list[tuple[str, str]] = []
        self._adopted: list[SpooledContent] = []
        self._housekeeping_due = 0.0
        self._readers = ReaderWatch(environment)

    def commit(self, group: Sequence[Work], now: int) -> list[Answer]:
        """Commit a group, or its works one by one when it fails as a whole.  now: seconds since the epoch."""
        self._now = now
        spooled = [
            (content, content.path)
            for work in group
            for content in work.contents
            if isinstance(content, SpooledContent) and content.is_adoptable
        ]
        try:
            answers = self._run(list(group))
        except Exception as error:  # A bug here must not leave sessions waiting for ever.
            self._failure = f"the writer failed: {error!r}"
            answers = [self._refused(group, StorageFailed(reason=self._failure))]
        last = answers[-1]
        for content, name in spooled:
            if any(content is adopted for adopted in self._adopted):
                last.adopted.append(name)
            elif content.path != name:
                last.moved[name] = content.path
        self._adopted.clear()
        last.failure = self._failure
        last.notes, self._notes = self._notes, []
        return answers

    def close(self) -> None:
        """Close the tail's files."""
        self._flusher.close()
        self._tail.finish(is_idle=not self._failure)

    def _run(self, batch: list[Work]) -> list[Answer]:
        """Commit a group, or its requests one by one when it fails as a whole."""
        if self._failure:
            return [self._refused(batch, StorageFailed(reason=self._failure))]
        try:
            return [self._commit(batch)]
        except DiskFailed as error:
            self._note(
                "critical",
                f"the disk did not take new mail ({error}): its senders were told to try again, nothing acknowledged is lost."
                "  See what the kernel says (dmesg), and replace the disk if this comes back; livemail goes on with a new segment"
                " file and needs no restart",
            )
            return [self._refused(batch, StorageFailed(reason=str(error)))]
        except Exception as error:
            if len(batch) > 1:
                if not isinstance(error, ContentMissing):
                    self._note("warn", f"a group of {len(batch)} failed ({error!r}); each gets its own")
                return [answer for work in batch for answer in self._run([work])]
            return self._failed(batch, error)

    def _failed(self, batch: list[Work], error: Exception) -> list[Answer]:
        """One request alone made the index fail."""
        if isinstance(error, StorageFull) or self._says_full(error):
            if batch[0].frees and self._reserve.give_up():
                self._note("warn", "the disk is full: the reserve file was given up to make room")
                return self._run(batch)
            return [self._refused(batch, StorageFull(reason=repr(error)))]
        if isinstance(error, OSError | lmdb.BadValsizeError | lmdb.BadRslotError | lmdb.ReadersFullError):
            return [self._refused(batch, StorageFailed(reason=repr(error)))]
        if isinstance(error, lmdb.Error):
            self._failure = f"the index failed: {error!r}"
            self._note("critical", f"the shard accepts no more writes: {self._failure}; reopen the store")
            return [self._refused(batch, StorageFailed(reason=self._failure))]
        return [self._refused(batch, error)]

    def _says_full(self, error: Exception) -> bool:
        if isinstance(error, lmdb.MapFullError):
            return True
        if isinstance(error, OSError):
            return error.errno in FULL_ERRORS
        # LMDB 0.9 calls a short write to a full disk an input/output error; the disk itself knows better.
        return isinstance(error, lmdb.Error) and (
            any(os.strerror(number) in str(error) for number in FULL_ERRORS) or self._disk.free_octets() < 1024 * 1024
        )

    @staticmethod
    def _refused(batch: Sequence[Work], error: Exception) -> Answer:
        return Answer([(work.index, None, error) for work in batch])

    def _commit(self, batch: Sequence[Work]) -> Answer:
        """Write contents and index.  Raises what makes the whole group fail; then nothing of it happened."""
        failpoint("group-begin")
        refused: list[tuple[int, Any, BaseException | None]] = []
        contents = self._new_contents(batch)
        written: dict[bytes, Location] = {}
        try:
            if contents:
                written = self._write(contents)
            answer = self._transact_flushed(batch, written)
        except FlushFailed as failure:
            if failure.error.errno in FATAL_ERRORS:
                self._tail.seal()
                raise DiskFailed(f"writing contents: {failure.error!r}") from failure
            self._tail.rewind()
            if failure.error.errno not in FULL_ERRORS:
                raise failure.error from None
            full = StorageFull(reason=f"writing contents: {failure.error}")
            refused = [(work.index, None, full) for work in batch if _brings(work, contents)]
            batch = [work for work in batch if not _brings(work, contents)]
            written = {}
            answer = self._transact_flushed(batch, written, warns=False)
        answer.results += refused
        self._adopted += [
            content
            for digest, content in contents.items()
            if isinstance(content, SpooledContent) and digest in written and digest in answer.used
        ]
        return answer

    def _write(self, contents: dict[bytes, Content], *, goes_on: bool = False) -> dict[bytes, Location]:
        """Write contents and begin to flush them.  goes_on: behind others of the same commit.  Raises FlushFailed."""
        try:
            locations = self._tail.write(list(contents.values()), may_advance=not goes_on)
            written = dict(zip(contents, locations, strict=True))
            failpoint("segment-sync")
        except OSError as error:
            raise FlushFailed(error) from error
        self._flusher.begin(self._tail.flush)
        return written

    def _transact_flushed(self, batch: Sequence[Work], written: dict[bytes, Location], *, warns: bool = True) -> Answer:
        """Fill and commit the index's transaction.  Raises FlushFailed, also when the transaction failed as well.

        warns: owners of mailboxes that get full are written to.
        """
        try:
            return self._transact(batch, written, warns=warns)
        except FlushFailed:
            raise
        except BaseException:
            self._flusher.end()  # What it flushes is about to be cut off.
            self._tail.rewind()
            raise

    def _new_contents(self, batch: Sequence[Work]) -> dict[bytes, Content]:
        """Return the contents no segment holds yet, and those that are to move."""
        moving = {content.digest for work in batch if work.moves for content in work.contents}
        contents = {
            content.digest: content
            for work in batch
            for content in work.contents
            if content.digest not in work.in_files
        }
        if contents:
            with self._environment.begin() as txn:
                for digest in contents.keys() - moving:
                    if txn.get(digest, db=self._tables.blob) is not None:
                        del contents[digest]
        return contents

    def _transact(self, batch: Sequence[Work], written: dict[bytes, Location], *, warns: bool) -> Answer:
        results: list[tuple[int, Any, BaseException | None]] = []
        contents = {content.digest: content for work in batch for content in work.contents}
        txn = self._environment.begin(write=True)
        try:
            self._ledger.begin(txn, self._tables)
        except BaseException:
            txn.abort()
            raise
        group = Group(txn, self._tables, self._settings, self._now, self._tail, written, contents, self._ledger)
        group.keeps_deleted = self._settings.undelete > 0 and not self._disk.is_full()
        try:
            failpoint("txn-begun")
            for work in batch:
                failpoint("txn-operation")
                group.origin = work.origin
                try:
                    results.append((work.index, work.operation.run(group), None))
                except (StorageFull, StorageFailed):
                    raise
                except MailError as error:
                    results.append((work.index, None, error))
            dues = self._ledger.due(group.accounts())
            if dues and warns:
                self._warn(group, dues, written, contents)
            if self._ledger.has_totals:
                self._ledger.note_totals()
            group.flush()
            group.effects.flush()
            failpoint("txn-filled")
            if self._flusher.end():
                failpoint("segment-synced")
            txn.commit()
        except BaseException:
            group.effects.undo()
            with contextlib.suppress(lmdb.Error):  # A failed commit has ended the transaction already.
                txn.abort()
            raise
        self._tail.commit()
        self._ledger.commit()
        self._notes += self._ledger.notes
        failpoint("txn-committed")
        group.effects.finish()
        for number in group.removed_segments:
            with contextlib.suppress(OSError):  # What cannot be unlinked now is removed at the next start.
                segment_path(self._tail.folder, number).unlink(missing_ok=True)
        failpoint("segments-removed")
        return Answer(results, group.events, group.removed_segments, used=group.used)

    def _warn(
        self,
        group: Group,
        dues: Sequence[Due],
        written: dict[bytes, Location],
        contents: dict[bytes, Content],
    ) -> None:
        """Tell owners that their quota is nearly used up, in this very commit.  Raises FlushFailed.

        written, contents: of the group, which gets those of the messages too.
        """
        warnings = write_warnings(group, dues, self._hash_key)
        contents |= {one.content.digest: one.content for one in warnings}
        in_segment: dict[bytes, Content] = {one.content.digest: one.content for one in warnings if one.in_segment}
        if in_segment:
            self._flusher.end()
            written |= self._write(in_segment, goes_on=True)
        file_warnings(group, warnings)

    def keep_house(self) -> None:
        """Between groups: free the slots of readers that died, make the reserve file again when there is room."""
        now = time.monotonic()
        if now >= self._housekeeping_due:
            self._housekeeping_due = now + HOUSEKEEPING_SECONDS
            self._environment.reader_check()
            old = self._readers.old()
            if old:
                self._note("warn", old)
            self._reserve.fill(self._disk)

    def _note(self, level: str, text: str) -> None:
        self._notes.append((level, text))


def _brings(work: Work, contents: dict[bytes, Content]) -> bool:
    return any(content.digest in contents for content in work.contents)
