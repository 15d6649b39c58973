"""Repair and compaction: a store that can do them provides `IMendStore` beside `IMailStore`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from zope.interface import Interface

from livemail.interfaces.storage import Progress, Repaired


class Compacted(msgspec.Struct, frozen=True):
    """What a compaction did, in octets.

    before, after: what the store's contents took on disk; mail that comes in meanwhile is in ``after``.  returned: of the
    segments that went, less what was copied.  segments: how many went.  moved: copied.  damaged: what could not be read, and
    stays.  deleted: octets of expunged mail that can still come back (`livemail.interfaces.undelete`), and takes room until then.
    """

    before: int
    after: int
    returned: int
    segments: int
    moved: int
    damaged: tuple[str, ...]
    deleted: int = 0


class IMendStore(Interface):
    """A store that can be mended."""

    async def plan_repair() -> Sequence[Repaired]:
        """What `repair` would do; nothing is changed, and sessions may go on."""

    async def repair() -> Sequence[Repaired]:
        """Do it, in one commit.  No session may be open: none is told."""

    async def compact(percent: int | None = None, progress: Progress | None = None) -> Compacted:
        """Give back the space of messages that are gone; sessions may go on.

        percent: of a file's octets that must be dead before it is touched; None for the setting's.
        Raises StorageFull below the disk's reserve, StorageFailed, Overloaded.
        """
