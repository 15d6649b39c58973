"""The queue in the store's own index: one commit files copies in mailboxes and queues what goes elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from livemail.interfaces.queue import Filing, QueueId
from livemail.interfaces.runtime import Now
from livemail.interfaces.storage import Delivered, Delivery
from livemail.mail.errors import MailError, StorageFailed
from livemail.storage.lmdb.content import StoredContent
from livemail.storage.lmdb.operations.deliveries import Deliver
from livemail.storage.lmdb.operations.group import Group
from livemail.storage.lmdb.rows import Transaction
from livemail.storage.lmdb.schema import Environment, Tables
from livemail.storage.queue.provider import QueueOperation, StoreQueue, contents_of
from livemail.storage.queue.transaction import QueueTransaction

if TYPE_CHECKING:
    from livemail.storage.lmdb.store import LMDBStore

T = TypeVar("T")

_log = Logger()


class _Table:
    """A table of a transaction."""

    __slots__ = ("_table", "_txn")

    def __init__(self, txn: Transaction, table: Any) -> None:
        self._txn = txn
        self._table = table

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._txn.get(key, db=self._table)
        return value

    def put(self, key: bytes, value: bytes) -> object:
        return self._txn.put(key, value, db=self._table)

    def delete(self, key: bytes) -> bool:
        return bool(self._txn.delete(key, db=self._table))

    def scan(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._txn.cursor(self._table)
        found = cursor.set_range(start) if start else cursor.first()
        rows: Iterator[tuple[bytes, bytes]] = cursor.iternext() if found else iter(())
        return rows


class QueueTables:
    """The queue's tables in a transaction."""

    __slots__ = ("meta", "qdst", "qdue", "qlea", "qmsg", "qrcp", "qrdy")

    def __init__(self, txn: Transaction, tables: Tables) -> None:
        self.meta = _Table(txn, tables.meta)
        self.qmsg = _Table(txn, tables.qmsg)
        self.qrcp = _Table(txn, tables.qrcp)
        self.qdue = _Table(txn, tables.qdue)
        self.qrdy = _Table(txn, tables.qrdy)
        self.qlea = _Table(txn, tables.qlea)
        self.qdst = _Table(txn, tables.qdst)


class _GroupContents:
    """The rest of the store, as the queue's operations in a group need it."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self.reference = group.reference
        self.dereference = group.dereference

    def deliver(self, deliveries: Any) -> Sequence[Delivered | MailError]:
        return Deliver(deliveries).run(self._group)


class _NoContents:
    """For reading."""

    def reference(self, digest: bytes, count: int) -> None:
        raise AssertionError("a read transaction changes nothing")

    dereference = reference

    def deliver(self, deliveries: Any) -> Sequence[Delivered | MailError]:
        raise AssertionError("a read transaction changes nothing")


class InQueue:
    """A queue's operation as one of the writer's."""

    def __init__(self, operation: QueueOperation) -> None:
        self._operation = operation

    def run(self, group: Group) -> Any:
        """Run it in the group's transaction."""
        queue = group.part
        if not isinstance(queue, QueueTransaction):
            queue = group.part = QueueTransaction(QueueTables(group.txn, group.tables), _GroupContents(group))
        return self._operation.run(queue)


def read_queue(txn: Transaction, tables: Tables) -> QueueTransaction:
    """Return the queue as a snapshot has it."""
    return QueueTransaction(QueueTables(txn, tables), _NoContents())


class LMDBQueue(StoreQueue):
    """The queue of a store on disk."""

    def __init__(
        self, store: LMDBStore, environment: Environment, tables: Tables, now: Now, instance: int, capacity: int
    ) -> None:
        super().__init__(now, instance, capacity)
        self._store = store
        self._environment = environment
        self._tables = tables

    def _do(self, operation: QueueOperation, filings: Sequence[Filing] = (), *, frees: bool = False) -> Deferred[Any]:
        copies = [(each.account, each.content) for filing in filings for each in filing.deliveries]
        in_files = self._store.in_files(copies)
        if in_files:
            # What goes out is read from a segment, whoever else has it in a file.
            in_files -= {each.content.digest for filing in filings for each in filing.outgoing}
        return self._store.write(InQueue(operation), None, contents_of(filings), frees=frees, in_files=in_files)

    def _read(self, read: Callable[[QueueTransaction], T]) -> T:
        if not self._store.is_open:
            raise StorageFailed(reason="the store is closed")
        with self._environment.begin() as txn:
            return read(read_queue(txn, self._tables))

    async def void_leases(self) -> None:
        """The store was opened: what another instance has claimed is due again.

        On a full disk it stays as it is; the runner tries again.
        """
        with self._environment.begin() as txn:
            if not txn.stat(self._tables.qlea)["entries"]:
                return
        try:
            count = await self.reclaim()
        except MailError as error:
            _log.error("claims of a server that is gone could not be made due again: {error}", error=error)
        else:
            _log.info("{count} recipients were claimed by a server that is gone; they are due again", count=count)

    def _prepared(self, deliveries: Sequence[Delivery]) -> Any:
        return self._store.prepared(deliveries)

    def _check_room(self) -> None:
        self._store.disk.refuse_if_full()

    async def open_content(self, id: QueueId) -> StoredContent | None:  # noqa: A002
        """Prefix and content of a message.  Raises StorageFailed when it is damaged."""
        while True:
            row = self._read(lambda queue: queue.message(id))
            if row is None:
                return None
            reader = self._store.reader.open_digest(row.digest, row.prefix)
            # None: the message went, or its content moved, between the two looks.
            if reader is not None:
                return reader
