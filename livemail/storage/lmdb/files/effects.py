"""What a group does to folders, bound to the fate of its transaction.

    run         the change is made in the folder, and how to undo it is noted
    flush       before the commit: every folder that changed is on disk
    finish      after it: what was only put aside is removed
    undo        instead of it: everything as it was, the last first

A crash before the commit leaves a folder that is ahead of the index; the next comparison takes what it finds there: a message
nobody acknowledged, or one gone that somebody asked to remove.  A crash after it leaves files put aside in ``tmp``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from livemail.storage.failpoints import failpoint
from livemail.storage.lmdb.segments import sync_folder

ASIDE: Final = "livemail-gone."


class Effects:
    """The changes of one group.  The writer's thread only."""

    _made = 0

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []
        self._finish: list[Callable[[], object]] = []
        self._folders: set[Path] = set()

    def made(self, path: Path) -> None:
        """A file or an empty folder was made."""
        self._undo.append(lambda: path.rmdir() if path.is_dir() else path.unlink(missing_ok=True))
        self._folders.add(path.parent)

    def rename(self, old: Path, new: Path) -> None:
        """Rename.  Raises OSError."""
        old.rename(new)
        self._undo.append(lambda: new.rename(old))
        self._folders |= {old.parent, new.parent}

    def link(self, old: Path, new: Path) -> None:
        """Give a file a second name.  Raises OSError."""
        os.link(old, new)
        self.made(new)

    def remove(self, path: Path, aside: Path) -> None:
        """Put a file or folder aside, in the folder ``aside``, to be removed when the group is durable.  Raises OSError."""
        Effects._made += 1
        gone = aside / f"{ASIDE}{os.getpid()}.{Effects._made}"
        self.rename(path, gone)
        self._finish.append(lambda: remove(gone))

    def remove_later(self, path: Path) -> None:
        """Remove a file once the group is durable, which leaves it to whoever sweeps the folder if that fails."""
        self._finish.append(lambda: remove(path))

    def flush(self) -> None:
        """Bring the folders to disk.  Raises OSError."""
        for folder in self._folders:
            if folder.is_dir():
                sync_folder(folder)
        if self._folders:
            failpoint("folders-synced")

    def finish(self) -> None:
        """The group is durable."""
        for each in self._finish:
            with contextlib.suppress(OSError):  # What cannot be removed now is met again by the next comparison.
                each()

    def undo(self) -> None:
        """The group did not happen."""
        for each in reversed(self._undo):
            with contextlib.suppress(OSError):  # A folder that somebody else changed meanwhile is compared next time.
                each()


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it.  Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
