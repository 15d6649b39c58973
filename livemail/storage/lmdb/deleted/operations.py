"""Kept messages come back, or go for good."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from livemail.interfaces.undelete import Kept
from livemail.mail.errors import LimitReached
from livemail.mail.flags import DELETED
from livemail.mail.ids import UID, AccountId
from livemail.mail.names import canonical_name
from livemail.storage.lmdb.deleted.keeping import add_kept, let_go
from livemail.storage.lmdb.deleted.records import DeletedRow, RowDamaged
from livemail.storage.lmdb.operations.group import Group, has_uids_for
from livemail.storage.lmdb.operations.keywords import assign_keywords
from livemail.storage.lmdb.operations.mailboxes import make_mailbox
from livemail.storage.lmdb.operations.messages import add_rows
from livemail.storage.lmdb.records import U32, MailboxRecord, Message


class Undelete:
    """Bring messages back into one mailbox."""

    def __init__(self, account: AccountId, keys: Sequence[bytes], mailbox: str) -> None:
        self._account = account
        self._keys = keys
        self._mailbox = mailbox

    def run(self, group: Group) -> list[tuple[bytes, UID]]:
        """Return key and new UID of what came back."""
        account = group.account(self._account)
        name = canonical_name(self._mailbox)
        files = group.files_of(self._account)
        found = [(key, row) for key, row in self._rows(group) if files is None or files.has_put_by(row.head.file)]
        if not found:
            return []
        messages = [Message.unpack(row.message) for _, row in found]
        octets = sum(message.size for message in messages)
        group.ledger.check(account, octets, len(found))
        mailbox = group.find_mailbox(self._account, name)
        before = mailbox.record if mailbox is not None else MailboxRecord(name, "", 0, 0)
        record, bits = assign_keywords(before, [row.head.keywords for _, row in found])
        if mailbox is None:
            mailbox = make_mailbox(group, account, name, "")
        if not has_uids_for(mailbox, len(found)):
            raise LimitReached(reason="no UID left")
        if record is not before:
            group.write_record(mailbox, msgspec.structs.replace(mailbox.record, keywords=record.keywords))
        back = [
            message._replace(flags=message.flags & ~DELETED, keywords=keywords)
            for message, keywords in zip(messages, bits, strict=True)
        ]
        uids = add_rows(group, account, mailbox, back, [row.cache for _, row in found], group.next_modseq(account))
        for (key, row), message, uid in zip(found, back, uids, strict=True):
            group.txn.delete(key, db=group.tables.gone)
            if files is not None:
                file = row.head
                files.take_back(mailbox, uid, file.file, message.flags, message.keywords, is_raw=file.is_raw)
        add_kept(group, account.id, -len(found), -octets)
        group.count(account, len(found), octets)
        return [(key, uid) for (key, _), uid in zip(found, uids, strict=True)]

    def _rows(self, group: Group) -> list[tuple[bytes, DeletedRow]]:
        prefix = U32.pack(self._account)
        found = {}
        for key in self._keys:
            row = group.txn.get(key, db=group.tables.gone) if key.startswith(prefix) else None
            if row is not None:
                try:
                    found[key] = DeletedRow.unpack(row)
                except RowDamaged:
                    continue
        return list(found.items())


class LetGo:
    """Remove kept messages for good."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def run(self, group: Group) -> Kept:
        """Return how much that was."""
        return let_go(group, self._keys)
