"""UNSUBSCRIBE.  RFC 3501 §6.3.7."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Unsubscribe(msgspec.Struct, frozen=True):
    """mailbox: canonical; it need not exist."""

    mailbox: str


def parse(cursor: Cursor) -> Unsubscribe:
    """Parse a name.  Raises InvalidName too."""
    cursor.space()
    mailbox = cursor.mailbox()
    cursor.end()
    return Unsubscribe(mailbox)


async def run(session: Session, command: Unsubscribe) -> Done:
    """Take the name from the subscriptions."""
    await session.account.subscribe(command.mailbox, is_subscribed=False)
    return Done("UNSUBSCRIBE completed")
