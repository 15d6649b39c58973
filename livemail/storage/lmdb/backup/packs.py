"""Messages of accounts in Maildirs, packed: a backup has what no earlier one has.

    pack    `RECORD`, file's octets, … ; list    `KEY` …, both in the same order

A message's file never changes but in name, and the names are the index's business: what is kept is the octets, under account,
mailbox and the base of the name.  Somebody may remove a file at any moment, so they are packed before the index is copied, and what came
in between after it: what is missing then was removed while the backup was made.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Final

from livemail.interfaces.backup import BackupFailed
from livemail.storage.lmdb.backup.manifest import Stored, digest_of
from livemail.storage.lmdb.deleted.records import KEY as DELETED_KEY
from livemail.storage.lmdb.deleted.records import DeletedRow, RowDamaged
from livemail.storage.lmdb.files.reading import FileGone, MaildirReader
from livemail.storage.lmdb.files.records import unpack_file
from livemail.storage.lmdb.records import MESSAGE_KEY
from livemail.storage.lmdb.schema import Environment, Tables

KEY: Final = Struct("16s")
RECORD: Final = Struct("<16sQI")
"""Key, octets of the file, their crc32."""

StoreFile = Callable[[Path, str], Stored]


def file_key(account: int, mailbox: int, base: str) -> bytes:
    """Return what stands for a message's file."""
    return blake2b(f"{account}/{mailbox}/".encode() + os.fsencode(base), digest_size=16).digest()


def write_pack(
    environment: Environment,
    tables: Tables,
    target: Path,
    name: str,
    earlier: list[tuple[Stored, Stored]],
    store_file: StoreFile,
) -> tuple[Stored, Stored] | None:
    """Write the messages that are new; None when there are none.  The lists are in the clear: they tell nothing.

    tables: opened before.  Opening one waits for the writer with the GIL held, for which a writer in this process may wait.
    """
    known: set[bytes] = set()
    for _, listed in earlier:
        known.update(key for (key,) in KEY.iter_unpack((target / listed.name).read_bytes()))
    pack, names = target / "mail" / f"{name}.plain.part", target / "mail" / f"{name}.list"
    keys: list[bytes] = []
    with pack.open("wb") as file:
        for key, octets in _files(environment, tables, known):
            file.write(RECORD.pack(key, len(octets), zlib.crc32(octets)))
            file.write(octets)
            keys.append(key)
    try:
        if not keys:
            return None
        stored = store_file(pack, f"mail/{name}.pack")
        names.write_bytes(b"".join(keys))
        return stored, Stored(f"mail/{name}.list", *digest_of(names))
    finally:
        pack.unlink(missing_ok=True)


def _files(environment: Environment, tables: Tables, known: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
    reader = MaildirReader(environment, tables)
    if not reader.has_any:
        return
    with environment.begin() as txn:
        rows = [(key, unpack_file(row)) for key, row in txn.cursor(tables.file).iternext()]
        kept = list(kept_files(txn.cursor(tables.gone).iternext()))
    for message_key, file in rows:
        account, mailbox, _ = MESSAGE_KEY.unpack(message_key)
        key = file_key(account, mailbox, file.base)
        if key in known:
            continue
        with environment.begin() as txn:
            try:
                folder = reader.folder(txn, account, mailbox)
                assert folder is not None
                octets = reader.raw(txn, folder, message_key)
            except FileGone:
                continue
        known.add(key)
        yield key, octets
    for account, mailbox, name in kept:
        key = file_key(account, mailbox, name)
        if key not in known:
            with contextlib.suppress(FileGone):
                yield key, reader.raw_kept(account, name)


def kept_files(rows: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[int, int, str]]:
    """Yield account, mailbox and file name of the messages that were expunged and are kept in Maildirs.  rows: of ``gone``."""
    for key, row in rows:
        with contextlib.suppress(RowDamaged):
            name = DeletedRow.unpack(row).head.file
            if name:
                account, _, mailbox, _ = DELETED_KEY.unpack(key)
                yield account, mailbox, name


def read_pack(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, octets) of a pack in the clear.  Raises BackupFailed for a damaged one."""
    with path.open("rb") as file:
        while head := file.read(RECORD.size):
            if len(head) < RECORD.size:
                raise BackupFailed(f"{path} ends in the middle")
            key, size, crc = RECORD.unpack(head)
            octets = file.read(size)
            if len(octets) != size or zlib.crc32(octets) != crc:
                raise BackupFailed(f"{path} is damaged")
            yield key, octets
