"""Messages come in from another store, each once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from livemail.mail.changes import Added
from livemail.mail.errors import LimitReached
from livemail.mail.ids import MAX_UID, UID, AccountId, UIDSet
from livemail.storage.lmdb.operations.deliveries import Item, add_message, place_file
from livemail.storage.lmdb.operations.group import Group
from livemail.storage.lmdb.operations.keywords import assign_keywords
from livemail.storage.lmdb.records import U32


def source_key(account: int, source: str) -> bytes:
    """Return what the keys of ``import`` begin with."""
    return U32.pack(account) + hashlib.blake2b(source.encode("utf-8", "surrogatepass"), digest_size=12).digest()


class ImportMessages:
    """Append what the source has not brought before."""

    def __init__(
        self, account: AccountId, mailbox: str, source: str, items: Sequence[tuple[bytes, UID, Item]], uid_validity: int
    ) -> None:
        """items: (source id, UID it had or 0, message)."""
        self._account = account
        self._mailbox = mailbox
        self._source = source
        self._items = items
        self._uid_validity = uid_validity

    def run(self, group: Group) -> list[UID]:
        """Return each message's UID, 0 for those that came before."""
        account = group.account(self._account)
        mailbox = group.mailbox_named(self._account, self._mailbox)
        prefix = source_key(self._account, self._source)
        table = group.tables.imported
        known = {id_ for id_, _, _ in self._items if group.txn.get(prefix + id_, db=table) is not None}
        new: dict[bytes, tuple[UID, Item]] = {}
        for id_, uid, item in self._items:
            if id_ not in known:
                new.setdefault(id_, (uid, item))
        group.ledger.check(account, sum(item.prepared.size for _, item in new.values()), len(new))
        highest = max((uid for uid, _ in new.values()), default=0)
        if max(mailbox.uid_next, highest) + len(new) > MAX_UID:
            raise LimitReached(reason="no UID left")
        record, bits = assign_keywords(mailbox.record, [item.keywords for _, item in new.values()])
        if self._uid_validity and mailbox.uid_next == 1 and not mailbox.exists:
            record = msgspec.structs.replace(record, uid_validity=self._uid_validity)
        if record is not mailbox.record:
            group.write_record(mailbox, record)
        given: dict[bytes, UID] = {}
        if new:
            modseq = group.next_modseq(account)
            for (id_, (uid, item)), keywords in zip(new.items(), bits, strict=True):
                mailbox.uid_next = max(mailbox.uid_next, uid)
                given[id_] = add_message(group, account, mailbox, modseq, item, keywords)
                if not place_file(group, mailbox, given[id_], item, keywords):
                    group.reference(item.prepared.digest, 1)
                group.txn.put(prefix + id_, U32.pack(given[id_]), db=table)
            group.log_changed(mailbox, modseq, UIDSet.of(given.values()).ranges)
            group.emit(account.id, modseq, Added(mailbox.id, modseq, tuple(given.values())))
        # The same message twice in one call is one message.
        return [given.pop(id_, 0) for id_, _, _ in self._items]
