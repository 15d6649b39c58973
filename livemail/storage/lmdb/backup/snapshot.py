"""A consistent copy of the index, which does not hold the store's space back for longer than it may.

While LMDB copies, a read transaction keeps every page of that moment: what changes goes to new pages, and the file grows.  On a disk
that keeps up that is nothing; on one that is slow, or hangs, it would have no end.  So LMDB writes into a socket, one thread takes
from there to the disk, and another watches the index: when it has grown too much the socket is shut, which ends the transaction, and
the backup with a word about why.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from threading import Event, Thread
from typing import BinaryIO, Final

import lmdb

from livemail.interfaces.backup import BackupFailed
from livemail.storage.lmdb.schema import Environment

CHUNK_OCTETS: Final = 1024 * 1024
WATCH_SECONDS: Final = 0.5
GROWTH_OCTETS: Final = 64 * 1024 * 1024
GROWTH_PART: Final = 4
"""The index may grow by a quarter, or by the octets above if that is more."""


def copy_index(environment: Environment, path: Path, file: BinaryIO) -> None:
    """Write the index as it is now to a file.  path: the file's, for words.  Raises BackupFailed, OSError."""
    ours, theirs = socket.socketpair()
    page = environment.stat()["psize"]
    before = environment.info()["last_pgno"] * page
    limit = before + max(GROWTH_OCTETS, before // GROWTH_PART)
    is_over = Event()
    errors: list[lmdb.Error] = []
    grown = 0

    def copy() -> None:
        try:
            environment.copyfd(theirs.fileno(), compact=True)
        except lmdb.Error as error:
            errors.append(error)
        finally:
            theirs.shutdown(socket.SHUT_WR)

    def watch() -> None:
        nonlocal grown
        while not is_over.wait(WATCH_SECONDS):
            size = environment.info()["last_pgno"] * page
            if size > limit:
                grown = size - before
                _shut(ours)
                _shut(theirs)
                return

    threads = [Thread(target=each, name=f"livemail-backup-{each.__name__}", daemon=True) for each in (copy, watch)]
    with ours, theirs:
        for each in threads:
            each.start()
        try:
            while chunk := ours.recv(CHUNK_OCTETS):
                put(file, chunk)
        finally:
            is_over.set()
            _shut(ours)  # What was not taken will not be: a copy that is broken off must not wait for it.
            for each in threads:
                each.join()
    if grown:
        raise BackupFailed(
            f"the index grew by {grown // 1024**2:,} MiB while it was copied to {path.parent}, which is too slow to keep up with the"
            " mail that comes in; back up to a faster disk and copy from there, or at a quieter time"
        )
    if errors:
        raise BackupFailed(f"the index could not be copied to {path.parent}: {errors[0]}")


def put(file: BinaryIO, chunk: bytes) -> None:
    """Write what was taken; as long as that takes."""
    file.write(chunk)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
