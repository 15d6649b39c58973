"""One account's mailboxes: reads from the index at once, writes through the writer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import msgspec
from zope.interface import implementer

from livemail.interfaces.storage import (
    Appended,
    AppendItem,
    Changes,
    Copied,
    FetchBatch,
    FetchWant,
    IAccount,
    IChangeListener,
    IContentReader,
    MailboxInfo,
    MailboxList,
    Selected,
    Stored,
)
from livemail.interfaces.transfer import IImportTarget, ImportItem
from livemail.interfaces.undelete import DeletedMessage, IUndelete, Kept
from livemail.mail.flags import FlagChange
from livemail.mail.ids import UID, AccountId, MailboxId, ModSeq, UIDSet
from livemail.storage.lmdb.deleted.operations import LetGo, Undelete
from livemail.storage.lmdb.feed import Watch
from livemail.storage.lmdb.operations.deliveries import Append, Item, prepare
from livemail.storage.lmdb.operations.imports import ImportMessages, source_key
from livemail.storage.lmdb.operations.mailboxes import (
    ClaimRecent,
    CreateMailbox,
    DeleteMailbox,
    RenameMailbox,
    Subscribe,
)
from livemail.storage.lmdb.operations.messages import Expunge, StoreFlags, Transfer
from livemail.storage.lmdb.records import U32

if TYPE_CHECKING:
    from livemail.storage.lmdb.store import LMDBStore


@implementer(IAccount, IImportTarget, IUndelete)
class LMDBAccount:
    """A handle; each session has its own, so that changes name their origin."""

    def __init__(self, store: LMDBStore, id_: AccountId, name: str) -> None:
        self.id = id_
        self.name = name
        self._store = store

    # ---------------------------------------------------------------------------------------------------- mailboxes

    async def mailboxes(self) -> MailboxList:
        """Return every mailbox with its counters, and the subscriptions."""
        return self._store.reader.mailboxes(self.id)

    async def mailbox(self, name: str) -> MailboxInfo:
        """Return one mailbox.  Raises NoSuchMailbox."""
        return self._store.reader.mailbox(self.id, name)

    async def create_mailbox(self, name: str, special_use: str = "") -> MailboxInfo:
        """Create a mailbox and its missing superiors.  Raises MailboxExists, InvalidName, LimitReached, StorageFull."""
        self._store.disk.refuse_if_full()
        info: MailboxInfo = await self._store.write(CreateMailbox(self.id, name, special_use), self)
        return info

    async def rename_mailbox(self, old: str, new: str) -> None:
        """Rename with all inferiors.  Raises NoSuchMailbox, MailboxExists, InvalidName, NotPermitted."""
        await self._store.write(RenameMailbox(self.id, old, new), self)

    async def delete_mailbox(self, name: str) -> None:
        """Delete a mailbox and its messages.  Raises NoSuchMailbox, NotPermitted."""
        await self._store.write(DeleteMailbox(self.id, name), self, frees=True)

    async def subscribe(self, name: str, is_subscribed: bool) -> None:
        """Add or remove a name from the subscriptions."""
        await self._store.write(Subscribe(self.id, name, is_subscribed), self)

    async def select(self, name: str, claim_recent: bool) -> Selected:
        """Open a mailbox.  Raises NoSuchMailbox."""
        reader = self._store.reader
        found = reader.select(self.id, name, may_last=False)
        if found is None:
            found = await self._store.in_thread(reader.select, self.id, name)
            assert found is not None
        selected, note = found
        info = selected.info
        if note is not None:
            self._store.note_opening((self.id, info.id), note)
        # Nothing new, nothing to claim: a SELECT without a write suspends nowhere.
        if not claim_recent or info.recent_from >= info.uid_next:
            return selected
        recent_from = await self.claim_recent(info.id, info.uid_next)
        return msgspec.structs.replace(selected, info=msgspec.structs.replace(info, recent_from=recent_from))

    async def claim_recent(self, mailbox: MailboxId, up_to: UID) -> UID:
        """Take the \\Recent of messages below ``up_to``; return recent_from as it was before."""
        before: UID = await self._store.write(ClaimRecent(self.id, mailbox, up_to), self)
        return before

    # ----------------------------------------------------------------------------------------------------- messages

    async def append(self, mailbox: str, items: Sequence[AppendItem]) -> Appended:
        """Append messages, all or none.  Raises NoSuchMailbox, OverQuota, StorageFull, LimitReached."""
        self._store.disk.refuse_if_full()
        prepared = [
            Item(self.id, mailbox, prepare(item.content), b"", item.flags, item.keywords, item.internal_date, item.zone)
            for item in items
        ]
        contents = [item.content for item in items]
        in_files = self._store.in_files([(self.id, item.content) for item in items])
        appended: Appended = await self._store.write(
            Append(self.id, mailbox, prepared), self, contents, in_files=in_files
        )
        return appended

    async def import_messages(
        self, mailbox: str, source: str, items: Sequence[ImportItem], uid_validity: int = 0
    ) -> Sequence[UID]:
        """Append what the source has not brought before.  Raises NoSuchMailbox, OverQuota, StorageFull, LimitReached."""
        self._store.disk.refuse_if_full()
        prepared = [
            (
                one.source_id,
                one.uid,
                Item(self.id, mailbox, prepare(one.content), b"", one.flags, one.keywords, one.internal_date, one.zone),
            )
            for one in items
        ]
        contents = [one.content for one in items]
        in_files = self._store.in_files([(self.id, content) for content in contents])
        operation = ImportMessages(self.id, mailbox, source, prepared, uid_validity)
        uids: Sequence[UID] = await self._store.write(operation, self, contents, in_files=in_files)
        return uids

    async def imported(self, source: str) -> frozenset[bytes]:
        """Return the ids of everything the source has brought."""
        return self._store.reader.imported(source_key(self.id, source))

    async def fetch(self, mailbox: MailboxId, uids: UIDSet, want: FetchWant) -> AsyncIterator[FetchBatch]:
        """Read messages in UID order.  Raises NoSuchMailbox."""
        for batch in self._store.reader.fetch(self.id, mailbox, uids, want):
            yield batch

    async def open_content(self, mailbox: MailboxId, uid: UID) -> IContentReader | None:
        """Open one message for reading; None when it does not exist."""
        return self._store.reader.open_content(self.id, mailbox, uid)

    async def store(
        self, mailbox: MailboxId, uids: UIDSet, change: FlagChange, unchanged_since: ModSeq | None = None
    ) -> Stored:
        """Change flags under one ModSeq.  Raises NoSuchMailbox, LimitReached."""
        operation = StoreFlags(self.id, mailbox, uids, change, unchanged_since)
        stored: Stored = await self._store.write(operation, self, frees=True)
        return stored

    async def copy(self, mailbox: MailboxId, uids: UIDSet, target: str) -> Copied:
        """Copy, all or none.  Raises NoSuchMailbox, OverQuota, LimitReached, StorageFull."""
        self._store.disk.refuse_if_full()
        copied: Copied = await self._store.write(Transfer(self.id, mailbox, uids, target, is_move=False), self)
        return copied

    async def move(self, mailbox: MailboxId, uids: UIDSet, target: str) -> Copied:
        """Move in one transaction.  Raises NoSuchMailbox, LimitReached."""
        operation = Transfer(self.id, mailbox, uids, target, is_move=True)
        copied: Copied = await self._store.write(operation, self, frees=True)
        return copied

    async def expunge(self, mailbox: MailboxId, uids: UIDSet | None, only_deleted: bool = True) -> UIDSet:
        """Remove messages.  Raises NoSuchMailbox."""
        operation = Expunge(self.id, mailbox, uids, only_deleted=only_deleted)
        removed: UIDSet = await self._store.write(operation, self, frees=True)
        return removed

    async def kept(self) -> Kept:
        """How much of this account was expunged and is kept."""
        return self._store.reader.kept(self.id)

    async def deleted(self, after: bytes = b"", limit: int = 1000) -> Sequence[DeletedMessage]:
        """The kept messages behind a key, the longest kept first."""
        return self._store.reader.deleted(self.id, after, limit)

    async def undelete(self, keys: Sequence[bytes], mailbox: str) -> Sequence[tuple[bytes, UID]]:
        """Bring messages back, all or none of those still kept.  Raises OverQuota, LimitReached, InvalidName, StorageFull."""
        self._store.disk.refuse_if_full()
        back: Sequence[tuple[bytes, UID]] = await self._store.write(Undelete(self.id, keys, mailbox), self)
        return back

    async def forget_deleted(self, keys: Sequence[bytes]) -> Kept:
        """Remove kept messages for good."""
        prefix = U32.pack(self.id)
        gone: Kept = await self._store.write(LetGo([key for key in keys if key.startswith(prefix)]), frees=True)
        return gone

    async def changes(self, mailbox: MailboxId, since: ModSeq) -> Changes:
        """What changed above ``since``.  Raises CannotCalculate, NoSuchMailbox."""
        return self._store.reader.changes(self.id, mailbox, since)

    def watch(self, listener: IChangeListener) -> Watch:
        """Subscribe to this account's changes."""
        return self._store.feed.watch(self.id, listener)
