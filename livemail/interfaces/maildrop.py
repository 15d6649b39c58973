"""A maildrop's messages as POP3 needs them: numbered, sized, readable, removed together.  RFC 1939 §5, §6.

POP3 makes this of any account's INBOX.  An account that is not kept in our storage (a foreign realm's POP3 mailbox) provides
`IMaildropOwner` beside `IAccount` and gives its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import Attribute, Interface

from livemail.interfaces.storage import IContentReader


class IMaildrop(Interface):
    """The messages that were there when the maildrop was locked; positions are 0-based and do not move."""

    sizes = Attribute("octets of each message, in order: Sequence[int]")

    def unique_id(position: int) -> bytes:
        """1 to 70 octets from 0x21 to 0x7E; the same for the life of the message, and never another's.  RFC 1939 §7."""

    async def header_size(position: int) -> int:
        """Octets up to and including the blank line."""

    async def open(position: int) -> IContentReader | None:
        """Open a message; None when it is gone (removed by another session).  The caller closes it."""

    async def remove(positions: Sequence[int]) -> None:
        """Remove messages for good, all or none; those already gone count as removed.  Raises MailError."""


class IMaildropOwner(Interface):
    """An account that has a maildrop of its own kind."""

    async def open_maildrop() -> IMaildrop:
        """List the messages.  Raises MailError."""
