"""NOOP.  RFC 3501 §6.1.2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Noop(msgspec.Struct, frozen=True):
    """Say what is new."""


def parse(cursor: Cursor) -> Noop:
    """Parse nothing."""
    cursor.end()
    return Noop()


async def run(_session: Session, _command: Noop) -> Done:
    """Do nothing: the session tells what is new at the end of every command."""
    return Done("NOOP completed")
