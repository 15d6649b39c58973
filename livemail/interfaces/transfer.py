"""Messages that come from another store: taken once, however often and at whatever moment the import is broken off.

An account that can be imported into provides `IImportTarget` beside `IAccount`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from zope.interface import Interface

from livemail.mail.content import Content
from livemail.mail.ids import UID

MAX_SOURCE_ID_OCTETS = 32


class ImportItem(msgspec.Struct, frozen=True):
    """One message.  source_id: 1 to 32 octets that are the message's own within its source, in every run.

    uid: the one it had, taken where the mailbox has given only lower ones; 0 for the next.  internal_date: seconds since
    the epoch, UTC; zone: minutes east of UTC.
    """

    content: Content
    source_id: bytes
    flags: int = 0
    keywords: tuple[str, ...] = ()
    internal_date: int | None = None
    zone: int = 0
    uid: UID = 0


class IImportTarget(Interface):
    """An account that remembers what was imported into it."""

    async def import_messages(
        mailbox: str, source: str, items: Sequence[ImportItem], uid_validity: int = 0
    ) -> Sequence[UID]:
        """Append the messages that ``source`` has not brought before, all or none, in one durable commit.

        source: names where they come from, the mailbox there included.  uid_validity: taken over by a mailbox that never
        had a message; 0 leaves it.  Returns each message's UID, 0 for those that came before.
        Raises NoSuchMailbox, OverQuota, StorageFull, LimitReached (keywords, UIDs).
        """

    async def imported(source: str) -> frozenset[bytes]:
        """The ``source_id`` of everything ``source`` has brought, whether it is still there or not."""
