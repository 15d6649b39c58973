"""EXPUNGE and UID EXPUNGE.  RFC 3501 §6.4.3, RFC 4315 §2.1.

The untagged EXPUNGE responses are the view's: they come out of the change feed like anybody else's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.commands.store import refuse_read_only
from livemail.imap.outcome import Done
from livemail.imap.sequence import SequenceSet

if TYPE_CHECKING:
    from livemail.imap.grammar.cursor import Cursor
    from livemail.imap.session import Session


class Expunge(msgspec.Struct, frozen=True):
    """messages: None for EXPUNGE, else UID EXPUNGE's set."""

    messages: SequenceSet | None = None


def parse(cursor: Cursor, uid: bool = False) -> Expunge:
    """Parse behind the command word.  Raises WireError."""
    messages = None
    if uid:
        cursor.space()
        messages = cursor.sequence_set()
    cursor.end()
    return Expunge(messages)


async def run(session: Session, command: Expunge) -> Done:
    """Remove what has \\Deleted, in one transaction."""
    view = session.view
    assert view is not None
    refuse_read_only(view)
    uids = None if command.messages is None else view.uid_set(command.messages, uid=True)
    if uids is not None and not uids:
        return Done("EXPUNGE completed, no messages")
    gone = await session.account.expunge(view.mailbox, uids)
    if gone and "CONDSTORE" in session.enabled:  # RFC 7162 §3.2.7
        return Done("EXPUNGE completed", b"HIGHESTMODSEQ %d" % view.highest_modseq)
    return Done("EXPUNGE completed")
