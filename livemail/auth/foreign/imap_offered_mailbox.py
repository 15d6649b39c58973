"""Our mailboxes as `IMailboxIMAP`.

A mailbox object is one client's view: sequence numbers belong to it and move only when the stock server tells the client
so, which it does in EXPUNGE alone.  What others expunge keeps its number, is not found, and goes with the next EXPUNGE.
New messages and flags of others are told through the listener, which the stock server queues until it may speak.

\\Recent is claimed when a listener is added to a writeable mailbox: that is when the stock server has selected it, while
it also calls `select` for APPEND and COPY.
"""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.mail import imap4
from twisted.mail.interfaces import ICloseableMailboxIMAP, IMailboxIMAP, IMessageIMAPCopier
from zope.interface import implementer

from livemail.auth.foreign.imap_message import read_date, read_flags, read_message
from livemail.auth.foreign.imap_offered_message import OfferedMessage, at_once, flags_of
from livemail.interfaces.storage import (
    FLAGS,
    KEYWORDS,
    UID_,
    AppendItem,
    FetchWant,
    IAccount,
    IChangeListener,
    IMailStore,
    IWatch,
    Selected,
)
from livemail.mail.changes import Added, Change, Expunged, FlagsChanged, MailboxDeleted
from livemail.mail.content import CHUNK_OCTETS, Content
from livemail.mail.errors import MailboxExists, MailError, NoSuchMailbox
from livemail.mail.flags import SYSTEM_FLAGS, FlagChange, FlagOp
from livemail.mail.ids import MAX_UID, UID, ModSeq, UIDSet

_log = Logger()
_OPS: Final[dict[int, FlagOp]] = {1: "add", -1: "remove", 0: "replace"}
T = TypeVar("T")


async def refusing(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await ours and raise theirs: MailError as the MailboxException a Twisted server knows."""
    try:
        return await coroutine
    except NoSuchMailbox as error:
        raise imap4.NoSuchMailbox(error.text) from error
    except MailboxExists as error:
        raise imap4.MailboxCollision(error.text) from error
    except MailError as error:
        raise imap4.MailboxException(error.text) from error


def later(coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Run ours, for a caller that takes a Deferred."""
    return Deferred.fromCoroutine(refusing(coroutine))


@implementer(IMailboxIMAP, ICloseableMailboxIMAP, IMessageIMAPCopier, IChangeListener)
class OfferedMailbox:
    """See the module.  store: gives content sinks."""

    def __init__(self, account: IAccount, store: IMailStore, selected: Selected, *, is_writeable: bool) -> None:
        info = selected.info
        self._account = account
        self._store = store
        self._is_writeable = is_writeable
        self._info = info
        self._uids: list[UID] = list(selected.uids)
        self._gone: set[UID] = set()
        self._recent_from = info.recent_from
        self._keywords = info.keywords
        self._modseq = info.highest_modseq
        self._uid_next = info.uid_next
        self._listeners: list[Any] = []
        self._watch: IWatch | None = None

    # ------------------------------------------------------------------------------------------------ what it is

    def getFlags(self) -> list[str]:
        """Return system flags and the keywords in use."""
        return [*SYSTEM_FLAGS, *self._keywords]

    def getHierarchicalDelimiter(self) -> str:
        """See `IMailboxIMAPInfo`."""
        return "/"

    def getUIDValidity(self) -> int:
        """See `IMailboxIMAP`."""
        return self._info.uid_validity

    def getUIDNext(self) -> int:
        """See `IMailboxIMAP`."""
        return self._uid_next

    def getUID(self, message: int) -> int:
        """Return the UID of a sequence number, 1-based.  Raises IndexError."""
        if not 0 < message <= len(self._uids):
            raise IndexError(message)
        return self._uids[message - 1]

    def getMessageCount(self) -> int:
        """Return how many messages have a sequence number."""
        return len(self._uids)

    def getRecentCount(self) -> int:
        """See `IMailboxIMAP`."""
        return len(self._uids) - bisect_left(self._uids, self._recent_from)

    def getUnseenCount(self) -> int:
        """Return how many there are now."""
        return at_once(refusing(self._account.mailbox(self._info.name))).unseen

    def isWriteable(self) -> bool:
        """See `IMailboxIMAP`."""
        return self._is_writeable

    def requestStatus(self, names: Iterable[str]) -> dict[str, int]:
        """See `IMailboxIMAP`."""
        status: dict[str, int] = imap4.statusRequestHelper(self, names)
        return status

    def destroy(self) -> None:
        """See `IMailboxIMAP`; the account deletes."""

    # ------------------------------------------------------------------------------------------------ messages

    def addMessage(
        self, message: Any, flags: Iterable[bytes | str] = (), date: bytes | str | None = None
    ) -> Deferred[int]:
        """Fire with the UID when the message is durable."""
        return later(self._add(message, flags, date))

    async def _add(self, message: Any, flags: Iterable[bytes | str], date: bytes | str | None) -> int:
        self._check_writeable()
        content = await self._content(message)
        try:
            bits, keywords, _ = read_flags(flags)
            seconds, zone = read_date(date) if date else (None, 0)
            item = AppendItem(content, bits, keywords, seconds, zone)
            return (await self._account.append(self._info.name, [item])).uids[0]
        finally:
            content.close()

    async def _content(self, message: Any) -> Content:
        sink = self._store.new_content()
        try:
            while chunk := message.read(CHUNK_OCTETS):
                sink.write(chunk)
            return await sink.finish()
        except BaseException:
            sink.abort()
            raise

    def copy(self, messageObject: Any) -> Deferred[int]:
        """Copy a message here: by reference where it is one of this account's, else its octets."""
        return later(self._copy(messageObject))

    async def _copy(self, message: Any) -> int:
        self._check_writeable()
        if isinstance(message, OfferedMessage):
            named = UIDSet.of([message.getUID()])
            copied = await self._account.copy(message.mailbox, named, self._info.name)
            if not copied.target:
                raise imap4.MailboxException("The message is expunged")
            return copied.target[0]
        file = io.BytesIO(await read_message(message))
        return await self._add(file, message.getFlags(), message.getInternalDate())

    def fetch(self, messages: Any, uid: bool) -> Deferred[list[tuple[int, OfferedMessage]]]:
        """Fire with (sequence number, message) in order; messages that are gone are left out."""
        return later(self._fetch(messages, uid))

    async def _fetch(self, messages: Any, uid: bool) -> list[tuple[int, OfferedMessage]]:
        found: list[tuple[int, OfferedMessage]] = []
        chosen = self._chosen(messages, uid)
        async for batch in self._account.fetch(self._info.id, chosen, FetchWant()):
            for row in batch.rows:
                number = self._number(row[UID_])
                if number:
                    is_recent = row[UID_] >= self._recent_from
                    message = OfferedMessage(self._account, self._info.id, row, batch.keywords, is_recent=is_recent)
                    found.append((number, message))
        return found

    def store(
        self, messages: Any, flags: Sequence[bytes | str], mode: int, uid: bool
    ) -> Deferred[dict[int, list[str]]]:
        """Fire with the flags by sequence number when they are durable."""
        return later(self._change(messages, flags, mode, uid))

    async def _change(self, messages: Any, flags: Sequence[bytes | str], mode: int, uid: bool) -> dict[int, list[str]]:
        self._check_writeable()
        bits, keywords, _ = read_flags(flags)
        change = FlagChange(_OPS[mode], bits, keywords)
        stored = await self._account.store(self._info.id, self._chosen(messages, uid), change)
        self._keywords = stored.keywords
        return {
            number: flags_of(flags_now, bits_now, stored.keywords)
            for each, flags_now, bits_now in stored.changed
            if (number := self._number(each))
        }

    def expunge(self) -> Deferred[list[int]]:
        """Fire with sequence numbers, highest first, so that each is right when those before it are told."""
        return later(self._expunge())

    async def _expunge(self) -> list[int]:
        self._check_writeable()
        self._gone |= set(await self._account.expunge(self._info.id, None))
        gone = sorted(self._gone.intersection(self._uids), reverse=True)
        numbers = [self._number(uid) for uid in gone]
        self._gone.clear()
        self._uids = [uid for uid in self._uids if uid not in set(gone)]
        return numbers

    def _check_writeable(self) -> None:
        if not self._is_writeable:
            raise imap4.ReadOnlyMailbox("The mailbox is open read-only")

    def _number(self, uid: UID) -> int:
        """Return the sequence number of a UID, 0 when the client has not been told of it."""
        at = bisect_left(self._uids, uid)
        return at + 1 if at < len(self._uids) and self._uids[at] == uid else 0

    def _chosen(self, messages: Any, uid: bool) -> UIDSet:
        """Return the UIDs of a `MessageSet` of UIDs or of sequence numbers."""
        last = (self._uids[-1] if uid else len(self._uids)) if self._uids else 0
        ranges = [(last if low is None else low, last if high is None else high) for low, high in messages.ranges]
        named = UIDSet((min(max(low, 1), MAX_UID), min(max(high, 1), MAX_UID)) for low, high in ranges if last)
        if uid:
            return UIDSet.of(named.select(self._uids))
        return UIDSet.of(each for low, high in named.ranges for each in self._uids[low - 1 : high])

    # ------------------------------------------------------------------------------------------------ changes

    def addListener(self, listener: Any) -> None:
        """See `IMailboxIMAP`."""
        self._listeners.append(listener)
        if self._watch is None:
            self._watch = self._account.watch(self)
            # What happened between the snapshot and here is asked for, not lost.
            self._spawn(self._catch_up())
            if self._is_writeable:
                self._spawn(self._claim())

    def removeListener(self, listener: Any) -> None:
        """See `IMailboxIMAP`."""
        self._listeners.remove(listener)
        if not self._listeners:
            self.close()

    def close(self) -> None:
        """See `ICloseableMailboxIMAP`."""
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def changed(self, modseq: ModSeq, origin: object, changes: Sequence[Change] | None) -> None:
        """See `IChangeListener`."""
        if changes is None:
            self._spawn(self._catch_up())
        else:
            self._notice(changes, is_own=origin is self._account)

    def _notice(self, changes: Sequence[Change], *, is_own: bool) -> None:
        for change in changes:
            if getattr(change, "mailbox", 0) != self._info.id or change.modseq <= self._info.highest_modseq:
                continue
            self._modseq = max(self._modseq, change.modseq)
            if isinstance(change, Added):
                self._uids.extend(uid for uid in change.uids if not self._uids or uid > self._uids[-1])
                self._uid_next = max(self._uid_next, change.uids[-1] + 1)
                for listener in tuple(self._listeners):
                    listener.newMessages(len(self._uids), None)
            elif isinstance(change, FlagsChanged):
                self._keywords = change.keywords
                if not is_own:
                    self._tell_flags(change)
            elif isinstance(change, Expunged):
                self._gone.update(change.uids)
            elif isinstance(change, MailboxDeleted):
                self._gone.update(self._uids)

    def _tell_flags(self, change: FlagsChanged) -> None:
        told = {
            number: flags_of(flags, bits, change.keywords)
            for uid, flags, bits in change.rows
            if (number := self._number(uid))
        }
        for listener in tuple(self._listeners):
            listener.flagsChanged(told)

    async def _catch_up(self) -> None:
        since = await self._account.changes(self._info.id, self._modseq)
        rows: list[tuple[int, int, int]] = []
        keywords = self._keywords
        async for batch in self._account.fetch(self._info.id, since.changed, FetchWant()):
            keywords = batch.keywords
            rows.extend((row[UID_], row[FLAGS], row[KEYWORDS]) for row in batch.rows)
        last = self._uids[-1] if self._uids else 0
        changes: list[Change] = []
        if new := tuple(row[0] for row in rows if row[0] > last):
            changes.append(Added(self._info.id, since.modseq, new))
        if known := tuple(row for row in rows if row[0] <= last):
            changes.append(FlagsChanged(self._info.id, since.modseq, known, keywords))
        if since.vanished:
            changes.append(Expunged(self._info.id, since.modseq, since.vanished))
        self._notice(changes, is_own=False)

    async def _claim(self) -> None:
        self._recent_from = await self._account.claim_recent(self._info.id, self._uid_next)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(coroutine).addErrback(
            lambda failure: _log.failure("A mailbox offered to twisted.mail failed", failure)
        )
