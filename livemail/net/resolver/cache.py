"""What DNS said, for as long as it holds, in bounded memory: the answer used longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec

from livemail.net.resolver.message import Question

_ENTRY_OCTETS: Final = 500
"""What an entry without records costs, measured generously."""


class Entry(msgspec.Struct, frozen=True):
    """An answer, or a failure with the reason for it.  until: on the cache's clock."""

    until: float
    records: tuple[Any, ...] = ()
    exists: bool = True
    is_secure: bool = False
    canonical: str = ""
    failure: str = ""

    @property
    def octets(self) -> int:
        """How much memory it takes, about."""
        return _ENTRY_OCTETS + sum(_octets(record) for record in self.records) + len(self.canonical) + len(self.failure)


def _octets(record: Any) -> int:
    if isinstance(record, tuple):
        return 60 + sum(_octets(part) for part in record)
    return 60 + (len(record) if isinstance(record, (str, bytes)) else 0)


class Cache:
    """Entries by question."""

    def __init__(self, seconds: Callable[[], float], *, entries: int, octets: int) -> None:
        """entries, octets: bounds; 0 of either remembers nothing."""
        self._seconds = seconds
        self._max_entries = entries
        self._max_octets = octets
        self._entries: OrderedDict[Question, Entry] = OrderedDict()
        self.octets = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, question: Question) -> Entry | None:
        """Return what still holds."""
        entry = self._entries.get(question)
        if entry is None:
            return None
        if entry.until <= self._seconds():
            self._drop(question)
            return None
        self._entries.move_to_end(question)
        return entry

    def put(self, question: Question, entry: Entry) -> None:
        """Remember, and forget what was used longest ago while there is too much."""
        if question in self._entries:
            self._drop(question)
        if entry.until <= self._seconds():
            return
        self._entries[question] = entry
        self.octets += entry.octets
        while self._entries and (len(self._entries) > self._max_entries or self.octets > self._max_octets):
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.octets = 0

    def _drop(self, question: Question) -> None:
        self.octets -= self._entries.pop(question).octets
