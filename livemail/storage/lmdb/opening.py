"""Opening a mailbox without reading all of it.

SELECT needs every UID and the first message without \\Seen: a walk over a million keys, and maybe as many rows.  So what such a walk
found is noted, and the next one only looks at what has happened since:

    table   key   value
    opened  A M   `HEAD`, then the ranges of UIDs there were at that ModSeq
    unseen  A M   `UNSEEN`: no message below that UID is without \\Seen

UIDs are only added above UIDNEXT, and what goes is in the log of expunges, so the noted ranges never become wrong, only old; when
the log no longer reaches back to them, everything is read once more.  Whoever takes \\Seen away lowers ``unseen`` in the same
transaction (`lower_unseen`).  A delivery costs nothing more than before: the notes are written after a SELECT that had much to read.
"""

from __future__ import annotations

import sys
from array import array
from itertools import islice
from struct import Struct
from threading import Lock
from typing import Final, Self

import msgspec

from livemail.mail.flags import SEEN
from livemail.mail.ids import MAX_UID, AccountId, MailboxId, UIDSet
from livemail.mail.uids import UIDRuns
from livemail.storage.lmdb.operations.group import Group
from livemail.storage.lmdb.records import (
    EXPUNGE_KEY,
    FLAGS_AT,
    MAILBOX_COUNTERS,
    MESSAGE,
    MESSAGE_KEY,
    U32,
    pack_ranges,
    unpack_ranges,
)
from livemail.storage.lmdb.rows import Transaction
from livemail.storage.lmdb.schema import Tables

HEAD: Final = Struct("<QI")
"""ModSeq of the mailbox, its UIDNEXT."""

UNSEEN: Final = Struct("<IQ")
"""UID, ModSeq of the change that took \\Seen away last, which no note of an older walk may undo; 0 for none."""

NOTE_FROM: Final = 1000
"""Messages, or log rows, from which on what a walk found is noted."""

BATCH_ROWS: Final = 1000

FIRST_ROWS: Final = 8
"""Rows looked at before batches are: the message that was noted is the first without \\Seen, mostly."""

KEPT_RUNS: Final = 1_000_000
"""Runs of UIDs kept unpacked, of all mailboxes together: twenty octets each."""

MAILBOX_RUNS: Final = 40
"""What else is kept of a mailbox, in runs."""

LONG_WALK: Final = 50_000
"""Messages from which on a walk is for a thread: a million take a quarter of a second."""

_UNSEEN_TO_NUL: Final = bytes(0 if not flags & SEEN else 1 for flags in range(256))
_UID_AT: Final = Struct("<xI")


class Counters(msgspec.Struct, frozen=True):
    """Of the mailbox, in the same snapshot.  floor: the log of expunges reaches back to it."""

    uid_next: int
    highest: int
    exists: int
    unseen: int
    floor: int

    @classmethod
    def of(cls, row: bytes) -> Self:
        """Read a row of ``mcnt``."""
        uid_next, highest, exists, unseen, _, _, floor, _, _ = MAILBOX_COUNTERS.unpack(row)
        return cls(uid_next, highest, exists, unseen, floor)


class Opening(msgspec.Struct):
    """What opening a mailbox needs.

    first_unseen: UID of the first message without \\Seen, 0 when there is none.  is_worth_noting: much was read for it.
    """

    uids: UIDRuns
    first_unseen: int
    is_worth_noting: bool


def unpack_noted(row: bytes) -> UIDRuns:
    """Return the UIDs of a row of ``opened``."""
    flat = array("I")
    flat.frombytes(row[HEAD.size :])
    if sys.byteorder == "big":
        flat.byteswap()
    return UIDRuns.of_ends(flat[::2], flat[1::2])


class KeptOpenings:
    """Rows of ``opened`` as they were unpacked last, so that a mailbox with ten thousand gaps is unpacked once.

    A row that was written anew is another row, and unpacked anew.  by_mailbox: row and UIDs, the least lately used first.  runs: in
    all of them.
    """

    def __init__(self) -> None:
        self.by_mailbox: dict[bytes, tuple[bytes, UIDRuns]] = {}
        self.runs = 0
        self._lock = Lock()  # A long walk reads in a thread.

    def unpack(self, key: bytes, row: bytes) -> UIDRuns:
        """Return the UIDs of a mailbox's row; the caller's own."""
        with self._lock:
            kept = self._take(key)
            uids = kept[1] if kept is not None and kept[0] == row else unpack_noted(row)
            self.by_mailbox[key] = row, uids
            self.runs += uids.run_count + MAILBOX_RUNS
            while self.runs > KEPT_RUNS and len(self.by_mailbox) > 1:
                self._take(next(iter(self.by_mailbox)))
            return uids.copy()

    def _take(self, key: bytes) -> tuple[bytes, UIDRuns] | None:
        kept = self.by_mailbox.pop(key, None)
        if kept is not None:
            self.runs -= kept[1].run_count + MAILBOX_RUNS
        return kept


def read_opening(txn: Transaction, tables: Tables, key: bytes, counters: Counters, kept: KeptOpenings) -> Opening:
    """Return what opening a mailbox needs.  key: of the mailbox."""
    uids, read = _noted_uids(txn, tables, key, counters, kept)
    if uids is None:
        uids, read = _all_uids(txn, tables, key), counters.exists
    first, passed = _first_unseen(txn, tables, key, counters)
    return Opening(uids, first, max(read, passed) > NOTE_FROM)


def is_long_walk(txn: Transaction, tables: Tables, key: bytes, counters: Counters) -> bool:
    """Whether opening a mailbox means to read all of a large one."""
    if counters.exists < LONG_WALK:
        return False
    row = txn.get(key, db=tables.opened)
    return row is None or counters.floor > HEAD.unpack_from(row)[0]


def _noted_uids(
    txn: Transaction, tables: Tables, key: bytes, counters: Counters, kept: KeptOpenings
) -> tuple[UIDRuns | None, int]:
    """Return the UIDs by what was noted, and how much had to be read beside; None when that is nothing, or too old."""
    row = txn.get(key, db=tables.opened)
    if row is None:
        return None, 0
    modseq, uid_next = HEAD.unpack_from(row)
    if counters.floor > modseq:
        return None, 0
    uids = kept.unpack(key, row)
    gone: list[tuple[int, int]] = []
    read = 0
    if modseq < counters.highest:
        cursor = txn.cursor(tables.expunge)
        if cursor.set_range(EXPUNGE_KEY.pack(*_ids(key), modseq + 1)):
            for expunged, packed in cursor.iternext():
                if not expunged.startswith(key):
                    break
                gone += unpack_ranges(packed)
                read += 1
        tail = _uids_from(txn, tables, key, uid_next, counters.uid_next)
        read += len(tail)
        uids.remove(UIDSet(gone))
        uids.extend(tail)
    # A note that does not add up is no note.
    return (uids, read) if len(uids) == counters.exists else (None, 0)


def _ids(key: bytes) -> tuple[int, int]:
    return U32.unpack_from(key)[0], U32.unpack_from(key, 4)[0]


def _all_uids(txn: Transaction, tables: Tables, key: bytes) -> UIDRuns:
    """Whatever the counters say: `faults` is asked about damaged stores too."""
    return UIDRuns.of(_uids_from(txn, tables, key, 0, MAX_UID + 1))


def _uids_from(txn: Transaction, tables: Tables, key: bytes, first: int, end: int) -> array[int]:
    """Read the keys only, and take every third u32 of them.  end: no UID is as high; with UIDNEXT the next mailbox is left alone."""
    uids = array("I")
    cursor = txn.cursor(tables.msg)
    if first < end and cursor.set_range(key + U32.pack(first)):
        keys = islice(cursor.iternext(values=False), end - first)
        while some := list(islice(keys, BATCH_ROWS)):
            is_last = not some[-1].startswith(key)
            if is_last:
                some = [each for each in some if each.startswith(key)]
            found = array("I")
            found.frombytes(b"".join(some))
            uids += found[2::3]
            if is_last:
                break
    if sys.byteorder == "little":
        uids.byteswap()
    return uids


def _first_unseen(txn: Transaction, tables: Tables, key: bytes, counters: Counters) -> tuple[int, int]:
    """Return the UID of the first message without \\Seen, 0 for none, and how many were passed on the way."""
    if not counters.unseen:
        return 0, 0
    row = txn.get(key, db=tables.unseen)
    from_ = UNSEEN.unpack(row)[0] if row is not None else 0
    cursor = txn.cursor(tables.msg)
    if not cursor.set_range(key + U32.pack(from_)):
        return 0, 0
    # The mailbox has one without \Seen, so that the walk ends before the next mailbox begins; unless the counter is damaged.
    rows = islice(cursor.iternext(keys=False), counters.exists)
    passed = 0
    while some := b"".join(islice(rows, BATCH_ROWS if passed else FIRST_ROWS)):
        at = some[FLAGS_AT :: MESSAGE.size].translate(_UNSEEN_TO_NUL).find(0)
        if at >= 0:
            uid = _UID_AT.unpack_from(some, at * MESSAGE.size)[0]
            is_ours = txn.get(key + U32.pack(uid), db=tables.msg) == some[at * MESSAGE.size : (at + 1) * MESSAGE.size]
            return uid if is_ours else 0, passed + at
        passed += len(some) // MESSAGE.size
    return 0, passed


def _unseen_below(txn: Transaction, tables: Tables, key: bytes, noted: int) -> int:
    """Return the UID of a message without \\Seen below the one that was noted, 0 for none."""
    below = _all_uids(txn, tables, key).position(noted)
    cursor = txn.cursor(tables.msg)
    if below and cursor.set_range(key):
        rows = islice(cursor.iternext(keys=False), below)
        while some := b"".join(islice(rows, BATCH_ROWS)):
            at = some[FLAGS_AT :: MESSAGE.size].translate(_UNSEEN_TO_NUL).find(0)
            if at >= 0:
                return int(_UID_AT.unpack_from(some, at * MESSAGE.size)[0])
    return 0


def faults(txn: Transaction, tables: Tables, key: bytes, counters: Counters) -> list[str]:
    """Return what is wrong with the notes of a mailbox."""
    found = []
    uids, _ = _noted_uids(txn, tables, key, counters, KeptOpenings())
    if uids is not None and uids != _all_uids(txn, tables, key):
        found.append("the UIDs noted are not those there are")
    row = txn.get(key, db=tables.unseen)
    if row is not None and (first := _unseen_below(txn, tables, key, UNSEEN.unpack(row)[0])):
        found.append(f"UID {first} is without \\Seen, and {UNSEEN.unpack(row)[0]} was noted as the first")
    return found


def lower_unseen(group: Group, account: int, mailbox: int, uid: int, modseq: int) -> None:
    """A message lost its \\Seen."""
    key = MESSAGE_KEY.pack(account, mailbox, 0)[:8]
    row = group.txn.get(key, db=group.tables.unseen)
    before = UNSEEN.unpack(row)[0] if row is not None else 0
    group.txn.put(key, UNSEEN.pack(min(before, uid), modseq), db=group.tables.unseen)


class NoteOpening:
    """Keep what a walk found."""

    def __init__(self, account: AccountId, mailbox: MailboxId, counters: Counters, opening: Opening) -> None:
        """counters: of the snapshot the walk went through."""
        self._account = account
        self._mailbox = mailbox
        self._modseq = counters.highest
        self._uid_next = counters.uid_next
        self._ranges = pack_ranges(opening.uids.ranges)
        self._unseen = opening.first_unseen or min(counters.uid_next, MAX_UID)

    def run(self, group: Group) -> None:
        """Write it, unless something newer is there."""
        key = group.mailbox(self._account, self._mailbox).key
        row = group.txn.get(key, db=group.tables.opened)
        if row is None or HEAD.unpack_from(row)[0] < self._modseq:
            noted = HEAD.pack(self._modseq, self._uid_next) + self._ranges
            group.txn.put(key, noted, db=group.tables.opened)
        row = group.txn.get(key, db=group.tables.unseen)
        taken_away = UNSEEN.unpack(row)[1] if row is not None else 0
        if taken_away <= self._modseq:
            group.txn.put(key, UNSEEN.pack(self._unseen, taken_away), db=group.tables.unseen)
