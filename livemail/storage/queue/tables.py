"""Ordered tables: what the queue's operations need of an engine, and tables in memory that provide it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from livemail.interfaces.storage import Delivered
from livemail.mail.errors import MailError


class Table(Protocol):
    """Octets by octets, in the keys' order."""

    def get(self, key: bytes) -> bytes | None:
        """Return a value."""

    def put(self, key: bytes, value: bytes) -> object:
        """Set a value."""

    def delete(self, key: bytes) -> bool:
        """Remove a key; whether it was there."""

    def scan(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values from ``start`` on.  The table must not be changed before the iterator is done with."""


class Tables(Protocol):
    """The tables of `livemail.storage.queue.records`."""

    @property
    def qmsg(self) -> Table:
        """Messages."""

    @property
    def qrcp(self) -> Table:
        """Recipients."""

    @property
    def qdue(self) -> Table:
        """What waits."""

    @property
    def qrdy(self) -> Table:
        """Destinations by their turn."""

    @property
    def qlea(self) -> Table:
        """Leases."""

    @property
    def qdst(self) -> Table:
        """Destinations."""

    @property
    def meta(self) -> Table:
        """Counters."""


class Contents(Protocol):
    """What the queue needs of the rest of its store, in the same transaction."""

    def reference(self, digest: bytes, count: int) -> None:
        """The queue refers to a content that comes with the operation, or is there already."""

    def dereference(self, digest: bytes, count: int) -> None:
        """It does not any more."""

    def deliver(self, deliveries: object) -> Sequence[Delivered | MailError]:
        """File copies in mailboxes; ``deliveries`` as the engine prepared them (`Delivery` in memory)."""


_BLOCK: Final = 512


class SortedTable:
    """A table in memory: a dict, and its keys in sorted blocks of some hundreds, so that an insertion moves few."""

    __slots__ = ("_blocks", "_firsts", "_values")

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._blocks: list[list[bytes]] = []
        self._firsts: list[bytes] = []

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: bytes) -> bytes | None:
        """Return a value."""
        return self._values.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value."""
        if key not in self._values:
            self._insert(key)
        self._values[key] = value

    def delete(self, key: bytes) -> bool:
        """Remove a key; whether it was there."""
        if self._values.pop(key, None) is None:
            return False
        at = self._block_of(key)
        block = self._blocks[at]
        del block[bisect_left(block, key)]
        if not block:
            del self._blocks[at], self._firsts[at]
        else:
            self._firsts[at] = block[0]
        return True

    def scan(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values from ``start`` on."""
        if not self._blocks:
            return
        at = self._block_of(start)
        first = bisect_left(self._blocks[at], start)
        while at < len(self._blocks):
            block = self._blocks[at]
            for place in range(first, len(block)):
                yield block[place], self._values[block[place]]
            at, first = at + 1, 0

    def _block_of(self, key: bytes) -> int:
        """Return the index of the block a key belongs to; there must be one."""
        return max(0, bisect_left(self._firsts, key + b"\0") - 1)

    def _insert(self, key: bytes) -> None:
        if not self._blocks:
            self._blocks.append([key])
            self._firsts.append(key)
            return
        at = self._block_of(key)
        block = self._blocks[at]
        insort(block, key)
        self._firsts[at] = block[0]
        if len(block) > 2 * _BLOCK:
            self._blocks[at : at + 1] = [block[:_BLOCK], block[_BLOCK:]]
            self._firsts[at : at + 1] = [block[0], block[_BLOCK]]


class SortedTables:
    """The tables in memory."""

    def __init__(self) -> None:
        self.qmsg = SortedTable()
        self.qrcp = SortedTable()
        self.qdue = SortedTable()
        self.qrdy = SortedTable()
        self.qlea = SortedTable()
        self.qdst = SortedTable()
        self.meta = SortedTable()
