"""The index: one LMDB environment per shard and its tables.

Engine 0.9 is pinned, as research measured it; default sync flags, no WRITEMAP (slower, and a stray write corrupts); a map of a
tebibyte, which costs address space and no disk, so that it never has to grow while transactions live.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from livemail.storage.lmdb.folder import TOO_FEW_FILES, StoreUnusable
from livemail.storage.lmdb.segments import sync_folder
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
    imported: Any
    dom: Any
    alias: Any
    gone: Any
    gcnt: Any
    opened: Any
    unseen: Any
    qmsg: Any
    qrcp: Any
    qdue: Any
    qrdy: Any
    qlea: Any
    qdst: Any


def make_index(folder: Path, settings: StorageSettings) -> None:
    """Make a shard's index, whole or not at all: its name is there once it is flushed.  Raises StoreUnusable."""
    new = folder / "data.mdb.new"
    new.unlink(missing_ok=True)
    with _told(folder):
        environment = lmdb.open(
            str(new), subdir=False, lock=False, map_size=settings.map_octets, max_dbs=64, mode=0o600, lib_version=0
        )
        try:
            with environment.begin(write=True) as txn:
                for name in Tables._fields:
                    environment.open_db(name.encode(), txn)
            environment.sync(True)
        finally:
            environment.close()
    new.rename(folder / "data.mdb")
    sync_folder(folder)


def open_environment(folder: Path, settings: StorageSettings) -> tuple[Environment, Tables]:
    """Open a shard's index.  Raises StoreUnusable."""
    with _told(folder):
        environment = lmdb.open(
            str(folder),
            map_size=settings.map_octets,
            max_dbs=64,
            max_readers=MAX_READERS,
            mode=0o600,
            lib_version=0,
            create=False,
        )
        _refuse_cut_short(environment, folder)
        environment.reader_check()
        return environment, Tables(*(environment.open_db(name.encode()) for name in Tables._fields))


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Raise StoreUnusable, which says what to do, for what LMDB raises."""
    file = folder / "data.mdb"
    try:
        yield
    except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError) as error:
        raise StoreUnusable(
            f"The index {file} is damaged ({error}).  It holds accounts, mailboxes, flags and the queue; the messages' contents"
            f" are in {folder}/seg and are not touched.  Restore the store from a backup (livemail store restore); or put an"
            " older copy of data.mdb in its place, which leaves mail that came after it to `livemail store repair`.  Only if the store"
            " never held anything, move it away and start anew.  Nothing was changed."
        ) from error
    except (lmdb.Error, MemoryError) as error:
        if os.strerror(errno.EMFILE) in str(error):
            raise StoreUnusable(f"The index {file} cannot be opened: {TOO_FEW_FILES}.") from error
        if os.strerror(errno.ENOSPC) in str(error):
            raise StoreUnusable(
                f"The index {file} cannot be opened: its disk is full, or has no inodes left; free some of it."
                "  Nothing was changed."
            ) from error
        raise StoreUnusable(
            f"The index {file} cannot be opened: {error}.  If address space is limited (ulimit -v), lift that or"
            " lower storage.map_octets; if the file is damaged, restore the store from a backup.  Nothing was changed."
        ) from error


def _refuse_cut_short(environment: Environment, folder: Path) -> None:
    """Raise StoreUnusable when pages in use lie behind the file's end: reading one would kill the process (SIGBUS)."""
    file = folder / "data.mdb"
    wanted, found = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"], file.stat().st_size
    # LMDB does not write the last pages while they are free, so a short file may be whole: it is read on trial.
    if found < wanted and not _survives_reading(folder):
        environment.close()
        raise StoreUnusable(
            f"The index {file} is cut short: {found} octets of {wanted}.  Restore it from a backup.  Nothing was changed."
        )


def _survives_reading(folder: Path) -> bool:
    """Whether a process of its own reads every row of the index and lives."""
    done = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-c", f"from {__name__} import read_all; read_all({str(folder)!r})"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    return done.returncode == 0


def read_all(folder: str) -> None:
    """Read every row."""
    with lmdb.open(folder, readonly=True, lock=False, max_dbs=64, lib_version=0) as environment:
        with environment.begin() as txn:
            names = list(txn.cursor().iternext(values=False))  # not those of today: an older store has fewer
        for name in names:
            table = environment.open_db(name, create=False)
            with environment.begin() as txn:
                for _ in txn.cursor(table):
                    pass
