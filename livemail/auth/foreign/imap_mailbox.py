"""One foreign `IMailboxIMAP` as our session needs it: UIDs, flags with a ModSeq, and what changed since it was last looked at.

A foreign mailbox has no ModSeq and tells little: its listener hears of new messages and of flags, never of an expunge.
So what the mailbox holds is kept here as it was seen last, and compared whenever there is reason to look: at SELECT, after
every command of ours, when its listener calls, and when a message that should be there is not.  The differences are the
changes.

The ModSeq is this session's own: microseconds since the epoch, never twice the same, rising.  Everything has the one of the
session's beginning, so a client that comes back with a ModSeq of an earlier session is told that everything changed, and
misses nothing.  How far a session's ModSeq is past the clock is one for each change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.mail import imap4
from twisted.mail.interfaces import ICloseableMailboxIMAP, IMailboxIMAPListener
from zope.interface import implementer

from livemail.auth.foreign.imap_message import ask, read_date, read_flags, read_message
from livemail.interfaces.storage import MailboxInfo
from livemail.mail.changes import Added, Change, Expunged, FlagsChanged
from livemail.mail.errors import LimitReached, MailError, NotPermitted, StorageFailed
from livemail.mail.flags import DELETED, MAX_KEYWORDS, SEEN
from livemail.mail.ids import MAX_UID, UID, MailboxId, ModSeq, UIDSet
from livemail.mail.message.scanner import Scanner
from livemail.mail.message.summary import Summary

_log = Logger()
_SUMMARIES = 1000

Publish = Callable[[object, Sequence[Change]], None]


class Known(msgspec.Struct):
    """A message as it was seen last.  size, header_size: octets, 0 until it was read once, which it is for any row."""

    flags: int
    keywords: int
    modseq: ModSeq
    is_recent: bool
    size: int = 0
    header_size: int = 0
    date: tuple[int, int] = (0, 0)


def message_set(uids: Iterable[UID]) -> Any:
    """Return UIDs as the foreign side takes them."""
    made = imap4.MessageSet()
    made.ranges = list(UIDSet.of(uids).ranges)
    return made


@implementer(IMailboxIMAPListener)
class ForeignMailbox:
    """See the module.  publish(origin, changes): called when something changed."""

    def __init__(
        self,
        id: MailboxId,  # noqa: A002
        name: str,
        theirs: Any,
        next_modseq: Callable[[], ModSeq],
        publish: Publish,
    ) -> None:
        self.id = id
        self.name = name
        self.theirs = theirs
        self.known: dict[UID, Known] = {}
        self.uids: list[UID] = []
        self.keywords: tuple[str, ...] = ()
        self.modseq = next_modseq()
        self.lock = DeferredLock()
        self._bits: dict[str, int] = {}
        self._next_modseq = next_modseq
        self._publish = publish
        self._summaries: dict[UID, Summary] = {}
        self._is_listening = False
        self._is_looking = False
        self._is_loaded = False
        self._uid_next: UID = 1
        self._uid_validity = 1

    # ------------------------------------------------------------------------------------------------ what it is

    async def info(self) -> MailboxInfo:
        """Return the counters as of the last look.  size: of messages not read yet, what the foreign side says it is."""
        size = 0
        for uid, message in self.known.items():
            size += message.size or await self._claimed_size(uid)
        return MailboxInfo(
            id=self.id,
            name=self.name,
            special_use="",
            uid_validity=self._uid_validity,
            uid_next=self._uid_next,
            exists=len(self.uids),
            unseen=sum(not message.flags & SEEN for message in self.known.values()),
            deleted=sum(bool(message.flags & DELETED) for message in self.known.values()),
            size=size,
            highest_modseq=self.modseq,
            recent_from=self.recent_from,
            keywords=self.keywords,
        )

    async def _claimed_size(self, uid: UID) -> int:
        for _, message in await ask(self.theirs.fetch, message_set([uid]), uid=True):
            return int(await ask(message.getSize))
        return 0

    @property
    def recent_from(self) -> UID:
        """The lowest UID from which on everything has \\Recent: ours is a range, theirs a flag."""
        first = self._uid_next
        for uid in reversed(self.uids):
            if not self.known[uid].is_recent:
                break
            first = uid
        return first

    def first_unseen(self) -> int:
        """Return the 1-based position of the first message without \\Seen, 0 when there is none."""
        return next((at for at, uid in enumerate(self.uids, 1) if not self.known[uid].flags & SEEN), 0)

    # ------------------------------------------------------------------------------------------------ looking

    async def refresh(self, origin: object) -> None:
        """Look at the whole mailbox and publish what is different.  Raises MailError."""
        found: dict[UID, tuple[int, int, bool]] = {}
        if await ask(self.theirs.getMessageCount):
            for _, message in await ask(self.theirs.fetch, imap4.MessageSet(1, None), uid=True):
                uid = int(await ask(message.getUID))
                if not 0 < uid <= MAX_UID:
                    raise StorageFailed(reason=f"a foreign mailbox has a message with UID {uid}")
                found[uid] = self._read_flags(await ask(message.getFlags))
        self._uid_validity = max(1, int(await ask(self.theirs.getUIDValidity)) & MAX_UID)
        announced = int(await ask(self.theirs.getUIDNext))
        self._uid_next = max(self._uid_next, announced, max(found, default=0) + 1)
        self._compare(found, origin)

    def _compare(self, found: dict[UID, tuple[int, int, bool]], origin: object) -> None:
        known = self.known
        gone = [uid for uid in self.uids if uid not in found]
        last = self.uids[-1] if self.uids else 0
        new = sorted(uid for uid in found if uid not in known and (uid > last or not self._is_loaded))
        if not self._is_loaded:
            self._is_loaded = True
            self._take(new, found, self.modseq)
            return
        changes: list[Change] = []
        rows = [
            (uid, *found[uid][:2])
            for uid in self.uids
            if uid in found and found[uid][:2] != (known[uid].flags, known[uid].keywords)
        ]
        if not (gone or new or rows):
            return
        modseq = self.modseq = self._next_modseq()
        for uid in gone:
            del known[uid]
            self._summaries.pop(uid, None)
        if gone:
            self.uids = list(known)
            changes.append(Expunged(self.id, modseq, UIDSet.of(gone)))
        if new:
            self._take(new, found, modseq)
            changes.append(Added(self.id, modseq, tuple(new)))
        for uid, flags, keywords in rows:
            known[uid].flags, known[uid].keywords, known[uid].modseq = flags, keywords, modseq
        if rows:
            changes.append(FlagsChanged(self.id, modseq, tuple(rows), self.keywords))
        self._publish(origin, changes)

    def _take(self, new: list[UID], found: dict[UID, tuple[int, int, bool]], modseq: ModSeq) -> None:
        for uid in new:
            flags, keywords, is_recent = found[uid]
            self.known[uid] = Known(flags, keywords, modseq, is_recent)
        self.uids.extend(new)

    def _read_flags(self, names: Iterable[bytes | str]) -> tuple[int, int, bool]:
        flags, keywords, is_recent = read_flags(names)
        bits = 0
        for name in keywords:
            bit = self._bits.get(name.lower())
            if bit is None:
                if len(self.keywords) >= MAX_KEYWORDS:
                    continue  # Lenient: more keywords than a row has bits; those seen first are shown
                bit = self._bits[name.lower()] = 1 << len(self.keywords)
                self.keywords += (name,)
            bits |= bit
        return flags, bits, is_recent

    def check_keywords(self, names: Iterable[str]) -> None:
        """Raises LimitReached when a mailbox cannot show so many keywords more."""
        if len(self.keywords) + len({name.lower() for name in names} - self._bits.keys()) > MAX_KEYWORDS:
            raise LimitReached(f"A mailbox has at most {MAX_KEYWORDS} keywords")

    async def content(self, uid: UID, message: Any, *, needs_octets: bool) -> tuple[Summary, bytes]:
        """Return a message's summary and octets, where asked for, and make its `Known` whole.

        The first time it is read whatever was asked: only octets tell a size that stays what it was said to be.
        """
        known = self.known.get(uid)
        summary = self._summaries.get(uid)
        if summary is not None and known is not None and known.size and not needs_octets:
            return summary, b""
        octets = await read_message(message)
        scanner = Scanner()
        scanner.feed(octets)
        summary = scanner.finish()
        if known is not None:
            known.size, known.header_size = len(octets), summary.header_size
            known.date = read_date(await ask(message.getInternalDate))
            while len(self._summaries) >= _SUMMARIES:
                del self._summaries[next(iter(self._summaries))]
            self._summaries[uid] = summary
        return summary, octets

    # ------------------------------------------------------------------------------------------------ doing

    async def open(self) -> None:
        """Look for the first time, and listen."""
        async with self.lock:
            if not self._is_listening:
                self._is_listening = True
                await ask(self.theirs.addListener, self)
            await self.refresh(None)

    async def doing(self, origin: object, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call the foreign mailbox, then look at what it did; the caller has the lock.  Raises MailError."""
        if not await ask(self.theirs.isWriteable):
            raise NotPermitted("The mailbox is read-only")
        try:
            return await ask(function, *args, **kwargs)
        finally:
            await self.refresh(origin)

    async def to_expunge(self, uids: UIDSet | None, *, only_deleted: bool) -> tuple[set[UID], set[UID]]:
        """Return the messages to go, and those of them without \\Deleted; the caller has the lock.

        Raises NotPermitted where others would go with them: the foreign EXPUNGE takes all that have \\Deleted.
        """
        await self.refresh(None)
        deleted = {uid for uid, message in self.known.items() if message.flags & DELETED}
        chosen = set(self.uids if uids is None else uids.select(self.uids))
        if only_deleted:
            chosen &= deleted
        if chosen and deleted - chosen:
            raise NotPermitted("This mailbox can only expunge all deleted messages at once")
        return chosen, chosen - deleted

    async def expunge(self, origin: object, uids: UIDSet | None, *, only_deleted: bool) -> UIDSet:
        """Remove messages; the caller has the lock.  Raises NotPermitted as `to_expunge`."""
        chosen, unmarked = await self.to_expunge(uids, only_deleted=only_deleted)
        if not chosen:
            return UIDSet()
        if unmarked:
            await self.doing(origin, self.theirs.store, message_set(unmarked), ["\\Deleted"], 1, uid=True)
        await self.doing(origin, self.theirs.expunge)
        return UIDSet.of(uid for uid in chosen if uid not in self.known)

    async def close(self) -> None:
        """Nobody looks any more."""
        if self._is_listening:
            self._is_listening = False
            await ask(self.theirs.removeListener, self)
        closeable = ICloseableMailboxIMAP(self.theirs, None)
        if closeable is not None:
            await ask(closeable.close)

    # ------------------------------------------------------------------------------------------------ listening

    def modeChanged(self, writeable: object) -> None:
        """See `IMailboxIMAPListener`: whether it is writeable is asked before every change."""

    def flagsChanged(self, newFlags: object) -> None:
        """See `IMailboxIMAPListener`."""
        self._look()

    def newMessages(self, exists: object, recent: object) -> None:
        """See `IMailboxIMAPListener`."""
        self._look()

    def _look(self) -> None:
        # While a command of ours runs, this waits for it: what the command did is known then, and only the rest is news.
        if self._is_listening and not self._is_looking:
            self._is_looking = True
            Deferred.fromCoroutine(self._looked()).addErrback(lambda failure: _log.failure("Looking failed", failure))

    async def _looked(self) -> None:
        async with self.lock:
            self._is_looking = False
            try:
                await self.refresh(None)
            except MailError as error:
                _log.warn("A foreign mailbox could not be read: {reason}", reason=str(error))
