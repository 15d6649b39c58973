"""RENAME.  RFC 3501 §6.3.5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Rename(msgspec.Struct, frozen=True):
    """Both canonical."""

    old: str
    new: str


def parse(cursor: Cursor) -> Rename:
    """Parse two names.  Raises InvalidName too."""
    cursor.space()
    old = cursor.mailbox()
    cursor.space()
    new = cursor.mailbox()
    cursor.end()
    return Rename(old, new)


async def run(session: Session, command: Rename) -> Done:
    """Rename with all inferiors; INBOX gives its messages away.

    Raises NoSuchMailbox, MailboxExists, InvalidName, NotPermitted.
    """
    await session.account.rename_mailbox(command.old, command.new)
    return Done("RENAME completed")
