"""A backup as a source of messages: one account's, one mailbox's, or one message."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Any

from livemail.interfaces.backup import BackupFailed
from livemail.interfaces.storage import DATE, EMAIL_ID, FLAGS, KEYWORDS, UID_, ZONE, FetchWant, Row
from livemail.mail.errors import MailError
from livemail.mail.ids import MailboxId, UIDSet
from livemail.storage.lmdb.backup.manifest import Manifest, read_head, read_manifest
from livemail.storage.lmdb.backup.packs import file_key, read_pack
from livemail.storage.lmdb.backup.restore import put_together
from livemail.storage.lmdb.backup.sealing import Keys
from livemail.storage.lmdb.files.reading import MaildirReader
from livemail.storage.lmdb.files.records import unpack_file
from livemail.storage.lmdb.folder import SHARD
from livemail.storage.lmdb.reader import Reader
from livemail.storage.lmdb.records import MESSAGE_KEY
from livemail.storage.lmdb.schema import open_environment
from livemail.storage.lmdb.segments import SegmentReader
from livemail.storage.maildir.lines import Expander
from livemail.storage.settings import StorageSettings
from livemail.storage.transfer.source import CHUNK_OCTETS, Skipped, SourceError, SourceMailbox, SourceMessage

Present = Mapping[str, tuple[int, frozenset[int]]]
"""UIDVALIDITY and UIDs that the target's mailboxes have: these messages were not lost."""


class BackupSource:
    """What one account had when the backup was made."""

    def __init__(
        self,
        folder: Path,
        generation: int,
        keys: Keys,
        account: str,
        *,
        mailbox: str = "",
        message: str = "",
        present: Present | None = None,
    ) -> None:
        """account: canonical login.  mailbox, message: only these; a message by its Message-ID or email id.

        Blocks: index and segments are put together, by links where nothing is encrypted.  Raises SourceError.
        """
        try:
            head, manifest = read_head(folder), read_manifest(folder, generation)
        except BackupFailed as error:
            raise SourceError(str(error)) from error
        self.name = f"backup:{head.store} {account}"
        self._folder = folder
        self._only = mailbox
        self._message = message.strip().strip("<>").lower()
        self._present = present or {}
        self._scratch = tempfile.TemporaryDirectory(prefix="livemail-restore-")
        place = Path(self._scratch.name)
        try:
            for _ in put_together(folder, manifest, keys, place, links=not head.recipient):
                pass
            self._environment, self._tables = open_environment(place / SHARD, StorageSettings())
        except (BackupFailed, OSError) as error:
            self._scratch.cleanup()
            raise SourceError(f"the backup in {folder} cannot be read: {error}") from error
        self._segments = SegmentReader(place / SHARD / "seg")
        maildirs = MaildirReader(self._environment, self._tables)
        self._reader = Reader(self._environment, self._tables, self._segments, maildirs)
        record = self._reader.account_named(account)
        if record is None:
            self.close()
            raise SourceError(f"the backup knows no account {account}")
        self._account = record.id
        self._packed: dict[bytes, tuple[Path, int, int]] = {}
        if maildirs.root(record.id) is not None:
            self._unpack(manifest, keys, place)

    def _unpack(self, manifest: Manifest, keys: Keys, place: Path) -> None:
        """Write the account's own messages into one file, and note where each lies."""
        wanted = set()
        with self._environment.begin() as txn:
            for key, row in txn.cursor(self._tables.file).iternext():
                account, mailbox, _ = MESSAGE_KEY.unpack(key)
                if account == self._account:
                    wanted.add(file_key(account, mailbox, unpack_file(row).base))
        unpacked, scratch = place / "files", place / "pack.part"
        with unpacked.open("wb") as target:
            for pack, _ in manifest.packs:
                keys.open(self._folder / pack.name, scratch)
                for key, octets in read_pack(scratch):
                    if key in wanted:
                        self._packed[key] = (unpacked, target.tell(), len(octets))
                        target.write(octets)

    def close(self) -> None:
        """Remove what was put together."""
        self._reader.close()
        self._segments.close()
        self._environment.close()
        self._scratch.cleanup()

    # -------------------------------------------------------------------------------------------------- messages

    def mailboxes(self) -> Sequence[SourceMailbox]:
        """Those asked for.  Raises SourceError when there is none."""
        infos = [
            info
            for info in self._reader.mailboxes(self._account).mailboxes
            if not self._only or info.name == self._only
        ]
        if not infos:
            raise SourceError(f"the account had no mailbox {self._only!r} when the backup was made")
        return [SourceMailbox(info.name, str(info.id), info.special_use, -1, info.uid_validity) for info in infos]

    def messages(self, mailbox: SourceMailbox, known: AbstractSet[bytes]) -> Iterator[SourceMessage | Skipped]:
        """In the order of their UIDs; what the target still has is left out."""
        validity, there = self._present.get(mailbox.name, (0, frozenset()))
        id_ = MailboxId(int(mailbox.path))
        want = FetchWant(fields=bool(self._message))
        for batch in self._reader.fetch(self._account, id_, UIDSet.all(), want):
            fields = batch.fields or [None] * len(batch.rows)
            for row, field in zip(batch.rows, fields, strict=True):
                source_id = b"%d.%d" % (mailbox.uid_validity, row[UID_])
                if source_id in known or (validity == mailbox.uid_validity and row[UID_] in there):
                    continue
                if self._message and not self._is_wanted(row, field):
                    continue
                names = tuple(name for at, name in enumerate(batch.keywords) if row[KEYWORDS] >> at & 1)
                yield SourceMessage(
                    f"{mailbox.name}, UID {row[UID_]}", partial(self._chunks, id_, row), source_id, row[FLAGS], names,
                    row[DATE], row[ZONE], row[UID_],
                )  # fmt: skip

    def _is_wanted(self, row: Row, fields: bytes | None) -> bool:
        if self._message.isdigit():
            return row[EMAIL_ID] == int(self._message)
        return fields is not None and f"<{self._message}>".encode() in fields.lower()

    def _chunks(self, mailbox: MailboxId, row: Row) -> Iterator[bytes]:
        if self._packed:
            yield from self._packed_chunks(mailbox, row)
            return
        try:
            content = self._reader.open_content(self._account, mailbox, row[UID_])
        except MailError as error:
            raise OSError(0, error.reason) from error
        if content is None:
            raise OSError(0, "the backup has no content for it")
        try:
            for at in range(0, content.size, CHUNK_OCTETS):
                yield _finish(content.read(at, CHUNK_OCTETS))
        except MailError as error:
            raise OSError(0, error.reason) from error
        finally:
            content.close()

    def _packed_chunks(self, mailbox: MailboxId, row: Row) -> Iterator[bytes]:
        with self._environment.begin() as txn:
            stored = txn.get(MESSAGE_KEY.pack(self._account, mailbox, row[UID_]), db=self._tables.file)
        file = unpack_file(stored)
        place = self._packed.get(file_key(self._account, mailbox, file.base))
        if place is None:
            raise OSError(0, "it was removed while the backup was made")
        path, at, left = place
        expander = Expander()
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while left and (octets := os.pread(fd, min(left, CHUNK_OCTETS), at)):
                at, left = at + len(octets), left - len(octets)
                yield octets if file.is_raw else expander.expand(octets)
        finally:
            os.close(fd)


def _finish(coroutine: Any) -> bytes:
    """Return what a read gives that never waits: the segments are local files."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        octets: bytes = stop.value
        return octets
    raise RuntimeError("a read of a local file waited")
