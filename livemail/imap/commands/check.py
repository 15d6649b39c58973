"""CHECK.  RFC 3501 §6.4.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Check(msgspec.Struct, frozen=True):
    """Ask for a checkpoint."""


def parse(cursor: Cursor) -> Check:
    """Parse nothing."""
    cursor.end()
    return Check()


async def run(_session: Session, _command: Check) -> Done:
    """Do nothing: what was acknowledged is on disk already."""
    return Done("CHECK completed")
