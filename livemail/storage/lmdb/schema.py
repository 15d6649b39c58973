"""The index: one LMDB environment per shard and its tables.

Engine 0.9 is pinned, as research measured it; default sync flags, no WRITEMAP (slower, and a stray write corrupts); a map of a
tebibyte, which costs address space and no disk, so that it never has to grow while transactions live.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from livemail.storage.lmdb.folder import StoreUnusable
from livemail.storage.lmdb.records import TABLES
from livemail.storage.settings import StorageSettings

MAX_READERS = 1024

Environment = Any


class Tables(NamedTuple):
    """Handles of the tables; what they hold is in `livemail.storage.lmdb.records`."""

    meta: Any
    user: Any
    acct: Any
    acnt: Any
    mbox: Any
    mcnt: Any
    mname: Any
    sub: Any
    msg: Any
    cache: Any
    msgid: Any
    change: Any
    expunge: Any
    blob: Any
    seg: Any
    mroot: Any
    file: Any
    fbase: Any
    mdir: Any
    story: Any


def open_environment(folder: Path, settings: StorageSettings) -> tuple[Environment, Tables]:
    """Open a shard's index, made when missing.  Raises StoreUnusable."""
    try:
        environment = lmdb.open(
            str(folder),
            map_size=settings.map_octets,
            max_dbs=32,
            max_readers=MAX_READERS,
            mode=0o600,
            lib_version=0,
            create=False,
        )
        environment.reader_check()
        return environment, Tables(*(environment.open_db(name.encode()) for name in TABLES))
    except (lmdb.Error, MemoryError) as error:
        raise StoreUnusable(
            f"The index {folder}/data.mdb cannot be opened: {error}.  If address space is limited (ulimit -v), lift that or"
            " lower storage.map_octets; if the file is damaged, restore the store from a backup.  Nothing was changed."
        ) from error
