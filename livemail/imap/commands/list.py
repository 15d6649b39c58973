"""LIST.  RFC 3501 §6.3.8, CHILDREN RFC 3348, SPECIAL-USE RFC 6154 §2."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.listing import Listed, Pattern, listed_mailboxes
from livemail.imap.outcome import Done
from livemail.imap.search_run import Breath

if TYPE_CHECKING:
    from livemail.imap.session import Session

_BATCH: Final = 100


class List(msgspec.Struct, frozen=True):
    """Decoded, not canonical: the pattern has wildcards, either may be empty."""

    reference: str
    pattern: str


def parse(cursor: Cursor) -> List:
    """Parse reference and pattern.  Raises InvalidName too."""
    cursor.space()
    reference = cursor.list_pattern()
    cursor.space()
    pattern = cursor.list_pattern()
    cursor.end()
    return List(reference, pattern)


async def run(session: Session, command: List) -> Done:
    """List the mailboxes; an empty pattern asks for the hierarchy separator only."""
    if not command.pattern:
        session.send(b'* LIST (\\Noselect) "/" ""\r\n')
        return Done("LIST completed")
    pattern = Pattern(command.reference + command.pattern)
    listing = await session.account.mailboxes()
    await send_listed(session, b"LIST", listed_mailboxes(listing.mailboxes, pattern))
    return Done("LIST completed")


async def send_listed(session: Session, word: bytes, listed: Iterator[Listed | None]) -> None:
    """Send one untagged response for each, not faster than the client reads, and let others run in between.

    Ten thousand long names and a pattern made for it take seconds to compare.
    """
    breath = Breath(session.connection.owner.clock, time.thread_time)
    while batch := list(itertools.islice(listed, _BATCH)):
        session.send(b"".join(mailbox.to_wire(word) for mailbox in batch if mailbox is not None))
        if len(batch) == _BATCH:
            await session.drained()
            await breath.take()
