"""STORE and UID STORE.  RFC 3501 §6.4.6, §6.4.8, RFC 7162 §3.1.3.

Without .SILENT the client gets a FETCH for every message it named, changed or not.  With .SILENT it gets one only for
what it cannot know: flags another session had changed meanwhile, and, once CONDSTORE is on, the new ModSeq.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, cast

import msgspec

from livemail.imap.condstore import enable_condstore
from livemail.imap.fetch_items import Items
from livemail.imap.fetch_stream import answer
from livemail.imap.outcome import Done
from livemail.imap.render.rows import RowRenderer, number_rows
from livemail.imap.sequence import SequenceSet
from livemail.interfaces.storage import FetchBatch, Row, Stored
from livemail.mail.errors import MailError, WireError
from livemail.mail.flags import FlagChange
from livemail.mail.ids import ModSeq, UIDSet

if TYPE_CHECKING:
    from livemail.imap.grammar.cursor import Cursor
    from livemail.imap.session import Session
    from livemail.imap.view import View

_BATCH: Final = 1000
_FLAGS: Final = Items(frozenset({"UID", "FLAGS"}))
_FLAGS_MODSEQ: Final = Items(frozenset({"UID", "FLAGS", "MODSEQ"}))


class Store(msgspec.Struct, frozen=True):
    """STORE sequence-set (UNCHANGEDSINCE n) item flags."""

    messages: SequenceSet
    change: FlagChange
    is_silent: bool
    unchanged_since: ModSeq | None = None
    uid: bool = False


def parse(cursor: Cursor, uid: bool = False) -> Store:
    """Parse behind the command word.  Raises WireError; ``\\Recent`` is not a flag a client may store."""
    cursor.space()
    messages = cursor.sequence_set()
    cursor.space()
    unchanged_since = None
    if cursor.take(b"("):
        cursor.expect(b"UNCHANGEDSINCE")
        cursor.space()
        unchanged_since = cursor.number64()
        cursor.expect(b")")
        cursor.space()
    op: Literal["add", "remove", "replace"] = "replace"
    if cursor.take(b"+"):
        op = "add"
    elif cursor.take(b"-"):
        op = "remove"
    item = cursor.word()
    if item not in {"FLAGS", "FLAGS.SILENT"}:
        raise WireError("Expected FLAGS or FLAGS.SILENT")
    cursor.space()
    flags, keywords = cursor.flags()
    cursor.end()
    return Store(messages, FlagChange(op, flags, keywords), item == "FLAGS.SILENT", unchanged_since, uid)


async def run(session: Session, command: Store) -> Done:
    """Change flags in one transaction and answer as the client asked."""
    view = session.view
    assert view is not None
    uids = view.uid_set(command.messages, uid=command.uid)
    refuse_read_only(view)
    if command.unchanged_since is not None:
        enable_condstore(session)
    if not uids:
        return Done("STORE completed, no messages")
    stored = await session.account.store(view.mailbox, uids, command.change, command.unchanged_since)
    is_gone = not command.uid and len(stored.changed) + len(stored.modified) < len(uids.select(view.uids))
    view.learn_keywords(stored.keywords)
    view.tell_keywords(session.send)
    condstore = "CONDSTORE" in session.enabled
    if command.is_silent:
        if condstore:
            _tell_modseq(session, view, stored)
        view.silence((uid for uid, _, _ in stored.changed), stored.modseq)
    elif condstore:
        await answer(session, UIDSet.of(uid for uid, _, _ in stored.changed), _FLAGS_MODSEQ)
        view.answered((uid for uid, _, _ in stored.changed), stored.modseq)
    else:
        await _tell_flags(session, view, stored)
        view.answered((uid for uid, _, _ in stored.changed), stored.modseq)
    if stored.modified:
        await answer(session, stored.modified, _FLAGS_MODSEQ)
        return Done("Conditional STORE: some messages were changed since", _modified(view, command, stored.modified))
    if is_gone:
        return Done("STORE completed; some of the messages are gone", b"EXPUNGEISSUED")
    return Done("STORE completed")


async def _tell_flags(session: Session, view: View, stored: Stored) -> None:
    # A row of Stored is the beginning of a fetched row, and all that these two items look at.
    rows = cast("tuple[Row, ...]", stored.changed)
    renderer = RowRenderer(_FLAGS.rows)
    for start in range(0, len(rows), _BATCH):
        numbers, batch = number_rows(view, FetchBatch(rows[start : start + _BATCH], stored.keywords))
        if numbers:
            session.send(b"".join(renderer.lines(view, numbers, batch)))
            await session.drained()


def _tell_modseq(session: Session, view: View, stored: Stored) -> None:
    """RFC 7162 §3.1.3: .SILENT is silent about flags, never about the ModSeq of what changed."""
    lines = [
        b"* %d FETCH (UID %d MODSEQ (%d))\r\n" % (view.sequence_number(uid) or 0, uid, stored.modseq)
        for uid in sorted(view.changed_uids(stored.modseq))
        if view.sequence_number(uid) is not None
    ]
    if lines:
        session.send(b"".join(lines))


def _modified(view: View, command: Store, uids: UIDSet) -> bytes:
    if command.uid:
        return b"MODIFIED " + uids.to_wire()
    numbers = (view.sequence_number(uid) for uid in uids)
    return b"MODIFIED " + UIDSet.of(number for number in numbers if number is not None).to_wire()


def refuse_read_only(view: View) -> None:
    """Raise MailError when the mailbox was opened with EXAMINE.  RFC 3501 §6.3.2."""
    if view.read_only:
        raise MailError("The mailbox is open read-only", condition="READ-ONLY")
