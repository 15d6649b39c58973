"""ENABLE.  RFC 5161."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Enable(msgspec.Struct, frozen=True):
    """names: upper-case."""

    names: tuple[str, ...]


def parse(cursor: Cursor) -> Enable:
    """Parse one or more capability names."""
    names: list[str] = []
    while not names or not cursor.at_end():
        cursor.space()
        names.append(cursor.atom().upper())
    return Enable(tuple(names))


async def run(session: Session, command: Enable) -> Done:
    """Turn on what can be turned on; the rest is passed over in silence (RFC 5161 §3.1)."""
    has_condstore = "condstore" in session.site.store.capabilities
    enabled = [name for name in dict.fromkeys(command.names) if name == "CONDSTORE" and has_condstore]
    session.enabled.update(enabled)
    session.send(" ".join(["* ENABLED", *enabled]).encode("ascii") + b"\r\n")
    return Done("ENABLE completed")
