"""What the writer does with kept messages: put them by, let them go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from livemail.interfaces.undelete import Kept
from livemail.storage.lmdb.deleted.records import KEY, TOTALS, DeletedRow, Head, RowDamaged
from livemail.storage.lmdb.records import MESSAGE_KEY, U32, MailboxRecord, Message
from livemail.storage.lmdb.rows import keys_below

if TYPE_CHECKING:
    from livemail.storage.lmdb.operations.group import AccountState, Group, MailboxState


def put_by(
    group: Group,
    account: AccountState,
    mailbox: MailboxState,
    messages: Sequence[Message],
    rows: Sequence[bytes],
    *,
    folder_goes: bool,
) -> None:
    """Keep messages that leave their mailbox.  Their contents keep their references.

    rows: theirs in ``msg``.  folder_goes: the mailbox's folder is removed next.
    """
    files = group.files_of(account.id)
    puts = []
    octets = 0
    for message, row in zip(messages, rows, strict=True):
        key = KEY.pack(account.id, group.now, mailbox.id, message.uid)
        cache = group.txn.get(MESSAGE_KEY.pack(account.id, mailbox.id, message.uid), db=group.tables.cache) or b""
        head = Head(mailbox.record.name, _names(mailbox.record, message.keywords))
        if files is not None:
            file = files.put_by(mailbox, message.uid, key, folder_goes=folder_goes)
            if file is None:
                continue
            head = Head(head.mailbox, head.keywords, file.name, file.is_raw)
        octets += message.size
        puts.append((key, DeletedRow(head, row, cache).pack()))
    group.txn.cursor(group.tables.gone).putmulti(puts)
    kept = add_kept(group, account.id, len(puts), octets)
    limit = group.ledger.limits(account.id).octets
    if 0 < limit < kept.octets:
        _let_go_oldest(group, account.id, kept.octets - limit)


def _names(record: MailboxRecord, bits: int) -> tuple[str, ...]:
    return tuple(name for bit, name in enumerate(record.keywords) if bits >> bit & 1) if bits else ()


def kept_of(group: Group, account: int) -> Kept:
    """Return how much is kept of an account."""
    row = group.txn.get(U32.pack(account), db=group.tables.gcnt)
    return Kept(*TOTALS.unpack(row)) if row is not None else Kept(0, 0)


def add_kept(group: Group, account: int, messages: int, octets: int) -> Kept:
    """So much more is kept, or less; return how much that is now."""
    before = kept_of(group, account)
    now = Kept(before.messages + messages, before.octets + octets)
    if now.messages or now.octets:
        group.txn.put(U32.pack(account), TOTALS.pack(max(0, now.messages), max(0, now.octets)), db=group.tables.gcnt)
    else:
        group.txn.delete(U32.pack(account), db=group.tables.gcnt)
    return now


def _let_go_oldest(group: Group, account: int, octets: int) -> None:
    prefix = U32.pack(account)
    while octets > 0:
        cursor = group.txn.cursor(group.tables.gone)
        if not cursor.set_range(prefix) or not cursor.key().startswith(prefix):
            return
        octets -= let_go(group, [cursor.key()]).octets


def let_go(group: Group, keys: Iterable[bytes]) -> Kept:
    """Remove kept messages for good; return how much that was."""
    gone: dict[int, tuple[int, int]] = {}
    for key in keys:
        row = group.txn.pop(key, db=group.tables.gone)
        if row is None:
            continue
        account = KEY.unpack(key)[0]
        try:
            found = DeletedRow.unpack(row)
        except RowDamaged:  # The counters and references that hang on it are `livemail store repair`'s.
            continue
        message = Message.unpack(found.message)
        files = group.files_of(account)
        if files is not None:
            files.drop_put_by(found.head.file)
        else:
            group.dereference(message.digest)
        messages, octets = gone.get(account, (0, 0))
        gone[account] = (messages + 1, octets + message.size)
    for account, (messages, octets) in gone.items():
        add_kept(group, account, -messages, -octets)
    return Kept(sum(messages for messages, _ in gone.values()), sum(octets for _, octets in gone.values()))


def let_go_all(group: Group, account: int) -> None:
    """An account goes, and what is kept of it."""
    let_go(group, keys_below(group.txn, group.tables.gone, U32.pack(account)))
    group.txn.delete(U32.pack(account), db=group.tables.gcnt)  # where a damaged row has left something
