"""NAMESPACE.  RFC 2342."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Namespace(msgspec.Struct, frozen=True):
    """Ask where mailboxes are."""


def parse(cursor: Cursor) -> Namespace:
    """Parse nothing."""
    cursor.end()
    return Namespace()


async def run(session: Session, _command: Namespace) -> Done:
    """One personal namespace without prefix; no other users', no shared ones."""
    session.send(b'* NAMESPACE (("" "/")) NIL NIL\r\n')
    return Done("NAMESPACE completed")
