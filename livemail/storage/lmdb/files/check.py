"""`livemail store check` for accounts in Maildirs: rows with files, files with digests."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from livemail.mail.errors import StorageFailed
from livemail.storage.lmdb.files.reading import FileGone, MaildirReader
from livemail.storage.lmdb.files.records import base_key, unpack_file
from livemail.storage.lmdb.records import MESSAGE_KEY, U32, Message
from livemail.storage.lmdb.rows import Transaction
from livemail.storage.lmdb.schema import Environment, Tables
from livemail.storage.spool import DIGEST_OCTETS

Found = Callable[[str, str, str], None]
"""Told of a problem: kind, where, detail."""


class FileCheck:
    """One run of the check over files."""

    def __init__(self, environment: Environment, tables: Tables, hash_key: bytes, found: Found) -> None:
        self._environment = environment
        self._tables = tables
        self._hash_key = hash_key
        self._found = found
        self._reader = MaildirReader(environment, tables)
        self.keys: list[bytes] = []

    @property
    def has_any(self) -> bool:
        """Whether there is an account in a Maildir."""
        return self._reader.has_any

    def root(self, account: int) -> Path | None:
        """Return the folder of an account in a Maildir, None for one in segments."""
        return self._reader.root(account)

    def takes(self, txn: Transaction, key: bytes) -> bool:
        """Look at a message's rows; False for one whose content lies in a segment.  key: of its row."""
        if self._reader.root(U32.unpack_from(key)[0]) is None:
            return False
        row = txn.get(key, db=self._tables.file)
        if row is None:
            self._found("file-row", _where(key), "has no file in the index")
            return True
        leads_to = txn.get(base_key(key[:8], unpack_file(row).base), db=self._tables.fbase)
        if leads_to != key[8:]:
            self._found("file-base", _where(key), "the file's name does not lead to the message")
        self.keys.append(key)
        return True

    def read(self, key: bytes) -> int:
        """Read one message's file and compare it; return its octets, 0 when there is nothing to count."""
        with self._environment.begin() as txn:
            row = txn.get(key, db=self._tables.msg)
            if row is None:
                return 0
            message = Message.unpack(row)
            account, mailbox, _ = MESSAGE_KEY.unpack(key)
            try:
                folder = self._reader.folder(txn, account, mailbox)
                assert folder is not None
                octets = self._reader.read(txn, folder, key, message.size)
            except FileGone:
                self._found("file-missing", _where(key), "another program removed it a moment ago, or it is lost")
                return 0
            except StorageFailed as error:
                self._found("content-damaged", _where(key), error.reason)
                return 0
        content = memoryview(octets)[message.prefix_size :]
        if blake2b(content, key=self._hash_key, digest_size=DIGEST_OCTETS).digest() != message.digest:
            self._found("content-damaged", _where(key), "the file is not what was stored")
            return 0
        return len(octets)


def _where(key: bytes) -> str:
    account, mailbox, uid = MESSAGE_KEY.unpack(key)
    return f"account {account}, mailbox {mailbox}, UID {uid}"
