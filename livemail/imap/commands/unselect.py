"""UNSELECT: leave the mailbox, expunge nothing.  RFC 3691 §2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.grammar.cursor import Cursor
    from livemail.imap.session import Session


class Unselect(msgspec.Struct, frozen=True):
    """UNSELECT has no arguments."""


def parse(cursor: Cursor) -> Unselect:
    """Parse behind the command word.  Raises WireError."""
    cursor.end()
    return Unselect()


async def run(session: Session, _command: Unselect) -> Done:
    """Forget the view."""
    session.drop_view()
    return Done("UNSELECT completed")
