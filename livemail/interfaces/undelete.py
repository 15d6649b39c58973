"""Messages that were expunged and are kept for a while: an account that keeps them provides `IUndelete` beside `IAccount`.

Kept is what an expunge removes, or the deletion of a mailbox; not what was moved, and not what another program took out of a
Maildir.  Kept messages count against no quota; one account's take at most as many octets as its quota allows it of mail.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from zope.interface import Interface

from livemail.mail.ids import UID

KEY_OCTETS = 20


class DeletedMessage(msgspec.Struct, frozen=True):
    """A kept message.

    key: names it, `KEY_OCTETS` octets; ascending keys are ascending times.  deleted: seconds since the epoch.  mailbox, uid,
    flags, keywords: what it had.  size: octets.  internal_date: seconds since the epoch, UTC.  envelope: the parenthesised value
    of ENVELOPE.
    """

    key: bytes
    deleted: int
    mailbox: str
    uid: UID
    size: int
    internal_date: int
    flags: int
    keywords: tuple[str, ...]
    envelope: bytes


class Kept(msgspec.Struct, frozen=True):
    """How much is kept.  octets: of the messages, prefixes included."""

    messages: int
    octets: int


class IUndelete(Interface):
    """An account whose expunged messages can come back."""

    async def kept() -> Kept:
        """How much is kept of this account."""

    async def deleted(after: bytes = b"", limit: int = 1000) -> Sequence[DeletedMessage]:
        """The kept messages behind a key, at most ``limit``, the longest kept first."""

    async def undelete(keys: Sequence[bytes], mailbox: str) -> Sequence[tuple[bytes, UID]]:
        """Bring messages back into a mailbox, made when missing, in one commit; all or none of those that are still kept.

        They get new UIDs; flags but \\Deleted, keywords, dates, email and thread ids are those they had.  Returns key and UID of
        what came back.  Raises OverQuota, LimitReached, InvalidName.
        """

    async def forget_deleted(keys: Sequence[bytes]) -> Kept:
        """Remove kept messages for good; returns how much that was."""
