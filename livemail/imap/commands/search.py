"""SEARCH and UID SEARCH.  RFC 3501 §6.4.4, §6.4.8, RFC 7162 §3.1.5.

Messages expunged by another session and not yet told are not found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.condstore import enable_condstore
from livemail.imap.outcome import Done
from livemail.imap.search_keys import Program, parse_program
from livemail.imap.search_run import Breath
from livemail.imap.search_run import Search as Running

if TYPE_CHECKING:
    from livemail.imap.grammar.cursor import Cursor
    from livemail.imap.session import Session


class Search(msgspec.Struct, frozen=True):
    """SEARCH [CHARSET charset] keys."""

    program: Program
    uid: bool = False


def parse(cursor: Cursor, uid: bool = False) -> Search:
    """Parse behind the command word.  Raises WireError, MailError (BADCHARSET)."""
    cursor.space()
    return Search(parse_program(cursor), uid)


async def run(session: Session, command: Search) -> Done:
    """Find, and answer with one untagged SEARCH."""
    view = session.view
    assert view is not None
    if command.program.has_modseq:
        enable_condstore(session)
    running = Running(session, Breath(session.connection.owner.clock, session.site.now))
    await running.run(command.program.resolve(view))
    numbers = running.found if command.uid else map(view.sequence_number, running.found)
    found = [b"%d" % number for number in numbers if number is not None]
    line = b" ".join([b"* SEARCH", *found])
    if command.program.has_modseq and found:
        line += b" (MODSEQ %d)" % running.modseq
    session.send(line + b"\r\n")
    return Done("SEARCH completed")
