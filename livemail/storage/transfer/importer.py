"""From a source into an account: batches, each one commit.

The source is read in a thread, which also scans what it reads; while one batch is committed the next is read.  A batch that is
refused as a whole (a keyword too many, a quota) is tried message by message, so that one cannot keep the others out.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from livemail.interfaces.runtime import RunBlocking
from livemail.interfaces.storage import IAccount, IContentSink, IMailStore, MailboxList, Progress
from livemail.interfaces.transfer import IImportTarget, ImportItem
from livemail.mail.errors import InvalidName, LimitReached, MailboxExists, OverQuota, TooBig
from livemail.mail.names import INBOX, canonical_name
from livemail.storage.transfer.source import READ_ERRORS, Skipped, Source, SourceMailbox, SourceMessage

BATCH_MESSAGES: Final = 100
BATCH_OCTETS: Final = 4 * 1024 * 1024
MAX_SKIPPED: Final = 1000
"""Of these are named; all are counted."""


class ImportReport(msgspec.Struct):
    """What an import came to.  known: came in an earlier run.  made: mailboxes created."""

    imported: int = 0
    known: int = 0
    octets: int = 0
    skipped_count: int = 0
    skipped: list[Skipped] = msgspec.field(default_factory=list)
    made: list[str] = msgspec.field(default_factory=list)

    def skip(self, where: str, why: str) -> None:
        """Note what did not come."""
        self.skipped_count += 1
        if len(self.skipped) < MAX_SKIPPED:
            self.skipped.append(Skipped(where, why))


class Options(msgspec.Struct, frozen=True):
    """keep_uids: take the source's UIDs and UIDVALIDITY where they can be.  again: a word that makes the run one of its own, so that
    what came before comes once more.  into: mailbox below which everything is put, "" for none.
    """

    keep_uids: bool = False
    again: str = ""
    into: str = ""


class _Read(msgspec.Struct):
    """A message in its sink."""

    message: SourceMessage
    sink: IContentSink


class Importer:
    """One run."""

    def __init__(
        self,
        store: IMailStore,
        account: IAccount,
        run_blocking: RunBlocking,
        progress: Progress,
        options: Options | None = None,
    ) -> None:
        """account: also an `IImportTarget`."""
        self._store = store
        self._account = account
        self._target = IImportTarget(account)
        self._run_blocking = run_blocking
        self._progress = progress
        self._options = options or Options()
        self._there: MailboxList | None = None
        self._seen = 0
        self._total = 0
        self.report = ImportReport()

    async def run(self, source: Source) -> ImportReport:
        """Import everything.  Raises SourceError, and MailError when the store takes nothing more (full, failed)."""
        try:
            mailboxes = await self._run_blocking(source.mailboxes)
            if all(mailbox.count >= 0 for mailbox in mailboxes):
                self._total = sum(mailbox.count for mailbox in mailboxes)
            for mailbox in mailboxes:
                await self._mailbox(source, mailbox)
        finally:
            await self._run_blocking(source.close)
        return self.report

    async def _mailbox(self, source: Source, mailbox: SourceMailbox) -> None:
        key = f"{source.name} {mailbox.path} {self._options.again}"
        known = set(await self._target.imported(key))
        if mailbox.count >= 0:  # such a source leaves out what is known
            self._seen += min(len(known), mailbox.count)
            self.report.known += min(len(known), mailbox.count)
        steps = source.messages(mailbox, known)
        name = await self._place(mailbox.name, mailbox.special_use)
        reading = self._run_blocking(self._read, steps, known)
        while (batch := await reading) is not None:
            reading = self._run_blocking(self._read, steps, known)
            if batch:
                if mailbox.count < 0:
                    # A source that counts its messages has each once; to remember 200,000 ids takes 25 MiB.
                    known.update(one.message.id for one in batch)
                try:
                    await self._commit(key, name, mailbox, batch)
                except BaseException:
                    for one in await reading or ():
                        one.sink.abort()
                    raise

    def _read(self, steps: Iterator[SourceMessage | Skipped], known: AbstractSet[bytes]) -> list[_Read] | None:
        """Read the next messages, in a thread; None at the end."""
        batch: list[_Read] = []
        octets = 0
        while len(batch) < BATCH_MESSAGES and octets < BATCH_OCTETS:
            found = next(steps, None)
            if found is None:
                return batch or None
            self._seen += 1
            if isinstance(found, Skipped):
                self.report.skip(found.where, found.why)
                continue
            sink = self._read_one(found)
            if sink is None:
                continue
            if found.id in known or any(one.message.id == found.id for one in batch):
                sink.abort()
                self.report.known += 1
                continue
            batch.append(_Read(found, sink))
            octets += sink.size
        return batch

    def _read_one(self, found: SourceMessage) -> IContentSink | None:
        sink = self._store.new_content()
        try:
            for chunk in found.chunks():
                sink.write(chunk)
        except TooBig as error:
            self.report.skip(found.where, f"it is too big: {error.reason or error.text}")
        except READ_ERRORS as error:
            sink.abort()
            self.report.skip(found.where, f"it cannot be read whole: {error}")
        except BaseException:
            sink.abort()
            raise
        else:
            return sink
        return None

    async def _commit(self, key: str, name: str, mailbox: SourceMailbox, batch: list[_Read]) -> None:
        items: dict[str, list[tuple[str, ImportItem]]] = {}
        try:
            for one in batch:
                content = await one.sink.finish()
                message = one.message
                date = content.summary.sent if message.date is None else message.date
                item = ImportItem(
                    content, message.id, message.flags, message.keywords, date, message.zone,
                    message.uid if self._options.keep_uids else 0,
                )  # fmt: skip
                place = await self._place(message.mailbox, "") if message.mailbox else name
                items.setdefault(place, []).append((message.where, item))
            validity = mailbox.uid_validity if self._options.keep_uids else 0
            for place, some in items.items():
                await self._append(place, key, some, validity)
        finally:
            for one in batch:
                one.sink.abort()
            for some in items.values():
                for _, item in some:
                    item.content.close()
        self._progress(min(self._seen, self._total or self._seen), self._total, "messages")

    async def _append(self, place: str, key: str, items: list[tuple[str, ImportItem]], validity: int) -> None:
        try:
            uids = await self._target.import_messages(place, key, [item for _, item in items], validity)
        except (LimitReached, OverQuota) as error:
            if len(items) > 1:
                for one in items:
                    await self._append(place, key, [one], validity)
                return
            self.report.skip(items[0][0], error.text + (f" ({error.reason})" if error.reason else ""))
            return
        for uid, (_, item) in zip(uids, items, strict=True):
            self.report.imported += uid > 0
            self.report.known += uid == 0
            self.report.octets += item.content.size if uid else 0

    async def _place(self, name: str, special_use: str) -> str:
        """Return the mailbox of a name, made where it is missing; one with the same special use is taken instead."""
        if self._there is None:
            self._there = await self._account.mailboxes()
        if special_use and not self._options.into:
            for info in self._there.mailboxes:
                if info.special_use == special_use:
                    return info.name
        wanted = allowed_name(f"{self._options.into}/{name}" if self._options.into else name)
        if all(info.name != wanted for info in self._there.mailboxes):
            try:
                await self._account.create_mailbox(wanted, special_use)
            except MailboxExists:
                pass
            else:
                await self._account.subscribe(wanted, True)
                self.report.made.append(wanted)
            self._there = await self._account.mailboxes()
        return wanted


def allowed_name(name: str) -> str:
    """Return the nearest name a mailbox can have."""
    try:
        return canonical_name(name)
    except InvalidName:
        pass
    parts = []
    for part in name.split("/"):
        kept = "".join(
            "_" if character in "*%" or not character.isprintable() else character for character in part
        ).strip()
        kept = kept.lstrip("~").strip() or "_"
        parts.append("_" if kept in {".", ".."} else kept[:200])
    try:
        return canonical_name("/".join(parts[:32]))
    except InvalidName:
        return canonical_name("".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:200] or INBOX)
