"""What happened in an account, after it is durable.  The change feed is made of these.

Contract: ordered by ModSeq per account, never before durability, at least once, own changes included.  ``origin`` is the
`IAccount` handle that asked for the change (None for deliveries), so that a session can tell its own.
"""

from __future__ import annotations

import msgspec

from livemail.mail.ids import MailboxId, ModSeq, UIDSet


class Added(msgspec.Struct, frozen=True):
    """Messages entered a mailbox (delivery, APPEND, COPY, MOVE).  uids: ascending, all above those before them."""

    mailbox: MailboxId
    modseq: ModSeq
    uids: tuple[int, ...]


class FlagsChanged(msgspec.Struct, frozen=True):
    """Flags of messages are now these.  rows: (uid, system flags, keyword bits), UIDs ascending.

    keywords: names of the keyword bits of the mailbox, bit 0 first.
    """

    mailbox: MailboxId
    modseq: ModSeq
    rows: tuple[tuple[int, int, int], ...]
    keywords: tuple[str, ...]


class Expunged(msgspec.Struct, frozen=True):
    """Messages left a mailbox (EXPUNGE, MOVE)."""

    mailbox: MailboxId
    modseq: ModSeq
    uids: UIDSet


class MailboxCreated(msgspec.Struct, frozen=True):
    """A mailbox exists now."""

    mailbox: MailboxId
    modseq: ModSeq
    name: str


class MailboxRenamed(msgspec.Struct, frozen=True):
    """A mailbox has another name; its UIDs and UIDVALIDITY are unchanged."""

    mailbox: MailboxId
    modseq: ModSeq
    old: str
    name: str


class MailboxDeleted(msgspec.Struct, frozen=True):
    """A mailbox and its messages are gone."""

    mailbox: MailboxId
    modseq: ModSeq
    name: str


class Subscribed(msgspec.Struct, frozen=True):
    """A name was subscribed to or unsubscribed from."""

    modseq: ModSeq
    name: str
    is_subscribed: bool


class AccountRemoved(msgspec.Struct, frozen=True):
    """The account is gone; sessions on it end."""

    modseq: ModSeq


Change = (
    Added | FlagsChanged | Expunged | MailboxCreated | MailboxRenamed | MailboxDeleted | Subscribed | AccountRemoved
)
