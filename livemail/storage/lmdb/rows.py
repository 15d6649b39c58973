"""Reading the rows of a set of UIDs: the one loop under every FETCH, STORE, COPY and EXPUNGE.

A contiguous run comes out of one C call, `list(islice(cursor.iternext(keys=False), n))`, and is not compared row by row: only
where the cursor stands afterwards tells whether it left the range, and then the keys are walked once more.  That and
no more is what 3 million rows a second need.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from operator import itemgetter
from typing import Any

from livemail.storage.lmdb.records import MESSAGE_KEY, STATE, U32

Transaction = Any
"""py-lmdb has no types."""

Table = Any

_last: Callable[[tuple[int, int]], int] = itemgetter(1)

Runs = list[tuple[int, int]]
"""(first UID, number of rows) of each stretch of consecutive rows."""


def read_run(txn: Transaction, table: Table, mailbox_key: bytes, first: int, last: int, most: int) -> list[bytes]:
    """Return the rows with UIDs in [first, last], at most ``most`` of them, ascending."""
    cursor = txn.cursor(table)
    start = mailbox_key + U32.pack(first)
    if not cursor.set_range(start):
        return []
    rows = list(islice(cursor.iternext(keys=False), most))
    end = mailbox_key + U32.pack(last)
    key = cursor.key()
    if len(rows) == most and key and key <= end:
        return rows
    cursor.set_range(start)
    return rows[: bisect_right(list(islice(cursor.iternext(values=False), len(rows))), end)]


def keys_below(txn: Transaction, table: Table, prefix: bytes) -> list[bytes]:
    """Return the keys that begin with ``prefix``, ascending."""
    cursor = txn.cursor(table)
    if not cursor.set_range(prefix):
        return []
    return list(takewhile(lambda key: key.startswith(prefix), cursor.iternext(values=False)))


class Walk:
    """Goes through ascending ranges of UIDs, some rows at a time; between two calls anything may change."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._ranges = ranges
        self._at = 0
        self._next = 0
        self.gone: object = None
        """Where the reader did not find a content the last time, so that it does not look there for ever."""

    @property
    def is_done(self) -> bool:
        """Whether every range was walked through."""
        return self._at >= len(self._ranges)

    def take(
        self, txn: Transaction, table: Table, mailbox_key: bytes, last_uid: int, most: int
    ) -> tuple[list[bytes], Runs]:
        """Return up to ``most`` rows and the runs they form; none only when the walk is done.

        last_uid: the highest UID the mailbox has given.
        """
        rows: list[bytes] = []
        runs: Runs = []
        account, mailbox = MESSAGE_KEY.unpack(mailbox_key + b"\0\0\0\0")[:2]
        while self._at < len(self._ranges) and len(rows) < most:
            first, last = self._ranges[self._at]
            first, last = max(first, self._next), min(last, last_uid)
            if first > last:
                self._at += 1
            elif first == last:
                self._at += 1
                row = txn.get(MESSAGE_KEY.pack(account, mailbox, first), db=table)
                if row is not None:
                    rows.append(row)
                    runs.append((first, 1))
            else:
                wanted = min(most - len(rows), last - first + 1)
                run = read_run(txn, table, mailbox_key, first, last, wanted)
                if run:
                    rows += run
                    runs.append((STATE.unpack(run[0])[0], len(run)))
                    self._next = STATE.unpack(run[-1])[0] + 1
                if len(run) < wanted or self._next > last:
                    self._at += 1
        return rows, runs

    def go_back(self, uid: int) -> None:
        """Take again from ``uid`` on, which `take` returned already."""
        self._at = bisect_left(self._ranges, uid, key=_last)
        self._next = uid


def read_beside(txn: Transaction, table: Table, mailbox_key: bytes, runs: Runs) -> list[bytes]:
    """Return the rows of another table with the same keys."""
    rows: list[bytes] = []
    for first, count in runs:
        key = mailbox_key + U32.pack(first)
        if count == 1:
            row = txn.get(key, db=table)
            if row is not None:
                rows.append(row)
        else:
            cursor = txn.cursor(table)
            if cursor.set_range(key):
                rows += islice(cursor.iternext(keys=False), count)
    return rows


def first_of_runs(runs: Runs, count: int) -> Runs:
    """Return the runs of the first ``count`` rows."""
    kept: Runs = []
    for first, rows in runs:
        if count <= 0:
            break
        kept.append((first, min(rows, count)))
        count -= rows
    return kept


def intersect(left: Sequence[tuple[int, int]], right: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges that are in both; arguments ascending and disjoint, and so is the result."""
    found: list[tuple[int, int]] = []
    a = b = 0
    while a < len(left) and b < len(right):
        first, last = max(left[a][0], right[b][0]), min(left[a][1], right[b][1])
        if first <= last:
            found.append((first, last))
        if left[a][1] < right[b][1]:
            a += 1
        else:
            b += 1
    return found
