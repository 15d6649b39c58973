"""CLOSE: expunge without a word, then leave the mailbox.  RFC 3501 §6.4.2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.grammar.cursor import Cursor
    from livemail.imap.session import Session


class Close(msgspec.Struct, frozen=True):
    """CLOSE has no arguments."""


def parse(cursor: Cursor) -> Close:
    """Parse behind the command word.  Raises WireError."""
    cursor.end()
    return Close()


async def run(session: Session, _command: Close) -> Done:
    """Remove what has \\Deleted unless the mailbox is open read-only; nothing is told of it."""
    view = session.view
    assert view is not None
    if not view.read_only and not view.is_gone:
        await session.account.expunge(view.mailbox, None)
    session.drop_view()
    return Done("CLOSE completed")
