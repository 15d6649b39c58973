"""STORE, COPY, MOVE, EXPUNGE.  RFC 9051 §6.4, RFC 6851, RFC 7162 §3.1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from livemail.interfaces.storage import Copied, Stored
from livemail.mail.changes import Added, Expunged, FlagsChanged
from livemail.mail.errors import LimitReached
from livemail.mail.flags import DELETED, SEEN, FlagChange
from livemail.mail.ids import AccountId, MailboxId, UIDSet
from livemail.storage.lmdb.deleted.keeping import put_by
from livemail.storage.lmdb.opening import lower_unseen
from livemail.storage.lmdb.operations.group import AccountState, Group, MailboxState, has_uids_for
from livemail.storage.lmdb.operations.keywords import assign_keywords, keyword_bits, translate_keywords
from livemail.storage.lmdb.records import (
    DIGEST,
    FLAGS_AT,
    MESSAGE_KEY,
    MUTABLE,
    MUTABLE_FROM,
    MUTABLE_TO,
    STATE,
    MailboxRecord,
    Message,
)
from livemail.storage.lmdb.rows import Runs, Walk, read_beside

SLICE = 5000
"""Rows held at a time while a command goes through a mailbox."""


class StoreFlags:
    """STORE."""

    def __init__(
        self, account: AccountId, mailbox: MailboxId, uids: UIDSet, change: FlagChange, unchanged_since: int | None
    ) -> None:
        self._account = account
        self._mailbox = mailbox
        self._uids = uids
        self._change = change
        # A message's ModSeq is below 2^63, so this bound refuses none.
        self._unchanged_since = (1 << 64) if unchanged_since is None else unchanged_since

    def run(self, group: Group) -> Stored:
        """Change the flags of what the condition allows, under one ModSeq."""
        account = group.account(self._account)
        mailbox = group.mailbox(self._account, self._mailbox)
        record, bits = self._bits(mailbox.record)
        seen: list[tuple[int, int, int]] = []
        changed: list[tuple[int, int, int]] = []
        modified: list[int] = []
        modseq = account.modseq + 1
        walk = Walk(self._uids.ranges)
        while not walk.is_done:
            rows, _ = walk.take(group.txn, group.tables.msg, mailbox.key, mailbox.uid_next - 1, SLICE)
            if not rows:
                break
            puts = self._change_rows(mailbox, rows, bits, modseq, seen, changed, modified)
            group.txn.cursor(group.tables.msg).putmulti(puts)
        if seen and record is not mailbox.record:
            group.write_record(mailbox, record)
        if changed:
            files = group.files_of(account.id)
            if files is not None:
                files.set_flags(mailbox, changed)
            if self._takes_seen_away:
                lower_unseen(group, account.id, mailbox.id, changed[0][0], modseq)
            group.next_modseq(account)
            group.touch(mailbox, modseq)
            group.log_changed(mailbox, modseq, UIDSet.of([row[0] for row in changed]).ranges)
            group.emit(account.id, modseq, FlagsChanged(mailbox.id, modseq, tuple(changed), mailbox.record.keywords))
        return Stored(tuple(seen), modseq if changed else 0, UIDSet.of(modified), mailbox.record.keywords)

    @property
    def _takes_seen_away(self) -> bool:
        has = bool(self._change.flags & SEEN)
        return has if self._change.op == "remove" else not has and self._change.op != "add"

    def _bits(self, record: MailboxRecord) -> tuple[MailboxRecord, int]:
        if self._change.op == "remove":
            return record, keyword_bits(record, self._change.keywords)
        record, (bits,) = assign_keywords(record, [self._change.keywords])
        return record, bits

    def _change_rows(
        self,
        mailbox: MailboxState,
        rows: Iterable[bytes],
        bits: int,
        modseq: int,
        seen: list[tuple[int, int, int]],
        changed: list[tuple[int, int, int]],
        modified: list[int],
    ) -> list[tuple[bytes, bytes]]:
        """Sort rows into the three lists and return what to write.  This loop runs once per message of ``1:*``."""
        op, system, unchanged_since = self._change.op, self._change.flags, self._unchanged_since
        account, id_ = mailbox.account, mailbox.id
        unpack, pack, pack_key = STATE.unpack, MUTABLE.pack, MESSAGE_KEY.pack
        unseen = deleted = 0
        puts = []
        for row in rows:
            uid, flags, keywords, since = unpack(row)
            if since > unchanged_since:
                modified.append(uid)
                continue
            if op == "add":
                new_flags, new_keywords = flags | system, keywords | bits
            elif op == "remove":
                new_flags, new_keywords = flags & ~system, keywords & ~bits
            else:
                new_flags, new_keywords = system, bits
            state = (uid, new_flags, new_keywords)
            seen.append(state)
            if new_flags == flags and new_keywords == keywords:
                continue
            changed.append(state)
            unseen += (flags & SEEN) - (new_flags & SEEN)
            deleted += (new_flags & DELETED) - (flags & DELETED)
            puts.append(
                (
                    pack_key(account, id_, uid),
                    row[:MUTABLE_FROM] + pack(new_flags, new_keywords, modseq) + row[MUTABLE_TO:],
                )
            )
        mailbox.unseen += unseen // SEEN
        mailbox.deleted += deleted // DELETED
        return puts


# ------------------------------------------------------------------------------------------------------ COPY and MOVE


class Transfer:
    """COPY and MOVE."""

    def __init__(self, account: AccountId, mailbox: MailboxId, uids: UIDSet, target: str, *, is_move: bool) -> None:
        self._account = account
        self._mailbox = mailbox
        self._uids = uids
        self._target = target
        self._is_move = is_move

    def run(self, group: Group) -> Copied:
        """Give every message there is a row in the target."""
        account = group.account(self._account)
        source = group.mailbox(self._account, self._mailbox)
        target = group.mailbox_named(self._account, self._target)
        transfer = move_messages if self._is_move else copy_messages
        return transfer(group, account, source, target, self._uids.ranges)


def copy_messages(
    group: Group, account: AccountState, source: MailboxState, target: MailboxState, ranges: Sequence[tuple[int, int]]
) -> Copied:
    """Copy with flags, keywords, dates and ids; contents gain a reference.  Raises OverQuota, LimitReached."""
    messages, runs = _read(group, source, ranges)
    octets = sum(message.size for message in messages)
    group.ledger.check(account, octets, len(messages))
    made, flags = _write(group, account, source, target, messages, runs, 0)
    files = group.files_of(account.id)
    if files is not None:
        files.copy(source, target, list(zip(made.source, made.target, strict=True)), flags)
    else:
        for digest, count in Counter(message.digest for message in messages).items():
            group.reference(digest, count)
    group.count(account, len(messages), octets)
    return made


def move_messages(
    group: Group,
    account: AccountState,
    source: MailboxState,
    target: MailboxState,
    ranges: Sequence[tuple[int, int]],
    modseq: int = 0,
) -> Copied:
    """Move; contents stay where they are.  modseq: of the command, 0 to take the next.  Raises LimitReached."""
    messages, runs = _read(group, source, ranges)
    made, flags = _write(group, account, source, target, messages, runs, modseq)
    if messages:
        files = group.files_of(account.id)
        if files is not None:
            files.move(source, target, list(zip(made.source, made.target, strict=True)), flags)
        for message in messages:
            key = MESSAGE_KEY.pack(account.id, source.id, message.uid)
            group.txn.delete(key, db=group.tables.msg)
            group.txn.delete(key, db=group.tables.cache)
        _count_out(source, messages)
        note_expunged(group, account, source, account.modseq, UIDSet.of(made.source))
    return made


def _read(group: Group, source: MailboxState, ranges: Sequence[tuple[int, int]]) -> tuple[list[Message], Runs]:
    rows, runs = Walk(ranges).take(group.txn, group.tables.msg, source.key, source.uid_next - 1, source.exists + 1)
    messages = [Message.unpack(row) for row in rows]
    files = group.files_of(source.account)
    if files is not None:
        present = files.present(source, messages)
        if len(present) != len(messages):
            return present, [(message.uid, 1) for message in present]
    return messages, runs


def _write(
    group: Group,
    account: AccountState,
    source: MailboxState,
    target: MailboxState,
    messages: Sequence[Message],
    runs: Runs,
    modseq: int,
) -> tuple[Copied, dict[int, tuple[int, int]]]:
    """Write the messages' rows into the target.  Raises LimitReached before any change.

    Returns what was copied, and flags and keyword bits by UID in the target.
    """
    record = target.record
    if not messages:
        return Copied(target.id, record.uid_validity, (), ()), {}
    if not has_uids_for(target, len(messages)):
        raise LimitReached(reason="no UID left")
    record, keywords = translate_keywords(source.record, record, {message.keywords for message in messages})
    if record is not target.record:
        group.write_record(target, record)
    modseq = modseq or group.next_modseq(account)
    caches = read_beside(group.txn, group.tables.cache, source.key, runs)
    translated = [message._replace(keywords=keywords[message.keywords]) for message in messages]
    uids = add_rows(group, account, target, translated, caches, modseq)
    flags = {uid: (message.flags, keywords[message.keywords]) for uid, message in zip(uids, messages, strict=True)}
    return Copied(target.id, record.uid_validity, tuple(message.uid for message in messages), uids), flags


def add_rows(
    group: Group,
    account: AccountState,
    target: MailboxState,
    messages: Sequence[Message],
    caches: Sequence[bytes],
    modseq: int,
) -> tuple[int, ...]:
    """Give messages rows in a mailbox, count and publish them; return their UIDs there.

    messages: at least one, with the target's keyword bits.  caches: their rows of ``cache``.
    """
    first = target.uid_next
    keys = [MESSAGE_KEY.pack(account.id, target.id, first + index) for index in range(len(messages))]
    rows = [
        message._replace(uid=first + index, modseq=modseq, saved=group.now).pack()
        for index, message in enumerate(messages)
    ]
    group.txn.cursor(group.tables.msg).putmulti(list(zip(keys, rows, strict=True)))
    group.txn.cursor(group.tables.cache).putmulti(list(zip(keys, caches, strict=True)))
    uids = tuple(range(first, first + len(messages)))
    target.uid_next += len(messages)
    target.exists += len(messages)
    target.octets += sum(message.size for message in messages)
    target.unseen += sum(not message.flags & SEEN for message in messages)
    target.deleted += sum(bool(message.flags & DELETED) for message in messages)
    group.touch(target, modseq)
    group.log_changed(target, modseq, [(uids[0], uids[-1])])
    group.emit(account.id, modseq, Added(target.id, modseq, uids))
    return uids


def _count_out(mailbox: MailboxState, messages: Sequence[Message]) -> None:
    mailbox.exists -= len(messages)
    mailbox.octets -= sum(message.size for message in messages)
    mailbox.unseen -= sum(not message.flags & SEEN for message in messages)
    mailbox.deleted -= sum(bool(message.flags & DELETED) for message in messages)


def note_expunged(group: Group, account: AccountState, mailbox: MailboxState, modseq: int, uids: UIDSet) -> None:
    """Log and publish that messages are gone."""
    group.touch(mailbox, modseq)
    group.log_expunged(mailbox, modseq, uids)
    group.emit(account.id, modseq, Expunged(mailbox.id, modseq, uids))


# ------------------------------------------------------------------------------------------------------------- EXPUNGE


class Expunge:
    """EXPUNGE, UID EXPUNGE, and removal without \\Deleted."""

    def __init__(self, account: AccountId, mailbox: MailboxId, uids: UIDSet | None, *, only_deleted: bool) -> None:
        self._account = account
        self._mailbox = mailbox
        self._uids = UIDSet.all() if uids is None else uids
        self._only_deleted = only_deleted

    def run(self, group: Group) -> UIDSet:
        """Return the UIDs removed."""
        account = group.account(self._account)
        mailbox = group.mailbox(self._account, self._mailbox)
        if self._only_deleted and not mailbox.deleted:
            return UIDSet()
        removed: list[int] = []
        walk = Walk(self._uids.ranges)
        while not walk.is_done:
            rows, _ = walk.take(group.txn, group.tables.msg, mailbox.key, mailbox.uid_next - 1, SLICE)
            if self._only_deleted:
                rows = [row for row in rows if row[FLAGS_AT] & DELETED]
            removed += remove_rows(group, account, mailbox, rows, keep=True)
        uids = UIDSet.of(removed)
        if removed:
            note_expunged(group, account, mailbox, group.next_modseq(account), uids)
        return uids


def remove_all(group: Group, account: AccountState, mailbox: MailboxState, *, keep: bool = False) -> None:
    """Remove every message of a mailbox that goes itself: no log, no event.  keep: as `remove_rows`."""
    walk = Walk([(1, mailbox.uid_next)])
    while not walk.is_done:
        rows, _ = walk.take(group.txn, group.tables.msg, mailbox.key, mailbox.uid_next, SLICE)
        remove_rows(group, account, mailbox, rows, files_stay=True, keep=keep)


def remove_rows(
    group: Group,
    account: AccountState,
    mailbox: MailboxState,
    rows: Sequence[bytes],
    *,
    files_stay: bool = False,
    keep: bool = False,
) -> list[int]:
    """Remove rows and contents; return the UIDs.

    files_stay: their folder goes as a whole, or they are gone already.  keep: they are kept for a while, if that is done and the
    disk has room.
    """
    if not rows:
        return []
    messages = [Message.unpack(row) for row in rows]
    is_kept = keep and group.keeps_deleted
    if is_kept:
        put_by(group, account, mailbox, messages, rows, folder_goes=files_stay)
    for message in messages:
        key = MESSAGE_KEY.pack(account.id, mailbox.id, message.uid)
        group.txn.delete(key, db=group.tables.msg)
        group.txn.delete(key, db=group.tables.cache)
    files = group.files_of(account.id)
    if is_kept:
        pass
    elif files is not None:
        drop = files.forget if files_stay else files.remove
        drop(mailbox, [message.uid for message in messages])
    else:
        for digest, count in Counter(DIGEST.unpack(row)[0] for row in rows).items():
            group.dereference(digest, count)
    _count_out(mailbox, messages)
    group.count(account, -len(messages), -sum(message.size for message in messages))
    return [message.uid for message in messages]
