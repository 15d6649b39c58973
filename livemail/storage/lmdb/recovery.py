"""What is done before a store accepts work: nothing is replayed, what was not committed is cut off.

    crash while                        leaves                                 here
    a spool file is written            the file                               removed (`livemail.storage.spool.Spool`)
    records are appended               octets behind the committed tail       cut off
    a segment is made or adopted       a file no row names                    removed
    the index commits                  the old or the new index (LMDB)        nothing to do
    a dead segment is unlinked         a file no row names                    removed

No row of a message is read, so a store of a million messages opens as fast as an empty one.
"""

from __future__ import annotations

from twisted.logger import Logger

from livemail.storage.lmdb.folder import Folder, StoreUnusable
from livemail.storage.lmdb.records import TAIL, U32
from livemail.storage.lmdb.schema import Environment, Tables
from livemail.storage.lmdb.segments import Tail, segment_numbers, segment_path, sync_folder
from livemail.storage.settings import StorageSettings

_log = Logger()


def refuse_lost(folder: Folder) -> None:
    """Raise StoreUnusable when the index or the segments are gone: going on would end what is left of the other."""
    index = folder.shard / "data.mdb"
    if not folder.segments.is_dir():
        raise StoreUnusable(
            f"The folder {folder.segments} is missing; it held all mail.  Restore it from a backup.  Nothing was changed."
        )
    if not index.exists() or not index.stat().st_size:
        _refuse_orphans(folder)


def _refuse_orphans(folder: Folder) -> None:
    sizes = [segment_path(folder.segments, number).stat().st_size for number in segment_numbers(folder.segments)]
    if any(sizes):
        raise StoreUnusable(
            f"The index {folder.shard}/data.mdb is missing or empty, but {folder.segments} holds mail ({sum(sizes)} octets)."
            "  Restore the index from a backup; or move the data folder away to begin a new one.  Nothing was deleted."
        )


def recover_tail(folder: Folder, environment: Environment, tables: Tables, settings: StorageSettings) -> Tail:
    """Bring the segments back to what the index says and return the tail to go on with.

    A new index says so before the first segment is written.  Raises StoreUnusable for one that says nothing beside segments.
    """
    with environment.begin(write=True) as txn:
        row = txn.get(b"tail", db=tables.meta)
        if row is None:
            _refuse_orphans(folder)
            row = TAIL.pack(0, 0, 1)
            txn.put(b"tail", row, db=tables.meta)
            sync_folder(folder.shard)
        number, size, next_number = TAIL.unpack(row)
        known = {U32.unpack(key)[0] for key in txn.cursor(tables.seg).iternext(values=False)}
    known.add(number)
    present = segment_numbers(folder.segments)
    for orphan in present:
        if orphan not in known:
            path = segment_path(folder.segments, orphan)
            _log.info(
                "removed segment {number}, {octets} octets that no message refers to",
                number=orphan,
                octets=path.stat().st_size,
            )
            path.unlink()
    sync_folder(folder.segments)
    tail = Tail(folder.segments, number, size, next_number, settings.segment_octets)
    path = segment_path(folder.segments, number)
    length = path.stat().st_size if path.exists() else 0
    if length > size:
        _log.warn(
            "segment {number}: dropped {octets} octets behind offset {offset} that were never acknowledged",
            number=number,
            octets=length - size,
            offset=size,
        )
        with path.open("r+b") as file:
            file.truncate(size)
    elif length < size:
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
