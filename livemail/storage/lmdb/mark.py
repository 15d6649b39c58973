"""How far contents were acknowledged, noted beside the segments: an index that says less is an older one, put back.

    seg/acknowledged    `_MARK`: the tail as it was committed last, 1 when nothing was under way any more, their crc32

It is written after each commit that moved the tail, before anybody hears of that commit, and not flushed: what a process has
written outlives it, and after a power failure the mark is behind the index, never ahead of it.  It lies with the segments
because it speaks of them: who puts an old index back leaves both alone, who puts both back puts it back, too.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path
from struct import Struct
from struct import error as StructError  # noqa: N812 - a class
from typing import Final, NamedTuple

_FIELDS: Final = Struct("<IIQB")
_MARK: Final = Struct("<17sI")
_NAME: Final = "acknowledged"


class Committed(NamedTuple):
    """A tail as the index has it.  They grow: of two, the larger was committed later."""

    next_number: int
    number: int
    size: int


class Mark(NamedTuple):
    """is_idle: all that was begun had been committed or undone."""

    tail: Committed
    is_idle: bool


def mark_path(segments: Path) -> Path:
    """Return the mark's path.  There is one once a store has been open."""
    return segments / _NAME


def read_mark(segments: Path) -> Mark | None:
    """Return the mark; None where there is none that can be read."""
    try:
        fields, crc = _MARK.unpack(mark_path(segments).read_bytes())
    except (OSError, StructError):
        return None
    if zlib.crc32(fields) != crc:
        return None
    *tail, is_idle = _FIELDS.unpack(fields)
    return Mark(Committed(*tail), bool(is_idle))


def begin_mark(segments: Path, tail: Committed) -> None:
    """Note durably with what tail a store begins; no matter where the disk does not take it, as in `MarkWriter.note`."""
    if read_mark(segments) == Mark(tail, is_idle=False):
        return
    writer = MarkWriter(segments)
    writer.note(tail)
    writer.close()
    with contextlib.suppress(OSError):
        for path, flags in ((mark_path(segments), os.O_RDWR), (segments, os.O_RDONLY | os.O_DIRECTORY)):
            fd = os.open(path, flags | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def end_mark(segments: Path) -> None:
    """Note that nothing is under way any more."""
    mark = read_mark(segments)
    if mark is not None:
        writer = MarkWriter(segments)
        writer.note(mark.tail, is_idle=True)
        writer.close()


class MarkWriter:
    """Keeps the mark's file open.  For one thread."""

    def __init__(self, segments: Path) -> None:
        self._path = mark_path(segments)
        self._fd = -1

    def note(self, tail: Committed, *, is_idle: bool = False) -> None:
        """Replace the mark.  Where the disk does not take it the one before stays: recovery keeps more than it need then, or as much."""
        with contextlib.suppress(OSError):
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fields = _FIELDS.pack(*tail, is_idle)
            os.pwrite(self._fd, _MARK.pack(fields, zlib.crc32(fields)), 0)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
