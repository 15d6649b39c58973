"""LSUB.  RFC 3501 §6.3.9."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.commands import list as list_command
from livemail.imap.grammar.cursor import Cursor
from livemail.imap.listing import Pattern, listed_subscriptions
from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Lsub(msgspec.Struct, frozen=True):
    """As LIST's."""

    reference: str
    pattern: str


def parse(cursor: Cursor) -> Lsub:
    """Parse reference and pattern.  Raises InvalidName too."""
    like = list_command.parse(cursor)
    return Lsub(like.reference, like.pattern)


async def run(session: Session, command: Lsub) -> Done:
    """List the subscriptions."""
    if not command.pattern:
        session.send(b'* LSUB (\\Noselect) "/" ""\r\n')
        return Done("LSUB completed")
    pattern = Pattern(command.reference + command.pattern)
    listing = await session.account.mailboxes()
    await list_command.send_listed(session, b"LSUB", listed_subscriptions(listing.subscribed, pattern))
    return Done("LSUB completed")
