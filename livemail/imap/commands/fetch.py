"""FETCH and UID FETCH.  RFC 3501 §6.4.5, §6.4.8, RFC 7162 §3.1.4.

A message expunged by another session whose EXPUNGE the client has not seen yet is left out; when the client named it by
sequence number the reply says why (RFC 2180 §4.1.1, RFC 5530 §3 EXPUNGEISSUED).

\\Seen is set when the content has been sent, not before: a client that lost its connection in the middle finds the
message unread.  The change is told by a FETCH of its own behind the content (RFC 3501 §6.4.5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from twisted.logger import Logger

from livemail.imap.condstore import enable_condstore
from livemail.imap.fetch_items import Items, parse_changed_since, parse_items
from livemail.imap.fetch_stream import answer
from livemail.imap.outcome import Done
from livemail.imap.sequence import SequenceSet
from livemail.mail.errors import MailError
from livemail.mail.flags import SEEN, FlagChange
from livemail.mail.ids import ModSeq, UIDSet

if TYPE_CHECKING:
    from livemail.imap.grammar.cursor import Cursor
    from livemail.imap.session import Session

_SEEN: Final = FlagChange("add", SEEN)

log = Logger("livemail.imap.fetch")


class Fetch(msgspec.Struct, frozen=True):
    """FETCH sequence-set items (CHANGEDSINCE n).  changed_since: None when absent."""

    messages: SequenceSet
    items: Items
    changed_since: ModSeq | None = None
    uid: bool = False


def parse(cursor: Cursor, uid: bool = False) -> Fetch:
    """Parse behind the command word.  Raises WireError."""
    cursor.space()
    messages = cursor.sequence_set()
    cursor.space()
    items = parse_items(cursor)
    changed_since = parse_changed_since(cursor)
    cursor.end()
    rows = items.rows
    if uid:
        rows |= {"UID"}
    if changed_since is not None:
        rows |= {"MODSEQ"}  # RFC 7162 §3.1.4.1
    return Fetch(messages, Items(rows, items.sections), changed_since, uid)


async def run(session: Session, command: Fetch) -> Done:
    """Answer for every message that is there."""
    view = session.view
    assert view is not None
    uids = view.uid_set(command.messages, uid=command.uid)
    if "MODSEQ" in command.items.rows:
        enable_condstore(session)
    result = await answer(session, uids, command.items, command.changed_since or 0)
    if result.unseen and not view.read_only:
        try:
            await session.account.store(view.mailbox, UIDSet.of(result.unseen), _SEEN)
        except MailError as error:
            # The client has its message; that a full disk cannot note it is no reason to say it has not.
            log.warn("{session}: \\Seen not set: {reason}", session=session.connection.session_id, reason=str(error))
    if result.failure is not None:
        raise result.failure
    if not command.uid and command.changed_since is None and result.count < len(uids.select(view.uids)):
        return Done("FETCH completed; some of the messages are gone", b"EXPUNGEISSUED")
    return Done("FETCH completed")
