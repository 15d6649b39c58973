"""The writer: one thread per shard, group commit without a timer.

    reactor thread                          writer thread
    submit(request): gather
    a turn of the reactor brings no more
      hand over ──────────── queue ───────► write the contents, one fdatasync
                                            one LMDB transaction, one commit
    publish events, fire Deferreds ◄─────── one call_from_thread

While one group is flushed the next gathers, at most 256 requests or 16 MiB, so that the load decides the size of the
groups.  A group costs about 500 µs of CPU however small it is (two flushes, 25 index pages, waking a thread that then
competes for the GIL).  Taking whatever was queued gave groups of 3 under 20 busy connections; waiting until the reactor
has served all that is readable gives groups of nearly all 20, and costs a lone request one turn of an idle reactor.

What goes wrong                            what happens
    an operation raises MailError          it alone is refused: it changed nothing
    anything else inside the transaction   the transaction is thrown away and each request gets a group of its own
    the disk is full (also quota, limits)  requests that bring content get StorageFull; those that make room may use up the
                                           reserve file; nothing needs a restart when space returns
    fdatasync fails otherwise              the kernel may have dropped the pages, so it is never tried again: the shard
                                           has failed, every request gets StorageFailed until the store is reopened

py-lmdb lets go of the GIL at every put, and the reactor may keep it for `sys.getswitchinterval()`; livemail.app sets half a
millisecond.  So all that can be packed is packed before a request is submitted, and puts per message are few.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import lmdb
import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from livemail.interfaces.runtime import Now
from livemail.mail.content import Content
from livemail.mail.errors import MailError, Overloaded, StorageFailed, StorageFull
from livemail.storage.disk import FULL_ERRORS, Disk, ReserveFile
from livemail.storage.failpoints import failpoint
from livemail.storage.lmdb.operations.group import ContentMissing, Event, Group, Operation
from livemail.storage.lmdb.schema import Environment, Tables
from livemail.storage.lmdb.segments import Location, Tail, segment_path
from livemail.storage.settings import StorageSettings
from livemail.storage.spool import SpooledContent

MAX_GROUP_REQUESTS = 256
MAX_GROUP_OCTETS = 16 * 1024 * 1024
MAX_TURNS = 8
"""Turns of the reactor that may each bring more before a group leaves all the same."""

HOUSEKEEPING_SECONDS = 60.0

FATAL_ERRORS = frozenset({errno.EIO, errno.EROFS, errno.ENXIO, errno.ENODEV})
"""What the disk answers when it is the disk that is broken."""

CallFromThread = Callable[..., object]

_log = Logger()


class Request:
    """One operation on its way.  contents: what it brings; frees: whether it makes room on a full disk."""

    __slots__ = ("contents", "deferred", "frees", "octets", "operation", "origin")

    def __init__(self, operation: Operation, origin: object, contents: Sequence[Content], *, frees: bool) -> None:
        self.operation = operation
        self.origin = origin
        self.contents = contents
        self.frees = frees
        self.octets = sum(content.size for content in contents if not isinstance(content, SpooledContent))
        self.deferred: Deferred[Any] = Deferred()


class Answer(msgspec.Struct):
    """What a group came to: a result or an exception for each request, and what to do about it on the reactor's thread."""

    results: list[tuple[Request, Any, BaseException | None]]
    events: list[Event]
    removed: list[int]
    adopted: list[SpooledContent]
    used: set[bytes] = msgspec.field(default_factory=set)
    ends_group: bool = False


class ShardFailed(Exception):
    """What was written may be lost, and nothing more may be."""


class Writer:
    """Owns the tail segment and every write transaction."""

    def __init__(
        self,
        environment: Environment,
        tables: Tables,
        tail: Tail,
        settings: StorageSettings,
        disk: Disk,
        reserve: ReserveFile,
        now: Now,
        call_from_thread: CallFromThread,
        on_answer: Callable[[Answer], None],
    ) -> None:
        """on_answer: called on the reactor's thread before the Deferreds of a group fire."""
        self._environment = environment
        self._tables = tables
        self._tail = tail
        self._settings = settings
        self._disk = disk
        self._reserve = reserve
        self._now = now
        self._call_from_thread = call_from_thread
        self._on_answer = on_answer
        self._queue: SimpleQueue[Sequence[Request] | None] = SimpleQueue()
        self._gathered: list[Request] = []
        self._seen = 0
        self._turns = 0
        self._is_waiting = False
        self._in_flight = 0
        self._queued = 0
        self._queued_octets = 0
        self._failure = ""
        self._housekeeping_due = 0.0
        self._closed: Deferred[None] | None = None
        self._thread = threading.Thread(target=self._loop, name="livemail-writer", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------------ the reactor's thread

    def submit(self, request: Request) -> Deferred[Any]:
        """Queue a request; its Deferred fires when it is durable or refused.  Raises Overloaded, StorageFailed."""
        if self._failure or self._closed is not None:
            raise StorageFailed(reason=self._failure or "the store is closed")
        if self._queued >= self._settings.max_queued or self._queued_octets >= self._settings.max_queued_octets:
            raise Overloaded(reason=f"{self._queued} requests, {self._queued_octets} octets wait for the disk")
        self._queued += 1
        self._queued_octets += request.octets
        for content in request.contents:
            if isinstance(content, SpooledContent):
                content.hold()
        self._gathered.append(request)
        if not self._is_waiting and not self._in_flight:
            self._await_turn()
        return request.deferred

    def _await_turn(self) -> None:
        self._is_waiting = True
        self._call_from_thread(self._turn_ended)

    def _turn_ended(self) -> None:
        """The reactor has served all that was readable: hand over, unless it brought more, which may go on."""
        self._turns += 1
        count = len(self._gathered)
        if count > self._seen and count < MAX_GROUP_REQUESTS and self._turns < MAX_TURNS and self._closed is None:
            self._seen = count
            self._call_from_thread(self._turn_ended)
            return
        self._is_waiting = False
        self._hand_over()

    def _hand_over(self) -> None:
        self._seen = self._turns = 0
        while self._gathered:
            batch: list[Request] = []
            octets = 0
            for request in self._gathered[:MAX_GROUP_REQUESTS]:
                if batch and octets + request.octets > MAX_GROUP_OCTETS:
                    break
                batch.append(request)
                octets += request.octets
            del self._gathered[: len(batch)]
            self._in_flight += 1
            self._queue.put(batch)

    def close(self) -> Deferred[None]:
        """Finish what is queued; the Deferred fires when the thread has ended."""
        if self._closed is None:
            self._closed = Deferred()
            self._hand_over()
            self._queue.put(None)
        return self._closed

    def _answer(self, answer: Answer) -> None:
        for adopted in answer.adopted:
            adopted.give_away()
        self._in_flight -= answer.ends_group
        self._on_answer(answer)
        for request, result, error in answer.results:
            self._queued -= 1
            self._queued_octets -= request.octets
            for content in request.contents:
                if isinstance(content, SpooledContent):
                    content.release()
            if error is None:
                request.deferred.callback(result)
            else:
                request.deferred.errback(Failure(error))
        if self._gathered and not self._is_waiting and not self._in_flight:
            self._await_turn()

    def _end(self) -> None:
        self._thread.join()
        self._tail.close()
        assert self._closed is not None
        self._closed.callback(None)

    # -------------------------------------------------------------------------------------------- the writer's thread

    def _loop(self) -> None:
        while (batch := self._queue.get()) is not None:
            try:
                answers = self._run(list(batch))
            except Exception as error:  # A bug here must not leave sessions waiting for ever.
                _log.failure("the writer failed")
                self._failure = f"the writer failed: {error!r}"
                answers = [self._refused(batch, StorageFailed(reason=self._failure))]
            answers[-1].ends_group = True
            for answer in answers:
                self._call_from_thread(self._answer, answer)
            failpoint("group-answered")
            self._keep_house()
        self._call_from_thread(self._end)

    def _run(self, batch: list[Request]) -> list[Answer]:
        """Commit a group, or its requests one by one when it fails as a whole."""
        if self._failure:
            return [self._refused(batch, StorageFailed(reason=self._failure))]
        try:
            return [self._commit(batch)]
        except ShardFailed as error:
            self._failure = str(error)
            _log.critical("the shard accepts no more writes: {reason}; reopen the store", reason=self._failure)
            return [self._refused(batch, StorageFailed(reason=self._failure))]
        except Exception as error:
            if len(batch) > 1:
                if not isinstance(error, ContentMissing):
                    _log.warn("a group of {count} failed ({error!r}); each gets its own", count=len(batch), error=error)
                return [answer for request in batch for answer in self._run([request])]
            return self._failed(batch, error)

    def _failed(self, batch: list[Request], error: Exception) -> list[Answer]:
        """One request alone made the index fail."""
        if isinstance(error, StorageFull) or self._says_full(error):
            if batch[0].frees and self._reserve.give_up():
                _log.warn("the disk is full: the reserve file was given up to make room")
                return self._run(batch)
            return [self._refused(batch, StorageFull(reason=repr(error)))]
        if isinstance(error, OSError | lmdb.BadValsizeError | lmdb.BadRslotError | lmdb.ReadersFullError):
            return [self._refused(batch, StorageFailed(reason=repr(error)))]
        if isinstance(error, lmdb.Error):
            self._failure = f"the index failed: {error!r}"
            _log.critical("the shard accepts no more writes: {reason}; reopen the store", reason=self._failure)
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
    def _refused(batch: Sequence[Request], error: Exception) -> Answer:
        return Answer([(request, None, error) for request in batch], [], [], [])

    def _commit(self, batch: Sequence[Request]) -> Answer:
        """Write contents and index.  Raises what makes the whole group fail; then nothing of it happened."""
        failpoint("group-begin")
        refused: list[tuple[Request, Any, BaseException | None]] = []
        contents = self._new_contents(batch)
        written: dict[bytes, Location] = {}
        if contents:
            try:
                written = dict(zip(contents, self._tail.write(list(contents.values())), strict=True))
            except OSError as error:
                if error.errno in FATAL_ERRORS:
                    raise ShardFailed(f"writing contents: {error!r}") from error
                self._tail.rewind()
                if error.errno not in FULL_ERRORS:
                    raise
                full = StorageFull(reason=f"writing contents: {error}")
                refused = [(request, None, full) for request in batch if _brings(request, contents)]
                batch = [request for request in batch if not _brings(request, contents)]
        try:
            answer = self._transact(batch, written)
        except BaseException:
            self._tail.rewind()
            raise
        answer.results += refused
        answer.adopted = [
            content
            for digest, content in contents.items()
            if isinstance(content, SpooledContent) and digest in written and digest in answer.used
        ]
        return answer

    def _new_contents(self, batch: Sequence[Request]) -> dict[bytes, Content]:
        """Return the contents no segment holds yet."""
        contents = {content.digest: content for request in batch for content in request.contents}
        if contents:
            with self._environment.begin() as txn:
                for digest in [digest for digest in contents if txn.get(digest, db=self._tables.blob) is not None]:
                    del contents[digest]
        return contents

    def _transact(self, batch: Sequence[Request], written: dict[bytes, Location]) -> Answer:
        results: list[tuple[Request, Any, BaseException | None]] = []
        txn = self._environment.begin(write=True)
        try:
            failpoint("txn-begun")
            group = Group(txn, self._tables, self._settings, int(self._now()), self._tail, written)
            for request in batch:
                failpoint("txn-operation")
                group.origin = request.origin
                try:
                    results.append((request, request.operation.run(group), None))
                except (StorageFull, StorageFailed):
                    raise
                except MailError as error:
                    results.append((request, None, error))
            group.flush()
            failpoint("txn-filled")
            txn.commit()
        except BaseException:
            with contextlib.suppress(lmdb.Error):  # A failed commit has ended the transaction already.
                txn.abort()
            raise
        self._tail.commit()
        failpoint("txn-committed")
        for number in group.removed_segments:
            with contextlib.suppress(OSError):  # What cannot be unlinked now is removed at the next start.
                segment_path(self._tail.folder, number).unlink(missing_ok=True)
        failpoint("segments-removed")
        return Answer(results, group.events, group.removed_segments, [], group.used)

    def _keep_house(self) -> None:
        now = time.monotonic()
        if now >= self._housekeeping_due:
            self._housekeeping_due = now + HOUSEKEEPING_SECONDS
            self._environment.reader_check()
            self._reserve.fill(self._disk)


def _brings(request: Request, contents: dict[bytes, Content]) -> bool:
    return any(content.digest in contents for content in request.contents)
