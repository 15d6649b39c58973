"""The writer: one per shard, group commit without a timer.

    reactor thread                          writer thread                    committer (its own process, or the thread)
    submit(request): gather
    a turn of the reactor brings no more
      hand over ──────────── queue ───────► works ─────────────────────────► write the contents, one fdatasync
                                                                             one LMDB transaction, one commit
    publish events, fire Deferreds ◄─────── one call_from_thread ◄────────── answers

While one group is flushed the next gathers, at most 256 requests or 16 MiB, so that the load decides the size of the
groups.  A group costs about 500 µs of CPU however small it is (two flushes, 25 index pages, waking the writer).  Taking
whatever was queued gave groups of 3 under 20 busy connections; waiting until the reactor has served all that is readable
gives groups of 10 to 20, and costs a lone request one turn of an idle reactor.

py-lmdb lets go of the GIL at every put, and a busy reactor takes it back each time: in one process the two threads spend more
on handing it over than on the puts.  So the committer is a process of its own by default (``[storage] writer``,
`livemail.storage.lmdb.writer_process`), and the thread here only packs, sends and waits.  In one process, as tests and
one-shot commands have it, livemail.app's switch interval of half a millisecond keeps the writer from starving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from livemail.interfaces.runtime import Now
from livemail.mail.content import Content
from livemail.mail.errors import Overloaded, StorageFailed
from livemail.storage.failpoints import failpoint
from livemail.storage.lmdb.committer import Answer, GroupLost, Work
from livemail.storage.lmdb.operations.group import Event, Operation
from livemail.storage.lmdb.operations.stories import KeepStories
from livemail.storage.settings import StorageSettings
from livemail.storage.spool import SpooledContent
from livemail.storage.stories import Pending

MAX_GROUP_REQUESTS = 256
MAX_GROUP_OCTETS = 16 * 1024 * 1024
MAX_TURNS = 8
"""Turns of the reactor that may each bring more before a group leaves all the same."""

CallFromThread = Callable[..., object]

_log = Logger()


class ICommitter(Protocol):
    """What commits groups: `livemail.storage.lmdb.committer.Committer`, or the stub of one in another process."""

    def commit(self, group: Sequence[Work], now: int) -> list[Answer]:
        """Commit a group; answers for every work.  now: seconds since the epoch."""

    def keep_house(self) -> None:
        """Between groups."""

    def close(self) -> None:
        """No more groups follow."""


class Request:
    """One operation on its way.  contents: what it brings; frees: whether it makes room on a full disk."""

    __slots__ = ("contents", "deferred", "frees", "in_files", "octets", "operation", "origin")

    def __init__(
        self,
        operation: Operation,
        origin: object,
        contents: Sequence[Content],
        *,
        frees: bool,
        in_files: frozenset[bytes] = frozenset(),
    ) -> None:
        self.operation = operation
        self.origin = origin
        self.contents = contents
        self.frees = frees
        self.in_files = in_files
        self.octets = sum(content.size for content in contents if not isinstance(content, SpooledContent))
        self.deferred: Deferred[Any] = Deferred()


class Group:
    """Requests on their way together.  spooled: their spool files by name, as the committer will speak of them."""

    __slots__ = ("requests", "spooled", "works")

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = requests
        self.works = [
            # An origin is an object of this process: the committer names it by the request's place.
            Work(index, one.operation, None if one.origin is None else index, one.contents, one.frees, one.in_files)
            for index, one in enumerate(requests)
        ]
        self.spooled = {
            content.path: content
            for one in requests
            for content in one.contents
            if isinstance(content, SpooledContent) and content.is_adoptable
        }


class Writer:
    """Gathers requests into groups, has them committed, tells everybody."""

    def __init__(
        self,
        committer: ICommitter,
        settings: StorageSettings,
        now: Now,
        call_from_thread: CallFromThread,
        on_answer: Callable[[Sequence[Event], Sequence[int]], None],
    ) -> None:
        """on_answer: called on the reactor's thread before the Deferreds fire, with events and removed segments."""
        self._committer = committer
        self._settings = settings
        self._now = now
        self._call_from_thread = call_from_thread
        self._on_answer = on_answer
        self._queue: SimpleQueue[Group | None] = SimpleQueue()
        self._gathered: list[Request] = []
        self._seen = 0
        self._turns = 0
        self._is_waiting = False
        self._in_flight = 0
        self._queued = 0
        self._queued_octets = 0
        self._failure = ""
        self.stories = Pending()
        self._closed: Deferred[None] | None = None
        self._thread = Thread(target=self._loop, name="livemail-writer", daemon=True)
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
            if self.stories:
                batch += self._stories(content for request in batch for content in request.contents)
            self._in_flight += 1
            self._queue.put(Group(batch))

    def _stories(self, contents: Iterable[Content]) -> list[Request]:
        """Return the request that keeps the stories which go with these contents, behind those that bring them."""
        rows = self.stories.take(contents)
        if not rows:
            return []
        self._queued += 1
        keeping = Request(KeepStories(rows), None, (), frees=False)
        # A story that cannot be kept is no reason for anything; the disk's own trouble is told by the messages.
        keeping.deferred.addErrback(lambda _: None)
        return [keeping]

    def flush_stories(self) -> None:
        """Commit the stories that wait, if nothing else takes them along."""
        self.stories.age()
        if self.stories and not self._gathered and not self._failure and self._closed is None:
            for keeping in self._stories(()):
                self._queued -= 1
                self.submit(keeping)

    def close(self) -> Deferred[None]:
        """Finish what is queued; the Deferred fires when the thread has ended."""
        if self._closed is None:
            self.stories.age()
            self.stories.age()
            self.flush_stories()
            self._closed = Deferred()
            self._hand_over()
            self._queue.put(None)
        return self._closed

    def _answer(self, group: Group, answers: Sequence[Answer]) -> None:
        requests = group.requests
        for answer in answers:
            for level, text in answer.notes:
                _log.emit(LogLevel.lookupByName(level), "{text}", text=text)
            for name in answer.adopted:
                group.spooled[name].give_away()
            for name, path in answer.moved.items():
                group.spooled[name].moved(path)
            self._failure = self._failure or answer.failure
        self._in_flight -= 1
        for answer in answers:
            for event in answer.events:
                if isinstance(event.origin, int):
                    event.origin = requests[event.origin].origin
            self._on_answer(answer.events, answer.removed)
            for index, result, error in answer.results:
                self._settle(requests[index], result, error)
        if self._gathered and not self._is_waiting and not self._in_flight:
            self._await_turn()

    def _settle(self, request: Request, result: Any, error: BaseException | None) -> None:
        self._queued -= 1
        self._queued_octets -= request.octets
        for content in request.contents:
            if isinstance(content, SpooledContent):
                content.release()
        if error is None:
            request.deferred.callback(result)
        else:
            request.deferred.errback(Failure(error))

    def _end(self) -> None:
        self._thread.join()
        assert self._closed is not None
        self._closed.callback(None)

    # -------------------------------------------------------------------------------------------- the writer's thread

    def _loop(self) -> None:
        while (group := self._queue.get()) is not None:
            try:
                answers = self._committer.commit(group.works, int(self._now()))
            except GroupLost as error:
                answers = [self._lost(group, error)]
            except (
                Exception
            ) as error:  # A bug here, or a committer that is gone, must not leave sessions waiting for ever.
                _log.failure("the writer failed")
                failure = f"the writer failed: {error!r}; restart livemail"
                refusal = StorageFailed(reason=failure)
                answers = [Answer([(work.index, None, refusal) for work in group.works], failure=failure)]
            self._call_from_thread(self._answer, group, answers)
            failpoint("group-answered")
            self._committer.keep_house()
        self._committer.close()
        self._call_from_thread(self._end)

    @staticmethod
    def _lost(group: Group, error: GroupLost) -> Answer:
        """Everybody is refused for now, though it may have been committed: to do it twice is better than not at all."""
        refusal = StorageFailed(reason=str(error))
        answer = Answer([(work.index, None, refusal) for work in group.works])
        answer.adopted = [name for name in group.spooled if not Path(name).exists()]
        answer.notes = [("error", f"{error}; {len(group.works)} requests were told to try again")]
        return answer
