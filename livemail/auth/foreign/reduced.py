"""An account that is not in our storage: whatever its adapter does not give is refused, not imitated."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import NoReturn

from zope.interface import implementer

from livemail.interfaces.storage import (
    AccountRecord,
    Appended,
    AppendItem,
    Changes,
    Copied,
    FetchBatch,
    FetchWant,
    IAccount,
    IChangeListener,
    IContentReader,
    IWatch,
    MailboxInfo,
    MailboxList,
    Selected,
    Stored,
)
from livemail.mail.errors import CannotCalculate, NotPermitted
from livemail.mail.flags import FlagChange
from livemail.mail.ids import UID, AccountId, MailboxId, ModSeq, UIDSet


def foreign_record(authcid: str) -> AccountRecord:
    """Make the record of an account we know by its login only; its id is above 2^32, where none of ours is."""
    digest = hashlib.blake2b(authcid.encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return AccountRecord(AccountId((1 << 60) | int.from_bytes(digest, "big")), authcid, "", 0)


def _refuse() -> NoReturn:
    raise NotPermitted("Not available for this account")


@implementer(IContentReader)
class OctetsReader:
    """A message whose octets are at hand."""

    def __init__(self, octets: bytes) -> None:
        self.size = len(octets)
        self.prefix_size = 0
        self._octets = octets

    async def read(self, offset: int, length: int) -> bytes:
        """See `IContentReader`."""
        return self._octets[offset : offset + length]

    def close(self) -> None:
        """See `IContentReader`."""
        self._octets = b""


@implementer(IWatch)
class _NoWatch:
    def stop(self) -> None:
        """Nothing was begun."""


@implementer(IAccount)
class ReducedAccount:
    """Refuses everything; adapters override what they can do.  Nothing is ever reported as changed."""

    def __init__(self, record: AccountRecord) -> None:
        self.id = record.id
        self.name = record.name

    async def mailboxes(self) -> MailboxList:
        _refuse()

    async def mailbox(self, name: str) -> MailboxInfo:
        _refuse()

    async def create_mailbox(self, name: str, special_use: str = "") -> MailboxInfo:
        _refuse()

    async def rename_mailbox(self, old: str, new: str) -> None:
        _refuse()

    async def delete_mailbox(self, name: str) -> None:
        _refuse()

    async def subscribe(self, name: str, is_subscribed: bool) -> None:
        _refuse()

    async def select(self, name: str, claim_recent: bool) -> Selected:
        _refuse()

    async def claim_recent(self, mailbox: MailboxId, up_to: UID) -> UID:
        _refuse()

    async def append(self, mailbox: str, items: Sequence[AppendItem]) -> Appended:
        _refuse()

    async def fetch(self, mailbox: MailboxId, uids: UIDSet, want: FetchWant) -> AsyncIterator[FetchBatch]:
        _refuse()
        yield FetchBatch((), ())  # makes this an asynchronous generator

    async def open_content(self, mailbox: MailboxId, uid: UID) -> IContentReader | None:
        _refuse()

    async def store(
        self, mailbox: MailboxId, uids: UIDSet, change: FlagChange, unchanged_since: ModSeq | None = None
    ) -> Stored:
        _refuse()

    async def copy(self, mailbox: MailboxId, uids: UIDSet, target: str) -> Copied:
        _refuse()

    async def move(self, mailbox: MailboxId, uids: UIDSet, target: str) -> Copied:
        _refuse()

    async def expunge(self, mailbox: MailboxId, uids: UIDSet | None, only_deleted: bool = True) -> UIDSet:
        _refuse()

    async def changes(self, mailbox: MailboxId, since: ModSeq) -> Changes:
        raise CannotCalculate

    def watch(self, listener: IChangeListener) -> IWatch:
        return _NoWatch()
