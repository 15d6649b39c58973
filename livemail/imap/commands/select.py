"""SELECT.  RFC 3501 §6.3.1, RFC 7162 §3.1.2, §3.1.8.

A SELECT that fails leaves no mailbox selected (RFC 3501 §6.3.1), so the old view goes first; CLOSED tells where its
responses end (RFC 7162 §3.2.11).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.outcome import Done
from livemail.imap.recent import RecentClaims
from livemail.imap.render.flags import flags_line, permanent_flags_line
from livemail.imap.view import View
from livemail.mail.errors import WireError

if TYPE_CHECKING:
    from livemail.imap.grammar.cursor import Cursor
    from livemail.imap.session import Session


class Select(msgspec.Struct, frozen=True):
    """SELECT or EXAMINE.  name: canonical.  condstore: the parameter was there."""

    name: str
    read_only: bool = False
    condstore: bool = False


def parse(cursor: Cursor) -> Select:
    """Parse behind the command word.  Raises WireError, InvalidName."""
    return parse_select(cursor, read_only=False)


def parse_select(cursor: Cursor, *, read_only: bool) -> Select:
    """Parse the arguments SELECT and EXAMINE share.  RFC 4466 §2.4 select-params."""
    cursor.space()
    name = cursor.mailbox()
    condstore = False
    if not cursor.at_end():
        cursor.space()
        cursor.expect(b"(")
        if cursor.word() != "CONDSTORE":
            raise WireError("Unknown parameter of SELECT")
        condstore = True
        cursor.expect(b")")
    cursor.end()
    return Select(name, read_only, condstore)


async def run(session: Session, command: Select) -> Done:
    """Open the mailbox and say what is in it."""
    if session.view is not None:
        session.drop_view()
        session.send(b"* OK [CLOSED] Previous mailbox closed\r\n")
    if command.condstore:
        session.enabled.add("CONDSTORE")
    read_only = command.read_only
    selected = await session.account.select(command.name, claim_recent=not read_only)
    view = View(selected, read_only=read_only, claim=None if read_only else RecentClaims(session.account))
    info = selected.info
    lines = [
        flags_line(info.keywords),
        b"* %d EXISTS\r\n* %d RECENT\r\n" % (len(view.uids), view.recent),
        permanent_flags_line(info.keywords, read_only=read_only),
        b"* OK [UIDVALIDITY %d] UIDs valid\r\n" % info.uid_validity,
        b"* OK [UIDNEXT %d] Next UID\r\n" % info.uid_next,
        b"* OK [HIGHESTMODSEQ %d] Highest\r\n" % info.highest_modseq,
    ]
    if selected.first_unseen:
        lines.insert(2, b"* OK [UNSEEN %d] First unseen\r\n" % selected.first_unseen)
    session.send(b"".join(lines))
    session.select_view(view)
    if read_only:
        return Done("EXAMINE completed", b"READ-ONLY")
    return Done("SELECT completed", b"READ-WRITE")
