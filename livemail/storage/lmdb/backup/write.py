"""`livemail store backup`: one more backup in a folder, of what the folder does not have yet.

Runs in a thread, in steps.  The index is held by a read transaction as long as LMDB copies it (a second per gigabyte), and no longer
than the store can bear (`livemail.storage.lmdb.backup.snapshot`); nothing else holds anything back but the files of segments, which stay readable while they are open.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from io import RawIOBase
from pathlib import Path
from typing import Final, cast

import lmdb
import msgspec

from livemail.interfaces.backup import BackupFailed, BackupReport
from livemail.storage.lmdb.backup.manifest import (
    FORMAT,
    HEAD,
    Head,
    Manifest,
    Piece,
    SegmentCopy,
    Stored,
    digest_of,
    flush,
    generations,
    manifest_path,
    read_head,
    read_manifest,
    sync,
    write_json,
)
from livemail.storage.lmdb.backup.packs import write_pack
from livemail.storage.lmdb.backup.sealing import check_recipient, seal
from livemail.storage.lmdb.backup.snapshot import copy_index
from livemail.storage.lmdb.folder import Folder
from livemail.storage.lmdb.records import SEGMENT, TAIL, U32
from livemail.storage.lmdb.schema import Environment, Tables
from livemail.storage.lmdb.segments import segment_numbers, segment_path

PIECE_OCTETS: Final = 64 * 1024 * 1024
ATTEMPTS: Final = 5

Step = tuple[int, int, str]


class _Range(RawIOBase):
    """Octets [start, end) of an open file, as a stream."""

    def __init__(self, fd: int, start: int, end: int) -> None:
        self._fd = fd
        self._at = start
        self._end = end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        octets = os.pread(self._fd, min(len(view), self._end - self._at), self._at)
        view[: len(octets)] = octets
        self._at += len(octets)
        return len(octets)


class Backup:
    """One run.  `step` may be called from any thread, from one at a time."""

    def __init__(
        self, environment: Environment, tables: Tables, folder: Folder, target: Path, recipient: str, now: int
    ) -> None:
        """recipient: public key, "" for what the target's other backups have.  now: seconds since the epoch."""
        self._environment = environment
        self._tables = tables
        self._folder = folder
        self._target = target
        self._recipient = recipient
        self._now = now
        self._open: dict[int, int] = {}
        self._steps = self._run()
        self.manifest: Manifest | None = None
        self.new_octets = 0

    def step(self) -> Step | None:
        """Do some work.  Returns (done, total, what), None when all is done.  Raises BackupFailed, OSError."""
        return next(self._steps, None)

    def report(self) -> BackupReport:
        """What was made."""
        manifest = self.manifest
        assert manifest is not None
        octets = sum(file.size for file in manifest.files())
        return BackupReport(manifest.generation, manifest.accounts, manifest.messages, octets, self.new_octets)

    def close(self) -> None:
        """Give back every file, also in the middle."""
        self._steps.close()
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    # ------------------------------------------------------------------------------------------------------ the run

    def _run(self) -> Generator[Step, None, None]:
        self._begin()
        before = generations(self._target)
        earlier = read_manifest(self._target) if before else None
        generation = (before[-1] if before else 0) + 1
        packs = list(earlier.packs) if earlier is not None else []
        yield 0, 0, "octets"
        self._pack(packs, f"{generation:06d}a")
        snapshot = self._snapshot(generation)
        tables, accounts, messages = self._read_snapshot(snapshot)
        index = self._store_file(snapshot, f"{generation:06d}.index")
        snapshot.unlink()
        meta = self._target / f"{generation:06d}.plain.part"
        meta.write_bytes(msgspec.json.encode(self._folder.meta))
        stored_meta = self._store_file(meta, f"{generation:06d}.meta")
        meta.unlink()
        known = {segment.number: segment.pieces for segment in earlier.segments} if earlier is not None else {}
        total = sum(size for _, size in tables)
        done = 0
        segments = []
        for number, size in tables:
            pieces = [piece for piece in known.get(number, []) if piece.end <= size]
            at = pieces[-1].end if pieces else 0
            done += at
            while at < size:
                end = min(at + PIECE_OCTETS, size)
                pieces.append(Piece(at, end, self._store_piece(number, at, end)))
                done += end - at
                at = end
                yield done, total, "octets"
            segments.append(SegmentCopy(number, size, pieces))
        self._pack(packs, f"{generation:06d}b")
        self.manifest = Manifest(FORMAT, generation, self._now, stored_meta, index, segments, packs, accounts, messages)
        sync(self._target / "seg")
        sync(self._target)
        write_json(manifest_path(self._target, generation), self.manifest)
        yield max(total, 1), max(total, 1), "octets"

    def _pack(self, packs: list[tuple[Stored, Stored]], name: str) -> None:
        pack = write_pack(self._environment, self._tables, self._target, name, packs, self._store_file)
        if pack is not None:
            packs.append(pack)

    def _begin(self) -> None:
        target, uuid = self._target, self._folder.meta.uuid
        if self._recipient:
            check_recipient(self._recipient)
        if (target / HEAD).exists():
            head = read_head(target)
            if head.store != uuid:
                raise BackupFailed(f"{target} holds backups of another store ({head.store}); name a folder of its own")
            if self._recipient and self._recipient != head.recipient:
                raise BackupFailed(f"{target} holds backups for another recipient; name a folder of its own")
            self._recipient = head.recipient
        else:
            if target.exists() and any(target.iterdir()):
                raise BackupFailed(f"{target} is not empty and holds no backups; name another folder")
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json(target / HEAD, Head(FORMAT, uuid, self._recipient))
        for name in ("seg", "mail"):
            (target / name).mkdir(mode=0o700, exist_ok=True)
        for left in target.rglob("*.part"):
            left.unlink()

    def _snapshot(self, generation: int) -> Path:
        """Copy the index, with every segment it speaks of open."""
        path = self._target / f"{generation:06d}.snapshot.part"
        for _ in range(ATTEMPTS):
            self._open_segments()
            path.unlink(missing_ok=True)
            with path.open("wb") as file:
                copy_index(self._environment, path, file)
                flush(file)
            self._open_segments()
            if all(number in self._open for number, _ in self._read_snapshot(path)[0]):
                return path
        raise BackupFailed("the store changes faster than it can be copied; run the backup again")

    def _open_segments(self) -> None:
        for number in segment_numbers(self._folder.segments):
            if number not in self._open:
                try:
                    self._open[number] = os.open(
                        segment_path(self._folder.segments, number), os.O_RDONLY | os.O_CLOEXEC
                    )
                except FileNotFoundError:
                    continue

    @staticmethod
    def _read_snapshot(path: Path) -> tuple[list[tuple[int, int]], int, int]:
        """Return (number, octets) of the segments, and how many accounts and messages there are."""
        with lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_dbs=64, lib_version=0) as copy:
            tables = {name: copy.open_db(name, create=False) for name in (b"seg", b"meta", b"acct", b"msg")}
            with copy.begin() as txn:
                segments = {
                    U32.unpack(key)[0]: SEGMENT.unpack(row)[0] for key, row in txn.cursor(tables[b"seg"]).iternext()
                }
                row = txn.get(b"tail", db=tables[b"meta"])
                if row is not None:
                    number, size, _ = TAIL.unpack(row)
                    segments[number] = max(size, segments.get(number, 0))
                counts = [int(txn.stat(tables[name])["entries"]) for name in (b"acct", b"msg")]
        return sorted((number, size) for number, size in segments.items() if size), counts[0], counts[1]

    # ---------------------------------------------------------------------------------------------------- the files

    def _store_piece(self, number: int, start: int, end: int) -> Stored:
        name = f"seg/{number:08d}-{start:012d}-{end:012d}"
        path = self._target / self._sealed(name)
        if path.exists():  # of a backup that did not come to its end
            size, digest = digest_of(path)
            return Stored(self._sealed(name), size, digest)
        with open(os.dup(self._open[number]), "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            stream = _Range(file.fileno(), start, end)
            return self._store_stream(stream, name)

    def _store_file(self, source: Path, name: str) -> Stored:
        with source.open("rb") as file:
            return self._store_stream(cast(RawIOBase, file), name)

    def _store_stream(self, stream: RawIOBase, name: str) -> Stored:
        path = self._target / self._sealed(name)
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            seal(stream, file, self._recipient)  # type: ignore[arg-type]
            flush(file)
        part.rename(path)
        size, digest = digest_of(path)
        self.new_octets += size
        return Stored(self._sealed(name), size, digest)

    def _sealed(self, name: str) -> str:
        return f"{name}.age" if self._recipient else name
