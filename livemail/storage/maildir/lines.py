"""A message's file and its octets: Maildirs keep LF, the index counts CRLF.

Content that is CRLF throughout is written with LF, as every program that reads Maildirs expects, and read back with CRLF:
the same octets.  Content with a bare CR or LF in it is written as it is (``is_raw``).  In a file of somebody else's
every LF without a CR before it is a line end, whatever the rest of the file does; such a file is raw when none is missing a CR.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from zope.interface import implementer

from livemail.interfaces.storage import IContentReader
from livemail.mail.content import CHUNK_OCTETS, Content
from livemail.mail.errors import StorageFailed

_LF: Final = b"\n"
_CRLF: Final = b"\r\n"


class Expander:
    """Gives every LF the CR it lacks, across chunk borders."""

    def __init__(self) -> None:
        self._ends_in_cr = False

    def expand(self, chunk: bytes) -> bytes:
        """Return the octets with CRLF line ends."""
        if not chunk:
            return chunk
        if b"\r" not in chunk:
            lines = chunk.replace(_LF, _CRLF)
            expanded = lines[1:] if self._ends_in_cr and chunk[:1] == _LF else lines
        else:
            joined = b"\r" + chunk if self._ends_in_cr else chunk
            expanded = joined.replace(_CRLF, _LF).replace(_LF, _CRLF)
            expanded = expanded[1:] if self._ends_in_cr else expanded
        self._ends_in_cr = chunk[-1:] == b"\r"
        return expanded


def file_chunks(fd: int, size: int = CHUNK_OCTETS) -> Iterator[bytes]:
    """Yield a file from its beginning."""
    at = 0
    while chunk := os.pread(fd, size, at):
        at += len(chunk)
        yield chunk


def message_chunks(fd: int, *, is_raw: bool) -> Iterator[bytes]:
    """Yield the message's octets."""
    if is_raw:
        yield from file_chunks(fd)
        return
    expander = Expander()
    for chunk in file_chunks(fd):
        yield expander.expand(chunk)


def write_file(path: Path, prefix: bytes, content: Content, *, is_raw: bool) -> int:
    """Write a message's file and flush it; return its octets.  Raises OSError, and leaves no file then."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    octets = 0
    try:
        held = b""
        for chunk in _pieces(prefix, content):
            piece = chunk
            if not is_raw:
                # A CR at the end of a chunk is judged together with what follows it.
                piece = held + chunk
                held = b"\r" if piece[-1:] == b"\r" else b""
                piece = piece[: len(piece) - len(held)].replace(_CRLF, _LF)
            octets += _write(fd, piece)
        octets += _write(fd, held)
        os.fdatasync(fd)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    return octets


def _pieces(prefix: bytes, content: Content) -> Iterator[bytes]:
    yield prefix
    for offset in range(0, content.size, CHUNK_OCTETS):
        yield content.read(offset, CHUNK_OCTETS)


def _write(fd: int, octets: bytes) -> int:
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(fd, rest) :]
    return len(octets)


def read_message(fd: int, size: int, where: str, *, is_raw: bool) -> bytes:
    """Return a whole message.  Raises StorageFailed when it has not ``size`` octets."""
    octets = b"".join(message_chunks(fd, is_raw=is_raw))
    if len(octets) != size:
        raise damaged(where, f"the file holds {len(octets)} octets, the index says {size}")
    return octets


def damaged(where: str, what: str) -> StorageFailed:
    """Return the error for a file that is not what the index knows."""
    return StorageFailed("The message is damaged on disk", reason=f"{where}: {what}")


@implementer(IContentReader)
class FileContent:
    """One message's file, open for reading; readable after it is removed."""

    def __init__(self, fd: int, size: int, prefix_size: int, where: str, *, is_raw: bool) -> None:
        """fd: this object's own from now on."""
        self.size = size
        self.prefix_size = prefix_size
        self._fd = fd
        self._where = where
        self._is_raw = is_raw
        self._restart()

    def _restart(self) -> None:
        self._chunks = message_chunks(self._fd, is_raw=False)
        self._start = 0
        self._chunk = b""

    async def read(self, offset: int, length: int) -> bytes:
        """Return the octets [offset, offset+length), fewer at the end.  Raises StorageFailed for a file that is too short.

        Going forward costs what is read; going back in a file with LF reads it from its beginning.
        """
        if self._fd < 0:
            raise StorageFailed(reason="read from a closed content")
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        octets = os.pread(self._fd, end - offset, offset) if self._is_raw else self._read_lines(offset, end)
        if len(octets) != end - offset:
            raise damaged(self._where, f"the file ends before octet {end}")
        return octets

    def _read_lines(self, offset: int, end: int) -> bytes:
        if offset < self._start:
            self._restart()
        pieces = []
        while offset < end:
            behind = self._start + len(self._chunk)
            if offset < behind:
                piece = self._chunk[offset - self._start : end - self._start]
                pieces.append(piece)
                offset += len(piece)
                continue
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._start, self._chunk = behind, chunk
        return b"".join(pieces)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
