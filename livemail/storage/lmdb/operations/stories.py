"""Stories are kept: the last operation of a group, so that it knows where copies were filed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from livemail.storage.lmdb.operations.group import Group
from livemail.storage.stories import Row, pack_kept

TRIM_ABOVE: Final = 64
"""Rows beyond the limit at which the oldest are removed: one walk for many."""


class KeepStories:
    """Put stories, and remove the oldest that are too many or too old."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def run(self, group: Group) -> None:
        """Do it."""
        txn, table = group.txn, group.tables.story
        for key, digest, story in self._rows:
            places = group.filed.get(digest, []) if digest else []
            if not places and not digest:
                known = txn.get(key, db=table)
                if known is not None:  # what became of a message that was filed for some
                    places = _places_of(known)
            txn.put(key, pack_kept(story, places), db=table)
        self._trim(group)

    @staticmethod
    def _trim(group: Group) -> None:
        settings = group.settings
        txn, table = group.txn, group.tables.story
        surplus = txn.stat(table)["entries"] - settings.story_rows
        oldest = b"%x" % max(0, int(group.now - settings.story_time))
        cursor = txn.cursor(table)
        if surplus < TRIM_ABOVE and not (cursor.first() and bytes(cursor.key())[: len(oldest)] < oldest):
            return
        removed = 0
        alive = cursor.first()
        while alive and removed < 4 * TRIM_ABOVE and (removed < surplus or bytes(cursor.key())[: len(oldest)] < oldest):
            alive = cursor.delete()
            removed += 1


def _places_of(row: bytes) -> list[tuple[int, int, int]]:
    from livemail.storage.stories import unpack_kept

    return [(place.account, place.mailbox, place.uid) for place in unpack_kept(row).places]
