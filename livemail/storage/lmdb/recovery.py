"""What is done before a store accepts work: nothing is replayed, what was not committed is cut off.

    crash while                        leaves                                 here
    the index is made                  a file of another name                 removed (`livemail.storage.lmdb.schema.make_index`)
    a spool file is written            the file                               removed (`livemail.storage.spool.Spool`)
    records are appended               octets behind the committed tail       cut off
    a segment is made or adopted       a file no row names                    removed
    the index commits                  the old or the new index (LMDB)        nothing to do
    a dead segment is unlinked         a file no row names                    removed

All that is a matter of one group.  The index may also be older than the segments: put back by hand, or by a file system that
went back.  Then the same octets are mail that was acknowledged.  The mark tells these two apart (`livemail.storage.lmdb.mark`):

    the mark says           octets the index does not know are
    less, or the same       a crash's: gone
    the same, and idle      nobody's, for nothing was under way: kept where a whole record is among them
    more                    acknowledged: kept, and every segment is left as it is
    nothing                 either, as with a store of an older livemail: kept where a whole record is among them

What is kept waits for `livemail store repair` (`livemail.storage.lmdb.unindexed`); numbers and places are never used again.

No row of a message is read, so a store of a million messages opens as fast as an empty one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from twisted.logger import Logger

from livemail.storage.lmdb.folder import Folder, StoreUnusable
from livemail.storage.lmdb.mark import Committed, Mark, begin_mark, mark_path, read_mark
from livemail.storage.lmdb.records import BLOB, TAIL, U32
from livemail.storage.lmdb.rows import Transaction
from livemail.storage.lmdb.schema import Environment, Tables, make_index
from livemail.storage.lmdb.segments import Location, Tail, segment_numbers, segment_path, sync_folder
from livemail.storage.lmdb.unindexed import Record, Span, keep, read_heads, read_kept, read_records
from livemail.storage.settings import StorageSettings

_log = Logger()


def make_or_refuse(folder: Folder, settings: StorageSettings) -> None:
    """Make the index of a new store.

    Raises StoreUnusable when the index or the segments are gone: going on would end what is left of the other.
    """
    index = folder.shard / "data.mdb"
    if not folder.segments.is_dir():
        raise StoreUnusable(
            f"The folder {folder.segments} is missing; it held all mail.  Restore it from a backup.  Nothing was changed."
        )
    if not index.exists() or not index.stat().st_size:
        _refuse_orphans(folder)
        make_index(folder.shard, settings)


def _refuse_orphans(folder: Folder) -> None:
    sizes = [segment_path(folder.segments, number).stat().st_size for number in segment_numbers(folder.segments)]
    if any(sizes) or mark_path(folder.segments).exists():
        holds = f"holds mail ({sum(sizes)} octets)" if any(sizes) else "says that the store was in use"
        raise StoreUnusable(
            f"The index {folder.shard}/data.mdb is missing or empty, but {folder.segments} {holds}.  The index held the"
            " accounts, mailboxes and flags.  Restore the index from a backup; or move the data folder away to begin a new one."
            "  Nothing was deleted."
        )


def recover_tail(folder: Folder, environment: Environment, tables: Tables, settings: StorageSettings) -> Tail:
    """Bring the segments back to what the index says, or keep what it does not know; return the tail to go on with.

    A new index says so before the first segment is written.  Raises StoreUnusable for one that says nothing beside segments.
    """
    with environment.begin(write=True) as txn:
        row = txn.get(b"tail", db=tables.meta)
        if row is None:
            _refuse_orphans(folder)
            row = TAIL.pack(0, 0, 1)
            txn.put(b"tail", row, db=tables.meta)
        number, size, next_number = TAIL.unpack(row)
        tail = Committed(next_number, number, size)
        mark = read_mark(folder.segments)
        unknown = _unknown_spans(folder, txn, tables, tail)
        kept = [span for span in unknown if _may_be_mail(folder, txn, tables, span, tail, mark)]
        is_older = mark is not None and mark.tail > tail
        if kept or is_older:
            tail = _keep(folder, txn, tables, kept, tail, mark)
        _warn_of_kept(folder, txn, tables)
    if is_older:
        _log.critical(
            "{shard}/data.mdb is older than the segments beside it: it was put back, or its file system went back.  Accounts, mailboxes"
            " and flags are as old as it is; of the messages that came since nothing is deleted",
            shard=str(folder.shard),
        )
    dropped = [span for span in unknown if span not in kept]
    for span in dropped:
        _drop(folder, span)
    if dropped:
        sync_folder(folder.segments)
    begin_mark(folder.segments, tail)
    return _whole_tail(folder, tail, settings)


def _unknown_spans(folder: Folder, txn: Transaction, tables: Tables, tail: Committed) -> list[Span]:
    """Return what the index does not know: whole segments, and octets behind the tail."""
    known = {U32.unpack(key)[0] for key in txn.cursor(tables.seg).iternext(values=False)}
    spans = []
    for number in segment_numbers(folder.segments):
        length = segment_path(folder.segments, number).stat().st_size
        if number == tail.number:
            if length > tail.size:
                spans.append(Span(number, tail.size, length))
        elif number not in known:
            spans.append(Span(number, 0, length))
    return spans


def _may_be_mail(
    folder: Folder, txn: Transaction, tables: Tables, span: Span, tail: Committed, mark: Mark | None
) -> bool:
    """Whether octets that the index does not know may have been acknowledged.  See the top."""
    if not span.octets:
        return False
    if mark is not None and mark.tail > tail:
        return True
    if span.segment != tail.number and span.segment < tail.next_number:
        # The index knew that number and let it go; unless its row alone was lost.
        return any(_is_referred_to(txn, tables, record) for _, record in read_heads(folder.segments, span))
    if mark is not None and not (mark.is_idle and mark.tail == tail):
        return False
    return next(read_records(folder.segments, span), None) is not None


def _is_referred_to(txn: Transaction, tables: Tables, record: Record) -> bool:
    row = txn.get(record.digest, db=tables.blob)
    return row is not None and Location(*BLOB.unpack(row)[1:]) == record.location


def _keep(
    folder: Folder, txn: Transaction, tables: Tables, spans: Sequence[Span], tail: Committed, mark: Mark | None
) -> Committed:
    """Keep octets and return a tail in a segment that never was."""
    for span in spans:
        keep(txn, tables, span)
    number = max(
        tail.next_number,
        mark.tail.next_number if mark is not None else 0,
        *(number + 1 for number in segment_numbers(folder.segments)),
    )
    tail = Committed(number + 1, number, 0)
    txn.put(b"tail", TAIL.pack(tail.number, tail.size, tail.next_number), db=tables.meta)
    return tail


def _warn_of_kept(folder: Folder, txn: Transaction, tables: Tables) -> None:
    for span in read_kept(txn, tables):
        _log.warn(
            "{path} holds {octets} octets, from offset {offset} on, that the index does not know and that may be mail which was"
            " acknowledged.  They are kept: `livemail store check` counts the messages in them; with the server stopped,"
            " `livemail store repair` brings those to lost+found",
            path=str(segment_path(folder.segments, span.segment)),
            octets=span.octets,
            offset=span.begin,
        )


def _drop(folder: Folder, span: Span) -> None:
    path = segment_path(folder.segments, span.segment)
    _log.info(
        "{path}: removed {octets} octets from offset {offset} on, which were never acknowledged or are of no message any more",
        path=str(path),
        octets=span.octets,
        offset=span.begin,
    )
    if span.begin:
        os.truncate(path, span.begin)
    else:
        path.unlink()


def _whole_tail(folder: Folder, committed: Committed, settings: StorageSettings) -> Tail:
    next_number, number, size = committed
    tail = Tail(folder.segments, number, size, next_number, settings.segment_octets)
    path = segment_path(folder.segments, number)
    length = path.stat().st_size if path.exists() else 0
    if length < size:
        # Appending behind a hole would make it worse; what is whole stays readable, `check` names the rest.
        _log.critical(
            "segment {number} has {length} octets where {size} were stored: messages in it are damaged; run"
            " `livemail store check` and restore the file from a backup",
            number=number,
            length=length,
            size=size,
        )
        tail.advance()
    return tail
