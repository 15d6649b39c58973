"""`livemail store repair`: what the index says is derived anew from what is left; what belongs nowhere goes to lost+found.

One walk over the tables decides every row and adds up what the counters must say; nothing is written while it walks, so that the
same walk is the plan that ``--dry-run`` prints and the work that is done.

    the content is whole        row, cache, size, references and counters follow from it
    the content is missing      the message is taken out; a backup may have it
    no mailbox, no account      the message goes to lost+found of its account, else of the first account there is
    nobody refers to a content  it becomes a message in lost+found
    octets without index        their contents take the place of those that are missing, else become messages in lost+found
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from livemail.interfaces.storage import Repaired
from livemail.mail.errors import StorageFailed
from livemail.mail.flags import DELETED, SEEN
from livemail.mail.message.scanner import scan
from livemail.mail.names import INBOX
from livemail.storage.lmdb.deleted.check import DeletedWalk, where_of
from livemail.storage.lmdb.deleted.records import TOTALS
from livemail.storage.lmdb.opening import Counters, faults
from livemail.storage.lmdb.operations.deliveries import Scanned, prepare
from livemail.storage.lmdb.operations.group import Group
from livemail.storage.lmdb.queue import read_queue
from livemail.storage.lmdb.records import (
    ACCOUNT_COUNTERS,
    BLOB,
    MAILBOX_COUNTERS,
    MAILBOX_KEY,
    MESSAGE,
    MESSAGE_KEY,
    RECORD_VERSION,
    SEGMENT,
    TAIL,
    U32,
    U64,
    MailboxRecord,
    Message,
    name_key,
    pack_mailbox,
    unpack_account,
    unpack_mailbox,
)
from livemail.storage.lmdb.rows import Transaction
from livemail.storage.lmdb.schema import Tables
from livemail.storage.lmdb.segments import Location, SegmentGone, SegmentReader
from livemail.storage.lmdb.unindexed import Span, kept_key, read_kept, read_records
from livemail.storage.queue.check import QueueCheck
from livemail.storage.queue.records import milliseconds
from livemail.storage.spool import HEAD

LOST: Final = "lost+found"

Write = tuple[str, bytes, bytes | None]
"""Table, key, the row, None to delete it."""


class _Mailbox:
    """A mailbox as it will be."""

    def __init__(self, key: bytes, record: MailboxRecord, row: bytes | None) -> None:
        self.key = key
        self.record = record
        self.before = row
        fields = list(MAILBOX_COUNTERS.unpack(row)) if row is not None else [1, 0, 0, 0, 0, 0, 0, 0, 1]
        self.uid_next, self.highest = int(fields[0]), int(fields[1])
        self._rest = fields[6:]
        self.exists = self.unseen = self.deleted = self.octets = 0

    def count(self, message: Message) -> None:
        """A message is in it."""
        self.exists += 1
        self.unseen += not message.flags & SEEN
        self.deleted += bool(message.flags & DELETED)
        self.octets += message.size
        self.uid_next = max(self.uid_next, message.uid + 1)
        self.highest = max(self.highest, message.modseq)

    def pack(self) -> bytes:
        """Return the row of ``mcnt``."""
        return MAILBOX_COUNTERS.pack(
            self.uid_next, self.highest, self.exists, self.unseen, self.deleted, self.octets, *self._rest
        )


class Planner:
    """One walk over a snapshot."""

    def __init__(self, txn: Transaction, tables: Tables, segments: Path, now: int) -> None:
        """segments: their folder.  now: seconds since the epoch."""
        self._txn = txn
        self._tables = tables
        self._folder = segments
        self._segments = SegmentReader(segments)
        self._data = segments.parents[2]
        self._now = now
        self._others = queue_references(txn, tables, now)
        self._references: Counter[bytes] = Counter()
        self._mailboxes: dict[bytes, _Mailbox] = {}
        self._accounts: dict[bytes, list[int]] = {}
        self._lost: dict[bytes, _Mailbox] = {}
        given = txn.get(b"uid_validity", db=tables.meta)
        self._validity = U64.unpack(given)[0] if given is not None else 0
        self.fixes: list[Repaired] = []
        self.writes: list[Write] = []
        self.emptied: list[int] = []
        """Segments that held octets without index, none of them needed."""

    def plan(self) -> Planner:
        """Decide everything."""
        try:
            self._walk_accounts()
            self._walk_mailboxes()
            self._walk_messages()
            self._walk_caches()
            self._walk_openings()
            self._walk_deleted()
            self._walk_contents()
            self._finish_counters()
        finally:
            self._segments.close()
        return self

    def _fix(self, kind: str, where: str, action: str, *writes: Write) -> None:
        self.fixes.append(Repaired(kind, where, action))
        self.writes += writes

    # ------------------------------------------------------------------------------------------------------ the walk

    def _walk_accounts(self) -> None:
        txn, tables = self._txn, self._tables
        for key, row in txn.cursor(tables.acct).iternext():
            account = unpack_account(row)
            name = account.name.encode()
            if txn.get(name, db=tables.user) != key:
                self._fix("account-name", f"account {account.id}", "the login leads to it again", ("user", name, key))
            counters = txn.get(key, db=tables.acnt)
            fields = list(ACCOUNT_COUNTERS.unpack(counters)) if counters is not None else [0, 0, 0, 1, 1, 0]
            # An email id must not be given twice: without the counter the time stands for what was given.
            self._accounts[key] = fields if counters is not None else [1, 0, 0, 1, self._now << 16, 0]

    def _walk_mailboxes(self) -> None:
        txn, tables = self._txn, self._tables
        for key, row in txn.cursor(tables.mbox).iternext():
            account, id_ = MAILBOX_KEY.unpack(key)
            record = unpack_mailbox(row)
            where = f"account {account}, mailbox {id_}"
            if key[:4] not in self._accounts:
                self._fix(
                    "mailbox-orphan", where, "it has no account and is removed; its messages go to lost+found",
                    ("mbox", key, None), ("mcnt", key, None), ("mname", name_key(account, record.name), None),
                )  # fmt: skip
                continue
            counters = self._accounts[key[:4]]
            counters[3] = max(counters[3], id_ + 1)
            self._mailboxes[key] = _Mailbox(key, record, txn.get(key, db=tables.mcnt))
            name = name_key(account, record.name)
            if txn.get(name, db=tables.mname) != U32.pack(id_):
                self._fix("mailbox-name", where, "its name leads to it again", ("mname", name, U32.pack(id_)))

        for key in txn.cursor(tables.mcnt).iternext(values=False):
            if txn.get(key, db=tables.mbox) is None:
                account, id_ = MAILBOX_KEY.unpack(key)
                where = f"account {account}, mailbox {id_}"
                self._fix("mailbox-counters", where, "they are no mailbox's and are removed", ("mcnt", key, None))
        known = {name_key(U32.unpack(key[:4])[0], box.record.name) for key, box in self._mailboxes.items()}
        for name in txn.cursor(tables.mname).iternext(values=False):
            if name not in known and name[:4] in self._accounts:
                where = f"account {U32.unpack(name[:4])[0]}"
                self._fix("mailbox-name", where, "a name of no mailbox is removed", ("mname", name, None))
        for account_key in self._accounts:
            account = U32.unpack(account_key)[0]
            if name_key(account, INBOX) not in known:
                self._make(account_key, INBOX)
                self._fix("mailbox-missing", f"account {account}", "INBOX is made again")

    def _walk_messages(self) -> None:
        for key, row in self._txn.cursor(self._tables.msg).iternext():
            account, mailbox, uid = MESSAGE_KEY.unpack(key)
            where = f"account {account}, mailbox {mailbox}, UID {uid}"
            if len(row) != MESSAGE.size:
                self._fix(
                    "message-row", where, "its row cannot be read and is removed; its content goes to lost+found",
                    ("msg", key, None), ("cache", key, None),
                )  # fmt: skip
                continue
            message = Message.unpack(row)
            if self._txn.get(key[:4], db=self._tables.mroot) is not None:
                self._decide_file(key, message, where)
            else:
                self._decide(key, message, where)

    def _decide_file(self, key: bytes, message: Message, where: str) -> None:
        """A message in a Maildir: the folder knows better, and is asked when it is compared next."""
        box = self._mailboxes.get(key[:8])
        if box is None or self._txn.get(key, db=self._tables.file) is None:
            self._fix(
                "message-orphan" if box is None else "file-row", where,
                "its row is removed; the folder is compared anew",
                ("msg", key, None), ("cache", key, None), ("file", key, None), ("mdir", key[:8], None),
            )  # fmt: skip
            return
        box.count(message)

    def _decide(self, key: bytes, message: Message, where: str) -> None:
        blob = self._txn.get(message.digest, db=self._tables.blob)
        if blob is None:
            self._fix(
                "content-missing", where, "its content is gone, and it is taken out; a backup may have it",
                ("msg", key, None), ("cache", key, None),
            )  # fmt: skip
            return
        uid = MESSAGE_KEY.unpack(key)[2]
        box = self._mailboxes.get(key[:8])
        cache = self._txn.get(key, db=self._tables.cache)
        changed = message._replace(uid=uid, modseq=max(1, message.modseq))
        if box is not None and message.keywords >> len(box.record.keywords):
            changed = changed._replace(keywords=message.keywords & ((1 << len(box.record.keywords)) - 1))
        if cache is None or len(cache) != message.prefix_end:
            rebuilt = self._rebuilt(changed, blob)
            if rebuilt is None:
                self._fix(
                    "cache-row",
                    where,
                    "its content is damaged, so that nothing can be derived; restore it from a backup",
                )
            else:
                changed, cache = rebuilt
                self._fix("cache-row", where, "what it holds is derived from its content", ("cache", key, cache))
        size = BLOB.unpack(blob)[3] + changed.prefix_size
        changed = changed._replace(size=size)
        self._references[message.digest] += 1
        if box is None:
            self._adopt(key, changed, cache or b"", where, "message-orphan")
            return
        if changed != message and not (self.fixes and self.fixes[-1].where == where):
            self._fix("message-row", where, "UID, ModSeq, keywords and size are as key, mailbox and content say")
        if changed != message:
            self.writes.append(("msg", key, changed.pack()))
        box.count(changed)

    def _rebuilt(self, message: Message, blob: bytes) -> tuple[Message, bytes] | None:
        """Return row and cache row by the content; the delivery prefix is lost with the cache row."""
        octets = self._read(message.digest, blob)
        if octets is None:
            return None
        prepared = prepare(Scanned(message.digest, len(octets), scan(octets)))
        ends = prepared.ends
        row = message._replace(
            bits=prepared.bits, header_size=prepared.header_size, size=len(octets), envelope_end=ends[0],
            structure_end=ends[1], parts_end=ends[2], fields_end=ends[3], prefix_end=ends[3],
        )  # fmt: skip
        return row, prepared.cache

    def _read(self, digest: bytes, blob: bytes) -> bytes | None:
        location = Location(*BLOB.unpack(blob)[1:])
        try:
            return self._segments.open(location.segment).read_whole(location, digest)
        except (SegmentGone, StorageFailed):
            return None

    def _walk_caches(self) -> None:
        for key, _ in self._txn.cursor(self._tables.cache).iternext():
            if self._txn.get(key, db=self._tables.msg) is None:
                self._fix(
                    "cache-row", f"cache {key.hex()}", "it belongs to no message and is removed", ("cache", key, None)
                )

    def _walk_openings(self) -> None:
        """Notes that are wrong go; a mailbox is read whole when it is opened next."""
        txn, tables = self._txn, self._tables
        noted = {key for table in (tables.opened, tables.unseen) for key in txn.cursor(table).iternext(values=False)}
        for key in sorted(noted):
            box = self._mailboxes.get(key)
            counters = Counters.of(box.before) if box is not None and box.before is not None else None
            if counters is None or faults(txn, tables, key, counters):
                account, id_ = MAILBOX_KEY.unpack(key)
                self._fix(
                    "opening", f"account {account}, mailbox {id_}", "it is forgotten what was noted of it",
                    ("opened", key, None), ("unseen", key, None),
                )  # fmt: skip

    def _walk_deleted(self) -> None:
        """Kept messages: rows nothing can come back from go, the counters follow."""
        txn, tables = self._txn, self._tables
        found: dict[str, tuple[str, str]] = {}
        walk = DeletedWalk(
            txn,
            tables,
            self._root,
            lambda _, path: not path.is_file(),
            lambda kind, where, detail: found.update({where: (kind, detail)}),
        )
        for _ in walk.run():
            pass
        for key, octets in walk.bad.items():
            if key[:4] in walk.totals and octets:
                messages, before = walk.totals[key[:4]]
                walk.totals[key[:4]] = (messages - 1, before - octets)
            kind, detail = found[where_of(key)]
            self._fix(kind, where_of(key), f"{detail}; it is removed from what can be undeleted", ("gone", key, None))
        self._references += walk.references
        said = dict(txn.cursor(tables.gcnt).iternext())
        for key in said.keys() - {key for key, (messages, _) in walk.totals.items() if messages}:
            where = f"account {U32.unpack(key)[0]}"
            self._fix("deleted-counters", where, "nothing is kept of it", ("gcnt", key, None))
        for key, totals in walk.totals.items():
            if totals[0] and said.get(key) != TOTALS.pack(*totals):
                what = f"{totals[0]} messages, {totals[1]} octets are kept"
                self._fix(
                    "deleted-counters", f"account {U32.unpack(key)[0]}", what, ("gcnt", key, TOTALS.pack(*totals))
                )

    def _root(self, account: int) -> Path | None:
        root = self._txn.get(U32.pack(account), db=self._tables.mroot)
        return self._data / os.fsdecode(root) if root is not None else None

    def _walk_contents(self) -> None:
        kept = read_kept(self._txn, self._tables)
        found = self._kept_records(kept)
        living = Counter({span.segment: span.octets for span in kept if not self._accounts})
        for digest, row in self._txn.cursor(self._tables.blob).iternext():
            references, *rest = BLOB.unpack(row)
            place = found.pop(digest, None)
            if place is not None and self._read(digest, row) is None:
                rest = list(place)
            counted = self._references[digest] + self._others[digest]
            if not counted:
                counted = self._rescue(digest, BLOB.pack(references, *rest))
            if not counted:
                self.writes.append(("blob", digest, None))
                continue
            living[rest[0]] += HEAD.size + rest[2]
            new = BLOB.pack(counted, *rest)
            if counted != references:
                self._fix(
                    "content-references", f"content {digest.hex()}", f"{counted} refer to it, not {references}",
                    ("blob", digest, new),
                )  # fmt: skip
            elif new != row:
                where = f"content {digest.hex()}"
                self._fix("content-unindexed", where, f"it is found again in segment {rest[0]}", ("blob", digest, new))
        for digest, location in found.items():
            row = BLOB.pack(1, *location)
            if self._rescue(digest, row, "content-unindexed"):
                self.writes.append(("blob", digest, row))
                living[location.segment] += HEAD.size + location.size
        self._total_segments(living)
        for span in kept:
            if not living[span.segment]:
                self.writes.append(("seg", U32.pack(span.segment), None))
                self.emptied.append(span.segment)

    def _kept_records(self, kept: Sequence[Span]) -> dict[bytes, Location]:
        """Return the contents among octets that the index does not know; they are kept no more, if there is whom to give them."""
        found: dict[bytes, Location] = {}
        for span in kept:
            if not self._accounts:
                self._fix(
                    "content-unindexed", span.where, "there is no account to give its messages to; they stay there"
                )
                continue
            records = {record.digest: record.location for record in read_records(self._folder, span)}
            what = f"{len(records)} whole messages in {span.octets} octets; what is not needed is given back"
            self._fix("content-unindexed", span.where, what, ("meta", kept_key(span.segment), None))
            found = records | found
        return found

    def _rescue(self, digest: bytes, row: bytes, kind: str = "content-references") -> int:
        """A content nobody refers to; returns how many do now."""
        octets = self._read(digest, row)
        where = f"content {digest.hex()}"
        if octets is None:
            self._fix("content-references", where, "nobody refers to it and it cannot be read; it is forgotten")
            return 0
        prepared = prepare(Scanned(digest, len(octets), scan(octets)))
        message = Message(
            prepared.bits or RECORD_VERSION, 0, 0, 0, 1, self._now, 0, len(octets), prepared.header_size, self._now, 0, 0,
            digest, *prepared.ends, prepared.ends[3],
        )  # fmt: skip
        return self._adopt(b"", message, prepared.cache, where, kind)

    def _total_segments(self, living: Counter[int]) -> None:
        txn, tables = self._txn, self._tables
        tail_row = txn.get(b"tail", db=tables.meta)
        number, size, _ = TAIL.unpack(tail_row) if tail_row else (0, 0, 1)
        known = {U32.unpack(key)[0]: SEGMENT.unpack(row) for key, row in txn.cursor(tables.seg).iternext()}
        for segment in sorted(known.keys() | living.keys()):
            total, dead, state = known.get(segment, (0, 0, 0))
            right = size if segment == number and size else max(total, living[segment])
            if (total, dead) != (right, right - living[segment]):
                self._fix(
                    "segment-totals", f"segment {segment}", f"{living[segment]} octets of {right} live",
                    ("seg", U32.pack(segment), SEGMENT.pack(right, right - living[segment], state)),
                )  # fmt: skip

    # ------------------------------------------------------------------------------------------------------ lost+found

    def _adopt(self, key: bytes, message: Message, cache: bytes, where: str, kind: str) -> int:
        """File a message in lost+found of its account, else of the first; returns how many references that makes."""
        account = key[:4] if key[:4] in self._accounts else min(self._accounts, default=b"")
        if not account:
            self._fix("message-orphan", where, "there is no account to give it to; it is forgotten")
            return 0
        box = self._lost_of(account)
        counters = self._accounts[account]
        counters[0] += 1
        moved = message._replace(
            uid=box.uid_next, keywords=0, modseq=counters[0], email_id=message.email_id or counters[4],
            thread_id=message.thread_id or counters[4], saved=self._now,
        )  # fmt: skip
        counters[4] += not message.email_id
        new = box.key + U32.pack(moved.uid)
        writes: list[Write] = [("msg", new, moved.pack()), ("cache", new, cache)]
        if key:
            writes = [("msg", key, None), ("cache", key, None), *writes]
        self._fix(kind, where, f"it goes to {LOST} as UID {moved.uid}", *writes)
        box.count(moved)
        return 1

    def _lost_of(self, account: bytes) -> _Mailbox:
        found = self._lost.get(account)
        if found is None:
            found = next(
                (box for key, box in self._mailboxes.items() if key[:4] == account and box.record.name == LOST), None
            )
            self._lost[account] = found = found or self._make(account, LOST)
        return found

    def _make(self, account: bytes, mailbox: str) -> _Mailbox:
        """Make a mailbox, subscribed."""
        counters = self._accounts[account]
        counters[0] += 1
        # Later than any UIDVALIDITY given before, as `livemail.storage.lmdb.operations.mailboxes` gives them.
        self._validity = max(self._validity + 1, self._now)
        record = MailboxRecord(mailbox, "", self._validity, counters[0])
        number = U32.unpack(account)[0]
        key = MAILBOX_KEY.pack(number, counters[3])
        counters[3] += 1
        made = self._mailboxes[key] = _Mailbox(key, record, None)
        made.highest = counters[0]
        name = name_key(number, mailbox)
        self.writes += [
            ("mbox", key, pack_mailbox(record)), ("mname", name, key[4:]), ("sub", name, mailbox.encode()),
            ("meta", b"uid_validity", U64.pack(self._validity)),
        ]  # fmt: skip
        return made

    def _finish_counters(self) -> None:
        totals: dict[bytes, list[int]] = {key: [0, 0, 0] for key in self._accounts}
        for key, box in self._mailboxes.items():
            row = box.pack()
            if row != box.before:
                account, id_ = MAILBOX_KEY.unpack(key)
                what = f"{box.exists} messages, {box.octets} octets, UIDNEXT {box.uid_next}"
                self._fix("mailbox-counters", f"account {account}, mailbox {id_}", what, ("mcnt", key, row))
            mine = totals[key[:4]]
            mine[0] += box.octets
            mine[1] += box.exists
            mine[2] = max(mine[2], box.highest)
        for key, (octets, messages, highest) in totals.items():
            fields = self._accounts[key]
            fields[0], fields[1], fields[2] = max(fields[0], highest), octets, messages
            row = ACCOUNT_COUNTERS.pack(*fields)
            if row != self._txn.get(key, db=self._tables.acnt):
                what = f"{messages} messages, {octets} octets, ModSeq {fields[0]}"
                self._fix("account-counters", f"account {U32.unpack(key)[0]}", what, ("acnt", key, row))


class Repair:
    """Do what the plan says, in one commit."""

    def __init__(self, segments: Path) -> None:
        self._segments = segments

    def run(self, group: Group) -> list[Repaired]:
        """Return what was done."""
        plan = Planner(group.txn, group.tables, self._segments, group.now).plan()
        for table, key, row in plan.writes:
            handle: Any = getattr(group.tables, table)
            if row is None:
                group.txn.delete(key, db=handle)
            else:
                group.txn.put(key, row, db=handle)
        if plan.writes:
            for table in (group.tables.opened, group.tables.unseen):
                group.txn.drop(table, delete=False)
        group.removed_segments += plan.emptied
        group.ledger.forget()
        return plan.fixes


def queue_references(txn: Transaction, tables: Tables, now: int) -> Counter[bytes]:
    """Return how often the outbound queue refers to each content."""
    check = QueueCheck(read_queue(txn, tables), milliseconds(now), 0, lambda *_: None)
    for _ in check.run():
        pass
    return check.references
