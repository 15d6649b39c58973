"""Our messages as `IMessageIMAP`, whose methods have no way to wait.

Reading a message from our stores does not suspend, so their coroutines are run on the spot (`at_once`).  A store that does
suspend cannot be offered this way, and is refused in so many words.  Content is read in pieces, as the caller asks for
them; the header and the part tree are read when a method first needs them.

Headers are a dict of text: of several fields with one name the first is in it, and what is not ASCII is a "?", because
the stock server encodes as ASCII what it gets.  The whole message (`open`) is octet for octet what was stored.
"""

from __future__ import annotations

import io
from collections.abc import Coroutine
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any, TypeVar

from twisted.mail.imap4 import MailboxException
from twisted.mail.interfaces import IMessageIMAP, IMessageIMAPFile, IMessageIMAPPart
from zope.interface import implementer

from livemail.auth.foreign.imap_message import text_of
from livemail.interfaces.storage import (
    DATE,
    FLAGS,
    KEYWORDS,
    SIZE,
    UID_,
    ZONE,
    FetchWant,
    IAccount,
    IContentReader,
    Row,
)
from livemail.mail.flags import flag_names
from livemail.mail.ids import MailboxId, UIDSet
from livemail.mail.message.fields import parse_fields, unfold
from livemail.mail.message.summary import Part, decode_parts

T = TypeVar("T")


class StoreSuspends(MailboxException):
    """The store wants to wait where `twisted.mail` cannot."""


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that finishes without suspending.  Raises StoreSuspends, and what it raises."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise StoreSuspends("This store does not answer at once and cannot be offered to twisted.mail")


class ContentFile(io.RawIOBase):
    """A range of a message as a file; read piece by piece."""

    def __init__(self, reader: IContentReader, start: int, end: int) -> None:
        self._reader = reader
        self._start = start
        self._size = end - start
        self._at = 0

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """See `io.IOBase.seek`."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase.readinto`."""
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        octets = at_once(self._reader.read(self._start + self._at, wanted))
        buffer[: len(octets)] = octets
        self._at += len(octets)
        return len(octets)

    def close(self) -> None:
        """Close the reader too."""
        if not self.closed:
            self._reader.close()
        super().close()


class Source:
    """Where a message's octets are: everything its parts share."""

    def __init__(self, account: IAccount, mailbox: MailboxId, uid: int) -> None:
        self._account = account
        self._mailbox = mailbox
        self._uid = uid
        self._root: Part | None = None
        self._prefix_size = 0

    def reader(self) -> IContentReader:
        """Open the message; the caller closes it.  Raises MailboxException when it is gone."""
        reader = at_once(self._account.open_content(self._mailbox, self._uid))
        if reader is None:
            raise MailboxException("The message is expunged")
        self._prefix_size = reader.prefix_size
        return reader

    def file(self, part: Part) -> ContentFile:
        """Return a part's body."""
        reader = self.reader()
        return ContentFile(reader, part.body + reader.prefix_size, part.end + reader.prefix_size)

    def header(self, part: Part) -> bytes:
        """Return a part's header; the message's begins with the delivery prefix."""
        reader = self.reader()
        try:
            start = part.start + reader.prefix_size if part is not self._root else 0
            return at_once(reader.read(start, part.body + reader.prefix_size - start))
        finally:
            reader.close()

    def root(self) -> Part:
        """Return the part tree."""
        if self._root is None:
            self._root = at_once(self._read_root())
        return self._root

    async def _read_root(self) -> Part:
        wanted = UIDSet.of([self._uid])
        async for batch in self._account.fetch(self._mailbox, wanted, FetchWant(parts=True)):
            if batch.parts:
                return decode_parts(batch.parts[0])
        raise MailboxException("The message is expunged")


@implementer(IMessageIMAPPart)
class OfferedPart:
    """One part below a message."""

    def __init__(self, source: Source, part: Part | None = None) -> None:
        self._source = source
        self._known = part

    @property
    def _part(self) -> Part:
        return self._known if self._known is not None else self._source.root()

    def getHeaders(self, negate: bool, *names: bytes | str) -> dict[str, str]:
        """See `IMessageIMAPPart`; names are lower-case."""
        wanted = {text_of(name).lower() for name in names}
        found: dict[str, str] = {}
        for _, raw_name, raw in parse_fields(self._source.header(self._part)):
            name = raw_name.decode("ascii", "replace").lower()
            if (name in wanted) != bool(negate):
                found.setdefault(name, unfold(raw).decode("ascii", "replace").replace("\ufffd", "?"))
        return found

    def getBodyFile(self) -> ContentFile:
        """See `IMessageIMAPPart`."""
        return self._source.file(self._part)

    def getSize(self) -> int:
        """Return the octets of the body."""
        return self._part.end - self._part.body

    def isMultipart(self) -> bool:
        """See `IMessageIMAPPart`."""
        return self._part.media_type.startswith("multipart/")

    def getSubPart(self, part: int) -> OfferedPart:
        """See `IMessageIMAPPart`; part 0 of a message/rfc822 is the message in it."""
        children = self._part.children
        if not children and not self.isMultipart():
            raise TypeError("not a multipart")
        if not 0 <= part < len(children):
            raise IndexError(part)
        return OfferedPart(self._source, children[part])


@implementer(IMessageIMAP, IMessageIMAPFile)
class OfferedMessage(OfferedPart):
    """One message; its flags are those of the moment it was fetched."""

    def __init__(
        self, account: IAccount, mailbox: MailboxId, row: Row, keywords: tuple[str, ...], *, is_recent: bool
    ) -> None:
        super().__init__(Source(account, mailbox, row[UID_]))
        self.mailbox = mailbox
        self._row = row
        self._flags = flags_of(row[FLAGS], row[KEYWORDS], keywords)
        if is_recent:
            self._flags.append("\\Recent")

    def getUID(self) -> int:
        """See `IMessageIMAP`."""
        return self._row[UID_]

    def getFlags(self) -> list[str]:
        """See `IMessageIMAP`."""
        return self._flags

    def getInternalDate(self) -> str:
        """See `IMessageIMAP`."""
        zone = timezone(timedelta(minutes=self._row[ZONE]))
        return format_datetime(datetime.fromtimestamp(self._row[DATE], zone))

    def getSize(self) -> int:
        """Return the octets of the whole message."""
        return self._row[SIZE]

    def open(self) -> ContentFile:
        """See `IMessageIMAPFile`."""
        reader = self._source.reader()
        return ContentFile(reader, 0, reader.size)


def flags_of(flags: int, bits: int, keywords: tuple[str, ...]) -> list[str]:
    """Return the names of system flags and of keyword bits."""
    return [*flag_names(flags), *(name for bit, name in enumerate(keywords) if bits >> bit & 1)]
