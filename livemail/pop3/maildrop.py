"""The maildrop: INBOX as it was when the session locked it, and what the session marked for removal.  RFC 1939 §5.

Message numbers are 1-based and live here and in `livemail.pop3.session` only; storage hears UIDs.  Messages delivered after
the lock are not seen; a message another session expunges keeps its number and answers -ERR.

The unique-id is UID and UIDVALIDITY in hexadecimal: as stable as these are, and not the content's hash, because two equal
messages must differ (RFC 1939 §7).  No flag is changed: reading by POP3 does not set \\Seen, as in the field.

Most clients fetch all messages one after the other, so a small message brings its successors with it: one storage call for
about `AHEAD_OCTETS` instead of one each.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from zope.interface import implementer

from livemail.interfaces.maildrop import IMaildrop, IMaildropOwner
from livemail.interfaces.storage import HEADER_SIZE, SIZE, UID_, FetchWant, IAccount, IContentReader, MailboxInfo
from livemail.mail.errors import MailError
from livemail.mail.ids import UIDSet
from livemail.mail.names import INBOX

SMALL_OCTETS: Final = 32 * 1024
AHEAD_OCTETS: Final = 128 * 1024


class NoSuchMessage(MailError):
    """The number names no message, or one that is marked or gone."""

    code, enhanced, default_text = 550, "5.0.0", "no such message"


@implementer(IContentReader)
class _Octets:
    """A message already in memory."""

    __slots__ = ("_octets", "prefix_size", "size")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.size = len(octets)
        self.prefix_size = 0

    async def read(self, offset: int, length: int) -> bytes:
        """See `IContentReader`."""
        if not offset and length >= self.size:
            return self._octets
        return self._octets[offset : offset + length]

    def close(self) -> None:
        """See `IContentReader`."""


@implementer(IMaildrop)
class StoredMaildrop:
    """INBOX of an account in our storage.  20 octets of memory a message."""

    def __init__(self, account: IAccount, inbox: MailboxInfo) -> None:
        self._account = account
        self._inbox = inbox
        self._uids = array("I")
        self._header_sizes = array("Q")
        self.sizes: Sequence[int] = array("Q")
        self._ahead: dict[int, bytes] = {}
        self._expected = 0

    async def load(self) -> None:
        """List the messages, in one pass over the rows."""
        sizes = array("Q")
        async for batch in self._account.fetch(self._inbox.id, UIDSet.all(), FetchWant()):
            if batch.rows:
                columns = tuple(zip(*batch.rows, strict=True))
                self._uids.extend(columns[UID_])
                self._header_sizes.extend(columns[HEADER_SIZE])
                sizes.extend(columns[SIZE])
        self.sizes = sizes

    def unique_id(self, position: int) -> bytes:
        """See `IMaildrop`."""
        return b"%08x%08x" % (self._uids[position], self._inbox.uid_validity)

    async def header_size(self, position: int) -> int:
        """See `IMaildrop`."""
        return self._header_sizes[position]

    async def open(self, position: int) -> IContentReader | None:
        """See `IMaildrop`."""
        is_next, self._expected = position == self._expected, position + 1
        octets = self._ahead.pop(position, None)
        if octets is None:
            if self.sizes[position] > SMALL_OCTETS:
                return await self._account.open_content(self._inbox.id, self._uids[position])
            await self._read_ahead(position, self._end_of_run(position) if is_next else position + 1)
            octets = self._ahead.pop(position, None)
        return None if octets is None else _Octets(octets)

    def _end_of_run(self, position: int) -> int:
        """The position behind the small messages that are worth reading together with this one."""
        end, total = position, 0
        while end < len(self.sizes) and self.sizes[end] <= SMALL_OCTETS:
            total += self.sizes[end]
            if total > AHEAD_OCTETS and end > position:
                break
            end += 1
        return end

    async def _read_ahead(self, position: int, end: int) -> None:
        self._ahead.clear()
        uids = self._uids
        wanted = UIDSet([(uids[position], uids[end - 1])])
        want = FetchWant(contents=True, contents_up_to=SMALL_OCTETS)
        positions = {uids[at]: at for at in range(position, end)}
        async for batch in self._account.fetch(self._inbox.id, wanted, want):
            for row, octets in zip(batch.rows, batch.contents or (), strict=True):
                if octets is not None:
                    self._ahead[positions[row[UID_]]] = octets

    async def remove(self, positions: Sequence[int]) -> None:
        """See `IMaildrop`."""
        uids = UIDSet.of(self._uids[position] for position in positions)
        await self._account.expunge(self._inbox.id, uids, only_deleted=False)


async def open_maildrop(account: IAccount) -> Maildrop:
    """Open the maildrop of an account, ours or one that brings its own.  Raises MailError."""
    owner = IMaildropOwner(account, None)
    if owner is not None:
        return Maildrop(await owner.open_maildrop())
    stored = StoredMaildrop(account, await account.mailbox(INBOX))
    await stored.load()
    return Maildrop(stored)


class Maildrop:
    """The messages by number, with the marks DELE made.  count, octets: of those not marked."""

    def __init__(self, messages: IMaildrop) -> None:
        self.messages = messages
        self._sizes: Sequence[int] = messages.sizes
        self._marked: set[int] = set()
        self.rset()

    def rset(self) -> None:
        """Unmark everything."""
        self._marked.clear()
        self.count = len(self._sizes)
        self.octets = sum(self._sizes)

    @property
    def marked(self) -> list[int]:
        """Positions marked for removal, ascending."""
        return sorted(self._marked)

    def position(self, number: int) -> int:
        """Return the position of a message number.  Raises NoSuchMessage."""
        if not 1 <= number <= len(self._sizes):
            raise NoSuchMessage(f"no such message, {len(self._sizes)} in the maildrop")
        if number - 1 in self._marked:
            raise NoSuchMessage(f"message {number} is marked as deleted")
        return number - 1

    def size(self, position: int) -> int:
        """Octets of a message."""
        return self._sizes[position]

    def mark(self, position: int) -> None:
        """Mark a message, known not to be marked, for removal at QUIT."""
        self._marked.add(position)
        self.count -= 1
        self.octets -= self._sizes[position]

    def scan_listing(self) -> Iterator[bytes]:
        """Yield the lines of LIST."""
        marked = self._marked
        for number, size in enumerate(self._sizes, 1):
            if number - 1 not in marked:
                yield b"%d %d\r\n" % (number, size)

    def unique_id_listing(self) -> Iterator[bytes]:
        """Yield the lines of UIDL."""
        marked, unique_id = self._marked, self.messages.unique_id
        for position in range(len(self._sizes)):
            if position not in marked:
                yield b"%d %s\r\n" % (position + 1, unique_id(position))
