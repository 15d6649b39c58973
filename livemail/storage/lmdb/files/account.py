"""An account in a Maildir: an `LMDBAccount` that looks at its folder before it answers."""

from __future__ import annotations

from livemail.interfaces.storage import IChangeListener, MailboxInfo, MailboxList, Selected
from livemail.storage.lmdb.account import LMDBAccount
from livemail.storage.lmdb.feed import Watch
from livemail.storage.lmdb.files.sync import MaildirSync


class MaildirWatch(Watch):
    """A subscription that keeps the account's folder watched."""

    sync: MaildirSync

    def stop(self) -> None:
        """No call after this."""
        if self.listener is not None:
            self.sync.unwatch(self.account)
        super().stop()


class MaildirAccount(LMDBAccount):
    """A handle on an account in a Maildir."""

    @property
    def _sync(self) -> MaildirSync:
        return self._store.sync

    async def mailboxes(self) -> MailboxList:
        """Return every mailbox with its counters, and the subscriptions."""
        await self._sync.account(self.id)
        return await super().mailboxes()

    async def mailbox(self, name: str) -> MailboxInfo:
        """Return one mailbox.  Raises NoSuchMailbox."""
        await self._sync.mailbox(self.id, name)
        return await super().mailbox(name)

    async def select(self, name: str, claim_recent: bool) -> Selected:
        """Open a mailbox.  Raises NoSuchMailbox."""
        await self._sync.mailbox(self.id, name)
        return await super().select(name, claim_recent)

    def watch(self, listener: IChangeListener) -> Watch:
        """Subscribe to this account's changes; those of other programs are looked for every few seconds."""
        made = self._store.feed.watch(self.id, listener, MaildirWatch)
        made.sync = self._sync
        self._sync.watch(self.id)
        return made
