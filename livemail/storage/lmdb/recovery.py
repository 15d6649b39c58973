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

from livemail.storage.lmdb.folder import Folder
from livemail.storage.lmdb.records import TAIL, U32
from livemail.storage.lmdb.schema import Environment, Tables
from livemail.storage.lmdb.segments import Tail, segment_numbers, segment_path, sync_folder
from livemail.storage.settings import StorageSettings

_log = Logger()


def recover_tail(folder: Folder, environment: Environment, tables: Tables, settings: StorageSettings) -> Tail:
    """Bring the segments back to what the index says and return the tail to go on with."""
    with environment.begin() as txn:
        row = txn.get(b"tail", db=tables.meta)
        number, size, next_number = TAIL.unpack(row) if row else (0, 0, 1)
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
