"""Who reads the index, and for how long: pages of a moment somebody still reads cannot be used again, and the file grows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from livemail.storage.lmdb.schema import Environment

MIN_COMMITS: Final = 1000

_READER: Final = re.compile(r"^\s*(\d+) +([0-9a-f]+) +(\d+)\s*$", re.MULTILINE)


class ReaderWatch:
    """Looks now and then, and tells of a reader that was there the last time, once."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._seen: set[tuple[str, str, str]] = set()
        self._told: set[tuple[str, str, str]] = set()

    def old(self) -> str:
        """Return what to tell the administrator, "" for nothing."""
        last = self._environment.info()["last_txnid"]
        readers = {(pid, thread, txn) for pid, thread, txn in _READER.findall(self._environment.readers())}
        old = {each for each in readers & self._seen if last - int(each[2]) >= MIN_COMMITS}
        self._seen = readers
        self._told &= readers
        new = old - self._told
        self._told |= old
        if not new:
            return ""
        pid, _, txn = min(new, key=lambda reader: int(reader[2]))
        return (
            f"process {pid} ({_name(pid)}) has been reading the index as it was {last - int(txn):,} commits ago for a minute or more,"
            " and the index grows as long as it goes on: see what it does, and end it if it hangs"
        )


def _name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "it has ended"
