"""DELETE.  RFC 3501 §6.3.4."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Delete(msgspec.Struct, frozen=True):
    """mailbox: canonical."""

    mailbox: str


def parse(cursor: Cursor) -> Delete:
    """Parse a name.  Raises InvalidName too."""
    cursor.space()
    mailbox = cursor.mailbox()
    cursor.end()
    return Delete(mailbox)


async def run(session: Session, command: Delete) -> Done:
    """Delete the mailbox with its messages.  Raises NoSuchMailbox, NotPermitted (INBOX, or it has inferiors).

    A client that deletes the mailbox it has selected has none selected afterwards.
    """
    await session.account.delete_mailbox(command.mailbox)
    view = session.view
    if view is not None and view.name == command.mailbox:
        session.drop_view()
        session.send(b"* OK [CLOSED] The selected mailbox is deleted\r\n")
    return Done("DELETE completed")
