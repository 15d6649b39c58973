"""MOVE and UID MOVE.  RFC 6851 §3.

One transaction moves everything or nothing.  COPYUID comes untagged, before the EXPUNGEs the view sends (§4.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from livemail.imap.commands.copy import Copy, copyuid, parse
from livemail.imap.commands.store import refuse_read_only
from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.session import Session

__all__ = ["parse", "run"]


async def run(session: Session, command: Copy) -> Done:
    """Move; into the same mailbox it gives new UIDs."""
    view = session.view
    assert view is not None
    uids = view.uid_set(command.messages, uid=command.uid)
    refuse_read_only(view)
    if not uids:
        return Done("MOVE completed, no messages")
    code = copyuid(await session.account.move(view.mailbox, uids, command.target))
    if code:
        session.send(b"* OK [%b] Moved\r\n" % code)
        if "CONDSTORE" in session.enabled:  # RFC 7162 §3.2.7, RFC 6851 §4.4
            return Done("MOVE completed", b"HIGHESTMODSEQ %d" % view.highest_modseq)
    return Done("MOVE completed")
