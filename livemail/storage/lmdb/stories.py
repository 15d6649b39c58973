"""Looking for stories: a walk from the latest to the oldest, some thousand rows at a time, in any thread."""

from __future__ import annotations

from livemail.interfaces.story import KeptStory
from livemail.storage.lmdb.schema import Environment, Tables
from livemail.storage.stories import unpack_kept

ROWS = 20_000
"""Of one step: about 30 ms."""


class StorySearch:
    """One search.  seen, total: rows."""

    def __init__(self, environment: Environment, tables: Tables, text: bytes) -> None:
        self._environment = environment
        self._table = tables.story
        self._text = text
        self._below: bytes | None = None
        self.is_done = False
        self.seen = 0
        self.total = 0

    def step(self) -> list[tuple[bytes, KeptStory]]:
        """Look through some rows; return (key, story) of what was found among them."""
        found = []
        with self._environment.begin() as txn:
            self.total = max(self.total, txn.stat(self._table)["entries"])
            cursor = txn.cursor(self._table)
            if self._below is None:
                there = cursor.last()
            else:
                there = cursor.prev() if cursor.set_range(self._below) else cursor.last()
            for _ in range(ROWS):
                if not there:
                    self.is_done = True
                    break
                row = bytes(cursor.value())
                self._below = bytes(cursor.key())
                self.seen += 1
                if self._text in row:
                    found.append((self._below, unpack_kept(row)))
                there = cursor.prev()
        return found
