"""How much room the disk has, asked at most once a second.

New mail is refused while there is still room for what makes room: an expunge writes to the index before it frees
anything.  So there are two lines.  Below the *reserve* nothing that grows the store is begun.  The *reserve file* is
real, allocated space: when even an expunge finds the disk full it is unlinked, and made again once there is room for it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from livemail.mail.errors import StorageFull
from livemail.storage.settings import StorageSettings

FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a write answers when there is no room: the disk's, the quota's, the process's limit."""


class Disk:
    """The file system under one folder."""

    def __init__(self, path: Path, settings: StorageSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds, never going back."""
        self._path = path
        self._settings = settings
        self._clock = clock
        self._asked = float("-inf")
        self._is_full = False

    def is_full(self) -> bool:
        """Whether free space or inodes are below the reserve, as of at most a second ago."""
        now = self._clock()
        if now - self._asked >= 1.0:
            self._asked = now
            self._is_full = self.is_below(1.0)
        return self._is_full

    def is_below(self, factor: float) -> bool:
        """Whether less than ``factor`` times the reserve is free now."""
        state = os.statvfs(self._path)
        settings = self._settings
        total = state.f_blocks * state.f_frsize
        reserve = max(settings.reserve_octets, total * settings.reserve_percent // 100)
        if state.f_bavail * state.f_frsize < reserve * factor:
            return True
        # Some file systems count no inodes and say 0 of 0.
        return bool(state.f_files) and state.f_favail < settings.reserve_inodes * factor

    def free_octets(self) -> int:
        """Octets free now."""
        state = os.statvfs(self._path)
        return state.f_bavail * state.f_frsize

    def refuse_if_full(self) -> None:
        """Raise StorageFull below the reserve."""
        if self.is_full():
            raise StorageFull(reason=f"less than the reserve is free on the disk of {self._path}")


class ReserveFile:
    """Allocated space that is given up so that an expunge can make more."""

    def __init__(self, path: Path, size: int) -> None:
        """size: octets; 0 for none."""
        self._path = path
        self._size = size

    def fill(self, disk: Disk) -> bool:
        """Make the file if it is missing and the disk has room for it twice.  Returns whether it is there."""
        if not self._size or self._path.exists():
            return True
        try:
            if disk.is_below(1.0) or disk.free_octets() < 2 * self._size:
                return False
            fd = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
        except OSError:
            return False
        try:
            os.posix_fallocate(fd, 0, self._size)
        except OSError:
            self._path.unlink()
            return False
        finally:
            os.close(fd)
        return True

    def give_up(self) -> bool:
        """Unlink the file.  Returns whether there was one."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True
