"""`livemail store check` and `repair` for kept messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from itertools import islice
from pathlib import Path
from typing import Final

from livemail.storage.lmdb.deleted.records import FOLDER, KEY, TOTALS, DeletedRow, RowDamaged
from livemail.storage.lmdb.records import BLOB, U32, Message
from livemail.storage.lmdb.rows import Transaction
from livemail.storage.lmdb.schema import Tables

SLICE_ROWS: Final = 5000

Found = Callable[[str, str, str], None]
"""Told of a problem: kind, where, detail."""


def where_of(key: bytes) -> str:
    """Return how a kept message is called in a report."""
    if len(key) != KEY.size:
        return f"deleted mail {key.hex()}"
    account, _, mailbox, uid = KEY.unpack(key)
    return f"account {account}, deleted from mailbox {mailbox}, UID {uid}"


IsMissing = Callable[[bytes, Path], bool]
"""Whether a kept message's file is not there.  Asked with the message's key."""


class DeletedWalk:
    """One walk over the kept messages of a snapshot.

    references: of contents, to compare with theirs.  bad: rows nothing can come back from, with the octets the counters say they
    have.  totals: messages and octets by account, the bad ones included.
    """

    def __init__(
        self,
        txn: Transaction,
        tables: Tables,
        root: Callable[[int], Path | None],
        is_missing: IsMissing,
        found: Found,
    ) -> None:
        """root: folder of an account in a Maildir, None for one in segments."""
        self._txn = txn
        self._tables = tables
        self._root = root
        self._is_missing = is_missing
        self._found = found
        self.references: Counter[bytes] = Counter()
        self.bad: dict[bytes, int] = {}
        self.totals: dict[bytes, tuple[int, int]] = {}

    def run(self) -> Generator[int, None, None]:
        """Walk; yields how many rows were seen."""
        rows = self._txn.cursor(self._tables.gone).iternext()
        seen = 0
        while some := list(islice(rows, SLICE_ROWS)):
            for key, value in some:
                self._read(key, value)
            seen += len(some)
            yield seen
        self._compare()

    def _read(self, key: bytes, value: bytes) -> None:
        where = where_of(key)
        if len(key) != KEY.size:
            self._bad(key, 0, "deleted-row", where, f"the key has {len(key)} octets")
            return
        try:
            row = DeletedRow.unpack(value)
        except RowDamaged as error:
            self._bad(key, 0, "deleted-row", where, f"cannot be read: {error}")
            return
        message = Message.unpack(row.message)
        if self._txn.get(key[:4], db=self._tables.acct) is None:
            self._bad(key, 0, "deleted-orphan", where, "has no account")
            return
        messages, octets = self.totals.get(key[:4], (0, 0))
        self.totals[key[:4]] = (messages + 1, octets + message.size)
        root = self._root(U32.unpack_from(key)[0])
        if root is not None:
            if self._is_missing(key, root / FOLDER / row.head.file):
                self._bad(key, message.size, "deleted-file", where, f"its file {row.head.file} is gone")
            return
        blob = self._txn.get(message.digest, db=self._tables.blob)
        if blob is None:
            self._bad(key, message.size, "content-missing", where, f"no content {message.digest.hex()}")
            return
        if BLOB.unpack(blob)[3] + message.prefix_size != message.size:
            self._found("message-size", where, f"the row says {message.size} octets")
        self.references[message.digest] += 1

    def _bad(self, key: bytes, octets: int, kind: str, where: str, detail: str) -> None:
        self.bad[key] = octets
        self._found(kind, where, detail)

    def _compare(self) -> None:
        said = {key: TOTALS.unpack(row) for key, row in self._txn.cursor(self._tables.gcnt).iternext()}
        for key in sorted(said.keys() | self.totals.keys()):
            there, told = self.totals.get(key, (0, 0)), said.get(key, (0, 0))
            if there != told:
                self._found(
                    "deleted-counters",
                    f"account {U32.unpack(key)[0]}",
                    f"{there[0]} messages, {there[1]} octets are kept; the counters say {told[0]}, {told[1]}",
                )
