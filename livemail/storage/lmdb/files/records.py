"""Keys and records of a Maildir account in the index, beside those of `livemail.storage.lmdb.records`.

table    key               value
mroot    A                 the account's folder
file     A M U             1 when the file is raw, else 0; then ``cur/NAME`` or ``new/NAME``
fbase    A M base          U
mdir     A M               `STAMP`: of the folder when it was compared last; none: never
"""

from __future__ import annotations

import os
from typing import NamedTuple


class File(NamedTuple):
    """A message's file.  name: with its subfolder."""

    name: str
    is_raw: bool

    @property
    def base(self) -> str:
        """What never changes about the name."""
        return self.name[4:].partition(":")[0]

    def pack(self) -> bytes:
        """Return the row of ``file``."""
        return bytes([self.is_raw]) + os.fsencode(self.name)


def unpack_file(row: bytes) -> File:
    """Return the record of a row of ``file``."""
    return File(os.fsdecode(row[1:]), bool(row[0]))


def base_key(mailbox_key: bytes, base: str) -> bytes:
    """Return the key of ``fbase``."""
    return mailbox_key + os.fsencode(base)[:400]
