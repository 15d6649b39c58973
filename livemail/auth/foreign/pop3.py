"""POP3 mailboxes of `twisted.mail`, in both directions.

    foreign → ours   `served_pop3`: for `Authenticator(foreign=…)`; the avatar becomes an account whose only ability is its maildrop.
    ours → foreign   `offered_pop3`: for `MailRealm(offered=…)`; our INBOX as `IMailboxPOP3`.

`IMailboxPOP3` hands out whole files with whatever line ends; a message is in memory while it is read.  The stock
`twisted.mail.pop3.POP3` puts CR before every LF it finds, so what we hand to it has LF alone, and arrives with CRLF.
"""

from __future__ import annotations

import io
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.mail.interfaces import IMailboxPOP3
from zope.interface import Interface, implementer

from livemail.auth.foreign.reduced import OctetsReader, ReducedAccount, foreign_record
from livemail.auth.realm import IMailUser, MailUser
from livemail.interfaces.maildrop import IMaildrop, IMaildropOwner
from livemail.interfaces.storage import SIZE, UID_, AccountRecord, FetchWant, IAccount, IContentReader
from livemail.mail.errors import StorageFailed
from livemail.mail.ids import MailboxId, UIDSet
from livemail.mail.names import INBOX

_log = Logger()
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_CHUNK: Final = 256 * 1024


# ---------------------------------------------------------------------------------------------------- foreign → ours


@implementer(IMaildrop)
class ForeignMaildrop:
    """A foreign mailbox as our POP3 reads it."""

    def __init__(self, mailbox: Any, sizes: Sequence[int]) -> None:
        self._mailbox = mailbox
        self.sizes = sizes

    def unique_id(self, position: int) -> bytes:
        """See `IMaildrop`."""
        unique_id: bytes = self._mailbox.getUidl(position)
        return unique_id

    async def header_size(self, position: int) -> int:
        """See `IMaildrop`."""
        octets = await self._read(position)
        blank = octets.find(b"\r\n\r\n")
        return blank + 4 if blank >= 0 else len(octets)

    async def open(self, position: int) -> IContentReader | None:
        """See `IMaildrop`."""
        return OctetsReader(await self._read(position))

    async def remove(self, positions: Sequence[int]) -> None:
        """See `IMaildrop`."""
        try:
            for position in positions:
                await maybeDeferred(self._mailbox.deleteMessage, position)
            await maybeDeferred(self._mailbox.sync)
        except Exception as error:
            _log.failure("A foreign POP3 mailbox did not remove messages")
            self._mailbox.undeleteMessages()
            raise StorageFailed from error

    async def _read(self, position: int) -> bytes:
        try:
            file = await maybeDeferred(self._mailbox.getMessage, position)
            try:
                octets: bytes | str = file.read()
            finally:
                file.close()
        except Exception as error:
            _log.failure("A foreign POP3 mailbox did not give a message")
            raise StorageFailed from error
        return _BARE_LF.sub(b"\r\n", octets.encode() if isinstance(octets, str) else octets)


@implementer(IMaildropOwner)
class ForeignPOP3Account(ReducedAccount):
    """An account that is a POP3 mailbox and nothing else."""

    def __init__(self, record: AccountRecord, mailbox: Any) -> None:
        super().__init__(record)
        self._mailbox = mailbox

    async def open_maildrop(self) -> IMaildrop:
        """See `IMaildropOwner`."""
        try:
            sizes = await maybeDeferred(self._mailbox.listMessages)
        except Exception as error:
            _log.failure("A foreign POP3 mailbox did not list its messages")
            raise StorageFailed from error
        return ForeignMaildrop(self._mailbox, tuple(sizes))


def _mail_user(mailbox: Any, authcid: str) -> IMailUser:
    record = foreign_record(authcid)
    return MailUser(record, ForeignPOP3Account(record, mailbox))


served_pop3: Final[tuple[type[Interface], Callable[[Any, str], IMailUser]]] = (IMailboxPOP3, _mail_user)


# ---------------------------------------------------------------------------------------------------- ours → foreign


@implementer(IMailboxPOP3)
class OfferedMailbox:
    """Our INBOX for `twisted.mail.pop3.POP3`.  A refusal of storage is a failed Deferred with its MailError.

    The stock POP3 answers QUIT without waiting for `sync`; what it asked to be removed may still be refused.
    """

    loginDelay = 0
    messageExpiration = None

    def __init__(
        self, account: IAccount, mailbox: MailboxId, uid_validity: int, rows: Sequence[tuple[int, int]]
    ) -> None:
        self._account = account
        self._mailbox = mailbox
        self._uid_validity = uid_validity
        self._rows = rows
        self._marked: set[int] = set()

    def listMessages(self, i: int | None = None) -> Any:
        """See `IMailboxPOP3`."""
        if i is not None:
            return self._size(i)
        return [self._size(index) for index in range(len(self._rows))]

    def getMessage(self, index: int) -> Deferred[io.BytesIO]:
        """Fire with the whole message, LF line ends."""
        return Deferred.fromCoroutine(self._read(self._uid(index)))

    def getUidl(self, index: int) -> bytes:
        """See `IMailboxPOP3`; the same as our own POP3 gives."""
        return b"%08x%08x" % (self._uid(index), self._uid_validity)

    def deleteMessage(self, index: int) -> None:
        """See `IMailboxPOP3`."""
        self._uid(index)
        self._marked.add(index)

    def undeleteMessages(self) -> None:
        """See `IMailboxPOP3`."""
        self._marked.clear()

    def sync(self) -> Deferred[UIDSet]:
        """Fire when the marked messages are gone for good."""
        uids = UIDSet.of(self._rows[index][0] for index in self._marked)
        return Deferred.fromCoroutine(self._account.expunge(self._mailbox, uids, only_deleted=False))

    def _uid(self, index: int) -> int:
        if not 0 <= index < len(self._rows):
            raise ValueError(index)
        return self._rows[index][0]

    def _size(self, index: int) -> int:
        self._uid(index)
        return 0 if index in self._marked else self._rows[index][1]

    async def _read(self, uid: int) -> io.BytesIO:
        reader = await self._account.open_content(self._mailbox, uid)
        if reader is None:
            raise ValueError(uid)
        try:
            octets = b"".join([await reader.read(at, _CHUNK) for at in range(0, reader.size, _CHUNK)])
        finally:
            reader.close()
        return io.BytesIO(octets.replace(b"\r\n", b"\n"))


async def _offer(user: IMailUser) -> object:
    account = user.account
    inbox = await account.mailbox(INBOX)
    rows: list[tuple[int, int]] = []
    async for batch in account.fetch(inbox.id, UIDSet.all(), FetchWant()):
        rows.extend((row[UID_], row[SIZE]) for row in batch.rows)
    return OfferedMailbox(account, inbox.id, inbox.uid_validity, rows)


offered_pop3: Final[tuple[type[Interface], Callable[[IMailUser], Awaitable[object]]]] = (IMailboxPOP3, _offer)
