"""COPY and UID COPY.  RFC 3501 §6.4.7, §6.4.8, RFC 4315 §3 COPYUID.

All or nothing in one transaction.  A target that does not exist is NO [TRYCREATE].  Naming UIDs that do not exist is no error
(RFC 3501 §6.4.8): nothing is copied and there is no COPYUID.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.outcome import Done
from livemail.imap.sequence import SequenceSet
from livemail.interfaces.storage import Copied
from livemail.mail.ids import UIDSet

if TYPE_CHECKING:
    from livemail.imap.grammar.cursor import Cursor
    from livemail.imap.session import Session


class Copy(msgspec.Struct, frozen=True):
    """COPY sequence-set mailbox; MOVE has the same shape.  target: canonical name."""

    messages: SequenceSet
    target: str
    uid: bool = False


def parse(cursor: Cursor, uid: bool = False) -> Copy:
    """Parse behind the command word.  Raises WireError, InvalidName."""
    cursor.space()
    messages = cursor.sequence_set()
    cursor.space()
    target = cursor.mailbox()
    cursor.end()
    return Copy(messages, target, uid)


async def run(session: Session, command: Copy) -> Done:
    """Copy with flags, keywords and internal date."""
    view = session.view
    assert view is not None
    uids = view.uid_set(command.messages, uid=command.uid)
    if not uids:
        return Done("COPY completed, no messages")
    return Done("COPY completed", copyuid(await session.account.copy(view.mailbox, uids, command.target)))


def copyuid(copied: Copied) -> bytes:
    """The COPYUID code; b"" when nothing was copied.  RFC 4315 §3.

    Both lists ascend, so the two sets name the pairs in order however their ranges fall.
    """
    if not copied.source:
        return b""
    source, target = UIDSet.of(copied.source).to_wire(), UIDSet.of(copied.target).to_wire()
    return b"COPYUID %d %b %b" % (copied.uid_validity, source, target)
