"""Kept messages come back, or go for good."""

from __future__ import annotations

from collections.abc import Sequence

from livemail.interfaces.undelete import Kept
from livemail.mail.changes import Added
from livemail.mail.errors import LimitReached
from livemail.mail.flags import DELETED, SEEN
from livemail.mail.ids import UID, AccountId
from livemail.mail.names import canonical_name
from livemail.storage.lmdb.deleted.keeping import add_kept, let_go
from livemail.storage.lmdb.deleted.records import DeletedRow, RowDamaged
from livemail.storage.lmdb.operations.group import Group, has_uids_for
from livemail.storage.lmdb.operations.keywords import assign_keywords
from livemail.storage.lmdb.operations.mailboxes import make_mailbox
from livemail.storage.lmdb.records import MESSAGE_KEY, U32, MailboxRecord, Message


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
            group.write_record(mailbox, _with_keywords(mailbox.record, record.keywords))
        modseq = group.next_modseq(account)
        given = []
        for (key, row), message, keywords in zip(found, messages, bits, strict=True):
            uid = mailbox.uid_next
            flags = message.flags & ~DELETED
            back = message._replace(uid=uid, flags=flags, keywords=keywords, modseq=modseq, saved=group.now)
            new = MESSAGE_KEY.pack(account.id, mailbox.id, uid)
            group.txn.put(new, back.pack(), db=group.tables.msg)
            group.txn.put(new, row.cache, db=group.tables.cache)
            group.txn.delete(key, db=group.tables.gone)
            if files is not None:
                files.take_back(mailbox, uid, row.head.file, flags, keywords, is_raw=row.head.is_raw)
            mailbox.uid_next += 1
            mailbox.unseen += not flags & SEEN
            given.append((key, uid))
        mailbox.exists += len(found)
        mailbox.octets += octets
        add_kept(group, account.id, -len(found), -octets)
        group.count(account, len(found), octets)
        group.touch(mailbox, modseq)
        uids = tuple(uid for _, uid in given)
        group.log_changed(mailbox, modseq, [(uids[0], uids[-1])])
        group.emit(account.id, modseq, Added(mailbox.id, modseq, uids))
        return given

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


def _with_keywords(record: MailboxRecord, keywords: tuple[str, ...]) -> MailboxRecord:
    return MailboxRecord(record.name, record.special_use, record.uid_validity, record.created, keywords)


class LetGo:
    """Remove kept messages for good."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def run(self, group: Group) -> Kept:
        """Return how much that was."""
        return let_go(group, self._keys)
