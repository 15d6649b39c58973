"""CREATE.  RFC 3501 §6.3.3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Create(msgspec.Struct, frozen=True):
    """mailbox: canonical; a trailing separator, which announces inferiors, is gone."""

    mailbox: str


def parse(cursor: Cursor) -> Create:
    """Parse a name.  Raises InvalidName too."""
    cursor.space()
    mailbox = cursor.mailbox()
    cursor.end()
    return Create(mailbox)


async def run(session: Session, command: Create) -> Done:
    """Create the mailbox and its missing superiors.  Raises MailboxExists, InvalidName, LimitReached."""
    await session.account.create_mailbox(command.mailbox)
    return Done("CREATE completed")
