"""From an account to files: Maildir, mbox (mboxrd) or a tree of .eml.

Each mailbox is read as a session would, in batches, and each message is written under a name that is its own; what is there
already is left, so that an export that was broken off goes on, and one that is repeated adds what is new.  An mbox is written beside
its name and renamed when it is whole; one that is there already is left and named in the report.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import IO, Final, Literal, Protocol

import msgspec

from livemail.interfaces.runtime import RunBlocking
from livemail.interfaces.storage import (
    DATE,
    FLAGS,
    KEYWORDS,
    SIZE,
    UID_,
    FetchBatch,
    FetchWant,
    IAccount,
    IContentReader,
    MailboxInfo,
    Progress,
    Row,
)
from livemail.mail.errors import MailError
from livemail.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from livemail.mail.ids import UIDSet
from livemail.mail.names import INBOX
from livemail.storage.maildir.folders import list_folder, make_folder
from livemail.storage.maildir.keywords import add_keywords, replace_file
from livemail.storage.maildir.names import file_name, folder_name, write_letters
from livemail.storage.maildir.uidlist import FILE, render_uidlist
from livemail.storage.transfer.source import Skipped, SourceError

Kind = Literal["maildir", "mbox", "eml"]

PIECE_OCTETS: Final = 256 * 1024
_STATUS_LETTERS: Final = {"A": ANSWERED, "F": FLAGGED, "T": DRAFT, "D": DELETED}
_HOST: Final = "livemail"


class ExportReport(msgspec.Struct):
    """What an export came to.  known: were there already."""

    exported: int = 0
    known: int = 0
    octets: int = 0
    skipped: list[Skipped] = msgspec.field(default_factory=list)


class Writer(Protocol):
    """Writes one mailbox.  Every method blocks."""

    def has(self, row: Row) -> bool:
        """Whether a message is there already."""

    def begin(self, row: Row, keywords: tuple[str, ...], *, is_raw: bool) -> None:
        """A message that is not there begins.  is_raw: a bare CR or LF is in it.  Raises OSError."""

    def write(self, piece: bytes) -> None:
        """Its next octets, with CRLF.  Raises OSError."""

    def end(self) -> None:
        """It is complete.  Raises OSError."""

    def finish(self) -> None:
        """The mailbox is complete and on disk."""

    def abandon(self) -> None:
        """Something failed; what is whole stays."""


class MaildirWriter:
    """A Maildir++ that Dovecot continues with the same UIDs and keywords."""

    def __init__(self, root: Path, info: MailboxInfo) -> None:
        self._info = info
        self._folder = root / folder_name(info.name)
        make_folder(self._folder, info.name, lambda _: None)
        self._there = list_folder(self._folder)
        self._keywords = add_keywords(self._folder, info.keywords)
        self._files: list[tuple[int, str, int]] = []
        self._folders: set[Path] = set()

    def _base(self, row: Row) -> str:
        # Of the mailbox and the message alone, so that it is the same in every run.
        return f"{max(0, row[DATE])}.V{self._info.uid_validity}U{row[UID_]}.{_HOST},W={row[SIZE]}"

    def has(self, row: Row) -> bool:
        """Whether its file is there; flags are those of this moment."""
        name = self._there.get(self._base(row))
        if name is None:
            return False
        wanted = self._name(row, _names(row, self._info.keywords))
        if name != wanted:
            (self._folder / name).rename(self._folder / wanted)
        self._files.append((row[UID_], wanted.partition("/")[2], row[SIZE]))
        return True

    def _name(self, row: Row, keywords: tuple[str, ...]) -> str:
        return f"cur/{file_name(self._base(row), write_letters(row[FLAGS], self._keywords.of_names(keywords)))}"

    def begin(self, row: Row, keywords: tuple[str, ...], *, is_raw: bool) -> None:
        """Written in tmp first."""
        self._row, self._new_name = row, self._name(row, keywords)
        self._draft = self._folder / "tmp" / f"{self._base(row)}.{os.getpid()}"
        self._file = self._draft.open("wb")
        self._held = b""
        self._is_raw = is_raw

    def write(self, piece: bytes) -> None:
        """With LF line ends, as Maildirs have them, where that can be undone."""
        if self._is_raw:
            self._file.write(piece)
            return
        chunk = self._held + piece
        # A CR at the end of a piece is judged together with what follows it.
        self._held = b"\r" if chunk[-1:] == b"\r" else b""
        self._file.write(chunk[: len(chunk) - len(self._held)].replace(b"\r\n", b"\n"))

    def end(self) -> None:
        """It gets its name when it is on disk."""
        row = self._row
        self._file.write(self._held)
        _close(self._file)
        os.utime(self._draft, (row[DATE], row[DATE]))
        self._draft.rename(self._folder / self._new_name)
        self._files.append((row[UID_], self._new_name.partition("/")[2], row[SIZE]))

    def finish(self) -> None:
        """Write Dovecot's list."""
        info = self._info
        lines = b"".join(render_uidlist(info.uid_validity, info.uid_next, sorted(self._files)))
        replace_file(self._folder / FILE, lines)
        for part in (self._folder / "cur", self._folder):
            _sync(part)

    def abandon(self) -> None:
        """What was written stays, to go on with."""


class MboxWriter:
    """``NAME.mbox`` in mboxrd, with Status and keywords in front of each message's own header."""

    def __init__(self, root: Path, info: MailboxInfo) -> None:
        self._path = root / f"{_file_name(info.name)}.mbox"
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.is_there = self._path.exists()
        self._part = self._path.with_name(self._path.name + ".part")
        self._file: IO[bytes] | None = None if self.is_there else self._part.open("wb")

    def has(self, row: Row) -> bool:
        """All or nothing."""
        return self.is_there

    def begin(self, row: Row, keywords: tuple[str, ...], *, is_raw: bool) -> None:
        """The From line has the internal date, UTC."""
        assert self._file is not None
        flags = row[FLAGS]
        more = "".join(letter for letter, bit in _STATUS_LETTERS.items() if flags & bit)
        lines = [
            f"From MAILER-DAEMON {time.asctime(time.gmtime(row[DATE]))}",
            f"Status: {'RO' if flags & SEEN else 'O'}",
        ]
        lines += [f"X-Status: {more}"] if more else []
        lines += [f"X-Keywords: {' '.join(keywords)}"] if keywords else []
        self._file.write("".join(f"{line}\n" for line in lines).encode())
        self._rest = b""

    def write(self, piece: bytes) -> None:
        """With LF line ends, From lines quoted."""
        assert self._file is not None
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        self._file.writelines(_quoted(line.removesuffix(b"\r")) + b"\n" for line in lines)

    def end(self) -> None:
        """A blank line ends it."""
        assert self._file is not None
        self._file.write(_quoted(self._rest) + b"\n\n" if self._rest else b"\n")

    def finish(self) -> None:
        """Give it its name."""
        if self._file is not None:
            _close(self._file)
            self._part.rename(self._path)
            _sync(self._path.parent)

    def abandon(self) -> None:
        """A part of an mbox is none."""
        if self._file is not None:
            self._file.close()
            self._part.unlink(missing_ok=True)


def _quoted(line: bytes) -> bytes:
    return b">" + line if line.lstrip(b">").startswith(b"From ") else line


class EmlWriter:
    """``NAME/UID.eml``, octet for octet; the file's time is the internal date."""

    def __init__(self, root: Path, info: MailboxInfo) -> None:
        self._folder = root / _file_name(info.name)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._validity = info.uid_validity

    def _path(self, row: Row) -> Path:
        return self._folder / f"{self._validity}-{row[UID_]:010d}.eml"

    def has(self, row: Row) -> bool:
        """Whether its file is there."""
        return self._path(row).exists()

    def begin(self, row: Row, keywords: tuple[str, ...], *, is_raw: bool) -> None:
        """Written beside its name first."""
        self._date, self._new = row[DATE], self._path(row)
        self._draft = self._new.with_suffix(".part")
        self._file = self._draft.open("wb")

    def write(self, piece: bytes) -> None:
        """As it is."""
        self._file.write(piece)

    def end(self) -> None:
        """It gets its name when it is on disk."""
        _close(self._file)
        os.utime(self._draft, (self._date, self._date))
        self._draft.rename(self._new)

    def finish(self) -> None:
        """Bring the names to disk."""
        _sync(self._folder)

    def abandon(self) -> None:
        """What was written stays, to go on with."""


WRITERS: Final[dict[Kind, type[MaildirWriter | MboxWriter | EmlWriter]]] = {
    "maildir": MaildirWriter,
    "mbox": MboxWriter,
    "eml": EmlWriter,
}


class Exporter:
    """One run."""

    def __init__(self, account: IAccount, run_blocking: RunBlocking, progress: Progress) -> None:
        self._account = account
        self._run_blocking = run_blocking
        self._progress = progress
        self._done = 0
        self._total = 0
        self.report = ExportReport()

    async def run(self, kind: Kind, target: Path) -> ExportReport:
        """Export every mailbox.  Raises SourceError when the target cannot be written."""
        listed = await self._account.mailboxes()
        self._total = sum(info.exists for info in listed.mailboxes)
        try:
            await self._run_blocking(_make, target)
            for info in listed.mailboxes:
                await self._mailbox(kind, target, info)
            if kind == "maildir":
                await self._run_blocking(_write_subscriptions, target, sorted(listed.subscribed))
        except OSError as error:
            raise SourceError(f"{error.filename or target} cannot be written: {error.strerror}") from error
        return self.report

    async def _mailbox(self, kind: Kind, target: Path, info: MailboxInfo) -> None:
        writer: Writer = await self._run_blocking(WRITERS[kind], target, info)
        if isinstance(writer, MboxWriter) and writer.is_there:
            self.report.skipped.append(Skipped(info.name, "its .mbox is there already; remove it to write it anew"))
        try:
            async for batch in self._account.fetch(info.id, UIDSet.all(), FetchWant(contents=True)):
                missing = await self._run_blocking(_missing, writer, batch)
                self.report.known += len(batch.rows) - len(missing)
                small: list[tuple[Row, bytes]] = []
                for row, content in missing:
                    if content is None:
                        await self._run_blocking(_add, writer, small, batch.keywords)
                        small = []
                        await self._large(writer, info, row, batch.keywords)
                    else:
                        small.append((row, content))
                        self.report.exported += 1
                        self.report.octets += len(content)
                await self._run_blocking(_add, writer, small, batch.keywords)
                self._done += len(batch.rows)
                self._progress(min(self._done, self._total), self._total, "messages")
            await self._run_blocking(writer.finish)
        except BaseException:
            await self._run_blocking(writer.abandon)
            raise

    async def _large(self, writer: Writer, info: MailboxInfo, row: Row, keywords: tuple[str, ...]) -> None:
        """A message that is read in pieces, or could not be read with the others."""
        reader = await self._account.open_content(info.id, row[UID_])
        if reader is None:
            return  # expunged meanwhile
        try:
            is_raw = await _has_bare(reader)
            piece = await reader.read(0, PIECE_OCTETS)
            await self._run_blocking(writer.begin, row, _names(row, keywords), is_raw=is_raw)
            at = 0
            while piece:
                await self._run_blocking(writer.write, piece)
                at += len(piece)
                piece = await reader.read(at, PIECE_OCTETS)
            await self._run_blocking(writer.end)
        except MailError as error:
            # In an mbox what could be read of it stays, as a message cut off.
            if isinstance(writer, MboxWriter):
                await self._run_blocking(writer.end)
            self.report.skipped.append(Skipped(f"{info.name}, UID {row[UID_]}", error.reason or error.text))
        else:
            self.report.exported += 1
            self.report.octets += at
        finally:
            reader.close()


def _make(target: Path) -> None:
    target.mkdir(mode=0o700, parents=True, exist_ok=True)


def _missing(writer: Writer, batch: FetchBatch) -> list[tuple[Row, bytes | None]]:
    contents = batch.contents or [None] * len(batch.rows)
    return [(row, content) for row, content in zip(batch.rows, contents, strict=True) if not writer.has(row)]


def _add(writer: Writer, messages: list[tuple[Row, bytes]], keywords: tuple[str, ...]) -> None:
    for row, content in messages:
        is_raw = content.count(b"\r\n") != max(content.count(b"\n"), content.count(b"\r"))
        writer.begin(row, _names(row, keywords), is_raw=is_raw)
        writer.write(content)
        writer.end()


async def _has_bare(reader: IContentReader) -> bool:
    """Whether a CR or LF stands alone."""
    pairs = feeds = returns = 0
    last = b""
    for at in range(0, reader.size, PIECE_OCTETS):
        piece = await reader.read(at, PIECE_OCTETS)
        pairs += piece.count(b"\r\n") + (last == b"\r" and piece[:1] == b"\n")
        feeds += piece.count(b"\n")
        returns += piece.count(b"\r")
        last = piece[-1:]
    return pairs != max(feeds, returns)


def _close(file: IO[bytes]) -> None:
    file.flush()
    os.fdatasync(file.fileno())
    file.close()


def _names(row: Row, keywords: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for at, name in enumerate(keywords) if row[KEYWORDS] >> at & 1)


def _write_subscriptions(target: Path, names: list[str]) -> None:
    """Dovecot's file: a name a line, with the dots of the folders."""
    lines = [folder_name(name)[1:] if name != INBOX else INBOX for name in names]
    replace_file(target / "subscriptions", "".join(f"{line}\n" for line in lines).encode())


def _file_name(mailbox: str) -> str:
    """Return a path below the target that says the mailbox's name; nothing in a name leads out of it."""
    parts = []
    for part in mailbox.split("/"):
        kept = "".join(
            "_" if character in '\\:*?"<>|' or not character.isprintable() else character for character in part
        )
        kept = kept.encode()[:200].decode("utf-8", "ignore")
        parts.append("_" + kept if kept.startswith(".") else kept or "_")
    return "/".join(parts)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
