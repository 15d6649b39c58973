"""Accounts come, change their password, and go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from livemail.interfaces.storage import AccountRecord
from livemail.mail.changes import AccountRemoved
from livemail.mail.errors import AccountExists, LimitReached, MailError, NoSuchAccount
from livemail.mail.ids import AccountId
from livemail.mail.names import INBOX, SPECIAL_USE
from livemail.storage.lmdb.deleted.keeping import let_go_all
from livemail.storage.lmdb.operations.group import Group
from livemail.storage.lmdb.operations.mailboxes import make_mailbox
from livemail.storage.lmdb.operations.messages import remove_all
from livemail.storage.lmdb.records import (
    ACCOUNT_COUNTERS,
    MAX_LOGIN_OCTETS,
    U32,
    name_key,
    pack_account,
    unpack_account,
)


class AddAccounts:
    """Create accounts; one that exists fails alone."""

    def __init__(self, accounts: Sequence[tuple[str, str]], roots: Mapping[str, str] = MappingProxyType({})) -> None:
        """roots: folder of the Maildir by name, for those that have one."""
        self._accounts = accounts
        self._roots = dict(roots)

    def run(self, group: Group) -> list[AccountRecord | MailError]:
        """Return the new records, or why there is none."""
        return [self._add(group, name, password) for name, password in self._accounts]

    def _add(self, group: Group, name: str, password: str) -> AccountRecord | MailError:
        txn, tables = group.txn, group.tables
        if len(name.encode()) > MAX_LOGIN_OCTETS:
            return LimitReached(f"An account's name has at most {MAX_LOGIN_OCTETS} octets")
        if txn.get(name.encode(), db=tables.user) is not None:
            return AccountExists()
        root = self._roots.get(name, "")
        record = AccountRecord(
            AccountId(group.next_number(b"next_account")),
            name,
            password,
            group.now,
            storage="maildir" if root else "lmdb",
        )
        key = U32.pack(record.id)
        txn.put(name.encode(), key, db=tables.user)
        txn.put(key, pack_account(record), db=tables.acct)
        txn.put(key, ACCOUNT_COUNTERS.pack(1, 0, 0, 1, 1, 0), db=tables.acnt)
        account = group.account(record.id)
        if root:
            group.begin_maildir(record.id, Path(root))
        for mailbox, special_use in {INBOX: "", **SPECIAL_USE}.items():
            make_mailbox(group, account, mailbox, special_use, account.modseq, is_furnishing=True)
            txn.put(name_key(record.id, mailbox), mailbox.encode(), db=tables.sub)
        return record


class SetPassword:
    """Replace the hash."""

    def __init__(self, name: str, password: str) -> None:
        self._name = name
        self._password = password

    def run(self, group: Group) -> AccountRecord:
        """Return the record as it is now."""
        key = group.txn.get(self._name.encode(), db=group.tables.user)
        if key is None:
            raise NoSuchAccount
        record = unpack_account(group.txn.get(key, db=group.tables.acct))
        record = msgspec.structs.replace(record, password=self._password)
        group.txn.put(key, pack_account(record), db=group.tables.acct)
        return record


class RemoveAccount:
    """Remove an account with all its mail."""

    def __init__(self, name: str) -> None:
        self._name = name

    def run(self, group: Group) -> None:
        """Remove every row; contents nobody else has are dead."""
        txn, tables = group.txn, group.tables
        key = txn.get(self._name.encode(), db=tables.user)
        if key is None:
            raise NoSuchAccount
        account = group.account(AccountId(U32.unpack(key)[0]))
        for mailbox in group.all_mailboxes(account.id):
            remove_all(group, account, mailbox)
            group.forget_mailbox(mailbox)
        let_go_all(group, account.id)
        files = group.files_of(account.id)
        if files is not None:
            files.remove_account(key)
        for table in (
            tables.mbox,
            tables.mcnt,
            tables.mname,
            tables.sub,
            tables.msgid,
            tables.change,
            tables.expunge,
            tables.imported,
            tables.opened,
            tables.unseen,
        ):
            group.delete_prefix(table, key)
        txn.delete(key, db=tables.acnt)
        txn.delete(key, db=tables.acct)
        txn.delete(self._name.encode(), db=tables.user)
        modseq = group.next_modseq(account)
        group.forget_account(account.id)
        group.emit(account.id, modseq, AccountRemoved(modseq))
