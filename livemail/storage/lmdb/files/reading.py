"""Reading messages that are files in a Maildir."""

from __future__ import annotations

import os
from pathlib import Path

from livemail.mail.errors import StorageFailed
from livemail.storage.lmdb.deleted.records import FOLDER
from livemail.storage.lmdb.files.records import File, unpack_file
from livemail.storage.lmdb.records import MAILBOX_KEY, MESSAGE_KEY, Message, unpack_mailbox
from livemail.storage.lmdb.rows import Transaction
from livemail.storage.lmdb.schema import Environment, Tables
from livemail.storage.maildir.folders import list_folder
from livemail.storage.maildir.lines import FileContent, file_chunks, read_message
from livemail.storage.maildir.names import folder_name


class FileGone(Exception):
    """The message's file is not there any more: the next comparison will expunge the message."""


class MaildirReader:
    """Where accounts in Maildirs have their files.  An account's folder is given once and for all."""

    def __init__(self, environment: Environment, tables: Tables) -> None:
        self._environment = environment
        self._tables = tables
        # store/shard-NN is below the data folder, which may be moved with all that is in it.
        self._data = Path(environment.path()).parent.parent
        self._roots: dict[int, Path] = {}
        self.refresh()

    def refresh(self) -> None:
        """Accounts were added."""
        with self._environment.begin() as txn:
            for key, root in txn.cursor(self._tables.mroot).iternext():
                self._roots[int.from_bytes(key, "big")] = self._data / os.fsdecode(root)

    @property
    def has_any(self) -> bool:
        """Whether there is an account in a Maildir."""
        return bool(self._roots)

    def roots(self) -> list[Path]:
        """Return the folders of all accounts in Maildirs."""
        return list(self._roots.values())

    def root(self, account: int) -> Path | None:
        """Return an account's folder; None for one whose messages lie in segments."""
        return self._roots.get(account)

    def folder(self, txn: Transaction, account: int, mailbox: int) -> Path | None:
        """Return a mailbox's folder; None for one whose messages lie in segments."""
        root = self._roots.get(account)
        if root is None:
            return None
        row = txn.get(MAILBOX_KEY.pack(account, mailbox), db=self._tables.mbox)
        if row is None:
            raise FileGone
        return root / folder_name(unpack_mailbox(row).name)

    def open(self, txn: Transaction, folder: Path, account: int, mailbox: int, message: Message) -> FileContent:
        """Open one message.  Raises FileGone."""
        fd, file = self._open(txn, folder, MESSAGE_KEY.pack(account, mailbox, message.uid))
        return FileContent(fd, message.size, message.prefix_size, str(folder / file.name), is_raw=file.is_raw)

    def read(self, txn: Transaction, folder: Path, key: bytes, size: int) -> bytes:
        """Return one message, prefix included.  key: of its row.  Raises FileGone, StorageFailed."""
        fd, file = self._open(txn, folder, key)
        try:
            return read_message(fd, size, str(folder / file.name), is_raw=file.is_raw)
        finally:
            os.close(fd)

    def raw(self, txn: Transaction, folder: Path, key: bytes) -> bytes:
        """Return a message's file as it lies there.  Raises FileGone, StorageFailed."""
        fd, _ = self._open(txn, folder, key)
        try:
            return b"".join(file_chunks(fd))
        finally:
            os.close(fd)

    def raw_kept(self, account: int, name: str) -> bytes:
        """Return the file of a message that was expunged and is kept.  Raises FileGone, StorageFailed."""
        path = self._roots[account] / FOLDER / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise FileGone from None
        except OSError as error:
            raise StorageFailed(reason=f"{path}: {error.strerror}") from error
        try:
            return b"".join(file_chunks(fd))
        finally:
            os.close(fd)

    def _open(self, txn: Transaction, folder: Path, key: bytes) -> tuple[int, File]:
        row = txn.get(key, db=self._tables.file)
        if row is None:
            raise FileGone
        file = unpack_file(row)
        for name in _names(folder, file):
            try:
                return os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), file
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageFailed(reason=f"{folder / name}: {error.strerror}") from error
        raise FileGone


def _names(folder: Path, file: File) -> list[str]:
    """Return the name the index knows and, where that is gone, the one the file has now."""
    if (folder / file.name).exists():
        return [file.name]
    try:
        found = list_folder(folder).get(file.base)
    except OSError:
        return []
    return [found] if found is not None else []
