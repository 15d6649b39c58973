"""Messages come in: delivery and APPEND."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from livemail.interfaces.storage import Appended, Delivered
from livemail.mail.changes import Added
from livemail.mail.content import Content
from livemail.mail.errors import LimitReached, MailError, StorageFailed, StorageFull
from livemail.mail.flags import DELETED, SEEN
from livemail.mail.ids import AccountId
from livemail.mail.message.summary import Summary
from livemail.storage.lmdb.operations.group import AccountState, Group, MailboxState, has_uids_for
from livemail.storage.lmdb.operations.keywords import assign_keywords
from livemail.storage.lmdb.operations.mailboxes import make_mailbox
from livemail.storage.lmdb.records import (
    FIELDS_TOO_LARGE,
    MESSAGE,
    MESSAGE_KEY,
    RECORD_VERSION,
    U32,
    U64,
    message_id_key,
)


class Prepared(msgspec.Struct, frozen=True):
    """All that can be computed of a content before the writer has it, once for all its recipients.

    A struct, as all that crosses to the writer's process: pickle takes it apart and makes it in C, in a third of the time.
    ends: of envelope, structure, parts and fields in ``cache``.
    """

    digest: bytes
    size: int
    header_size: int
    has_bare_newline: bool
    bits: int
    cache: bytes
    ends: tuple[int, int, int, int]
    thread_keys: list[bytes]


class Unread(msgspec.Struct, frozen=True):
    """Instead of `Prepared`: a content the writer is to prepare, which it does while the segment is flushed.

    Another process has time for it then, and the server that brings the mail has none: it was a tenth of what a message cost there.
    """

    digest: bytes
    size: int


class Scanned(msgspec.Struct):
    """As much of a content as `prepare` asks for."""

    digest: bytes
    size: int
    summary: Summary


def prepare(content: Content | Scanned) -> Prepared:
    """Prepare a content for `Item`."""
    summary = content.summary
    fields = summary.fields
    cache = b"".join((summary.envelope, summary.structure, summary.parts, fields or b""))
    envelope_end = len(summary.envelope)
    structure_end = envelope_end + len(summary.structure)
    nearest_first = (summary.message_id, *reversed(summary.references))
    return Prepared(
        content.digest,
        content.size,
        summary.header_size,
        summary.has_bare_newline,
        RECORD_VERSION if fields is not None else RECORD_VERSION | FIELDS_TOO_LARGE,
        cache,
        (envelope_end, structure_end, structure_end + len(summary.parts), len(cache)),
        [message_id_key(name) for name in nearest_first if name],
    )


class Item(msgspec.Struct, frozen=True):
    """One copy of a prepared content.  date: seconds since the epoch, None for now."""

    account: AccountId
    mailbox: str
    prepared: Prepared | Unread
    prefix: bytes
    flags: int
    keywords: tuple[str, ...]
    date: int | None
    zone: int


def prepared_of(group: Group, item: Item) -> Prepared:
    """Return an item's content prepared, which is done once for all items of a group."""
    prepared = item.prepared
    if isinstance(prepared, Unread):
        known: Prepared | None = group.prepared.get(prepared.digest)
        if known is None:
            known = group.prepared[prepared.digest] = prepare(group.contents[prepared.digest])
        return known
    return prepared


def add_message(
    group: Group, account: AccountState, mailbox: MailboxState, modseq: int, item: Item, keywords: int
) -> int:
    """Write the rows of a new message, its content's reference excepted; return its UID."""
    prepared = prepared_of(group, item)
    uid = mailbox.uid_next
    key = MESSAGE_KEY.pack(account.id, mailbox.id, uid)
    prefix_size = len(item.prefix)
    size = prepared.size + prefix_size
    email_id = account.next_email
    now = group.now
    record = MESSAGE.pack(
        prepared.bits, uid, item.flags, keywords, modseq, now if item.date is None else item.date, item.zone, size,
        prepared.header_size + prefix_size, now, email_id, _thread(group, account, prepared, email_id), prepared.digest,
        *prepared.ends, prepared.ends[3] + prefix_size,
    )  # fmt: skip
    group.txn.put(key, record, db=group.tables.msg)
    group.txn.put(key, prepared.cache + item.prefix, db=group.tables.cache)
    group.filed.setdefault(prepared.digest, []).append((account.id, mailbox.id, uid))
    account.next_email += 1
    group.count(account, 1, size)
    mailbox.uid_next += 1
    mailbox.exists += 1
    mailbox.octets += size
    mailbox.unseen += not item.flags & SEEN
    mailbox.deleted += bool(item.flags & DELETED)
    group.touch(mailbox, modseq)
    return uid


def place_file(group: Group, mailbox: MailboxState, uid: int, item: Item, keywords: int) -> bool:
    """Write the message's file where its account is in a Maildir; False where its content is referred to instead."""
    files = group.files_of(mailbox.account)
    if files is None:
        return False
    date = group.now if item.date is None else item.date
    files.place(mailbox, uid, prepared_of(group, item), item.prefix, item.flags, keywords, date)
    return True


def _thread(group: Group, account: AccountState, prepared: Prepared, email_id: int) -> int:
    """Return the thread of the nearest Message-ID the account has heard of, else a new one named by the message.

    The message's own id is the nearest: a second copy joins the first.  Ids that were only referred to are remembered
    too, so that two replies to a message that never came here are one thread.
    """
    txn, table, prefix = group.txn, group.tables.msgid, U32.pack(account.id)
    keys = [prefix + name for name in prepared.thread_keys]
    for key in keys:
        known = txn.get(key, db=table)
        if known is not None:
            break
    else:
        known = U64.pack(email_id)
    for key in keys:
        txn.put(key, known, overwrite=False, db=table)
    return int(U64.unpack(known)[0])


class Deliver(msgspec.Struct):
    """File a batch; each item is accepted or refused for itself."""

    items: Sequence[Item]

    def run(self, group: Group) -> list[Delivered | MailError]:
        """Return what became of each item, in their order."""
        results: list[Delivered | MailError] = []
        references: dict[bytes, int] = {}
        for item in self.items:
            try:
                results.append(self._file(group, item, references))
            except (StorageFull, StorageFailed):
                raise
            except MailError as error:
                results.append(error)
        for digest, count in references.items():
            group.reference(digest, count)
        return results

    @staticmethod
    def _file(group: Group, item: Item, references: dict[bytes, int]) -> Delivered:
        account = group.account(item.account)
        group.ledger.check(account, item.prepared.size + len(item.prefix), 1)
        mailbox = group.find_mailbox(item.account, item.mailbox)
        if mailbox is None:
            mailbox = make_mailbox(group, account, item.mailbox, "")
        if not has_uids_for(mailbox, 1):
            raise LimitReached(reason="no UID left")
        modseq = group.delivery_modseq(account)
        uid = add_message(group, account, mailbox, modseq, item, 0)
        digest = item.prepared.digest
        if not place_file(group, mailbox, uid, item, 0):
            references[digest] = references.get(digest, 0) + 1
        group.log_delivered(mailbox, modseq, uid)
        return Delivered(item.account, mailbox.id, mailbox.record.uid_validity, uid)


class Append:
    """Append messages to one mailbox, all or none."""

    def __init__(self, account: AccountId, mailbox: str, items: Sequence[Item]) -> None:
        self._account = account
        self._mailbox = mailbox
        self._items = items

    def run(self, group: Group) -> Appended:
        """Return the UIDs."""
        account = group.account(self._account)
        mailbox = group.mailbox_named(self._account, self._mailbox)
        octets = sum(item.prepared.size + len(item.prefix) for item in self._items)
        group.ledger.check(account, octets, len(self._items))
        if not has_uids_for(mailbox, len(self._items)):
            raise LimitReached(reason="no UID left")
        record, bits = assign_keywords(mailbox.record, [item.keywords for item in self._items])
        if not self._items:
            return Appended(mailbox.id, mailbox.record.uid_validity, ())
        if record is not mailbox.record:
            group.write_record(mailbox, record)
        modseq = group.next_modseq(account)
        uids = []
        for item, keywords in zip(self._items, bits, strict=True):
            uids.append(add_message(group, account, mailbox, modseq, item, keywords))
            if not place_file(group, mailbox, uids[-1], item, keywords):
                group.reference(item.prepared.digest, 1)
        group.log_changed(mailbox, modseq, [(uids[0], uids[-1])])
        group.emit(account.id, modseq, Added(mailbox.id, modseq, tuple(uids)))
        return Appended(mailbox.id, record.uid_validity, tuple(uids))
