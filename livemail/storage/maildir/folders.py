"""Folders of mailboxes: making them, listing them, telling whether something has changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import Final

from livemail.storage.maildir.names import NAME_FILE, folder_name, is_hashed

STAMP: Final = Struct("<QQ")
"""Time of the last change of ``new`` and ``cur``, ns since the epoch."""

SUBFOLDERS: Final = ("cur", "new", "tmp")


def make_folder(folder: Path, mailbox: str, made: Callable[[Path], object]) -> None:
    """Make a mailbox's folder with its three parts, and the folders above it, where they are missing.

    made: told of each that was made, as the name of each must be flushed.  Raises OSError.
    """
    above = [each for each in folder.parents if not each.is_dir()]
    for each in (*reversed(above), folder, *(folder / part for part in SUBFOLDERS)):
        if not each.is_dir():
            each.mkdir(mode=0o700)
            made(each)
    if folder_name(mailbox):
        mark = folder / "maildirfolder"
        if not mark.exists():
            mark.touch(mode=0o600)
            made(mark)
        name_folder(folder, mailbox)


def name_folder(folder: Path, mailbox: str) -> None:
    """Write the mailbox's name where the folder's does not tell it.  Raises OSError."""
    if is_hashed(folder.name):
        (folder / NAME_FILE).write_text(mailbox, encoding="utf-8")


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
