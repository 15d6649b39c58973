"""`livemail store check`: read everything and compare.

The index is compared with itself in one read transaction: rows with cache rows, counters with rows, references with contents,
segments' totals with what lives in them.  Then every content is read, in the order in which they lie on disk, each slice under a
transaction of its own, so that what was expunged since is left out and no page of the index is pinned for long.

It runs in slices of bounded work, so that a thread of the pool is given back between them and the server goes on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from collections.abc import Set as AbstractSet
from itertools import chain, islice, zip_longest
from pathlib import Path
from struct import Struct
from typing import Final

import msgspec

from livemail.interfaces.storage import Problem, Report
from livemail.mail.errors import StorageFailed
from livemail.mail.flags import DELETED, SEEN
from livemail.storage.lmdb.deleted.check import DeletedWalk
from livemail.storage.lmdb.files.check import FileCheck
from livemail.storage.lmdb.opening import Counters
from livemail.storage.lmdb.opening import faults as opening_faults
from livemail.storage.lmdb.queue import read_queue
from livemail.storage.lmdb.records import (
    ACCOUNT_COUNTERS,
    BLOB,
    MAILBOX_COUNTERS,
    MAILBOX_KEY,
    MESSAGE,
    MESSAGE_KEY,
    SEGMENT,
    TAIL,
    U32,
    MailboxRecord,
    Message,
    name_key,
    unpack_account,
    unpack_alias,
    unpack_domain,
    unpack_mailbox,
)
from livemail.storage.lmdb.rows import Transaction
from livemail.storage.lmdb.schema import Environment, Tables
from livemail.storage.lmdb.segments import Location, SegmentGone, SegmentReader, segment_path
from livemail.storage.lmdb.unindexed import Span, read_kept, read_records
from livemail.storage.queue.check import QueueCheck
from livemail.storage.queue.records import milliseconds
from livemail.storage.spool import HEAD

SLICE_ROWS: Final = 5000
SLICE_OCTETS: Final = 8 * 1024 * 1024
MAX_PROBLEMS: Final = 10_000
LOOKS: Final = 4
LOOK_SECONDS: Final = 0.05

_COUNT: Final = (1 << 32) - 1
_PLACE: Final = Struct(">IQ16s")

Step = tuple[int, int, str]


class _Tally:
    """Counters of one mailbox, and what the rows add up to."""

    __slots__ = ("deleted", "exists", "highest", "octets", "record", "row", "uid_next", "unseen")

    def __init__(self, record: MailboxRecord, row: bytes) -> None:
        self.record = record
        self.row = MAILBOX_COUNTERS.unpack(row)
        self.uid_next, self.highest = self.row[:2]
        self.exists = self.unseen = self.deleted = self.octets = 0


def _where(key: bytes) -> str:
    account, mailbox, uid = MESSAGE_KEY.unpack(key)
    return f"account {account}, mailbox {mailbox}, UID {uid}"


class Check:
    """One run.  `step` may be called from any thread, from one at a time."""

    def __init__(
        self,
        environment: Environment,
        tables: Tables,
        folder: Path,
        hash_key: bytes,
        *,
        with_files: bool = True,
        now: float = 0.0,
        instance: int = 0,
    ) -> None:
        """folder: of the segments.  hash_key: of the digests.  with_files: read accounts' Maildirs too.

        now, instance: by which the queue's leases are judged; without an instance they are not.
        """
        self._now = now
        self._instance = instance
        self._environment = environment
        self._tables = tables
        self._folder = folder
        self._segments = SegmentReader(folder)
        self._problems: list[Problem] = []
        self._accounts = self._messages = self._contents = self._octets = 0
        self._mailboxes: dict[bytes, _Tally] = {}
        self._references: Counter[bytes] = Counter()
        """Of the queue and of deleted mail, by digest."""
        self._suspects: set[bytes] = set()
        """Contents of which a message says another size than they have, or another message."""
        self._wanted: dict[bytes, int] = {}
        """Of messages, by digest: how many, and in the upper bits the octets their rows say it has."""
        self._places: list[bytes] = []
        self._kept: list[Span] = []
        self._files = FileCheck(environment, tables, hash_key, self._found)
        self._with_files = with_files
        self._steps = self._run()

    def step(self) -> Step | None:
        """Do some work.  Returns (done, total, what), None when all is done."""
        return next(self._steps, None)

    def report(self) -> Report:
        """What was seen."""
        return Report(
            self._accounts,
            len(self._mailboxes),
            self._messages,
            self._contents,
            self._octets,
            tuple(self._problems),
        )

    def close(self) -> None:
        """Give back files and transaction, also in the middle."""
        self._steps.close()
        self._segments.close()

    def _found(self, kind: str, where: str, detail: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(kind, where, detail))

    def _run(self) -> Generator[Step, None, None]:
        with self._environment.begin() as txn:
            self._read_mailboxes(txn)
            yield from self._read_messages(txn)
            yield from self._read_deleted(txn)
            yield from self._read_queue(txn)
            self._check_openings(txn)
            self._compare_counters(txn)
            self._compare_contents(txn)
        self._references.clear()
        yield from self._read_contents()
        for span in self._kept:
            yield from self._read_span(span)

    # ---------------------------------------------------------------------------------------------------- the index

    def _read_mailboxes(self, txn: Transaction) -> None:
        tables = self._tables
        for key, row in txn.cursor(tables.acct).iternext():
            self._accounts += 1
            account = unpack_account(row)
            if txn.get(account.name.encode(), db=tables.user) != key:
                self._found("account-name", f"account {account.id}", "the login does not lead to the account")
            if txn.get(key, db=tables.acnt) is None:
                self._found("account-counters", f"account {account.id}", "has no counters")
        for table, unpack, kind in ((tables.dom, unpack_domain, "domain"), (tables.alias, unpack_alias, "alias")):
            for key, row in txn.cursor(table).iternext():
                try:
                    unpack(row)
                except msgspec.MsgspecError as error:
                    self._found(
                        kind, bytes(key).decode("utf-8", "replace").replace("\0", " "), f"cannot be read: {error}"
                    )
        for key, row in txn.cursor(tables.mbox).iternext():
            account_id, id_ = MAILBOX_KEY.unpack(key)
            record = unpack_mailbox(row)
            where = f"account {account_id}, mailbox {id_}"
            counters = txn.get(key, db=tables.mcnt)
            if counters is None:
                self._found("mailbox-counters", where, "has no counters")
                continue
            self._mailboxes[key] = _Tally(record, counters)
            if txn.get(name_key(account_id, record.name), db=tables.mname) != U32.pack(id_):
                self._found("mailbox-name", where, "the name does not lead to the mailbox")
            if txn.get(key[:4], db=tables.acct) is None:
                self._found("mailbox-orphan", where, "has no account")

        for key in txn.cursor(tables.mcnt).iternext(values=False):
            if key not in self._mailboxes:
                account_id, id_ = MAILBOX_KEY.unpack(key)
                self._found("mailbox-counters", f"account {account_id}, mailbox {id_}", "counters of no mailbox")

    def _read_messages(self, txn: Transaction) -> Generator[Step, None, None]:
        tables = self._tables
        total = txn.stat(tables.msg)["entries"]
        caches = txn.cursor(tables.cache).iternext()
        rows = txn.cursor(tables.msg).iternext()
        while some := list(islice(rows, SLICE_ROWS)):
            self._messages += len(some)
            read = self._read_message
            for (key, row), cached in zip_longest(some, islice(caches, len(some)), fillvalue=(b"", b"")):
                read(txn, key, row, cached)
            yield self._messages, total, "messages"
        if next(caches, None) is not None:
            self._found("cache-row", "cache", "has rows without messages")

    def _read_deleted(self, txn: Transaction) -> Generator[Step, None, None]:
        walk = DeletedWalk(txn, self._tables, self._files.root, self._is_missing, self._found)
        total = txn.stat(self._tables.gone)["entries"]
        for done in walk.run():
            yield done, total, "deleted messages"
        self._references += walk.references

    def _is_missing(self, key: bytes, path: Path) -> bool:
        """Whether a kept message's file is gone, and not only since the snapshot: it may have come back to a mailbox."""
        for _ in range(LOOKS):
            if not self._with_files or path.is_file():
                return False
            with self._environment.begin() as now:
                if now.get(key, db=self._tables.gone) is None:
                    return False
            time.sleep(LOOK_SECONDS)  # In a thread of the pool: its commit may be under way.
        return True

    def _read_queue(self, txn: Transaction) -> Generator[Step, None, None]:
        check = QueueCheck(read_queue(txn, self._tables), milliseconds(self._now), self._instance, self._found)
        total = txn.stat(self._tables.qmsg)["entries"]
        for done in check.run():
            if total:
                yield done, total, "queued messages"
        self._references += check.references

    def _read_message(self, txn: Transaction, key: bytes, row: bytes, cached: tuple[bytes, bytes]) -> None:
        """Look at one message's rows.  This runs once per message of the store: words are only made where something is wrong."""
        tally = self._mailboxes.get(key[:8])
        if tally is None:
            self._found("message-orphan", _where(key), "has no mailbox")
            return
        if len(row) != MESSAGE.size:
            self._found("message-row", _where(key), f"has {len(row)} octets")
            return
        (_, uid, flags, keywords, modseq, _, _, size, _, _, _, _, digest, _, _, _, fields_end, prefix_end) = (
            MESSAGE.unpack(row)
        )
        if cached[0] != key or len(cached[1]) != prefix_end:
            self._found("cache-row", _where(key), "the cache row does not belong to the message")
        if key[8:] != U32.pack(uid) or uid >= tally.uid_next:
            self._found("message-uid", _where(key), f"the row says UID {uid}, the mailbox UIDNEXT {tally.uid_next}")
        if not 0 < modseq <= tally.highest:
            self._found("message-modseq", _where(key), f"ModSeq {modseq}, the mailbox's is {tally.highest}")
        if keywords and keywords >> len(tally.record.keywords):
            self._found("message-keywords", _where(key), "has keywords without a name")
        if not (self._files.has_any and self._files.takes(txn, key)):
            # Compared with the contents' rows when those are gone through: a look-up for each was a third of the check.
            wanted = size - prefix_end + fields_end << 32
            known = self._wanted.get(digest, wanted)
            if known >> 32 != wanted >> 32:
                self._suspects.add(digest)
            self._wanted[digest] = known + 1
        tally.exists += 1
        tally.octets += size
        if not flags & SEEN:
            tally.unseen += 1
        if flags & DELETED:
            tally.deleted += 1

    def _check_openings(self, txn: Transaction) -> None:
        tables = self._tables
        for key in sorted(
            {bytes(key) for table in (tables.opened, tables.unseen) for key in txn.cursor(table).iternext(values=False)}
        ):
            account_id, id_ = MAILBOX_KEY.unpack(key)
            where = f"account {account_id}, mailbox {id_}"
            tally = self._mailboxes.get(key)
            if tally is None:
                self._found("opening", where, "noted of no mailbox")
                continue
            for fault in opening_faults(txn, tables, key, Counters.of(txn.get(key, db=tables.mcnt))):
                self._found("opening", where, fault)

    def _compare_counters(self, txn: Transaction) -> None:
        used: Counter[bytes] = Counter()
        messages: Counter[bytes] = Counter()
        highest: dict[bytes, int] = {}
        for key, tally in self._mailboxes.items():
            account_id, id_ = MAILBOX_KEY.unpack(key)
            said = tally.row[2:6]
            seen = (tally.exists, tally.unseen, tally.deleted, tally.octets)
            if said != seen:
                self._found(
                    "mailbox-counters",
                    f"account {account_id}, mailbox {id_}",
                    f"exists, unseen, deleted, octets are {seen}, the counters say {said}",
                )
            used[key[:4]] += tally.octets
            messages[key[:4]] += tally.exists
            highest[key[:4]] = max(highest.get(key[:4], 0), tally.row[1])
        for key, row in txn.cursor(self._tables.acnt).iternext():
            modseq, octets, count, *_ = ACCOUNT_COUNTERS.unpack(row)
            where = f"account {U32.unpack(key)[0]}"
            if (octets, count) != (used[key], messages[key]):
                self._found(
                    "account-counters",
                    where,
                    f"{messages[key]} messages, {used[key]} octets; the counters say {count}, {octets}",
                )
            if highest.get(key, 0) > modseq:
                self._found("account-modseq", where, f"a mailbox is at {highest[key]}, the account at {modseq}")

    def _compare_contents(self, txn: Transaction) -> None:
        tables = self._tables
        self._kept = read_kept(txn, tables)
        living = Counter({span.segment: span.octets for span in self._kept})
        kept_from = {span.segment: span.begin for span in self._kept}
        wanted, others, places = self._wanted, self._references, self._places
        unpack, pack, head = BLOB.unpack, _PLACE.pack, HEAD.size
        suspects = self._suspects
        for digest, row in txn.cursor(tables.blob).iternext():
            references, segment, offset, size, _ = unpack(row)
            mine = wanted.pop(digest, 0)
            if mine and mine >> 32 != size:
                suspects.add(digest)
            counted = (mine & _COUNT) + others.get(digest, 0)
            if references != counted:
                self._found(
                    "content-references",
                    f"content {digest.hex()}",
                    f"{counted} messages, in mailboxes, queue and deleted mail, {references} references",
                )
            if not kept_from or offset < kept_from.get(segment, offset + 1):
                living[segment] += head + size
            places.append(pack(segment, offset, digest))
        if wanted or suspects:
            self._name_messages(txn, wanted.keys() | suspects)
        wanted.clear()
        tail_row = txn.get(b"tail", db=tables.meta)
        number, size, _ = TAIL.unpack(tail_row) if tail_row else (0, 0, 1)
        known = {}
        for key, row in txn.cursor(tables.seg).iternext():
            segment = U32.unpack(key)[0]
            total, dead, _ = SEGMENT.unpack(row)
            known[segment] = total
            if total - dead != living[segment]:
                self._found(
                    "segment-totals",
                    f"segment {segment}",
                    f"{living[segment]} octets live, the totals say {total} - {dead}",
                )
        for segment in living.keys() - known.keys():
            self._found("segment-row", f"segment {segment}", "contents lie in it, but it has no row")
        if size and known.get(number, size) != size:
            self._found("segment-tail", f"segment {number}", f"the tail is at {size}, the total {known[number]}")

    def _name_messages(self, txn: Transaction, digests: AbstractSet[bytes]) -> None:
        """Name the messages whose contents are missing, or of another size."""
        for key, row in txn.cursor(self._tables.msg).iternext():
            if len(row) != MESSAGE.size or (message := Message.unpack(row)).digest not in digests:
                continue
            if self._files.root(U32.unpack_from(key)[0]) is not None:
                continue
            blob = txn.get(message.digest, db=self._tables.blob)
            if blob is None:
                self._found("content-missing", _where(key), f"no content {message.digest.hex()}")
            elif BLOB.unpack(blob)[3] + message.prefix_size != message.size:
                self._found("message-size", _where(key), f"the row says {message.size} octets")

    # --------------------------------------------------------------------------------------------------- the contents

    def _read_contents(self) -> Generator[Step, None, None]:
        self._places.sort()
        keys = self._files.keys if self._with_files else []
        total = len(self._places) + len(keys)
        done = octets = 0
        for size in chain(map(self._read_place, self._places), map(self._read_file, keys)):
            octets += size
            done += 1
            if octets >= SLICE_OCTETS or done % SLICE_ROWS == 0:
                octets = 0
                yield done, total, "contents"
        if total:
            yield done, total, "contents"

    def _read_place(self, place: bytes) -> int:
        _, _, digest = _PLACE.unpack(place)
        return self._read_content(digest)

    def _read_file(self, key: bytes) -> int:
        size = self._files.read(key)
        self._contents += size > 0
        self._octets += size
        return size

    def _read_content(self, digest: bytes) -> int:
        """Read and verify one content; return its size.  One that is gone by now is no problem."""
        location = self._locate(digest)
        while location is not None:
            try:
                self._segments.open(location.segment).read_whole(location, digest)
            except SegmentGone:
                before = location
                location = self._locate(digest)
                if location == before:
                    path = segment_path(self._folder, before.segment)
                    self._found("segment-missing", str(path), f"content {digest.hex()} lies in it")
                    break
            except StorageFailed as error:
                self._found("content-damaged", f"content {digest.hex()}", error.reason)
                break
            else:
                self._contents += 1
                self._octets += location.size
                return location.size
        return 0

    def _read_span(self, span: Span) -> Generator[Step, None, None]:
        """Count what is whole among octets that the index does not know."""
        messages = octets = done = told = 0
        for record in read_records(self._folder, span):
            if self._locate(record.digest) is None:
                messages += 1
                octets += record.location.size
            done += record.octets
            if done - told >= SLICE_OCTETS:
                told = done
                yield done, span.octets, "octets without index"
        with self._environment.begin() as txn:
            if span in read_kept(txn, self._tables):
                self._found(
                    "content-unindexed",
                    f"{segment_path(self._folder, span.segment)}, offset {span.begin}",
                    f"{messages} whole messages, {octets} octets, that the index does not know: it is older than they are;"
                    " `livemail store repair` brings them to lost+found",
                )

    def _locate(self, digest: bytes) -> Location | None:
        with self._environment.begin() as txn:
            row = txn.get(digest, db=self._tables.blob)
        return Location(*BLOB.unpack(row)[1:]) if row is not None else None
