"""mbox and .eml from files: one, a folder of them, or a zip or tar archive as the big providers hand them out."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Final, Literal, Protocol, cast

from livemail.storage.maildir.lines import Expander
from livemail.storage.transfer.mbox import SAMPLE_OCTETS, MboxReader, Variant, looks_like_mbox, tell_variant
from livemail.storage.transfer.source import (
    CHUNK_OCTETS,
    READ_ERRORS,
    Skipped,
    SourceError,
    SourceMailbox,
    SourceMessage,
    short_id,
)

Kind = Literal["mbox", "eml"]

MAX_MEMBERS: Final = 5_000_000
_INBOXES: Final = frozenset({"inbox", "mbox", "mail"})
_ENDINGS: Final = (".mbox", ".mbx", ".gz", ".bz2", ".xz", ".mbox.gz", ".sbd")


class Tree(Protocol):
    """Files with paths, on a disk or in an archive."""

    def paths(self) -> Sequence[str]:
        """Every file, with slashes."""

    def open(self, path: str) -> IO[bytes]:
        """Open one.  Raises OSError."""

    def modified(self, path: str) -> int:
        """Seconds since the epoch."""

    def close(self) -> None:
        """No more is read."""


class Folder:
    """Files on a disk; a single file is a tree of one."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def paths(self) -> Sequence[str]:
        """Links are not followed."""
        if self._root.is_file():
            return [""]
        found = []
        for folder, folders, files in os.walk(self._root):
            folders.sort()
            found += [str((Path(folder) / name).relative_to(self._root)) for name in sorted(files)]
        return found

    def open(self, path: str) -> IO[bytes]:
        """Compressed files are read through."""
        return uncompressed(cast(IO[bytes], (self._root / path if path else self._root).open("rb")))

    def modified(self, path: str) -> int:
        """Of the file."""
        return int((self._root / path).stat().st_mtime)

    def close(self) -> None:
        """Nothing is held."""


class Zip:
    """A zip archive."""

    def __init__(self, file: Path) -> None:
        """Raises SourceError."""
        try:
            self._zip = zipfile.ZipFile(file)
        except (OSError, zipfile.BadZipFile) as error:
            raise SourceError(f"{file} cannot be read as a zip archive: {error}") from error
        self._members = {info.filename: info for info in self._zip.infolist()[:MAX_MEMBERS] if not info.is_dir()}

    def paths(self) -> Sequence[str]:
        """In the archive's order."""
        return list(self._members)

    def open(self, path: str) -> IO[bytes]:
        """Raises OSError, also for what is damaged or encrypted."""
        try:
            return uncompressed(self._zip.open(self._members[path]))
        except (RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
            raise OSError(0, str(error)) from error

    def modified(self, path: str) -> int:
        """Archives know local time without its zone: not worth telling."""
        return 0

    def close(self) -> None:
        """Close the file."""
        self._zip.close()


class Tar:
    """A tar archive, compressed or not; read twice, forwards."""

    def __init__(self, file: Path) -> None:
        """Raises SourceError."""
        try:
            self._tar = tarfile.open(file)  # noqa: SIM115 - closed by `close`
            self._members = {member.name: member for member in self._tar if member.isfile()}
        except (OSError, tarfile.TarError, EOFError, lzma.LZMAError) as error:
            raise SourceError(f"{file} cannot be read as a tar archive: {error}") from error

    def paths(self) -> Sequence[str]:
        """In the archive's order, so that nothing is unpacked twice."""
        return list(self._members)

    def open(self, path: str) -> IO[bytes]:
        """Raises OSError."""
        try:
            opened = self._tar.extractfile(self._members[path])
        except tarfile.TarError as error:
            raise OSError(0, str(error)) from error
        assert opened is not None
        return uncompressed(opened)

    def modified(self, path: str) -> int:
        """As the archive says."""
        return int(self._members[path].mtime)

    def close(self) -> None:
        """Close the file."""
        self._tar.close()


def open_tree(path: Path) -> Tree:
    """Open a folder, a file or an archive.  Raises SourceError."""
    if not path.exists():
        raise SourceError(f"{path} does not exist; name a file or folder that the server can read")
    if path.is_dir():
        return Folder(path)
    try:
        if zipfile.is_zipfile(path):
            return Zip(path)
        if tarfile.is_tarfile(path):
            return Tar(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    return Folder(path)


def uncompressed(stream: IO[bytes]) -> IO[bytes]:
    """Return the stream, read through gzip, bzip2 or xz where its first octets say so."""
    head = stream.read(6)
    stream.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=stream))
    if head.startswith(b"BZh"):
        return cast(IO[bytes], bz2.BZ2File(stream))
    if head == b"\xfd7zXZ\0":
        return cast(IO[bytes], lzma.LZMAFile(stream))
    return stream


def mailbox_of(path: str, root: str) -> str:
    """Return the mailbox an mbox file is: its path without endings, Thunderbird's ``a.sbd/b`` as a/b.  root: the source's own name."""
    names = []
    for part in PurePosixPath(path or root).parts:
        name = part
        while ending := next((each for each in _ENDINGS if name.lower().endswith(each) and len(name) > len(each)), ""):
            name = name[: -len(ending)]
        names.append(name)
    if len(names) > 1 and names[0] == "Takeout":
        names = names[-1:]
    return "INBOX" if len(names) == 1 and names[0].lower() in _INBOXES else "/".join(names)


class MboxSource:
    """One mbox file, or all that are in a folder or an archive."""

    def __init__(self, path: Path, variant: Variant = "auto") -> None:
        """Raises SourceError."""
        self.name = f"mbox:{path}"
        self._path = path
        self._variant = variant
        self._tree = open_tree(path)
        self._others: list[str] = []

    def mailboxes(self) -> Sequence[SourceMailbox]:
        """What begins with a "From " line; the rest is reported.  Raises SourceError when nothing does."""
        found = []
        for path in self._tree.paths():
            try:
                with closing(self._tree.open(path)) as stream:
                    is_mbox = looks_like_mbox(stream.read(5))
            except READ_ERRORS:
                is_mbox = False
            if is_mbox:
                found.append(SourceMailbox(mailbox_of(path, self._path.name), path))
            else:
                self._others.append(path)
        if not found:
            raise SourceError(f'{self._path} holds no mbox: no file in it begins with a "From " line')
        return found

    def messages(self, mailbox: SourceMailbox, known: AbstractSet[bytes]) -> Iterator[SourceMessage | Skipped]:
        """In the file's order.  Which are known only their octets tell."""
        where = f"{self._path}/{mailbox.path}" if mailbox.path else str(self._path)
        try:
            variant = self._variant
            if variant == "auto":
                with closing(self._tree.open(mailbox.path)) as stream:
                    variant = tell_variant(_sample(stream))
            with closing(self._tree.open(mailbox.path)) as stream:
                yield from MboxReader(stream, where, variant)
        except READ_ERRORS as error:
            yield Skipped(where, f"reading it failed, what follows is missing: {error}")

    def close(self) -> None:
        """Close the archive."""
        self._tree.close()


class EmlSource:
    """A folder or archive of .eml files; folders are mailboxes, files beside none are INBOX's."""

    def __init__(self, path: Path) -> None:
        """Raises SourceError."""
        self.name = f"eml:{path}"
        self._path = path
        self._tree = open_tree(path)
        self._files: dict[str, list[str]] = {}

    def mailboxes(self) -> Sequence[SourceMailbox]:
        """Raises SourceError when there is not one file."""
        for path in self._tree.paths():
            name = path or self._path.name
            if name.lower().endswith((".eml", ".eml.gz", ".msg.txt", ".emlx")):
                self._files.setdefault(str(PurePosixPath(path).parent) if "/" in path else "", []).append(path)
        if not self._files:
            raise SourceError(f"{self._path} holds no file whose name ends with .eml")
        return [SourceMailbox(folder or "INBOX", folder, "", len(files)) for folder, files in self._files.items()]

    def messages(self, mailbox: SourceMailbox, known: AbstractSet[bytes]) -> Iterator[SourceMessage | Skipped]:
        """In the order of their names."""
        for path in self._files[mailbox.path]:
            id_ = short_id(path.encode("utf-8", "surrogateescape"))
            if id_ in known:
                continue
            where = f"{self._path}/{path}" if path else str(self._path)
            try:
                with closing(self._tree.open(path)) as stream:
                    yield SourceMessage(where, partial(_chunks, stream), id_)
            except READ_ERRORS as error:
                yield Skipped(where, str(error))

    def close(self) -> None:
        """Close the archive."""
        self._tree.close()


def _sample(stream: IO[bytes]) -> bytes:
    """Read the beginning, as far as it can be read."""
    pieces, octets = [], 0
    with suppress(*READ_ERRORS):
        while octets < SAMPLE_OCTETS and (piece := stream.read(CHUNK_OCTETS // 16)):
            pieces.append(piece)
            octets += len(piece)
    return b"".join(pieces)


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    expander = Expander()
    while chunk := stream.read(CHUNK_OCTETS):
        yield expander.expand(chunk)
