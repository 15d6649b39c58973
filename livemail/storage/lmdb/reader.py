"""Reading: a read transaction per call, none across a turn of the reactor.

A FETCH of a hundred thousand messages is what this module is written for.  Lessons, each worth a factor: rows come
out of LMDB as a list made in C and are unpacked by one `iter_unpack` over their concatenation; the record holds its own UID, so keys
are not read; a piece of the cache row is cut by two offsets from the record, and the first piece by one; the columns not asked
for cost nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate

from twisted.logger import Logger

from livemail.interfaces.addresses import AliasRecord, DomainRecord
from livemail.interfaces.storage import (
    MODSEQ,
    UID_,
    AccountRecord,
    Changes,
    FetchBatch,
    FetchWant,
    IContentReader,
    MailboxInfo,
    MailboxList,
    Selected,
)
from livemail.interfaces.story import KeptStory
from livemail.interfaces.undelete import DeletedMessage, Kept
from livemail.mail.errors import CannotCalculate, NoSuchAccount, NoSuchMailbox, StorageFailed
from livemail.mail.ids import UID, AccountId, MailboxId, ModSeq, UIDSet
from livemail.storage.lmdb.content import StoredContent
from livemail.storage.lmdb.deleted.reading import read_deleted, read_kept
from livemail.storage.lmdb.files.reading import FileGone, MaildirReader
from livemail.storage.lmdb.opening import Counters, KeptOpenings, NoteOpening, is_long_walk, read_opening
from livemail.storage.lmdb.records import (
    ACCOUNT_COUNTERS,
    BITS_AND_ENDS,
    BLOB,
    CACHE_SIZE,
    CHANGE_KEY,
    DIGEST,
    ENVELOPE_END,
    EXPUNGE_KEY,
    FIELDS_TOO_LARGE,
    MAILBOX_COUNTERS,
    MAILBOX_KEY,
    MAX_LOGIN_OCTETS,
    MESSAGE,
    MESSAGE_KEY,
    ROWS,
    STATE,
    U32,
    Message,
    alias_key,
    name_key,
    unpack_account,
    unpack_alias,
    unpack_change,
    unpack_domain,
    unpack_mailbox,
    unpack_ranges,
)
from livemail.storage.lmdb.rows import Transaction, Walk, first_of_runs, intersect, keys_below, read_beside
from livemail.storage.lmdb.schema import Environment, Tables
from livemail.storage.lmdb.segments import Location, SegmentGone, SegmentReader
from livemail.storage.stories import unpack_kept

BATCH_ROWS = 1000
BATCH_ROWS_WITH_CONTENTS = 200
BATCH_OCTETS = 1024 * 1024
CACHE_OCTETS = 2 * 1024 * 1024
"""Of cache rows in a batch: a thousand ordinary rows are half of it, a thousand hostile ones were 300 MB."""

_log = Logger()


def mailbox_info(id_: int, record_row: bytes, counters: bytes) -> MailboxInfo:
    """Return a mailbox from its two rows."""
    record = unpack_mailbox(record_row)
    uid_next, highest, exists, unseen, deleted, octets, _, _, recent_from = MAILBOX_COUNTERS.unpack(counters)
    return MailboxInfo(
        MailboxId(id_), record.name, record.special_use, record.uid_validity, uid_next, exists, unseen, deleted, octets, highest,
        recent_from, record.keywords,
    )  # fmt: skip


class Reader:
    """Reads the index and the segments.  The reactor's thread only, but for what says otherwise."""

    def __init__(
        self, environment: Environment, tables: Tables, segments: SegmentReader, maildirs: MaildirReader
    ) -> None:
        self._environment = environment
        self._tables = tables
        self._segments = segments
        self._maildirs = maildirs
        self.kept_openings = KeptOpenings()
        self._is_open = True

    def close(self) -> None:
        """Let no transaction begin any more."""
        self._is_open = False

    def _begin(self) -> Transaction:
        if not self._is_open:
            raise StorageFailed(reason="the store is closed")
        return self._environment.begin()

    # ----------------------------------------------------------------------------------------------------- accounts

    def kept(self, account: AccountId) -> Kept:
        """Return how much of an account was expunged and is kept."""
        with self._begin() as txn:
            return read_kept(txn, self._tables, account)

    def deleted(self, account: AccountId, after: bytes, limit: int) -> list[DeletedMessage]:
        """Return an account's kept messages behind a key."""
        with self._begin() as txn:
            return read_deleted(txn, self._tables, account, after, limit)

    def account_record(self, id_: AccountId) -> AccountRecord:
        """Return an account.  Raises NoSuchAccount."""
        with self._begin() as txn:
            row = txn.get(U32.pack(id_), db=self._tables.acct)
        if row is None:
            raise NoSuchAccount
        return unpack_account(row)

    def story(self, key: bytes) -> KeptStory | None:
        """Return one transaction's story."""
        with self._environment.begin() as txn:
            row = txn.get(key, db=self._tables.story)
        return unpack_kept(row) if row is not None else None

    def account_named(self, name: str) -> AccountRecord | None:
        """Return an account by its login."""
        octets = name.encode("utf-8", "surrogatepass")
        if not 0 < len(octets) <= MAX_LOGIN_OCTETS:
            return None
        with self._begin() as txn:
            key = txn.get(octets, db=self._tables.user)
            return unpack_account(txn.get(key, db=self._tables.acct)) if key is not None else None

    def domains(self) -> list[DomainRecord]:
        """Return all domains by name."""
        with self._begin() as txn:
            return [unpack_domain(row) for row in txn.cursor(self._tables.dom).iternext(keys=False)]

    def aliases(self) -> list[AliasRecord]:
        """Return all aliases by domain and local part."""
        with self._begin() as txn:
            return [unpack_alias(row) for row in txn.cursor(self._tables.alias).iternext(keys=False)]

    def alias(self, local_part: str, domain: str) -> AliasRecord | None:
        """Return one alias."""
        with self._begin() as txn:
            row = txn.get(alias_key(local_part, domain), db=self._tables.alias)
            return unpack_alias(row) if row is not None else None

    def accounts(self) -> list[AccountRecord]:
        """Return all accounts by name."""
        with self._begin() as txn:
            keys = list(txn.cursor(self._tables.user).iternext(keys=False))
            return [unpack_account(txn.get(key, db=self._tables.acct)) for key in keys]

    def usage(self) -> dict[str, tuple[int, int, int]]:
        """Return octets, messages and mailboxes of every account by name, of one moment.  Allowed in any thread."""
        tables = self._tables
        with self._environment.begin() as txn:
            mailboxes = Counter(key[:4] for key in txn.cursor(tables.mbox).iternext(values=False))
            counters = {key: ACCOUNT_COUNTERS.unpack(row)[1:3] for key, row in txn.cursor(tables.acnt).iternext()}
            return {
                name.decode(): (*counters[key], mailboxes[key])
                for name, key in txn.cursor(tables.user).iternext()
                if key in counters
            }

    # ---------------------------------------------------------------------------------------------------- mailboxes

    def mailboxes(self, account: AccountId) -> MailboxList:
        """Return every mailbox and the subscriptions.  Raises NoSuchAccount."""
        prefix, tables = U32.pack(account), self._tables
        with self._begin() as txn:
            self._require_account(txn, account)
            infos = []
            cursor, counters = txn.cursor(tables.mbox), txn.cursor(tables.mcnt)
            if cursor.set_range(prefix) and counters.set_range(prefix):
                for (key, record), row in zip(cursor.iternext(), counters.iternext(keys=False), strict=False):
                    if not key.startswith(prefix):
                        break
                    infos.append(mailbox_info(MAILBOX_KEY.unpack(key)[1], record, row))
            subscribed = set()
            cursor = txn.cursor(tables.sub)
            if cursor.set_range(prefix):
                for key, name in cursor.iternext():
                    if not key.startswith(prefix):
                        break
                    subscribed.add(name.decode())
        infos.sort(key=lambda info: info.name)
        return MailboxList(tuple(infos), frozenset(subscribed))

    def mailbox(self, account: AccountId, name: str) -> MailboxInfo:
        """Return one mailbox.  Raises NoSuchMailbox, NoSuchAccount."""
        with self._begin() as txn:
            return self._mailbox(txn, account, name)

    def _mailbox(self, txn: Transaction, account: AccountId, name: str) -> MailboxInfo:
        tables = self._tables
        row = txn.get(name_key(account, name), db=tables.mname)
        if row is None:
            self._require_account(txn, account)
            raise NoSuchMailbox
        key = U32.pack(account) + row
        return mailbox_info(U32.unpack(row)[0], txn.get(key, db=tables.mbox), txn.get(key, db=tables.mcnt))

    def _require_account(self, txn: Transaction, account: AccountId) -> None:
        if txn.get(U32.pack(account), db=self._tables.acnt) is None:
            raise NoSuchAccount

    def select(
        self, account: AccountId, name: str, *, may_last: bool = True
    ) -> tuple[Selected, NoteOpening | None] | None:
        """Return a mailbox with its UIDs, and what should be noted for the next time.  In any thread.  Raises NoSuchMailbox.

        may_last: false for None where all of a large mailbox would have to be read.
        """
        with self._begin() as txn:
            info = self._mailbox(txn, account, name)
            key = MAILBOX_KEY.pack(account, info.id)
            counters = Counters.of(txn.get(key, db=self._tables.mcnt))
            if not may_last and is_long_walk(txn, self._tables, key, counters):
                return None
            opening = read_opening(txn, self._tables, key, counters, self.kept_openings)
        first = opening.uids.position(opening.first_unseen) + 1 if opening.first_unseen else 0
        note = NoteOpening(account, info.id, counters, opening) if opening.is_worth_noting else None
        return Selected(info, opening.uids, first), note

    def fetch(self, account: AccountId, mailbox: MailboxId, uids: UIDSet, want: FetchWant) -> Iterator[FetchBatch]:
        """Yield batches, each one snapshot.  Raises NoSuchMailbox."""
        key = MAILBOX_KEY.pack(account, mailbox)
        ranges: Sequence[tuple[int, int]] = uids.ranges
        if want.changed_since:
            ranges = self._changed_ranges(account, mailbox, ranges, want.changed_since)
        walk = Walk(ranges)
        most = BATCH_ROWS_WITH_CONTENTS if want.contents else BATCH_ROWS
        is_first = True
        while not walk.is_done or is_first:
            is_first = False
            batch = self._batch(key, walk, want, most)
            if batch is not None:
                yield batch

    def _batch(self, mailbox_key: bytes, walk: Walk, want: FetchWant, most: int) -> FetchBatch | None:
        """Read the next rows; None when there are none among them."""
        tables = self._tables
        with self._begin() as txn:
            record_row = txn.get(mailbox_key, db=tables.mbox)
            if record_row is None:
                raise NoSuchMailbox
            (uid_next, *_) = MAILBOX_COUNTERS.unpack(txn.get(mailbox_key, db=tables.mcnt))
            values, runs = walk.take(txn, tables.msg, mailbox_key, uid_next - 1, most)
            joined = b"".join(values)
            rows = list(ROWS.iter_unpack(joined))
            if want.changed_since:
                kept = [index for index, row in enumerate(rows) if row[MODSEQ] > want.changed_since]
                if len(kept) != len(rows):
                    rows, values = [rows[index] for index in kept], [values[index] for index in kept]
                    joined = b"".join(values)
                    runs = [(row[UID_], 1) for row in rows]
            if not rows:
                return None
            is_cut = want.envelopes or want.structures or want.fields or want.parts or want.contents
            if is_cut and (count := _rows_within(joined, CACHE_OCTETS)) < len(rows):
                walk.go_back(rows[count][UID_])
                rows, values, runs = rows[:count], values[:count], first_of_runs(runs, count)
                joined = joined[: count * MESSAGE.size]
            batch = FetchBatch(rows, unpack_mailbox(record_row).keywords)
            if is_cut:
                caches = read_beside(txn, tables.cache, mailbox_key, runs)
                if len(caches) != len(rows):
                    raise StorageFailed(reason=f"mailbox {mailbox_key.hex()}: cache rows are missing")
                _cut(batch, joined, caches, want)
                if want.contents:
                    self._add_contents(txn, batch, values, walk, want, mailbox_key)
        return batch

    def _add_contents(
        self,
        txn: Transaction,
        batch: FetchBatch,
        values: Sequence[bytes],
        walk: Walk,
        want: FetchWant,
        mailbox_key: bytes,
    ) -> None:
        """Read the contents of small messages, up to about 1 MiB; give the rows behind back to the walk."""
        contents: list[bytes | None] = []
        assert batch.prefixes is not None
        octets = 0
        folder = self._maildirs.folder(txn, *MAILBOX_KEY.unpack(mailbox_key))
        for value, row, prefix in zip(values, batch.rows, batch.prefixes, strict=True):
            if octets >= BATCH_OCTETS:
                walk.go_back(row[UID_])
                _shorten(batch, len(contents))
                break
            content = None
            if row[6] <= want.contents_up_to:
                try:
                    if folder is None:
                        content = prefix + self._read_whole(txn, DIGEST.unpack(value)[0], walk)
                    else:
                        content = self._maildirs.read(txn, folder, mailbox_key + U32.pack(row[UID_]), row[6])
                except FileGone:
                    _log.info("UID {uid} was removed by another program", uid=row[UID_])
                except SegmentGone:
                    # Expunged since this snapshot was taken: the next one does not have it.
                    walk.go_back(row[UID_])
                    _shorten(batch, len(contents))
                    break
                except StorageFailed as error:
                    # Reading it alone will say so; the others need not suffer.
                    _log.error("UID {uid} is damaged: {reason}", uid=row[UID_], reason=error.reason)
                else:
                    octets += len(content)
            contents.append(content)
        batch.contents = contents

    def _read_whole(self, txn: Transaction, digest: bytes, walk: Walk) -> bytes:
        """Raises SegmentGone, StorageFailed: the second time, when the file is missing and nothing was expunged or moved."""
        location = self._locate(txn, digest)
        try:
            segment = self._segments.open(location.segment)
        except SegmentGone:
            walk.gone = _moved_from(walk.gone, location)
            raise
        return segment.read_whole(location, digest)

    def _locate(self, txn: Transaction, digest: bytes) -> Location:
        row = txn.get(digest, db=self._tables.blob)
        if row is None:
            raise StorageFailed(reason=f"content {digest.hex()} has no row")
        return Location(*BLOB.unpack(row)[1:])

    def open_content(self, account: AccountId, mailbox: MailboxId, uid: UID) -> IContentReader | None:
        """Open one message, None when it does not exist.  Raises StorageFailed when it is damaged."""
        key = MESSAGE_KEY.pack(account, mailbox, uid)
        gone: Location | None = None
        while True:
            with self._begin() as txn:
                row = txn.get(key, db=self._tables.msg)
                if row is None:
                    return None
                message = Message.unpack(row)
                try:
                    folder = self._maildirs.folder(txn, account, mailbox)
                    if folder is not None:
                        return self._maildirs.open(txn, folder, account, mailbox, message)
                except FileGone:
                    return None
                prefix = txn.get(key, db=self._tables.cache)[message.fields_end : message.prefix_end]
                location = self._locate(txn, message.digest)
                try:
                    segment = self._segments.open(location.segment)
                except SegmentGone:
                    gone = _moved_from(gone, location)
                    continue
            segment.verify_head(location, message.digest)
            return StoredContent(segment, location, prefix)

    def imported(self, prefix: bytes) -> frozenset[bytes]:
        """Return what follows a prefix in the keys of ``imported``."""
        with self._begin() as txn:
            return frozenset(key[len(prefix) :] for key in keys_below(txn, self._tables.imported, prefix))

    def open_digest(self, digest: bytes, prefix: bytes) -> StoredContent | None:
        """Open a content behind a prefix, None when it does not exist.  Raises StorageFailed when it is damaged."""
        gone: Location | None = None
        while True:
            with self._begin() as txn:
                row = txn.get(digest, db=self._tables.blob)
            if row is None:
                return None
            location = Location(*BLOB.unpack(row)[1:])
            try:
                segment = self._segments.open(location.segment)
            except SegmentGone:
                gone = _moved_from(gone, location)
            else:
                segment.verify_head(location, digest)
                return StoredContent(segment, location, prefix)

    # ------------------------------------------------------------------------------------------------------ changes

    def changes(self, account: AccountId, mailbox: MailboxId, since: ModSeq) -> Changes:
        """Return what changed above ``since``.  Raises CannotCalculate, NoSuchMailbox."""
        key = MAILBOX_KEY.pack(account, mailbox)
        with self._begin() as txn:
            counters = txn.get(key, db=self._tables.mcnt)
            if counters is None:
                raise NoSuchMailbox
            uid_next, highest, _, _, _, _, floor, _, _ = MAILBOX_COUNTERS.unpack(counters)
            if since < floor:
                raise CannotCalculate(reason=f"expunges up to ModSeq {floor} are forgotten")
            if highest <= since:
                return Changes(highest, UIDSet(), UIDSet())
            vanished: list[tuple[int, int]] = []
            cursor = txn.cursor(self._tables.expunge)
            if cursor.set_range(EXPUNGE_KEY.pack(account, mailbox, since + 1)):
                for row_key, row in cursor.iternext():
                    if not row_key.startswith(key):
                        break
                    vanished += unpack_ranges(row)
            ranges = self._logged(txn, account, mailbox, since)
            changed: list[int] = []
            walk = Walk([(1, uid_next)] if ranges is None else ranges)
            while not walk.is_done:
                rows, _ = walk.take(txn, self._tables.msg, key, uid_next - 1, BATCH_ROWS)
                states = STATE.iter_unpack(b"".join(rows))
                changed += [uid for uid, _, _, modseq in states if modseq > since]
        return Changes(highest, UIDSet.of(changed), UIDSet(vanished))

    def _changed_ranges(
        self, account: AccountId, mailbox: MailboxId, ranges: Sequence[tuple[int, int]], since: ModSeq
    ) -> Sequence[tuple[int, int]]:
        """Narrow ranges to what may have changed: the log knows it without reading a row."""
        with self._begin() as txn:
            logged = self._logged(txn, account, mailbox, since)
        return ranges if logged is None else intersect(ranges, logged)

    def _logged(
        self, txn: Transaction, account: AccountId, mailbox: MailboxId, since: ModSeq
    ) -> Sequence[tuple[int, int]] | None:
        """Return what the log says changed above ``since``; None when it does not reach back so far."""
        counters = txn.get(U32.pack(account), db=self._tables.acnt)
        if counters is None:
            raise NoSuchAccount
        if since < ACCOUNT_COUNTERS.unpack(counters)[5]:
            return None
        prefix = U32.pack(account)
        found: list[tuple[int, int]] = []
        cursor = txn.cursor(self._tables.change)
        if cursor.set_range(CHANGE_KEY.pack(account, since + 1)):
            for key, row in cursor.iternext():
                if not key.startswith(prefix):
                    break
                for id_, ranges in unpack_change(row):
                    if id_ == mailbox:
                        found += ranges
        return UIDSet(found).ranges


def _rows_within(joined: bytes, limit: int) -> int:
    """Return how many of the records have cache rows of at most ``limit`` octets together; at least one.

    The last column of a record is the size of its cache row.
    """
    size = MESSAGE.size
    # Its octets as columns: rounded up to 256 each, the sum costs no more than summing bytes does.
    second, third, fourth = (sum(joined[size - at :: size]) for at in (3, 2, 1))
    if (second << 8) + (third << 16) + (fourth << 24) + 256 * (len(joined) // size) <= limit:
        return len(joined) // size
    ends = list(accumulate([end for (end,) in CACHE_SIZE.iter_unpack(joined)]))
    return max(1, bisect_right(ends, limit))


def _cut(batch: FetchBatch, joined: bytes, caches: Sequence[bytes], want: FetchWant) -> None:
    """Cut the columns asked for out of the cache rows."""
    if not (want.structures or want.fields or want.parts or want.contents):
        batch.envelopes = [cache[:end] for cache, (end,) in zip(caches, ENVELOPE_END.iter_unpack(joined), strict=True)]
        return
    all_ends = list(BITS_AND_ENDS.iter_unpack(joined))
    if want.envelopes:
        batch.envelopes = [cache[: ends[1]] for cache, ends in zip(caches, all_ends, strict=True)]
    if want.structures:
        batch.structures = [cache[ends[1] : ends[2]] for cache, ends in zip(caches, all_ends, strict=True)]
    if want.parts:
        batch.parts = [cache[ends[2] : ends[3]] for cache, ends in zip(caches, all_ends, strict=True)]
    if want.fields:
        batch.fields = [
            None if ends[0] & FIELDS_TOO_LARGE else cache[ends[3] : ends[4]]
            for cache, ends in zip(caches, all_ends, strict=True)
        ]
    if want.fields or want.contents:
        batch.prefixes = [cache[ends[4] : ends[5]] for cache, ends in zip(caches, all_ends, strict=True)]


def _shorten(batch: FetchBatch, count: int) -> None:
    """Keep the first ``count`` messages of a batch."""
    for name in ("rows", "envelopes", "structures", "prefixes", "fields", "parts"):
        column = getattr(batch, name)
        if column is not None:
            setattr(batch, name, column[:count])


def _moved_from(before: object, location: Location) -> Location:
    """Return the place whose segment is gone: expunged or moved since the index was asked.

    Raises StorageFailed when that is still the place it names: the file is missing.
    """
    if location == before:
        raise StorageFailed(reason=f"segment {location.segment} is missing; restore it from a backup")
    return location
