"""The store of the memory back end: accounts, delivery, contents by digest."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final
from weakref import WeakValueDictionary

import msgspec
from zope.interface import implementer

from livemail.interfaces.quota import IQuotaStore, QuotaUse
from livemail.interfaces.runtime import Now
from livemail.interfaces.storage import (
    AccountRecord,
    Delivered,
    Delivery,
    IAccount,
    IContentSink,
    IMailStore,
    Problem,
    Progress,
    Report,
)
from livemail.interfaces.story import KeptStory, StoryPlace
from livemail.mail.changes import AccountRemoved
from livemail.mail.content import Content
from livemail.mail.errors import AccountExists, MailError, NoSuchAccount, StorageFailed, TooBig
from livemail.mail.ids import AccountId
from livemail.storage.memory.account import MemoryAccount
from livemail.storage.memory.addresses import MemoryAddressBook
from livemail.storage.memory.content import DIGEST_OCTETS, Body, MemorySink
from livemail.storage.memory.queue import MemoryQueue
from livemail.storage.memory.quota import MemoryLedger
from livemail.storage.memory.state import AccountState
from livemail.storage.memory.stories import Stories
from livemail.storage.quota import Quotas, quota_uses
from livemail.storage.settings import StorageSettings


@implementer(IMailStore, IQuotaStore)
class MemoryStore:
    """A whole mail store that lives as long as the object does.

    settings: message_size_limit, the quotas, max_mailboxes and expunge_rows count; the rest concerns disks.  quotas: None for
    what the settings say.
    """

    capabilities: Final = frozenset({"condstore", "objectid", "single-instance", "keywords"})

    def __init__(
        self, *, now: Now = time.time, settings: StorageSettings | None = None, quotas: Quotas | None = None
    ) -> None:
        self._now = now
        self._settings = settings or StorageSettings()
        self._stories = Stories(self._settings.story_rows)
        self._key = os.urandom(32)
        self._quotas = Quotas.of(self._settings) if quotas is None else quotas
        self._ledger = MemoryLedger(self._quotas, self._key, now)
        self._is_open = True
        self._by_id: dict[AccountId, AccountState] = {}
        self._by_name: dict[str, AccountState] = {}
        self.addresses = MemoryAddressBook(self.check_open, lambda: self._by_name)
        self._last_account = 0
        self._last_uid_validity = 0
        self.queue = MemoryQueue(self, now, self._settings.queue_recipients)
        # A body lives as long as a message or an open reader refers to it: Python's own counting is the garbage collector.
        self._bodies: WeakValueDictionary[bytes, Body] = WeakValueDictionary()

    # ---------------------------------------------------------------------------------------------- for accounts

    def check_open(self) -> None:
        """Raises StorageFailed after `close`."""
        if not self._is_open:
            raise StorageFailed(reason="the store is closed")

    def seconds(self) -> int:
        """Return the time as whole seconds since the epoch."""
        return int(self._now())

    def body(self, content: Content) -> Body:
        """Return the body with this content, the one there is already where there is one."""
        body = self._bodies.get(content.digest)
        if body is None:
            body = Body.of(content)
            self._bodies[body.digest] = body
        return body

    def _next_uid_validity(self) -> int:
        """Return a value above all before it, whatever the clock says.  RFC 9051 §2.3.1.1."""
        self._last_uid_validity = max(self._last_uid_validity + 1, self.seconds())
        return self._last_uid_validity

    # ---------------------------------------------------------------------------------------------- mail

    def new_content(self, size_hint: int = 0) -> IContentSink:
        """Begin a message's content."""
        self.check_open()
        if size_hint > self._settings.message_size_limit:
            raise TooBig
        return MemorySink(self._key, self._settings.message_size_limit)

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Delivered | MailError]:
        """File every delivery; one that is refused fails alone."""
        return self.deliver_now(batch)

    def deliver_now(self, batch: Sequence[Delivery]) -> Sequence[Delivered | MailError]:
        """File every delivery; one that is refused fails alone."""
        self.check_open()
        results = [self._deliver(delivery) for delivery in batch]
        places: dict[bytes, list[StoryPlace]] = {}
        for delivery, result in zip(batch, results, strict=True):
            if isinstance(result, Delivered):
                place = StoryPlace(result.account, result.mailbox, result.uid)
                places.setdefault(delivery.content.digest, []).append(place)
        for digest, filed in places.items():
            self._stories.filed(digest, filed)
        return results

    def note(self, transaction: str, story: bytes, digest: bytes = b"") -> None:
        """Keep a story."""
        self._stories.note(transaction, story, digest)

    def flush_stories(self) -> None:
        """Nothing waits here."""

    async def story(self, transaction: str) -> KeptStory | None:
        """One transaction's story."""
        return self._stories.get(transaction)

    async def find_stories(self, text: bytes, limit: int, progress: Progress | None = None) -> Sequence[KeptStory]:
        """Stories that contain some octets, the latest first."""
        return self._stories.find(text, limit)

    def _deliver(self, delivery: Delivery) -> Delivered | MailError:
        state = self._by_id.get(delivery.account)
        if state is None:
            return NoSuchAccount()
        saved = self.seconds()
        date = saved if delivery.internal_date is None else delivery.internal_date
        try:
            mailbox, uid = state.file(
                delivery.mailbox, self.body(delivery.content), delivery.prefix, delivery.flags, date, saved
            )
        except MailError as refusal:
            return refusal
        return Delivered(delivery.account, mailbox.id, mailbox.uid_validity, uid)

    # ---------------------------------------------------------------------------------------------- accounts

    async def account(self, id: AccountId) -> IAccount:  # noqa: A002
        """Open an account."""
        self.check_open()
        state = self._by_id.get(id)
        if state is None:
            raise NoSuchAccount
        return MemoryAccount(self, state)

    async def account_named(self, name: str) -> AccountRecord | None:
        """Look up a canonical login."""
        self.check_open()
        state = self._by_name.get(name)
        return state.record if state else None

    async def accounts(self) -> Sequence[AccountRecord]:
        """All accounts by name, ascending."""
        self.check_open()
        return [self._by_name[name].record for name in sorted(self._by_name)]

    async def add_accounts(self, accounts: Sequence[tuple[str, str]]) -> Sequence[AccountRecord | MailError]:
        """Create accounts from (canonical login, password hash); one that exists fails alone."""
        self.check_open()
        return [self._add_account(name, password) for name, password in accounts]

    def _add_account(self, name: str, password: str) -> AccountRecord | MailError:
        if name in self._by_name:
            return AccountExists()
        self._last_account += 1
        record = AccountRecord(AccountId(self._last_account), name, password, self.seconds())
        state = AccountState(record, self._settings, self._next_uid_validity, self._ledger)
        state.furnish()
        self._by_name[name] = self._by_id[record.id] = state
        return record

    async def quotas(self, name: str = "") -> Sequence[QuotaUse]:
        """What is used of every quota, or of one account's and those it is in."""
        if name:
            self._named(name)
        self.check_open()
        used = {each: (*state.usage(), len(state.by_name)) for each, state in self._by_name.items()}
        return quota_uses(self._quotas, used, name, is_one=bool(name))

    async def set_password(self, name: str, password: str) -> AccountRecord:
        """Replace the hash."""
        state = self._named(name)
        state.record = msgspec.structs.replace(state.record, password=password)
        return state.record

    async def remove_account(self, name: str) -> None:
        """Remove an account with all its mail."""
        state = self._named(name)
        del self._by_name[name], self._by_id[state.record.id]
        state.is_removed = True
        state.by_name.clear()
        state.by_id.clear()
        state.deleted.clear()
        state.publish(None, [AccountRemoved(state.next_modseq())])

    def _named(self, name: str) -> AccountState:
        self.check_open()
        try:
            return self._by_name[name]
        except KeyError:
            raise NoSuchAccount from None

    # ---------------------------------------------------------------------------------------------- the whole

    async def check(self, progress: Progress | None = None) -> Report:
        """Read everything and compare: counters with rows, digests with octets."""
        self.check_open()
        problems: list[Problem] = []
        mailboxes = messages = 0
        for done, (name, state) in enumerate(sorted(self._by_name.items()), 1):
            for mailbox in state.by_name.values():
                mailboxes += 1
                messages += len(mailbox.messages)
                problems += [Problem("counter", f"{name} {mailbox.name}", fault) for fault in mailbox.faults()]
            if progress is not None:
                progress(done, len(self._by_name), "accounts")
        problems += self.queue.problems()
        bodies = list(self._bodies.values())
        for body in bodies:
            if blake2b(body.octets, key=self._key, digest_size=DIGEST_OCTETS).digest() != body.digest:
                problems.append(Problem("content", body.digest.hex(), "the octets are not those that were stored"))
        octets = sum(len(body.octets) for body in bodies)
        return Report(len(self._by_name), mailboxes, messages, len(bodies), octets, tuple(problems))

    async def close(self) -> None:
        """Forget everything."""
        self._is_open = False
        self._by_id.clear()
        self._by_name.clear()
        self.addresses.clear()
        self.queue.clear()
