"""What makes a client CONDSTORE-aware in the middle of a session.  RFC 7162 §3.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from livemail.imap.session import Session


def enable_condstore(session: Session) -> None:
    """A CONDSTORE enabling command came: from now on untagged FETCH carries MODSEQ.  RFC 7162 §3.1.

    The first one in the selected state is told the mailbox's HIGHESTMODSEQ.
    """
    if "CONDSTORE" in session.enabled:
        return
    session.enabled.add("CONDSTORE")
    view = session.view
    if view is not None:
        session.send(b"* OK [HIGHESTMODSEQ %d] Highest\r\n" % view.highest_modseq)
