"""LOGOUT.  RFC 3501 §6.1.3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Logout(msgspec.Struct, frozen=True):
    """End the connection."""


def parse(cursor: Cursor) -> Logout:
    """Parse nothing."""
    cursor.end()
    return Logout()


async def run(session: Session, _command: Logout) -> Done:
    """Say BYE, then OK, then close."""
    # No view from here on: nobody tells of new mail between BYE and OK.
    session.drop_view()
    session.send(b"* BYE Logging out\r\n")

    async def close() -> None:
        session.connection.close()

    return Done("LOGOUT completed", afterwards=close)
