"""The writer: one per shard, group commit without a timer.

    reactor's thread                                                    committer (a process of its own, or a thread)
    submit(request): gather
    nothing is under way, and the reactor has served all that is readable,
    or the last group is answered: hand over ──── carrier ────────────► write the contents, one fdatasync
                                                                        one LMDB transaction, one commit
    hand over the next, publish events, fire Deferreds ◄─── carrier ─── answers

While one group is flushed the next gathers, at most 256 requests or 16 MiB, so that the load decides the size of the
groups.  A group costs about 500 µs of CPU however small it is (two flushes, 25 index pages, waking the writer), and takes
about 2 ms.  Twenty busy connections make groups of 10 out of that: while ten messages are flushed, ten more arrive.

The next group leaves as soon as the last is answered, before the sessions of that one are told: the committer waits for
nobody then.  Between reactor and committer there is no thread: one that packed, sent and waited for the process cost
35 µs a message and, because it had to get the GIL from a busy reactor twice a group, three quarters of a millisecond.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from livemail.interfaces.runtime import Now
from livemail.mail.content import Content
from livemail.mail.errors import Overloaded, StorageFailed
from livemail.storage.lmdb.committer import Answer, Work
from livemail.storage.lmdb.operations.group import Event, Operation
from livemail.storage.lmdb.operations.stories import KeepStories
from livemail.storage.settings import StorageSettings
from livemail.storage.spool import SpooledContent
from livemail.storage.stories import Pending

MAX_GROUP_REQUESTS = 256
MAX_GROUP_OCTETS = 16 * 1024 * 1024
AfterTurn = Callable[[Callable[[], object]], object]

_log = Logger()


class IReceiver(Protocol):
    """Who hears from a carrier, in the reactor's thread."""

    def answered(self, answers: Sequence[Answer]) -> None:
        """What the eldest group that is under way came to."""

    def lost(self, reason: str) -> None:
        """The committer has died and another has taken its place: each group under way is committed whole, or not at all."""

    def failed(self, reason: str) -> None:
        """The committer is gone for good: no group that is under way, and none to come, will be answered."""

    def ended(self) -> None:
        """All is closed."""


class ICarrier(Protocol):
    """Takes groups to a committer and brings its answers."""

    def begin(self, receiver: IReceiver) -> None:
        """Say who hears; before anything else."""

    def carry(self, works: Sequence[Work], now: int) -> None:
        """Take a group along; it is committed behind those before it.  now: seconds since the epoch."""

    def close(self) -> None:
        """No more groups follow: finish those under way, then `IReceiver.ended`."""


class Request:
    """One operation on its way.  contents: what it brings; frees: whether it makes room on a full disk.

    in_files, moves: as in `livemail.storage.lmdb.committer.Work`.
    """

    __slots__ = ("contents", "deferred", "frees", "in_files", "moves", "octets", "operation", "origin")

    def __init__(
        self,
        operation: Operation,
        origin: object,
        contents: Sequence[Content],
        *,
        frees: bool,
        in_files: frozenset[bytes] = frozenset(),
        moves: bool = False,
    ) -> None:
        self.operation = operation
        self.origin = origin
        self.contents = contents
        self.frees = frees
        self.in_files = in_files
        self.moves = moves
        self.octets = sum(content.size for content in contents if not isinstance(content, SpooledContent))
        self.deferred: Deferred[Any] = Deferred()


class Group:
    """Requests on their way together.  spooled: their spool files by name, as the committer will speak of them."""

    __slots__ = ("requests", "spooled", "works")

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = requests
        self.works = [
            # An origin is an object of this process: the committer names it by the request's place.
            Work(
                index,
                one.operation,
                None if one.origin is None else index,
                one.contents,
                one.frees,
                one.in_files,
                one.moves,
            )
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
        carrier: ICarrier,
        settings: StorageSettings,
        now: Now,
        after_turn: AfterTurn,
        on_answer: Callable[[Sequence[Event], Sequence[int]], None],
    ) -> None:
        """on_answer: called on the reactor's thread before the Deferreds fire, with events and removed segments."""
        self._carrier = carrier
        self._settings = settings
        self._now = now
        self._after_turn = after_turn
        self._on_answer = on_answer
        self._gathered: list[Request] = []
        self._is_waiting = False
        self._under_way: deque[Group] = deque()
        self._queued = 0
        self._queued_octets = 0
        self._failure = ""
        self.stories = Pending()
        self._closed: Deferred[None] | None = None
        carrier.begin(self)

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
        if not self._under_way and not self._is_waiting:
            self._is_waiting = True
            self._after_turn(self._turn_ended)
        return request.deferred

    def _turn_ended(self) -> None:
        """The reactor has served all that was readable."""
        self._is_waiting = False
        self._hand_over()

    def _hand_over(self) -> None:
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
            group = Group(batch)
            self._under_way.append(group)
            self._carrier.carry(group.works, int(self._now()))

    def _stories(self, contents: Iterable[Content]) -> list[Request]:
        """Return the request that keeps the stories which go with these contents, behind those that bring them."""
        rows = self.stories.take(contents)
        if not rows:
            return []
        self._queued += 1
        keeping = Request(KeepStories(rows), None, (), frees=False)
        # A story that cannot be kept is no reason for anything; the disk's own trouble is told by the messages.
        keeping.deferred.addErrback(lambda _: None)
        keeping.deferred.addBoth(lambda _: self.stories.landed(rows))
        return [keeping]

    def flush_stories(self) -> None:
        """Commit the stories that wait, if nothing else takes them along."""
        self.stories.age()
        if self.stories and not self._gathered and not self._failure and self._closed is None:
            for keeping in self._stories(()):
                self._queued -= 1
                self.submit(keeping)

    def close(self) -> Deferred[None]:
        """Finish what is queued; the Deferred fires when all is closed."""
        if self._closed is None:
            self.stories.age()
            self.stories.age()
            self.flush_stories()
            self._closed = Deferred()
            self._hand_over()
            self._carrier.close()
        return self._closed

    # ------------------------------------------------------------------------------------------------------ IReceiver

    def answered(self, answers: Sequence[Answer]) -> None:
        """See `IReceiver.answered`."""
        group = self._under_way.popleft()
        requests = group.requests
        for answer in answers:
            for level, text in answer.notes:
                _log.emit(LogLevel.lookupByName(level), "{text}", text=text)
            for name in answer.adopted:
                group.spooled[name].give_away()
            for name, path in answer.moved.items():
                group.spooled[name].moved(path)
            self._failure = self._failure or answer.failure
        if not self._under_way:
            # Now, so that the committer works on the next group while the sessions of this one are told.
            self._hand_over()
        for answer in answers:
            for event in answer.events:
                if isinstance(event.origin, int):
                    event.origin = requests[event.origin].origin
            self._on_answer(answer.events, answer.removed)
            for index, result, error in answer.results:
                self._settle(requests[index], result, error)

    def lost(self, reason: str) -> None:
        """See `IReceiver.lost`.

        Everybody is refused for now, though it may have been committed: to do it twice is better than not at all.
        """
        groups = list(self._under_way)
        self._under_way.clear()
        for group in groups:
            for name, content in group.spooled.items():
                if not Path(name).exists():
                    content.give_away()
        requests = [request for group in groups for request in group.requests]
        _log.error("{reason}; {count} requests were told to try again", reason=reason, count=len(requests))
        self._hand_over()
        refusal = StorageFailed(reason=reason)
        for request in requests:
            self._settle(request, None, refusal)

    def failed(self, reason: str) -> None:
        """See `IReceiver.failed`."""
        if self._closed is None:
            _log.critical("{reason}; it takes no more writes until livemail is started again", reason=reason)
        self._failure = self._failure or f"{reason}; restart livemail"
        refusal = StorageFailed(reason=self._failure)
        lost = [request for group in self._under_way for request in group.requests] + self._gathered
        self._under_way.clear()
        self._gathered.clear()
        for request in lost:
            self._settle(request, None, refusal)

    def ended(self) -> None:
        """See `IReceiver.ended`."""
        assert self._closed is not None
        self._closed.callback(None)

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
