"""STARTTLS.  RFC 3501 §6.2.1; CVE-2011-0411, CVE-2021-33515."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done
from livemail.mail.errors import WireError

if TYPE_CHECKING:
    from livemail.imap.session import Session


class StartTLS(msgspec.Struct, frozen=True):
    """Go on under TLS."""


def parse(cursor: Cursor) -> StartTLS:
    """Parse nothing."""
    cursor.end()
    return StartTLS()


async def run(session: Session, _command: StartTLS) -> Done:
    """Begin TLS behind the tagged OK, and forget everything said in the clear.

    Raises WireError where TLS is on already or cannot be had.
    """
    if not session.can_start_tls:
        raise WireError("STARTTLS is not possible here")

    async def begin() -> None:
        # False: octets stood behind the command, and the connection is dropped without even the OK.
        if await session.connection.start_tls():
            session.connection.restart()

    return Done("Begin TLS negotiation now", afterwards=begin)
