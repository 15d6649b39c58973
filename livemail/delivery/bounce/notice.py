"""What is to be reported, and whether anybody wants to hear of it.  RFC 3461 §4.1, §5.2, §6; RFC 5321 §4.5.5, §6.1.

A message with the null reverse-path is never reported on to anybody but our postmaster (a double bounce), and a message to
that postmaster not even to him: that is how it ends.  NOTIFY=NEVER is silence.  Nothing refused within a session comes here
at all: whoever was refused has the duty to report.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from livemail.interfaces.relay import Reply
from livemail.interfaces.storage import IContentReader
from livemail.mail.content import Content
from livemail.mail.envelope import Envelope, Recipient, ReversePath

Action = Literal["failed", "delayed", "delivered", "relayed", "expanded"]
"""RFC 3464 §2.3.3."""

Read = Callable[[int, int], Awaitable[bytes]]
"""The octets [offset, offset+length) of the original message, fewer at its end."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one recipient.

    reply: the last thing heard, or said by us (`Reply.is_remote`).  host: who said it, "" for nobody.  attempted: when, seconds since the
    epoch, 0 for never.  retry_until: until when a delayed one is tried.
    """

    recipient: Recipient
    action: Action
    reply: Reply
    host: str = ""
    attempted: float = 0.0
    retry_until: float = 0.0


class Original(msgspec.Struct, frozen=True):
    """The message that is reported on.

    id: what Received and the log call it.  arrived: when we took it, seconds since the epoch.  size: octets that ``read`` reads from.
    """

    id: str
    reverse_path: ReversePath
    arrived: float
    size: int
    read: Read

    @classmethod
    def of_reader(
        cls,
        id: str,  # noqa: A002
        reverse_path: ReversePath,
        arrived: float,
        reader: IContentReader,
        offset: int = 0,
    ) -> Original:
        """Of stored content; offset: octets in front of the message that are not part of it.  The reader stays the caller's."""

        async def read(at: int, length: int) -> bytes:
            return await reader.read(at + offset, length)

        return cls(id, reverse_path, arrived, reader.size - offset, read)

    @classmethod
    def of_content(cls, id: str, reverse_path: ReversePath, arrived: float, content: Content) -> Original:  # noqa: A002
        """Of content that is not stored yet."""

        async def read(at: int, length: int) -> bytes:
            return content.read(at, length)

        return cls(id, reverse_path, arrived, content.size, read)


class Report(msgspec.Struct, frozen=True):
    """A message of ours, complete: to be delivered to its envelope as any other.  outcomes: those it tells of."""

    id: str
    envelope: Envelope
    octets: bytes
    outcomes: tuple[Outcome, ...]
    is_double_bounce: bool = False


def is_wanted(recipient: Recipient, action: Action) -> bool:
    """Whether NOTIFY asks for a report of an action.  RFC 3461 §4.1; without NOTIFY failures and delays are reported."""
    notify = recipient.notify
    if action == "failed":
        return not notify or "FAILURE" in notify
    if action == "delayed":
        return not notify or "DELAY" in notify
    return "SUCCESS" in notify
