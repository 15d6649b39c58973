"""The store's folder: its format, its identity, and that one process has it.

    store/meta.json      format, uuid, hash key (hexadecimal)
    store/lock           flock'ed while open; holds the process id
    store/spool/         contents on their way in
    store/shard-00/      data.mdb lock.mdb seg/ reserve

meta.json is written last when a store is made, and read first when it is opened: a folder of another format is left as it is.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
import uuid
from pathlib import Path
from typing import Final

import msgspec

from livemail.storage.lmdb.records import FORMAT
from livemail.storage.lmdb.segments import sync_folder

SHARD: Final = "shard-00"

TOO_FEW_FILES: Final = (
    "the system lets this process open too few files; raise that (ulimit -n, or LimitNOFILE= of the systemd unit)"
)

ORPHAN_SECONDS: Final = 10.0
"""How long the writer process of a server that was killed may take to finish."""


class StoreError(Exception):
    """The store cannot be opened.  Its text is for the operator and says what to do; nothing was changed."""


class StoreMissing(StoreError):
    """There is no store in the folder."""


class StoreLocked(StoreError):
    """Another process has the store open.  pid: its process id, 0 when unknown."""

    def __init__(self, text: str, pid: int) -> None:
        super().__init__(text)
        self.pid = pid


class StoreTooNew(StoreError):
    """The store was written by a newer livemail."""


class StoreUnusable(StoreError):
    """The store's files are damaged or may not be read."""


def advice_on(error: OSError, data: Path) -> str:
    """What to do about an error of the system with the data folder, "" where nothing is known but its name."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"the disk of {data} is full; free some space on it.  Nothing was lost"
        case errno.EMFILE | errno.ENFILE:
            return TOO_FEW_FILES
        case errno.EROFS:
            return f"the disk of {data} can only be read; see why (dmesg), and mount it for writing.  Nothing was lost"
        case errno.EIO:
            return f"the disk of {data} fails to read or write (dmesg says more); replace it before anything is started on it"
        case errno.ENOTDIR | errno.EEXIST:
            return f"{error.filename or data} is in the way, or leads through a file; the data folder must be a folder"
    return ""


class Meta(msgspec.Struct, frozen=True):
    """meta.json.  hash_key: 32 octets of the digests' key, hexadecimal."""

    format: int
    uuid: str
    hash_key: str
    shards: int = 1


class Folder:
    """An open, locked store folder."""

    def __init__(self, path: Path, meta: Meta, lock: int) -> None:
        self.path = path
        self.meta = meta
        self._lock = lock

    @property
    def hash_key(self) -> bytes:
        """Key of the contents' digests: without it nobody can make two contents with one digest."""
        return bytes.fromhex(self.meta.hash_key)

    @property
    def lock(self) -> int:
        """The lock's descriptor, for a process that works on the store together with this one."""
        return self._lock

    @property
    def shard(self) -> Path:
        """The one shard's folder."""
        return self.path / SHARD

    @property
    def segments(self) -> Path:
        """The folder of the segments."""
        return self.shard / "seg"

    @property
    def spool(self) -> Path:
        """The folder of spool files."""
        return self.path / "spool"

    def close(self) -> None:
        """Let others have the store."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def open_folder(data: Path, *, create: bool) -> Folder:
    """Lock the store in the data folder ``data``.

    Raises StoreMissing (unless ``create``), StoreTooNew, StoreLocked, StoreUnusable.
    """
    path = data / "store"
    try:
        if not (path / "meta.json").exists():
            if not create:
                raise StoreMissing(
                    f"There is no mail store in {data}.  If the folder is right, start the server once to make it, or"
                    " mount the disk that holds it; otherwise name the right one with --data or in the configuration."
                )
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
        else:
            _read_meta(path)
        lock = _take_lock(path)
        try:
            # Read again: whoever held the lock a moment ago may have made the store.
            meta = _read_meta(path) if (path / "meta.json").exists() else _make(path)
        except BaseException:
            os.close(lock)
            raise
    except OSError as error:
        told = advice_on(error, data) or f"{error}.  Check that the folder belongs to the user livemail runs as."
        raise StoreUnusable(f"The mail store {path} cannot be opened: {told}") from error
    return Folder(path, meta, lock)


def _read_meta(path: Path) -> Meta:
    octets = (path / "meta.json").read_bytes()
    try:
        format_ = json.loads(octets)["format"]
        if format_ > FORMAT:
            raise StoreTooNew(
                f"The mail store {path} has format {format_}; this livemail knows formats up to {FORMAT}.  Install the"
                " newer livemail that wrote it.  Nothing was changed."
            )
        return msgspec.json.decode(octets, type=Meta)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreUnusable(
            f"{path}/meta.json is damaged ({error}).  Restore that file from a backup; the mail itself is untouched."
        ) from error


def _take_lock(path: Path) -> int:
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + ORPHAN_SECONDS
    while not _try_lock(fd):
        holder = os.pread(fd, 20, 0).strip()
        pid = int(holder) if holder.isdigit() else 0
        if pid and not _lives(pid) and time.monotonic() < deadline:
            # The server was killed and its writer process finishes the last group.
            time.sleep(0.02)
            continue
        os.close(fd)
        raise StoreLocked(
            f"The mail store {path} is in use by process {pid or 'unknown'}.  Stop that livemail first (kill {pid or 'PID'}), or give"
            " this one another data folder.",
            pid,
        )
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _make(path: Path) -> Meta:
    shard = path / SHARD
    if (shard / "data.mdb").exists() and (shard / "data.mdb").stat().st_size:
        raise StoreUnusable(
            f"{path}/meta.json is missing but {shard} holds mail.  Restore meta.json from a backup: it holds the key of the"
            " store's digests."
        )
    for folder in (shard, shard / "seg", path / "spool"):
        folder.mkdir(mode=0o700, exist_ok=True)
    meta = Meta(FORMAT, str(uuid.uuid4()), os.urandom(32).hex())
    new = path / "meta.json.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, msgspec.json.encode(meta) + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    # Before the rename: a store whose meta.json is there after a power failure has its folders, too.
    for folder in (shard, path):
        sync_folder(folder)
    new.rename(path / "meta.json")
    for folder in (path, path.parent):
        sync_folder(folder)
    return meta
