"""What an importer reads from."""

from __future__ import annotations

import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

import msgspec

CHUNK_OCTETS: Final = 256 * 1024


READ_ERRORS: Final = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)
"""What reading from something damaged raises."""


class SourceError(Exception):
    """The source as a whole cannot be read; the text is for the administrator and says what to do."""


class Skipped(msgspec.Struct, frozen=True):
    """What did not come.  where: file and place, or mailbox and UID; why: for the administrator."""

    where: str
    why: str


class SourceMailbox(msgspec.Struct, frozen=True):
    """A mailbox of the source.

    name: as it is to be called here.  path: what the source calls it.  special_use: attribute with its backslash, or "".
    count: messages, -1 when not known: such a source gives all of them, also those that are known.  uid_validity: 0 when not known.
    """

    name: str
    path: str
    special_use: str = ""
    count: int = -1
    uid_validity: int = 0


class SourceMessage(msgspec.Struct):
    """A message of the source.

    id: 1 to 32 octets, the same in every run; "" until ``chunks`` has ended, where only the octets tell.  chunks: the octets with
    CRLF; to be asked for before the next message, once.  date: seconds since the epoch, None where the header must tell.
    mailbox: another one than it was found in (a label), "" for that.
    """

    where: str
    chunks: Callable[[], Iterator[bytes]]
    id: bytes = b""
    flags: int = 0
    keywords: tuple[str, ...] = ()
    date: int | None = None
    zone: int = 0
    uid: int = 0
    mailbox: str = ""


class Source(Protocol):
    """Where messages come from.  Every method blocks and is called in one thread at a time."""

    name: str
    """Stands for the source in what an account remembers: the same for every run."""

    def mailboxes(self) -> Sequence[SourceMailbox]:
        """All mailboxes.  Raises SourceError."""

    def messages(self, mailbox: SourceMailbox, known: AbstractSet[bytes]) -> Iterator[SourceMessage | Skipped]:
        """The messages of one, those with a known id left out where that saves work.  Raises SourceError."""

    def close(self) -> None:
        """No more is read."""


def short_id(*parts: bytes) -> bytes:
    """Return 16 octets that stand for the parts."""
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).digest()
