"""Contents on their way in: in memory while small, in a spool file when large, hashed in passing; large ones are scanned in passing too.

A spool file is written as one segment record: a head of `HEAD.size` octets, left empty until the end, then the content.  When
it is complete and flushed, storage adopts it by renaming it among the segments.  So a message of 200 MB passes once
through memory, 64 KiB at a time, and never through the writer, where other deliveries would wait behind it.

What is left in the spool folder after a crash was never acknowledged; `Spool` removes it when it starts.

Contents are held and closed on the reactor's thread only.  A writer that works on one in another thread is shielded by
`hold`: a close meanwhile takes effect at the last `release`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Any, Final

from twisted.logger import Logger
from zope.interface import implementer

from livemail.interfaces.runtime import RunBlocking
from livemail.interfaces.storage import IContentSink
from livemail.mail.content import Content
from livemail.mail.errors import StorageFailed, StorageFull, TooBig
from livemail.mail.message.outline import Outlined, outline
from livemail.mail.message.scanner import Scanner, scan
from livemail.mail.message.summary import Summary
from livemail.storage.disk import FULL_ERRORS, Disk
from livemail.storage.failpoints import failpoint
from livemail.storage.settings import StorageSettings

HEAD: Final = Struct("<4s16sQI")
"""magic, digest, octets of the content that follows, their crc32."""

MAGIC: Final = b"LMr1"
DIGEST_OCTETS: Final = 16
BUFFER_OCTETS: Final = 64 * 1024

_log = Logger()


class MemoryContent:
    """A small content, whole.  It is scanned when somebody asks for its summary: often that is the writer's process."""

    __slots__ = ("_outline", "_summary", "crc", "data", "digest", "size")

    def __init__(self, data: bytes, digest: bytes, crc: int) -> None:
        self.data = data
        self.digest = digest
        self.crc = crc
        self.size = len(data)
        self._outline: Outlined | None = None
        self._summary: Summary | None = None

    @property
    def is_scanned(self) -> bool:
        """Whether the summary is there already."""
        return self._summary is not None

    @property
    def outline(self) -> Outlined:
        """See `livemail.mail.content.Content.outline`."""
        found = self._outline
        if found is None:
            found = self._outline = self._summary or outline(self.data)
        return found

    @property
    def summary(self) -> Summary:
        """See `livemail.mail.content.Content.summary`."""
        if self._summary is None:
            self._summary = scan(self.data)
        return self._summary

    def read(self, offset: int, length: int) -> bytes:
        """Return the octets [offset, offset+length), fewer at the end."""
        return self.data[offset : offset + length]

    def close(self) -> None:
        """Memory goes with the last reference; what was stored may still be read."""

    def __reduce__(self) -> tuple[Any, ...]:
        """For the writer's process."""
        return MemoryContent, (self.data, self.digest, self.crc)


class SpooledContent:
    """A large content: a flushed file in the format of a segment record."""

    __slots__ = ("_fd", "_holders", "_is_closed", "_path", "_summary", "crc", "digest", "size")

    def __init__(self, path: Path, fd: int, size: int, digest: bytes, crc: int, summary: Summary | None) -> None:
        """fd: open for reading; this object's own from now on."""
        self._path: Path | None = path
        self._fd = fd
        self._holders = 0
        self._is_closed = False
        self.size = size
        self.digest = digest
        self.crc = crc
        self._summary = summary

    @property
    def summary(self) -> Summary:
        """What the one pass over the octets found."""
        assert self._summary is not None
        return self._summary

    @property
    def outline(self) -> Outlined:
        """See `livemail.mail.content.Content.outline`."""
        return self.summary

    def read(self, offset: int, length: int) -> bytes:
        """Return the octets [offset, offset+length), fewer at the end."""
        if self._fd < 0 and self._path is not None:  # in the writer's process, which opens what it must read
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self._fd, max(0, min(length, self.size - offset)), HEAD.size + offset)

    def hold(self) -> None:
        """Keep the file while another thread uses it."""
        self._holders += 1

    def release(self) -> None:
        """End one `hold`."""
        self._holders -= 1
        if self._is_closed and not self._holders:
            self._dispose()

    @property
    def is_adoptable(self) -> bool:
        """Whether the file is still this object's to give away."""
        return self._path is not None

    @property
    def path(self) -> str:
        """The file's name; "" when it was given away."""
        return str(self._path or "")

    def moved(self, path: str) -> None:
        """Another process has renamed the file for us."""
        self._path = Path(path)

    def __reduce__(self) -> tuple[Any, ...]:
        """For the writer's process, which renames the file, or reads what was given away, while this one is held."""
        return _in_writer, (self.path, os.getpid(), self._fd, self.size, self.digest, self.crc)

    def rename(self, path: Path) -> None:
        """Move the file to ``path``; it stays this object's, and goes when it is closed, until `give_away`."""
        assert self._path is not None
        self._path.rename(path)
        self._path = path

    def close_descriptor(self) -> None:
        """In the writer's process: give back what `_in_writer` opened; the file is the server's."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def give_away(self) -> None:
        """The file belongs to a segment now.  Reading goes on through the open descriptor."""
        self._path = None

    def close(self) -> None:
        """Close the file, and remove it if nobody adopted it."""
        if not self._is_closed:
            self._is_closed = True
            if not self._holders:
                self._dispose()

    def _dispose(self) -> None:
        os.close(self._fd)
        self._fd = -1  # The number may be another file's in a moment.
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None


def _in_writer(path: str, pid: int, fd: int, size: int, digest: bytes, crc: int) -> SpooledContent:
    """Make a spooled content as the writer's process has it: without a summary, read through its owner's descriptor."""
    mine = -1 if path else os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    content = SpooledContent(Path(path), mine, size, digest, crc, None)
    if not path:
        content.give_away()
    return content


@implementer(IContentSink)
class ContentSink:
    """One content being written."""

    def __init__(self, spool: Spool, limit: int, in_memory: int) -> None:
        """limit: octets of the largest content; in_memory: octets up to which no file is made."""
        self.size = 0
        self._spool = spool
        self._limit = limit
        self._in_memory = in_memory
        self._hash = blake2b(key=spool.key, digest_size=DIGEST_OCTETS)
        self._scanner: Scanner | None = None  # of what goes to a file
        self._crc = 0
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._fd = -1
        self._path: Path | None = None
        self._is_done = False

    def write(self, chunk: bytes) -> None:
        """Take the next octets.  Raises TooBig, StorageFull, StorageFailed; nothing is left of the content then."""
        if self._is_done:
            raise StorageFailed(reason="the content was ended or aborted")
        size = self.size + len(chunk)
        if size > self._limit:
            self.abort()
            raise TooBig(reason=f"over {self._limit} octets")
        self.size = size
        self._hash.update(chunk)
        self._crc = zlib.crc32(chunk, self._crc)
        self._chunks.append(chunk)
        if self._scanner is not None:
            self._scanner.feed(chunk)
        self._buffered += len(chunk)
        if self._fd >= 0:
            if self._buffered >= BUFFER_OCTETS:
                self._flush()
        elif self._buffered > self._in_memory:
            self._begin_file()

    async def finish(self) -> Content:
        """No more octets follow.  A spooled content is on disk when this returns."""
        if self._is_done:
            raise StorageFailed(reason="the content was ended or aborted")
        if self._fd < 0:
            self._is_done = True
            data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks.clear()
            return MemoryContent(bytes(data), self._hash.digest(), self._crc)
        assert self._scanner is not None
        digest = self._hash.digest()
        self._flush()
        try:
            os.pwrite(self._fd, HEAD.pack(MAGIC, digest, self.size, self._crc), 0)
            # abort() may come while the thread works, so the descriptor it flushes is its own.
            await self._spool.run_blocking(_sync, os.dup(self._fd))
        except OSError as error:
            self._fail(error)
        if self._path is None:
            raise StorageFailed(reason="the content was aborted while it was flushed")
        content = SpooledContent(self._path, self._fd, self.size, digest, self._crc, self._scanner.finish())
        self._fd, self._path, self._is_done = -1, None, True
        return content

    def abort(self) -> None:
        """Forget everything."""
        self._is_done = True
        self._chunks.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def _begin_file(self) -> None:
        try:
            self._spool.disk.refuse_if_full()
            self._path = self._spool.new_path()
            self._fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            self._scanner = Scanner()
            for chunk in self._chunks:
                self._scanner.feed(chunk)
            self._chunks.insert(0, bytes(HEAD.size))
        except StorageFull:
            self.abort()
            raise
        except OSError as error:
            self._fail(error)
        self._flush()

    def _flush(self) -> None:
        if not self._chunks:
            return
        data = memoryview(b"".join(self._chunks))
        self._chunks.clear()
        self._buffered = 0
        try:
            failpoint("spool-write")
            while data:
                data = data[os.write(self._fd, data) :]
            self._spool.disk.refuse_if_full()
        except StorageFull:
            self.abort()
            raise
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.abort()
        if error.errno in FULL_ERRORS:
            raise StorageFull(reason=f"spool file: {error}") from error
        raise StorageFailed(reason=f"spool file: {error}") from error


class Spool:
    """The folder of spool files, and what every sink needs."""

    def __init__(
        self, folder: Path, key: bytes, settings: StorageSettings, disk: Disk, run_blocking: RunBlocking
    ) -> None:
        """folder: made when missing; files in it are removed.  key: of the digests, 16 to 64 octets."""
        self.key = key
        self.disk = disk
        self.run_blocking = run_blocking
        self._folder = folder
        self._settings = settings
        self._made = 0
        folder.mkdir(mode=0o700, exist_ok=True)
        for left_over in folder.iterdir():
            _log.info("removed spool file {name}, {octets} octets never acknowledged", name=left_over.name,
                      octets=left_over.stat().st_size)  # fmt: skip
            left_over.unlink()

    def new_path(self) -> Path:
        """Return the path for the next spool file."""
        self._made += 1
        return self._folder / f"{self._made:08d}"

    def new_content(self, size_hint: int = 0) -> ContentSink:
        """Begin a content.  Raises TooBig, StorageFull."""
        if size_hint > self._settings.message_size_limit:
            raise TooBig(reason=f"announced {size_hint} octets")
        self.disk.refuse_if_full()
        return ContentSink(self, self._settings.message_size_limit, self._settings.memory_content_limit)


def _sync(fd: int, _sync_file: Callable[[int], None] = os.fdatasync) -> None:
    try:
        failpoint("spool-sync")
        _sync_file(fd)
    finally:
        os.close(fd)
