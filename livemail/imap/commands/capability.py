"""CAPABILITY.  RFC 3501 §6.1.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.capability import capability_code
from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Capability(msgspec.Struct, frozen=True):
    """Ask what the server can do now."""


def parse(cursor: Cursor) -> Capability:
    """Parse nothing."""
    cursor.end()
    return Capability()


async def run(session: Session, _command: Capability) -> Done:
    """Tell the capabilities of this moment."""
    session.send(b"* " + capability_code(session) + b"\r\n")
    return Done("CAPABILITY completed")
