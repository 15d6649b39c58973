"""What another program has done to a mailbox's folder: the difference between the folder and the index.

Runs in a thread, with a read transaction of its own.  It reads names; messages that are new are read a batch at a time
(`read_found`), so that a folder with a million of them needs no more memory than their names.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from livemail.mail.message.scanner import Scanner
from livemail.storage.lmdb.files.effects import ASIDE, remove
from livemail.storage.lmdb.files.records import File, unpack_file
from livemail.storage.lmdb.operations.deliveries import Prepared, Scanned, prepare
from livemail.storage.lmdb.records import MESSAGE_KEY
from livemail.storage.lmdb.schema import Environment, Tables
from livemail.storage.maildir.folders import list_folder, stamp
from livemail.storage.maildir.lines import Expander, file_chunks
from livemail.storage.maildir.uidlist import UIDList, read_uidlist
from livemail.storage.spool import DIGEST_OCTETS

BATCH_MESSAGES: Final = 200
BATCH_OCTETS: Final = 4 * 1024 * 1024
TMP_SECONDS: Final = 36 * 3600
"""What lies longer in ``tmp`` was given up by whoever wrote it.  cr.yp.to/proto/maildir.html"""

ASIDE_SECONDS: Final = 60


class Found(msgspec.Struct, frozen=True):
    """A message another program put here.  date: seconds since the epoch, of its file.  uid: the lowest it may get."""

    file: File
    prepared: Prepared
    date: int
    uid: int = 0


class Difference(msgspec.Struct, frozen=True):
    """added: names, in the order in which they get UIDs.  gone: UIDs.  changed: UIDs whose file has another name.

    stamp: of the folder before it was read.  uidlist: what Dovecot knows, where the folder was never compared before.
    """

    added: Sequence[str]
    gone: Sequence[int]
    changed: Sequence[int]
    stamp: bytes
    uidlist: UIDList | None = None

    @property
    def is_empty(self) -> bool:
        """Whether folder and index agree."""
        return not (self.added or self.gone or self.changed or self.uidlist)


def compare(environment: Environment, tables: Tables, mailbox_key: bytes, folder: Path) -> Difference:
    """Compare a folder with the index.  Raises OSError, FileNotFoundError when it is gone."""
    before = stamp(folder)
    listed = list_folder(folder)
    _sweep(folder / "tmp")
    gone, changed = [], []
    with environment.begin() as txn:
        is_first = txn.get(mailbox_key, db=tables.mdir) is None
        cursor = txn.cursor(tables.file)
        if cursor.set_range(mailbox_key):
            for key, row in cursor.iternext():
                if not key.startswith(mailbox_key):
                    break
                file = unpack_file(row)
                name = listed.pop(file.base, None)
                if name is None:
                    gone.append(MESSAGE_KEY.unpack(key)[2])
                elif name != file.name:
                    changed.append(MESSAGE_KEY.unpack(key)[2])
    uidlist = read_uidlist(folder) if is_first else None
    uids = uidlist.uids if uidlist is not None else {}
    added = sorted(listed.values(), key=lambda name: _order(name, uids))
    return Difference(added, gone, changed, before, uidlist)


def _order(name: str, uids: dict[str, int]) -> tuple[int, int, str]:
    """Dovecot's order first, then by the seconds the name begins with."""
    base = name[4:].partition(":")[0]
    seconds = base.partition(".")[0]
    when = int(seconds) if seconds.isdigit() and len(seconds) < 12 else 0
    return uids.get(base, 1 << 33), when, base


def _sweep(folder: Path) -> None:
    """Remove what nobody will come back for."""
    now = time.time()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                age = now - entry.stat(follow_symlinks=False).st_ctime
                if age > (ASIDE_SECONDS if entry.name.startswith(ASIDE) else TMP_SECONDS):
                    remove(Path(entry.path))
    except OSError:
        return  # Somebody else was quicker.


def batches(folder: Path, difference: Difference, key: bytes) -> Iterator[list[Found]]:
    """Read the messages that are new, a batch at a time.  key: of the digests."""
    uids = difference.uidlist.uids if difference.uidlist is not None else {}
    floor = difference.uidlist.uid_next if difference.uidlist is not None else 0
    batch: list[Found] = []
    octets = 0
    for name in difference.added:
        found = read_found(folder, name, key, uids, floor)
        if found is None:
            continue
        batch.append(found)
        octets += len(found.prepared.cache)
        if len(batch) >= BATCH_MESSAGES or octets >= BATCH_OCTETS:
            yield batch
            batch, octets = [], 0
    yield batch


def read_found(folder: Path, name: str, key: bytes, uids: dict[str, int], floor: int) -> Found | None:
    """Read one message whole; None when it is gone or no file.  floor: the lowest UID for one that has none."""
    try:
        fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            return None
        scanner, expander = Scanner(), Expander()
        digest = blake2b(key=key, digest_size=DIGEST_OCTETS)
        size = 0
        for chunk in file_chunks(fd):
            octets = expander.expand(chunk)
            size += len(octets)
            digest.update(octets)
            scanner.feed(octets)
        # Not one CR was missing: reading needs no translation then.
        is_raw = size == state.st_size
        file = File(name, is_raw)
        prepared = prepare(Scanned(digest.digest(), size, scanner.finish()))
        return Found(file, prepared, int(state.st_mtime), uids.get(file.base, floor))
    finally:
        os.close(fd)
