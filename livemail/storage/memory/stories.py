"""Stories of mail transactions, the latest ones."""

from __future__ import annotations

from collections.abc import Sequence

from livemail.interfaces.story import KeptStory, StoryPlace


class Stories:
    """A bounded table in the order of its keys' arrival."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[str, KeptStory] = {}
        self._waiting: dict[bytes, str] = {}

    def note(self, transaction: str, story: bytes, digest: bytes) -> None:
        """Keep one; a later one of the same transaction keeps its places."""
        known = self._kept.get(transaction)
        self._kept[transaction] = KeptStory(story, known.places if known is not None else ())
        if digest:
            self._waiting[digest] = transaction
        while len(self._kept) > self._limit:
            del self._kept[next(iter(self._kept))]
        while len(self._waiting) > self._limit:
            del self._waiting[next(iter(self._waiting))]

    def filed(self, digest: bytes, places: Sequence[StoryPlace]) -> None:
        """A content was filed."""
        transaction = self._waiting.pop(digest, None)
        known = self._kept.get(transaction) if transaction is not None else None
        if known is not None and transaction is not None:
            self._kept[transaction] = KeptStory(known.story, (*known.places, *places))

    def get(self, transaction: str) -> KeptStory | None:
        """One story."""
        return self._kept.get(transaction)

    def find(self, text: bytes, limit: int) -> list[KeptStory]:
        """Those that contain some octets, the latest first."""
        return [kept for kept in reversed(self._kept.values()) if text in kept.story][:limit]
