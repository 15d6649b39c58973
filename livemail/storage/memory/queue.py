"""The queue of the memory store: the same operations over sorted tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, succeed

from livemail.interfaces.queue import Filing, QueueId
from livemail.interfaces.runtime import Now
from livemail.interfaces.storage import Delivered, Delivery, Problem
from livemail.mail.errors import MailError
from livemail.storage.memory.content import Body, BodyReader
from livemail.storage.queue.check import QueueCheck
from livemail.storage.queue.provider import QueueOperation, StoreQueue, contents_of
from livemail.storage.queue.records import milliseconds
from livemail.storage.queue.tables import SortedTables
from livemail.storage.queue.transaction import QueueTransaction

if TYPE_CHECKING:
    from livemail.storage.memory.store import MemoryStore

T = TypeVar("T")


class _Contents:
    """The bodies the queue refers to, kept alive by how often it does."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.kept: dict[bytes, tuple[Body, int]] = {}
        self.brought: dict[bytes, Body] = {}

    def reference(self, digest: bytes, count: int) -> None:
        body, references = self.kept.get(digest) or (self.brought[digest], 0)
        self.kept[digest] = (body, references + count)

    def dereference(self, digest: bytes, count: int) -> None:
        body, references = self.kept.pop(digest)
        if references > count:
            self.kept[digest] = (body, references - count)

    def deliver(self, deliveries: Any) -> Sequence[Delivered | MailError]:
        return self._store.deliver_now(deliveries)


class MemoryQueue(StoreQueue):
    """A queue that lives as long as its store."""

    def __init__(self, store: MemoryStore, now: Now, capacity: int) -> None:
        super().__init__(now, 1, capacity)
        self._store = store
        self.tables = SortedTables()
        self._contents = _Contents(store)

    def _do(self, operation: QueueOperation, filings: Sequence[Filing] = (), *, frees: bool = False) -> Deferred[Any]:
        del frees
        self._store.check_open()
        queue = QueueTransaction(self.tables, self._contents)
        self._contents.brought = {content.digest: self._store.body(content) for content in contents_of(filings)}
        try:
            result = operation.run(queue)
            queue.write()
        finally:
            self._contents.brought = {}
        return succeed(result)

    def _read(self, read: Callable[[QueueTransaction], T]) -> T:
        self._store.check_open()
        return read(QueueTransaction(self.tables, self._contents))

    def _prepared(self, deliveries: Sequence[Delivery]) -> Any:
        return deliveries

    def _check_room(self) -> None:
        self._store.check_open()

    async def open_content(self, id: QueueId) -> BodyReader | None:  # noqa: A002
        """Prefix and content of a message."""
        row = self._read(lambda queue: queue.message(id))
        return BodyReader(row.prefix, self._contents.kept[row.digest][0]) if row is not None else None

    def problems(self) -> list[Problem]:
        """Compare the tables with each other, and with the contents that are kept."""
        problems: list[Problem] = []

        def found(kind: str, where: str, detail: str) -> None:
            problems.append(Problem(kind, where, detail))

        check = QueueCheck(self._read(lambda queue: queue), milliseconds(self._now()), self._instance, found)
        for _ in check.run():
            pass
        kept = {digest: count for digest, (_, count) in self._contents.kept.items()}
        if kept != check.references:
            found("content-references", "queue", f"{len(kept)} contents kept, {len(check.references)} referred to")
        return problems

    def clear(self) -> None:
        """Forget everything."""
        self.tables = SortedTables()
        self._contents.kept.clear()
