"""What a backup consists of, and its files: written whole or not at all, compared by digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import msgspec

from livemail.interfaces.backup import BackupFailed

FORMAT: Final = 1
HEAD: Final = "livemail-backup.json"
CHUNK_OCTETS: Final = 1024 * 1024


class Head(msgspec.Struct, frozen=True):
    """livemail-backup.json.  store: uuid of the store.  recipient: age public key, "" for a backup in the clear."""

    format: int
    store: str
    recipient: str = ""


class Stored(msgspec.Struct, frozen=True):
    """One file of a backup.  name: below the folder.  size, digest: of the file as it lies there (BLAKE2b-256, hexadecimal)."""

    name: str
    size: int
    digest: str


class Piece(msgspec.Struct, frozen=True):
    """Octets [start, end) of a segment."""

    start: int
    end: int
    file: Stored


class SegmentCopy(msgspec.Struct, frozen=True):
    """A segment: size octets, in pieces that follow each other."""

    number: int
    size: int
    pieces: list[Piece]


class Manifest(msgspec.Struct, frozen=True):
    """One backup.  created: seconds since the epoch, UTC.  packs: of this and earlier backups, (messages, their list)."""

    format: int
    generation: int
    created: int
    meta: Stored
    index: Stored
    segments: list[SegmentCopy]
    packs: list[tuple[Stored, Stored]]
    accounts: int
    messages: int

    def files(self) -> Iterator[Stored]:
        """Every file that belongs to it."""
        yield self.meta
        yield self.index
        for segment in self.segments:
            for piece in segment.pieces:
                yield piece.file
        for pack in self.packs:
            yield from pack


def read_head(folder: Path) -> Head:
    """Read what kind of backups a folder holds.  Raises BackupFailed."""
    try:
        head = msgspec.json.decode((folder / HEAD).read_bytes(), type=Head)
    except FileNotFoundError:
        raise BackupFailed(f"{folder} holds no backup: there is no {HEAD} in it") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise BackupFailed(f"{folder / HEAD} cannot be read: {error}") from error
    if head.format > FORMAT:
        raise BackupFailed(f"{folder} was written by a newer livemail (format {head.format}); use that one")
    return head


def manifest_path(folder: Path, generation: int) -> Path:
    """Return the path of a manifest."""
    return folder / f"{generation:06d}.manifest.json"


def generations(folder: Path) -> list[int]:
    """Return the numbers of all complete backups, ascending."""
    return sorted(int(path.name[:6]) for path in folder.glob("[0-9]*.manifest.json") if path.name[:6].isdigit())


def read_manifest(folder: Path, generation: int = 0) -> Manifest:
    """Read a manifest, the latest for 0.  Raises BackupFailed."""
    known = generations(folder)
    if not known:
        raise BackupFailed(f"{folder} holds no complete backup yet; run `livemail store backup {folder}` to its end")
    if generation and generation not in known:
        raise BackupFailed(f"{folder} has no backup {generation}; there are {', '.join(map(str, known))}")
    path = manifest_path(folder, generation or known[-1])
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise BackupFailed(f"{path} cannot be read: {error}; use an earlier backup with --generation N") from error


def digest_of(path: Path) -> tuple[int, str]:
    """Return size and digest of a file.  Raises OSError."""
    digest = hashlib.blake2b(digest_size=32)
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_OCTETS):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def check_file(folder: Path, file: Stored) -> str:
    """Return what is wrong with a file, "" for nothing."""
    try:
        size, digest = digest_of(folder / file.name)
    except OSError as error:
        return f"{file.name}: {error.strerror}"
    if (size, digest) != (file.size, file.digest):
        return f"{file.name}: {size} octets, not the {file.size} that were written, or other ones"
    return ""


def write_json(path: Path, value: object) -> None:
    """Write a small file whole, and bring it to disk.  Raises OSError."""
    new = path.with_name(path.name + ".part")
    with new.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
        flush(file)
    new.rename(path)
    sync(path.parent)


def flush(file: IO[bytes]) -> None:
    """Bring a file to disk.  Raises OSError."""
    file.flush()
    os.fdatasync(file.fileno())


def sync(folder: Path) -> None:
    """Bring a folder's names to disk.  Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
