"""Compaction's operations: living contents get a new place, so that the segment they lay in can go."""

from __future__ import annotations

from collections.abc import Sequence

from livemail.storage.lmdb.operations.group import Group
from livemail.storage.lmdb.segments import Location


class Relocate:
    """Contents were written anew, behind the others: the index points there, for those it still looks for in the old place."""

    def __init__(self, places: Sequence[tuple[bytes, Location]]) -> None:
        """places: (digest, old place)."""
        self._places = places

    def run(self, group: Group) -> None:
        """A content that was expunged or moved meanwhile stays as it is; its new octets are dead."""
        for digest, place in self._places:
            group.relocate(digest, place)


class EndTail:
    """Close the tail when enough of it is dead; the next content begins a new segment."""

    def __init__(self, percent: int) -> None:
        self._percent = percent

    def run(self, group: Group) -> None:
        """Done with the commit, when all that the group writes is counted."""
        group.end_tail_from = self._percent
