"""The state of one group commit: counters read once, changed in memory, written back once.

An operation first finds out whether it can be done, and raises MailError before it has changed anything; from its
first change on it must not be refused.  So a refused operation costs its neighbours in the group nothing.  Whatever else an
operation raises makes the writer throw the whole transaction away and run the operations one by one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from livemail.mail.changes import Added, Change
from livemail.mail.content import Content
from livemail.mail.errors import NoSuchAccount, NoSuchMailbox, StorageFailed
from livemail.mail.ids import MAX_UID, MailboxId, UIDSet
from livemail.storage.lmdb.files.changes import MaildirFiles
from livemail.storage.lmdb.files.effects import Effects
from livemail.storage.lmdb.ledger import Ledger
from livemail.storage.lmdb.records import (
    ACCOUNT_COUNTERS,
    BLOB,
    CHANGE_KEY,
    EXPUNGE_KEY,
    MAILBOX_COUNTERS,
    MAILBOX_KEY,
    SEGMENT,
    TAIL,
    U32,
    U64,
    MailboxRecord,
    name_key,
    pack_change,
    pack_mailbox,
    pack_ranges,
    unpack_mailbox,
)
from livemail.storage.lmdb.rows import Table, Transaction, keys_below
from livemail.storage.lmdb.schema import Tables
from livemail.storage.lmdb.segments import Location, Tail
from livemail.storage.settings import StorageSettings
from livemail.storage.spool import HEAD

TRIM_EVERY = 128
"""Logs are cut when they are this many rows over their limit: one walk for many commands."""

WASTE_OCTETS = 4 * 1024 * 1024
"""A tail without one living octet is given up once it is this large."""


class ContentMissing(Exception):
    """A content thought to be stored was expunged earlier in the same group: write it and run again."""


class Operation(Protocol):
    """One command for the writer."""

    def run(self, group: Group) -> Any:
        """Do it.  Raises MailError before anything is changed."""


class Part(Protocol):
    """Another subject's share of the transaction, written back with the rest."""

    def write(self) -> None:
        """Write back what was gathered."""


class AccountState:
    """Counters of one account."""

    __slots__ = (
        "change_floor", "delivered_at", "id", "messages", "modseq", "next_email", "next_mailbox", "octets", "row",
    )  # fmt: skip

    id: int
    modseq: int
    octets: int
    messages: int
    next_mailbox: int
    next_email: int
    change_floor: int
    delivered_at: int
    row: bytes

    def __init__(self, id_: int, row: bytes) -> None:
        self.id = id_
        self.row = row
        (self.modseq, self.octets, self.messages, self.next_mailbox, self.next_email, self.change_floor) = (
            ACCOUNT_COUNTERS.unpack(row)
        )
        self.delivered_at = 0

    def pack(self) -> bytes:
        """Return the row of ``acnt``."""
        return ACCOUNT_COUNTERS.pack(
            self.modseq, self.octets, self.messages, self.next_mailbox, self.next_email, self.change_floor
        )


class MailboxState:
    """Record and counters of one mailbox."""

    __slots__ = (
        "account", "deleted", "exists", "expunge_floor", "expunge_rows", "highest", "id", "is_dirty", "key", "octets",
        "recent_from", "record", "uid_next", "unseen",
    )  # fmt: skip

    uid_next: int
    highest: int
    exists: int
    unseen: int
    deleted: int
    octets: int
    expunge_floor: int
    expunge_rows: int
    recent_from: int

    def __init__(self, account: int, id_: int, record: MailboxRecord, counters: bytes) -> None:
        self.account = account
        self.id = MailboxId(id_)
        self.key = MAILBOX_KEY.pack(account, id_)
        self.record = record
        self.is_dirty = False
        (
            self.uid_next, self.highest, self.exists, self.unseen, self.deleted, self.octets, self.expunge_floor,
            self.expunge_rows, self.recent_from,
        ) = MAILBOX_COUNTERS.unpack(counters)  # fmt: skip

    def pack(self) -> bytes:
        """Return the row of ``mcnt``."""
        return MAILBOX_COUNTERS.pack(
            self.uid_next, self.highest, self.exists, self.unseen, self.deleted, self.octets, self.expunge_floor,
            self.expunge_rows, self.recent_from,
        )  # fmt: skip


class Event(msgspec.Struct, eq=False):
    """A change to publish once it is durable; uids of consecutive deliveries gather in ``added``."""

    account: int
    modseq: int
    origin: object
    change: Change | None
    mailbox: MailboxId = MailboxId(0)
    added: list[int] = []

    def finished(self) -> Change:
        """Return the change."""
        return self.change or Added(self.mailbox, self.modseq, tuple(self.added))


class Group:
    """One transaction being filled."""

    def __init__(
        self,
        txn: Transaction,
        tables: Tables,
        settings: StorageSettings,
        now: int,
        tail: Tail,
        written: Mapping[bytes, Location],
        contents: Mapping[bytes, Content],
        ledger: Ledger,
    ) -> None:
        """now: seconds since the epoch.  written: contents that lie in segments, flushed, and wait for a reference.

        contents: what the operations bring, by digest.  filed: (account, mailbox, uid) of the new messages by their content's digest.
        ledger: what may be held; it was told of the transaction.  keeps_deleted: what is expunged stays for a while.
        """
        self.txn = txn
        self.tables = tables
        self.settings = settings
        self.now = now
        self.ledger = ledger
        self.origin: object = None
        self.events: list[Event] = []
        self.used: set[bytes] = set()
        self.removed_segments: list[int] = []
        self.keeps_deleted = False
        self.filed: dict[bytes, list[tuple[int, int, int]]] = {}
        self.effects = Effects()
        self.before_commit: list[Callable[[], object]] = []
        self.contents = contents
        self.prepared: dict[bytes, Any] = {}  # of `livemail.storage.lmdb.operations.deliveries`
        self._data = tail.folder.parents[2]
        self._has_maildirs = bool(txn.stat(tables.mroot)["entries"])
        self._files: dict[int, MaildirFiles | None] = {}
        self.part: Part | None = None
        self.end_tail_from: int | None = None
        self._tail = tail
        self._written = written
        self._accounts: dict[int, AccountState] = {}
        self._mailboxes: dict[tuple[int, int], MailboxState] = {}
        self._names: dict[bytes, int] = {}
        self._segments: dict[int, list[int]] = {}
        self._released: dict[bytes, list[int]] = {}
        self._changes: dict[tuple[int, int], dict[int, list[tuple[int, int]]]] = {}
        self._deliveries: dict[tuple[int, int], Event] = {}

    # ------------------------------------------------------------------------------------------------------ finding

    def account(self, id_: int) -> AccountState:
        """Return an account's counters.  Raises NoSuchAccount."""
        state = self._accounts.get(id_)
        if state is None:
            row = self.txn.get(U32.pack(id_), db=self.tables.acnt)
            if row is None:
                raise NoSuchAccount
            state = self._accounts[id_] = AccountState(id_, row)
        return state

    def mailbox(self, account: int, id_: int) -> MailboxState:
        """Return a mailbox by its id.  Raises NoSuchMailbox."""
        state = self._mailboxes.get((account, id_))
        if state is None:
            key = MAILBOX_KEY.pack(account, id_)
            row = self.txn.get(key, db=self.tables.mbox)
            if row is None:
                raise NoSuchMailbox
            counters = self.txn.get(key, db=self.tables.mcnt)
            state = self._mailboxes[account, id_] = MailboxState(account, id_, unpack_mailbox(row), counters)
        return state

    def find_mailbox(self, account: int, name: str) -> MailboxState | None:
        """Return a mailbox by its name, None when it does not exist."""
        key = name_key(account, name)
        id_ = self._names.get(key)
        if id_ is None:
            row = self.txn.get(key, db=self.tables.mname)
            if row is None:
                return None
            id_ = self._names[key] = U32.unpack(row)[0]
        return self.mailbox(account, id_)

    def mailbox_named(self, account: int, name: str) -> MailboxState:
        """Return a mailbox by its name.  Raises NoSuchMailbox."""
        state = self.find_mailbox(account, name)
        if state is None:
            raise NoSuchMailbox
        return state

    def all_mailboxes(self, account: int) -> list[MailboxState]:
        """Return every mailbox of an account."""
        keys = keys_below(self.txn, self.tables.mbox, U32.pack(account))
        return [self.mailbox(account, MAILBOX_KEY.unpack(key)[1]) for key in keys]

    def files_of(self, account: int) -> MaildirFiles | None:
        """Return the files of an account in a Maildir; None for one whose messages lie in segments."""
        if not self._has_maildirs:
            return None
        if account not in self._files:
            root = self.txn.get(U32.pack(account), db=self.tables.mroot)
            self._files[account] = (
                None
                if root is None
                else MaildirFiles(self, self._data / os.fsdecode(root), self.effects, self.contents)
            )
        return self._files[account]

    def begin_maildir(self, account: int, root: Path) -> None:
        """The account's messages are files below ``root`` from now on, which counts from the data folder."""
        self.txn.put(U32.pack(account), os.fsencode(root), db=self.tables.mroot)
        self._has_maildirs = True
        self._files.pop(account, None)

    def next_number(self, name: bytes, least: int = 1) -> int:
        """Return the next value of a counter that never goes back, at least ``least``."""
        row = self.txn.get(name, db=self.tables.meta)
        number: int = max(U64.unpack(row)[0] + 1 if row else 1, least)
        self.txn.put(name, U64.pack(number), db=self.tables.meta)
        return number

    # ------------------------------------------------------------------------------------------------------ changing

    def count(self, account: AccountState, messages: int, octets: int) -> None:
        """An account holds so much more, or less."""
        account.messages += messages
        account.octets += octets
        if self.ledger.has_totals:
            self.ledger.move(account.id, octets, messages)

    def next_modseq(self, account: AccountState) -> int:
        """Return the ModSeq of a new change."""
        account.modseq += 1
        account.delivered_at = 0
        return account.modseq

    def delivery_modseq(self, account: AccountState) -> int:
        """Return the ModSeq of a delivery: consecutive deliveries of a group share one, and one row of the log.

        Any other change in between takes a new one, and so does the next delivery: whoever was told a ModSeq must see
        a later change of the same message have a higher one.
        """
        if not account.delivered_at:
            account.modseq += 1
            account.delivered_at = account.modseq
        return account.delivered_at

    def add_mailbox(self, account: int, id_: int, record: MailboxRecord) -> MailboxState:
        """Write a new mailbox."""
        counters = MAILBOX_COUNTERS.pack(1, record.created, 0, 0, 0, 0, 0, 0, 1)
        state = self._mailboxes[account, id_] = MailboxState(account, id_, record, counters)
        state.is_dirty = True
        self.write_record(state, record)
        self.write_name(state)
        return state

    def write_record(self, mailbox: MailboxState, record: MailboxRecord) -> None:
        """Replace a mailbox's record."""
        mailbox.record = record
        self.txn.put(mailbox.key, pack_mailbox(record), db=self.tables.mbox)

    def write_name(self, mailbox: MailboxState) -> None:
        """Enter a mailbox's name."""
        key = name_key(mailbox.account, mailbox.record.name)
        self._names[key] = mailbox.id
        self.txn.put(key, U32.pack(mailbox.id), db=self.tables.mname)

    def remove_name(self, account: int, name: str) -> None:
        """Take a name away."""
        key = name_key(account, name)
        self._names.pop(key, None)
        self.txn.delete(key, db=self.tables.mname)

    def remove_mailbox(self, mailbox: MailboxState) -> None:
        """Remove an empty mailbox's rows."""
        self.delete_prefix(self.tables.expunge, mailbox.key)
        self.txn.delete(mailbox.key, db=self.tables.mbox)
        for table in (self.tables.mcnt, self.tables.opened, self.tables.unseen):
            self.txn.delete(mailbox.key, db=table)
        self.remove_name(mailbox.account, mailbox.record.name)
        self.forget_mailbox(mailbox)

    def forget_mailbox(self, mailbox: MailboxState) -> None:
        """A mailbox's rows are gone."""
        del self._mailboxes[mailbox.account, mailbox.id]

    def forget_account(self, account: int) -> None:
        """An account's rows are gone."""
        del self._accounts[account]
        for key in [key for key in self._changes if key[0] == account]:
            del self._changes[key]
        for name in [name for name in self._names if name.startswith(U32.pack(account))]:
            del self._names[name]

    def delete_prefix(self, table: Table, prefix: bytes) -> None:
        """Delete every row whose key begins with ``prefix``."""
        cursor = self.txn.cursor(table)
        if cursor.set_range(prefix):
            # A deletion leaves the cursor on the next row, and key() is empty behind the last.
            while cursor.key().startswith(prefix):
                cursor.delete()

    def touch(self, mailbox: MailboxState, modseq: int) -> None:
        """A mailbox's counters changed with this ModSeq."""
        mailbox.highest = modseq
        mailbox.is_dirty = True

    def emit(self, account: int, modseq: int, change: Change) -> None:
        """Publish a change after the commit."""
        self.events.append(Event(account, modseq, self.origin, change))

    def log_changed(self, mailbox: MailboxState, modseq: int, ranges: Iterable[tuple[int, int]]) -> None:
        """Note UIDs that were added or changed."""
        self._changes.setdefault((mailbox.account, modseq), {}).setdefault(mailbox.id, []).extend(ranges)

    def log_delivered(self, mailbox: MailboxState, modseq: int, uid: int) -> None:
        """Note and publish one delivered message, together with those before it under the same ModSeq."""
        event = self._deliveries.get((mailbox.account, mailbox.id))
        if event is None or event.modseq != modseq:
            event = Event(mailbox.account, modseq, None, None)
            event.mailbox = mailbox.id
            self._deliveries[mailbox.account, mailbox.id] = event
            self.events.append(event)
        event.added.append(uid)
        self._changes.setdefault((mailbox.account, modseq), {}).setdefault(mailbox.id, []).append((uid, uid))

    def log_expunged(self, mailbox: MailboxState, modseq: int, uids: UIDSet) -> None:
        """Note UIDs that vanished; forget the oldest when they are too many."""
        txn, table = self.txn, self.tables.expunge
        txn.put(EXPUNGE_KEY.pack(mailbox.account, mailbox.id, modseq), pack_ranges(uids.ranges), db=table)
        mailbox.expunge_rows += 1
        mailbox.is_dirty = True
        surplus = mailbox.expunge_rows - self.settings.expunge_rows
        if surplus >= TRIM_EVERY:
            cursor = txn.cursor(table)
            cursor.set_range(mailbox.key)
            for _ in range(surplus):
                mailbox.expunge_floor = EXPUNGE_KEY.unpack(cursor.key())[2]
                cursor.delete()
            mailbox.expunge_rows -= surplus

    def reference(self, digest: bytes, count: int) -> None:
        """Add references to a content.  Raises ContentMissing."""
        row = self.txn.get(digest, db=self.tables.blob)
        if row is not None:
            references, *location = BLOB.unpack(row)
        elif digest in self._released:
            # Dead for a moment, in this very transaction.
            references, location = 0, self._released.pop(digest)
            self._segment(location[0])[1] -= HEAD.size + location[2]
        else:
            written = self._written.get(digest)
            if written is None:
                raise ContentMissing
            references, location = 0, list(written)
            self.used.add(digest)
        self.txn.put(digest, BLOB.pack(references + count, *location), db=self.tables.blob)

    def dereference(self, digest: bytes, count: int = 1) -> None:
        """Take references from a content; without one its octets are dead."""
        row = self.txn.get(digest, db=self.tables.blob)
        if row is None:
            raise StorageFailed(reason=f"content {digest.hex()} has no row")
        references, *location = BLOB.unpack(row)
        if references > count:
            self.txn.put(digest, BLOB.pack(references - count, *location), db=self.tables.blob)
            return
        self.txn.delete(digest, db=self.tables.blob)
        self._released[digest] = location
        self._segment(location[0])[1] += HEAD.size + location[2]

    def relocate(self, digest: bytes, place: Location) -> None:
        """Point to a content's new octets, if it still lies in its old place."""
        row = self.txn.get(digest, db=self.tables.blob)
        written = self._written.get(digest)
        if row is None or written is None:
            return
        references, *location = BLOB.unpack(row)
        if Location(*location) == place:
            self.txn.put(digest, BLOB.pack(references, *written), db=self.tables.blob)
            self.used.add(digest)
            self._segment(place.segment)[1] += HEAD.size + place.size

    def _segment(self, number: int) -> list[int]:
        totals = self._segments.get(number)
        if totals is None:
            row = self.txn.get(U32.pack(number), db=self.tables.seg)
            totals = self._segments[number] = list(SEGMENT.unpack(row)) if row else [0, 0, 0]
        return totals

    # ------------------------------------------------------------------------------------------------------ finishing

    def accounts(self) -> Iterable[AccountState]:
        """Return the accounts that were looked at."""
        return self._accounts.values()

    def flush(self) -> None:
        """Write back what was gathered; the transaction is complete then."""
        txn, tables = self.txn, self.tables
        for each in self.before_commit:
            each()
        for (account, modseq), mailboxes in self._changes.items():
            row = pack_change((id_, UIDSet(ranges).ranges) for id_, ranges in mailboxes.items())
            txn.put(CHANGE_KEY.pack(account, modseq), row, db=tables.change)
        for account_state in self._accounts.values():
            self._trim_changes(account_state)
            row = account_state.pack()
            if row != account_state.row:
                txn.put(U32.pack(account_state.id), row, db=tables.acnt)
        for mailbox in self._mailboxes.values():
            if mailbox.is_dirty:
                txn.put(mailbox.key, mailbox.pack(), db=tables.mcnt)
        if self.part is not None:
            self.part.write()
        self._flush_segments()

    def _trim_changes(self, account: AccountState) -> None:
        if account.modseq - account.change_floor < self.settings.change_rows + TRIM_EVERY:
            return
        floor = account.modseq - self.settings.change_rows
        cursor = self.txn.cursor(self.tables.change)
        first, last = CHANGE_KEY.pack(account.id, 0), CHANGE_KEY.pack(account.id, floor)
        while cursor.set_range(first) and cursor.key() <= last:
            cursor.delete()
        account.change_floor = floor

    def _flush_segments(self) -> None:
        for digest, location in self._written.items():
            octets = HEAD.size + location.size
            is_adopted = location.segment != self._tail.number and location.offset == HEAD.size
            if digest in self.used:
                totals = self._segment(location.segment)
                totals[0] += octets
                totals[2] = int(is_adopted)
            elif not is_adopted:
                totals = self._segment(location.segment)
                totals[0] += octets
                totals[1] += octets
        if self.end_tail_from is not None:
            total, dead, _ = self._segment(self._tail.number)
            if 0 < dead >= total * self.end_tail_from / 100:
                self._tail.advance()
        for number, (total, dead, state) in self._segments.items():
            waste = min(WASTE_OCTETS, self.settings.segment_octets)
            if number == self._tail.number and dead >= total >= waste:
                self._tail.advance()
            if dead >= total and number != self._tail.number:
                self.txn.delete(U32.pack(number), db=self.tables.seg)
                self.removed_segments.append(number)
            else:
                self.txn.put(U32.pack(number), SEGMENT.pack(total, dead, state), db=self.tables.seg)
        if self._tail.is_changed:
            tail = TAIL.pack(self._tail.number, self._tail.size, self._tail.next_number)
            self.txn.put(b"tail", tail, db=self.tables.meta)


def has_uids_for(mailbox: MailboxState, count: int) -> bool:
    """Whether the mailbox can give ``count`` more UIDs."""
    return mailbox.uid_next + count - 1 <= MAX_UID
