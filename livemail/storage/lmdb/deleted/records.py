"""Keys and records of kept messages, beside those of `livemail.storage.lmdb.records`.

table    key               value
gone     A T M U           `DeletedRow`; T u64: when it was expunged, seconds since the epoch
gcnt     A                 `TOTALS`

The content keeps its reference, so that compaction and deduplication see no difference to a message in a mailbox.  In a Maildir the
file waits in `FOLDER` of the account's folder, which no program takes for a mailbox: its name has no dot in front.
"""

from __future__ import annotations

import struct
from struct import Struct
from typing import Final, Self

import msgspec

from livemail.storage.lmdb.records import MESSAGE, Message

KEY: Final = Struct(">IQII")
TOTALS: Final = Struct("<QQ")
"""Messages, octets."""

FOLDER: Final = "livemail-deleted"

_HEAD_SIZE: Final = Struct("<I")


class RowDamaged(Exception):
    """A row of ``gone`` cannot be read.  The text says why."""


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What the message's own row does not say.  file: of a message in a Maildir its name in `FOLDER`, else ""."""

    mailbox: str
    keywords: tuple[str, ...]
    file: str = ""
    is_raw: bool = False


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Head)


class DeletedRow(msgspec.Struct, frozen=True):
    """One row of ``gone``.  message: the row of ``msg``; cache: that of ``cache``."""

    head: Head
    message: bytes
    cache: bytes

    def pack(self) -> bytes:
        """Return the row."""
        head = _ENCODER.encode(self.head)
        return b"".join((_HEAD_SIZE.pack(len(head)), head, self.message, self.cache))

    @classmethod
    def unpack(cls, row: bytes) -> Self:
        """Read a row.  Raises RowDamaged."""
        try:
            (size,) = _HEAD_SIZE.unpack_from(row)
            at = _HEAD_SIZE.size + size
            head = _DECODER.decode(row[_HEAD_SIZE.size : at])
            found = cls(head, row[at : at + MESSAGE.size], row[at + MESSAGE.size :])
            if len(found.cache) != Message.unpack(found.message).prefix_end:
                raise RowDamaged("the cache row does not belong to the message")
        except (ValueError, msgspec.MsgspecError, struct.error) as error:
            raise RowDamaged(str(error)) from error
        return found


def file_name(key: bytes, base: str) -> str:
    """Return the name of a kept message's file.  base: of the name it had, whose sizes stay."""
    mark = base.partition(",")
    return f"{key.hex()}{mark[1]}{mark[2]}"


def deleted_at(name: str) -> int:
    """Return when a file in `FOLDER` came there, 0 for a name that is not ours."""
    try:
        return int(KEY.unpack(bytes.fromhex(name.partition(",")[0]))[1])
    except (ValueError, struct.error):
        return 0
