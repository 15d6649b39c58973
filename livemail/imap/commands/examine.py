"""EXAMINE: SELECT that changes nothing, not even \\Recent.  RFC 3501 §6.3.2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livemail.imap.commands.select import Select, parse_select, run

if TYPE_CHECKING:
    from livemail.imap.grammar.cursor import Cursor

__all__ = ["parse", "run"]


def parse(cursor: Cursor) -> Select:
    """Parse behind the command word.  Raises WireError, InvalidName."""
    return parse_select(cursor, read_only=True)
