"""A foreign `IAccountIMAP` as our `IAccount`: what our IMAP server serves when a foreign realm gives one.

What is ours: ENVELOPE, BODYSTRUCTURE and sections come from our reading of the octets, sequence numbers and CONDSTORE
from our session.  What is theirs: storage, UIDs, flags, names.

Reduced
    Nothing is a transaction: a command that names many messages may have been done in part when it fails, and says so.
    The ModSeq is faked (`livemail.auth.foreign.imap_mailbox`).  \\Recent is never taken.  Special use is unknown.
    A subscription can only be listed where the mailbox exists.
    UID EXPUNGE and MOVE are refused where other messages with \\Deleted would go too.
    A message is in memory while it is read; the first look at any message reads it whole, for its size.

Names are translated between our separator and theirs; a mailbox whose name could not be one of ours is not listed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.mail.interfaces import IAccountIMAP, IMailboxIMAP, IMessageIMAPCopier
from zope.interface import Interface, implementer

from livemail.auth.foreign.imap_columns import Columns
from livemail.auth.foreign.imap_feed import Feed
from livemail.auth.foreign.imap_mailbox import ForeignMailbox, message_set
from livemail.auth.foreign.imap_message import ask, read_message, text_of, write_flags
from livemail.auth.foreign.reduced import OctetsReader, ReducedAccount, foreign_record
from livemail.auth.realm import IMailUser, MailUser
from livemail.interfaces.storage import (
    AccountRecord,
    Appended,
    AppendItem,
    Copied,
    FetchBatch,
    FetchWant,
    IAccount,
    IChangeListener,
    IContentReader,
    IWatch,
    MailboxInfo,
    MailboxList,
    Selected,
    Stored,
)
from livemail.mail.content import chunks
from livemail.mail.errors import InvalidName, MailError, NoSuchMailbox, NotPermitted, StorageFailed
from livemail.mail.flags import FlagChange
from livemail.mail.ids import UID, MailboxId, ModSeq, UIDSet
from livemail.mail.names import INBOX, SEPARATOR, canonical_name

_log = Logger()
_BATCH: Final = 100
_BATCH_OCTETS: Final = 1024 * 1024
_SPOOL_OCTETS: Final = 1024 * 1024
_MODES: Final = {"add": 1, "remove": -1, "replace": 0}


@implementer(IAccount)
class ForeignIMAPAccount(ReducedAccount):
    """One session's account.  now: seconds since the epoch."""

    def __init__(self, record: AccountRecord, theirs: Any, now: Callable[[], float] = time.time) -> None:
        super().__init__(record)
        self._theirs = theirs
        self._feed = Feed(now, self._close)
        self._separator = ""
        self._open: dict[str, ForeignMailbox] = {}
        self._by_id: dict[MailboxId, ForeignMailbox] = {}
        self._ids: dict[str, MailboxId] = {}
        self._last_id = 0

    # ------------------------------------------------------------------------------------------------ names

    async def _listed(self) -> dict[str, Any]:
        """Return their mailboxes that can be selected, by our names."""
        found: dict[str, Any] = {}
        for theirs, box in await ask(self._theirs.listMailboxes, "", "*"):
            separator = text_of(await ask(box.getHierarchicalDelimiter) or "")
            self._separator = self._separator or separator
            name = text_of(theirs)
            if separator and separator != SEPARATOR:
                if SEPARATOR in name:
                    continue
                name = name.replace(separator, SEPARATOR)
            try:
                name = canonical_name(name)
            except InvalidName:
                continue
            flags = {text_of(flag).lower() for flag in await ask(box.getFlags)}
            if "\\noselect" not in flags:
                found[name] = box
        return found

    def _their_name(self, name: str) -> str:
        if self._separator in {"", SEPARATOR}:
            return name
        if self._separator in name:
            raise InvalidName(f"A mailbox name here has no {self._separator}")
        return name.replace(SEPARATOR, self._separator)

    async def _mailbox(self, name: str) -> ForeignMailbox:
        """Open a mailbox, or look at it again.  Raises NoSuchMailbox."""
        if not self._separator:
            await self._listed()
        found = self._open.get(name)
        if found is None:
            box = await ask(self._theirs.select, self._their_name(name), 1)
            if box is None or "\\noselect" in {text_of(flag).lower() for flag in await ask(box.getFlags)}:
                raise NoSuchMailbox
            found = ForeignMailbox(self._id_of(name), name, box, self._feed.next_modseq, self._feed.publish)
            self._open[name] = self._by_id[found.id] = found
        await found.open()
        return found

    def _id_of(self, name: str) -> MailboxId:
        if name not in self._ids:
            self._last_id += 1
            self._ids[name] = MailboxId(self._last_id)
        return self._ids[name]

    def _numbered(self, mailbox: MailboxId) -> ForeignMailbox:
        try:
            return self._by_id[mailbox]
        except KeyError:
            raise NoSuchMailbox from None

    async def _forget(self, name: str) -> None:
        found = self._open.pop(name, None)
        if found is not None:
            del self._by_id[found.id], self._ids[name]
            await found.close()

    # ------------------------------------------------------------------------------------------------ mailboxes

    async def mailboxes(self) -> MailboxList:
        """See `IAccount`.  The counters are those the foreign side gives at once: deleted and size are not among them."""
        infos: list[MailboxInfo] = []
        subscribed: set[str] = set()
        for name, box in sorted((await self._listed()).items()):
            if await ask(self._theirs.isSubscribed, self._their_name(name)):
                subscribed.add(name)
            counts = [1, 1, 0, 0]
            if IMailboxIMAP.providedBy(box):
                counts = [
                    int(await ask(count))
                    for count in (box.getUIDValidity, box.getUIDNext, box.getMessageCount, box.getUnseenCount)
                ]
            uid_validity, uid_next, exists, unseen = counts
            infos.append(
                MailboxInfo(
                    id=self._id_of(name), name=name, special_use="", uid_validity=uid_validity, uid_next=uid_next,
                    exists=exists, unseen=unseen, deleted=0, size=0, highest_modseq=self._feed.modseq,
                    recent_from=uid_next, keywords=(),
                )
            )  # fmt: skip
        return MailboxList(tuple(infos), frozenset(subscribed))

    async def mailbox(self, name: str) -> MailboxInfo:
        """See `IAccount`."""
        return await (await self._mailbox(name)).info()

    async def create_mailbox(self, name: str, special_use: str = "") -> MailboxInfo:
        """See `IAccount`."""
        if special_use:
            raise NotPermitted("Special use is not available for this account")
        await self._listed()
        if not await ask(self._theirs.create, self._their_name(canonical_name(name))):
            raise NotPermitted("The mailbox was not created")
        return await self.mailbox(name)

    async def rename_mailbox(self, old: str, new: str) -> None:
        """See `IAccount`.  INBOX is not renamed: what the foreign side would do is not defined."""
        if old == INBOX:
            raise NotPermitted("INBOX cannot be renamed for this account")
        await self._mailbox(old)
        await ask(self._theirs.rename, self._their_name(old), self._their_name(canonical_name(new)))
        for name in [each for each in self._open if each == old or each.startswith(old + SEPARATOR)]:
            await self._forget(name)

    async def delete_mailbox(self, name: str) -> None:
        """See `IAccount`."""
        if name == INBOX:
            raise NotPermitted("INBOX cannot be deleted")
        await self._mailbox(name)
        await ask(self._theirs.delete, self._their_name(name))
        await self._forget(name)

    async def subscribe(self, name: str, is_subscribed: bool) -> None:
        """See `IAccount`."""
        await self._listed()
        theirs = self._their_name(name)
        if bool(await ask(self._theirs.isSubscribed, theirs)) != is_subscribed:
            await ask(self._theirs.subscribe if is_subscribed else self._theirs.unsubscribe, theirs)

    async def select(self, name: str, claim_recent: bool) -> Selected:
        """See `IAccount`; \\Recent is not claimed."""
        found = await self._mailbox(name)
        return Selected(await found.info(), tuple(found.uids), found.first_unseen())

    async def claim_recent(self, mailbox: MailboxId, up_to: UID) -> UID:
        """See `IAccount`; nothing is claimed."""
        return min(up_to, self._numbered(mailbox).recent_from)

    # ------------------------------------------------------------------------------------------------ messages

    async def append(self, mailbox: str, items: Sequence[AppendItem]) -> Appended:
        """See `IAccount`; one message after the other."""
        found = await self._mailbox(mailbox)
        uids: list[UID] = []
        for item in items:
            found.check_keywords(item.keywords)
            with tempfile.SpooledTemporaryFile(_SPOOL_OCTETS) as file:
                for chunk in chunks(item.content):
                    file.write(chunk)
                file.seek(0)
                flags = write_flags(item.flags, item.keywords)
                async with found.lock:
                    uids.append(await self._add(found, found.theirs.addMessage, file, flags, _date_of(item)))
        return Appended(found.id, (await found.info()).uid_validity, tuple(uids))

    async def _add(self, found: ForeignMailbox, function: Callable[..., Any], /, *args: Any) -> UID:
        """Have one message added, and find out its UID: what the foreign side answers need not be one."""
        before = found.uids[-1] if found.uids else 0
        answer = await found.doing(self, function, *args)
        new = [uid for uid in found.uids if uid > before]
        if not new:
            raise StorageFailed(reason="a foreign mailbox took a message and does not have it")
        return answer if answer in new else new[-1]

    async def fetch(self, mailbox: MailboxId, uids: UIDSet, want: FetchWant) -> AsyncIterator[FetchBatch]:
        """See `IAccount`."""
        found = self._numbered(mailbox)
        chosen = [uid for uid in uids.select(found.uids) if found.known[uid].modseq > want.changed_since]
        at = 0
        while at < len(chosen):
            batch, count = await self._read(found, chosen[at : at + _BATCH], want)
            at += count
            if batch.rows:
                yield batch

    async def _read(self, found: ForeignMailbox, uids: Sequence[UID], want: FetchWant) -> tuple[FetchBatch, int]:
        """Return a batch, and how many of the UIDs it deals with."""
        batch = Columns(want)
        async with found.lock:
            messages = await self._messages(found, uids)
            for done, uid in enumerate(uids, 1):
                known = found.known.get(uid)
                if known is None or uid not in messages:
                    continue
                summary = octets = None
                needs_octets = not known.size or batch.takes_content(known.size)
                if needs_octets or batch.needs_summary:
                    summary, octets = await found.content(uid, messages[uid], needs_octets=needs_octets)
                batch.add(uid, known, summary, octets)
                if batch.octets >= _BATCH_OCTETS:
                    return batch.finish(found.keywords), done
        return batch.finish(found.keywords), len(uids)

    async def _messages(self, found: ForeignMailbox, uids: Sequence[UID]) -> dict[UID, Any]:
        """Return foreign message objects; one that is gone makes us look at the whole mailbox."""
        messages: dict[UID, Any] = {}
        for _, message in await ask(found.theirs.fetch, message_set(uids), uid=True):
            messages[int(await ask(message.getUID))] = message
        if any(uid not in messages for uid in uids):
            await found.refresh(None)
        return messages

    async def open_content(self, mailbox: MailboxId, uid: UID) -> IContentReader | None:
        """See `IAccount`."""
        found = self._by_id.get(mailbox)
        if found is None or uid not in found.known:
            return None
        async with found.lock:
            message = (await self._messages(found, [uid])).get(uid)
            return None if message is None else OctetsReader(await read_message(message))

    async def store(
        self, mailbox: MailboxId, uids: UIDSet, change: FlagChange, unchanged_since: ModSeq | None = None
    ) -> Stored:
        """See `IAccount`; the condition is checked against this session's ModSeq."""
        found = self._numbered(mailbox)
        if change.op != "remove":
            found.check_keywords(change.keywords)
        async with found.lock:
            await found.refresh(None)
            named = uids.select(found.uids)
            modified = [
                uid for uid in named if unchanged_since is not None and found.known[uid].modseq > unchanged_since
            ]
            chosen = [uid for uid in named if uid not in set(modified)]
            before = found.modseq
            flags = write_flags(change.flags, change.keywords)
            if chosen:
                mode = _MODES[change.op]
                await found.doing(self, found.theirs.store, message_set(chosen), flags, mode, uid=True)
            rows = [(uid, found.known[uid].flags, found.known[uid].keywords) for uid in chosen if uid in found.known]
            modseq = found.modseq if found.modseq != before else 0
            return Stored(tuple(rows), modseq, UIDSet.of(modified), found.keywords)

    async def copy(self, mailbox: MailboxId, uids: UIDSet, target: str) -> Copied:
        """See `IAccount`; one message after the other."""
        source, to = self._numbered(mailbox), await self._mailbox(target)
        chosen = list(uids.select(source.uids))
        copies: list[tuple[UID, UID]] = []
        copier = IMessageIMAPCopier(to.theirs, None)
        async with to.lock:
            messages = await self._messages(source, chosen)
            for uid in chosen:
                message = messages.get(uid)
                if message is None:
                    continue
                try:
                    if copier is not None:
                        copies.append((uid, await self._add(to, copier.copy, message)))
                    else:
                        copies.append((uid, await self._add_copy(to, message)))
                except MailError as error:
                    if copies:
                        raise StorageFailed(f"Only the first {len(copies)} messages were copied") from error
                    raise
        uid_validity = (await to.info()).uid_validity
        return Copied(to.id, uid_validity, tuple(uid for uid, _ in copies), tuple(copy for _, copy in copies))

    async def _add_copy(self, to: ForeignMailbox, message: Any) -> UID:
        flags, date = await ask(message.getFlags), await ask(message.getInternalDate)
        with tempfile.SpooledTemporaryFile(_SPOOL_OCTETS) as file:
            file.write(await read_message(message))
            file.seek(0)
            return await self._add(to, to.theirs.addMessage, file, list(flags), date)

    async def move(self, mailbox: MailboxId, uids: UIDSet, target: str) -> Copied:
        """See `IAccount`; copied first, so that what fails in between leaves a message twice and not lost."""
        source = self._numbered(mailbox)
        async with source.lock:
            await source.to_expunge(uids, only_deleted=False)
        copied = await self.copy(mailbox, uids, target)
        async with source.lock:
            await source.expunge(self, UIDSet.of(copied.source), only_deleted=False)
        return copied

    async def expunge(self, mailbox: MailboxId, uids: UIDSet | None, only_deleted: bool = True) -> UIDSet:
        """See `IAccount`."""
        found = self._numbered(mailbox)
        async with found.lock:
            return await found.expunge(self, uids, only_deleted=only_deleted)

    # ------------------------------------------------------------------------------------------------ changes

    def watch(self, listener: IChangeListener) -> IWatch:
        """See `IAccount`.  The session is over when its watch is: the foreign mailboxes are closed then."""
        return self._feed.watch(listener)

    def _close(self) -> None:
        for name in list(self._open):
            Deferred.fromCoroutine(self._forget(name)).addErrback(
                lambda failure: _log.failure("A foreign mailbox was not closed", failure)
            )


def _date_of(item: AppendItem) -> bytes | None:
    """Return the internal date as `IMessageIMAP.getInternalDate` has it, None when the appender gave none."""
    if item.internal_date is None:
        return None
    zone = timezone(timedelta(minutes=item.zone))
    return format_datetime(datetime.fromtimestamp(item.internal_date, zone)).encode("ascii")


def _mail_user(theirs: Any, authcid: str) -> IMailUser:
    record = foreign_record(authcid)
    return MailUser(record, ForeignIMAPAccount(record, theirs))


served_imap: Final[tuple[type[Interface], Callable[[Any, str], IMailUser]]] = (IAccountIMAP, _mail_user)
