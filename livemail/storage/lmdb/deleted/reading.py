"""Reading what is kept."""

from __future__ import annotations

from itertools import islice
from typing import Final

from livemail.interfaces.undelete import DeletedMessage, Kept
from livemail.mail.ids import UID
from livemail.storage.lmdb.deleted.records import KEY, TOTALS, DeletedRow, RowDamaged
from livemail.storage.lmdb.records import U32, Message
from livemail.storage.lmdb.rows import Transaction
from livemail.storage.lmdb.schema import Tables

LAST: Final = (1 << 32) - 1


def read_kept(txn: Transaction, tables: Tables, account: int) -> Kept:
    """Return how much is kept of an account."""
    row = txn.get(U32.pack(account), db=tables.gcnt)
    return Kept(*TOTALS.unpack(row)) if row is not None else Kept(0, 0)


def read_all_kept(txn: Transaction, tables: Tables) -> Kept:
    """Return how much is kept of all accounts."""
    totals = [TOTALS.unpack(row) for row in txn.cursor(tables.gcnt).iternext(keys=False)]
    return Kept(sum(messages for messages, _ in totals), sum(octets for _, octets in totals))


def read_deleted(txn: Transaction, tables: Tables, account: int, after: bytes, limit: int) -> list[DeletedMessage]:
    """Return the kept messages behind a key, the longest kept first.  One whose row is damaged is left out."""
    prefix = U32.pack(account)
    cursor = txn.cursor(tables.gone)
    found: list[DeletedMessage] = []
    if not cursor.set_range(max(prefix, after + b"\0") if after else prefix):
        return found
    for key, value in islice(cursor.iternext(), limit):
        if not key.startswith(prefix):
            break
        try:
            row = DeletedRow.unpack(value)
        except RowDamaged:
            continue
        message = Message.unpack(row.message)
        found.append(
            DeletedMessage(
                key,
                KEY.unpack(key)[1],
                row.head.mailbox,
                UID(message.uid),
                message.size,
                message.date,
                message.flags,
                row.head.keywords,
                row.cache[: message.envelope_end],
            )
        )
    return found


def older_than(txn: Transaction, tables: Tables, before: int, limit: int) -> list[bytes]:
    """Return keys of messages that were expunged before a moment, at most ``limit``, all accounts'."""
    found: list[bytes] = []
    cursor = txn.cursor(tables.gone)
    there = cursor.first()
    while there and len(found) < limit:
        key = cursor.key()
        account, deleted, _, _ = KEY.unpack(key)
        if deleted < before:
            found.append(key)
            there = cursor.next()
        elif account < LAST:
            there = cursor.set_range(U32.pack(account + 1))
        else:
            break
    return found
