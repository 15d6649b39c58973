"""Repair: a store that can derive its index anew provides `IMendStore` beside `IMailStore`."""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import Interface

from livemail.interfaces.storage import Repaired


class IMendStore(Interface):
    """A store that can be mended."""

    async def plan_repair() -> Sequence[Repaired]:
        """What `repair` would do; nothing is changed, and sessions may go on."""

    async def repair() -> Sequence[Repaired]:
        """Do it, in one commit.  No session may be open: none is told."""
