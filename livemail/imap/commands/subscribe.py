"""SUBSCRIBE.  RFC 3501 §6.3.6."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Subscribe(msgspec.Struct, frozen=True):
    """mailbox: canonical; it need not exist."""

    mailbox: str


def parse(cursor: Cursor) -> Subscribe:
    """Parse a name.  Raises InvalidName too."""
    cursor.space()
    mailbox = cursor.mailbox()
    cursor.end()
    return Subscribe(mailbox)


async def run(session: Session, command: Subscribe) -> Done:
    """Add the name to the subscriptions."""
    await session.account.subscribe(command.mailbox, is_subscribed=True)
    return Done("SUBSCRIBE completed")
