"""Keys and records of a Maildir account in the index, beside those of `livemail.storage.lmdb.records`.

table    key               value
mroot    A                 the account's folder
file     A M U             1 when the file is raw, else 0; then ``cur/NAME`` or ``new/NAME``
fbase    A M base          U
mdir     A M               `STAMP`: of the folder when it was compared last; none: never
"""

from __future__ import annotations

import os
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

STAMP: Final = Struct("<QQ")
"""Time of the last change of ``new`` and ``cur``, ns since the epoch."""

SUBFOLDERS: Final = ("cur", "new", "tmp")


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


def list_folder(folder: Path) -> dict[str, str]:
    """Return the files of a mailbox by base: ``cur/NAME`` or ``new/NAME``.  Raises OSError.

    ``new`` first: a file that moves to ``cur`` meanwhile is met twice and not missed.
    """
    found: dict[str, str] = {}
    for part in ("new", "cur"):
        with os.scandir(folder / part) as entries:
            for entry in entries:
                if entry.name[0] != ".":
                    found[entry.name.partition(":")[0]] = f"{part}/{entry.name}"
    return found


def stamp(folder: Path) -> bytes:
    """Return the folder's stamp.  Raises OSError."""
    return STAMP.pack((folder / "new").stat().st_mtime_ns, (folder / "cur").stat().st_mtime_ns)
