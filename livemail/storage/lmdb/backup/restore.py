"""`livemail store restore` and `verify`: from a backup to a store, or to the messages of one.

A whole store is put together in its folder, meta.json last, as `livemail.storage.lmdb.folder` makes one.  For one account, mailbox or
message the backup is opened as a store that is only read, and the messages come in as any import: into the account that is there,
beside the running server, each once however often it is asked for.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import lmdb
import msgspec

from livemail.interfaces.backup import BackupFailed
from livemail.storage.lmdb.backup.manifest import (
    Manifest,
    check_file,
    flush,
    read_head,
    read_manifest,
    sync,
)
from livemail.storage.lmdb.backup.packs import file_key, kept_files, read_pack
from livemail.storage.lmdb.backup.sealing import Keys
from livemail.storage.lmdb.deleted.records import FOLDER
from livemail.storage.lmdb.files.records import unpack_file
from livemail.storage.lmdb.folder import SHARD, Meta
from livemail.storage.lmdb.records import MAILBOX_KEY, MESSAGE_KEY, U32, unpack_mailbox
from livemail.storage.lmdb.segments import segment_path
from livemail.storage.maildir.folders import make_folder
from livemail.storage.maildir.names import folder_name

Step = tuple[int, int, str]

_PART: Final = "restoring.part"


def verify_steps(folder: Path, generation: int, keys: Keys, problems: list[str]) -> Iterator[Step]:
    """Compare every file of a backup with its digest; with a key, or in the clear, open it and read all that is in it too.

    problems: gets what is wrong.  Raises BackupFailed when there is no backup to look at.
    """
    head = read_head(folder)
    manifest = read_manifest(folder, generation)
    files = list(manifest.files())
    total, done = sum(file.size for file in files), 0
    for file in files:
        wrong = check_file(folder, file)
        if wrong:
            problems.append(wrong)
        done += file.size
        yield done, total, "octets"
    if problems or (head.recipient and not keys.has_any):
        return
    with tempfile.TemporaryDirectory(prefix="livemail-verify-") as place:
        yield from put_together(folder, manifest, keys, Path(place), links=not head.recipient)
        problems += _read_everything(Path(place))


def _read_everything(place: Path) -> list[str]:
    """Run the store's own check over a backup that was put together."""
    from livemail.storage.lmdb.check import Check
    from livemail.storage.lmdb.schema import open_environment
    from livemail.storage.settings import StorageSettings

    meta = msgspec.json.decode((place / "meta.json").read_bytes(), type=Meta)
    environment, tables = open_environment(place / SHARD, StorageSettings())
    check = Check(environment, tables, place / SHARD / "seg", bytes.fromhex(meta.hash_key), with_files=False)
    try:
        while check.step() is not None:
            pass
        return [f"{each.kind}: {each.where}: {each.detail}" for each in check.report().problems]
    finally:
        check.close()
        environment.close()


def restore_steps(folder: Path, generation: int, keys: Keys, data: Path) -> Iterator[Step]:
    """Put a whole store into a data folder that has none.  Raises BackupFailed, OSError."""
    store = data / "store"
    if store.exists() and any(path.name != _PART for path in store.iterdir()):
        raise BackupFailed(
            f"{data} has a mail store; name another folder with --to, move that store away first, or restore --account NAME"
            " into it"
        )
    manifest = read_manifest(folder, generation)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = store / _PART
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700, parents=True)
    yield from put_together(folder, manifest, keys, place, links=False)
    yield from _put_files(folder, manifest, keys, place, data)
    for name in (SHARD, "spool"):
        (place / name).rename(store / name)
    sync(store)
    (place / "meta.json").rename(store / "meta.json")
    place.rmdir()
    sync(store)
    sync(data)


def put_together(folder: Path, manifest: Manifest, keys: Keys, place: Path, *, links: bool) -> Iterator[Step]:
    """Make index, segments and meta.json in ``place``.  Raises BackupFailed, OSError.  links: pieces need not be copied where one is a whole segment."""
    shard = place / SHARD
    (shard / "seg").mkdir(mode=0o700, parents=True)
    (place / "spool").mkdir(mode=0o700)
    keys.open(folder / manifest.index.name, shard / "data.mdb")
    keys.open(folder / manifest.meta.name, place / "meta.json")
    total, done = sum(segment.size for segment in manifest.segments), 0
    scratch = place / "piece.part"
    for segment in manifest.segments:
        path = segment_path(shard / "seg", segment.number)
        if links and len(segment.pieces) == 1:
            path.symlink_to((folder / segment.pieces[0].file.name).absolute())
            done += segment.size
            continue
        with path.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            for piece in segment.pieces:
                keys.open(folder / piece.file.name, scratch)
                with scratch.open("rb") as octets:
                    shutil.copyfileobj(octets, file)
                done += piece.end - piece.start
                yield done, total, "octets"
            if file.tell() != segment.size:
                raise BackupFailed(
                    f"segment {segment.number} has {file.tell()} octets in the backup, not {segment.size}"
                )
            flush(file)
    scratch.unlink(missing_ok=True)
    for path in (shard / "data.mdb", place / "meta.json"):
        path.chmod(0o600)
        with path.open("rb+") as file:
            flush(file)
    for path in (shard / "seg", shard, place):
        sync(path)


def _put_files(folder: Path, manifest: Manifest, keys: Keys, place: Path, data: Path) -> Iterator[Step]:
    """Write the messages of accounts in Maildirs, where the index says their folders are."""
    wanted = _wanted_files(place / SHARD, data)
    if not wanted:
        return
    total, done = len(wanted), 0
    scratch = place / "pack.part"
    for pack, _ in manifest.packs:
        keys.open(folder / pack.name, scratch)
        for key, octets in read_pack(scratch):
            path = wanted.pop(key, None)
            if path is None:
                continue
            with path.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(octets)
                flush(file)
            done += 1
            if done % 200 == 0:
                yield done, total, "files"
    scratch.unlink(missing_ok=True)
    # What is left in `wanted` was removed while the backup was made; its rows go when the folder is compared.


def _wanted_files(shard: Path, data: Path) -> dict[bytes, Path]:
    """Return where each message's file belongs, and make the folders.  Raises BackupFailed when one is in the way."""
    wanted: dict[bytes, Path] = {}
    folders: dict[bytes, Path] = {}
    with lmdb.open(str(shard), readonly=True, lock=False, max_dbs=64, lib_version=0) as index, index.begin() as txn:
        tables = {name: index.open_db(name, txn=txn, create=False) for name in (b"mroot", b"mbox", b"file")}
        roots = dict(txn.cursor(tables[b"mroot"]).iternext())
        for root in roots.values():
            path = data / os.fsdecode(root)
            if path.exists() and any(path.iterdir()):
                raise BackupFailed(f"{path} is there already; move it away, its messages are in the backup")
        for key, row in txn.cursor(tables[b"mbox"]).iternext():
            if key[:4] in roots:
                name = unpack_mailbox(row).name
                folders[key] = data / os.fsdecode(roots[key[:4]]) / folder_name(name)
                make_folder(folders[key], name, lambda _: None)
        for key, row in txn.cursor(tables[b"file"]).iternext():
            account, mailbox, _ = MESSAGE_KEY.unpack(key)
            file = unpack_file(row)
            wanted[file_key(account, mailbox, file.base)] = folders[MAILBOX_KEY.pack(account, mailbox)] / file.name
        with contextlib.suppress(lmdb.NotFoundError):  # a backup of an older livemail
            gone = index.open_db(b"gone", txn=txn, create=False)
            for account, mailbox, name in kept_files(txn.cursor(gone).iternext()):
                waiting = data / os.fsdecode(roots[U32.pack(account)]) / FOLDER
                waiting.mkdir(0o700, parents=True, exist_ok=True)
                wanted[file_key(account, mailbox, name)] = waiting / name
    return wanted
