"""The store: opens and locks its folder, joins reader, writer, spool and feed, and closes them again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from livemail.interfaces.backup import BackupFailed, BackupReport, IBackupStore
from livemail.interfaces.mending import Compacted, IMendStore
from livemail.interfaces.quota import IQuotaStore, QuotaUse
from livemail.interfaces.runtime import IWatcher, Now, RunBlocking
from livemail.interfaces.storage import (
    AccountRecord,
    Delivered,
    Delivery,
    IMailStore,
    Progress,
    Repaired,
    Report,
)
from livemail.interfaces.story import KeptStory
from livemail.mail.content import Content
from livemail.mail.errors import MailError, NoSuchAccount, StorageFailed
from livemail.mail.ids import AccountId, MailboxId
from livemail.storage.disk import Disk, ReserveFile
from livemail.storage.lmdb.account import LMDBAccount
from livemail.storage.lmdb.addresses import LMDBAddressBook
from livemail.storage.lmdb.backup.write import Backup
from livemail.storage.lmdb.check import Check
from livemail.storage.lmdb.committer import Committer
from livemail.storage.lmdb.compaction import Compaction
from livemail.storage.lmdb.deleted.purging import Purging
from livemail.storage.lmdb.feed import ChangeFeed
from livemail.storage.lmdb.files.account import MaildirAccount
from livemail.storage.lmdb.files.reading import MaildirReader
from livemail.storage.lmdb.files.sync import MaildirSync
from livemail.storage.lmdb.folder import Folder, open_folder
from livemail.storage.lmdb.opening import NoteOpening
from livemail.storage.lmdb.operations.accounts import AddAccounts, RemoveAccount, SetPassword
from livemail.storage.lmdb.operations.deliveries import Deliver, Item, Prepared, Unread, prepare
from livemail.storage.lmdb.operations.group import Event, Operation
from livemail.storage.lmdb.operations.repair import Planner, Repair
from livemail.storage.lmdb.queue import LMDBQueue
from livemail.storage.lmdb.reader import Reader
from livemail.storage.lmdb.recovery import make_or_refuse, recover_tail
from livemail.storage.lmdb.schema import open_environment
from livemail.storage.lmdb.segments import SegmentReader, Tail
from livemail.storage.lmdb.stories import StorySearch
from livemail.storage.lmdb.writer import AfterTurn, ICarrier, Request, Writer
from livemail.storage.lmdb.writer_process import Begin, WriterProcess
from livemail.storage.lmdb.writer_thread import CallFromThread, WriterThread
from livemail.storage.quota import Quotas, quota_uses
from livemail.storage.settings import StorageSettings
from livemail.storage.spool import ContentSink, MemoryContent, Spool
from livemail.storage.stories import story_key, with_places


class Steps(Protocol):
    """Long work that reads the index, done in bounded steps so that a thread is given back between them."""

    def step(self) -> tuple[int, int, str] | None:
        """Do some; return (done, total, what), None when all is done."""

    def close(self) -> None:
        """Let go of the index, also in the middle."""


P = ParamSpec("P")
T = TypeVar("T")
MaildirOf = Callable[[str], Path | None]


def in_segments(_name: str) -> Path | None:
    """No account is in a Maildir."""
    return None


@implementer(IMailStore, IBackupStore, IMendStore, IQuotaStore)
class LMDBStore:
    """One open store.  Made by `open`."""

    capabilities = frozenset({"condstore", "objectid", "single-instance", "keywords"})
    _when_idle: Deferred[None] | None
    _noting: set[tuple[AccountId, MailboxId]]

    def __init__(
        self,
        folder: Folder,
        settings: StorageSettings,
        *,
        call_from_thread: CallFromThread,
        run_blocking: RunBlocking,
        watcher: IWatcher | None,
        after_turn: AfterTurn | None = None,
        now: Now,
        maildir_of: MaildirOf = in_segments,
        quotas: Quotas | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """folder: locked; this object's own once it is made.  after_turn, maildir_of, quotas, seconds: see `open`.  Raises StoreUnusable."""
        self.disk = Disk(folder.path, settings)
        self.feed = ChangeFeed()
        self._folder = folder
        self._settings = settings
        self._quotas = Quotas.of(settings) if quotas is None else quotas
        self._now = now
        self._run_blocking = run_blocking
        make_or_refuse(folder, settings)
        self._environment, self._tables = open_environment(folder.shard, settings)
        try:
            tail = recover_tail(folder, self._environment, self._tables, settings)
            self._spool = Spool(folder.spool, folder.hash_key, settings, self.disk, run_blocking)
            reserve = ReserveFile(folder.shard / "reserve", settings.reserve_file)
            reserve.fill(self.disk)
        except BaseException:
            self._environment.close()
            raise
        self._segments = SegmentReader(folder.segments)
        self.maildirs = MaildirReader(self._environment, self._tables)
        self._reader = Reader(self._environment, self._tables, self._segments, self.maildirs)
        self._maildir_of = maildir_of
        self.sync = MaildirSync(
            self._environment,
            self._tables,
            self._reader,
            self.maildirs,
            folder.hash_key,
            self.write,
            run_blocking,
            seconds,
        )
        self.compaction = Compaction(
            self._environment,
            self._tables,
            folder.segments,
            self._spool,
            self.disk,
            settings.compact_dead_percent,
            self._move,
            self.in_thread,
        )
        self.purging = self._purging()
        self.addresses = LMDBAddressBook(lambda: self.reader, self.write, self.disk)
        self._is_open = True
        self._instance = int.from_bytes(os.urandom(7))
        self.queue = LMDBQueue(self, self._environment, self._tables, now, self._instance, settings.queue_recipients)
        self._checks, self._when_idle, self._noting = 0, None, set()
        if settings.writer == "thread":
            committer = Committer(
                self._environment, self._tables, tail, settings, self.disk, reserve, self._quotas, folder.hash_key
            )
            carrier: ICarrier = WriterThread(committer, call_from_thread)
        else:
            assert watcher is not None, "a writer process is served by a watcher"
            carrier = self._writer_process(tail, settings, watcher)
        self._writer = Writer(carrier, settings, now, after_turn or call_from_thread, self._answered)

    def _purging(self) -> Purging:
        return Purging(
            self._environment,
            self._tables,
            self.disk,
            self._settings.undelete,
            self.maildirs.roots,
            self.write,
            self.in_thread,
            self._now,
        )

    def _writer_process(self, tail: Tail, settings: StorageSettings, watcher: IWatcher) -> WriterProcess:
        folder = self._folder
        begin = Begin(
            str(folder.path),
            str(folder.shard),
            str(folder.segments),
            settings,
            (tail.number, tail.size, tail.next_number),
            self._quotas,
            folder.hash_key,
        )
        return WriterProcess(begin, folder.lock, watcher, self._run_blocking, self._recover_tail)

    def _recover_tail(self) -> tuple[int, int, int]:
        """After the writer process has died: as at a start."""
        self._environment.reader_check()
        tail = recover_tail(self._folder, self._environment, self._tables, self._settings)
        return tail.number, tail.size, tail.next_number

    @classmethod
    async def open(
        cls,
        path: str | Path,
        settings: StorageSettings,
        *,
        call_from_thread: CallFromThread,
        run_blocking: RunBlocking,
        watcher: IWatcher | None = None,
        after_turn: AfterTurn | None = None,
        now: Now = time.time,
        create: bool = False,
        maildir_of: MaildirOf = in_segments,
        quotas: Quotas | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> LMDBStore:
        """Open the store in the data folder ``path``, made when missing if ``create``.

        maildir_of: the folder in which a new account of a name has its messages as files; None for segments.  Accounts
        that exist stay where they are.  quotas: what may be held; None for what the settings say.  seconds: a clock that never goes back.  watcher: for ``writer = "process"``.  after_turn: when what was
        submitted goes to the writer as one group; None for ``call_from_thread``.

        Raises StoreError (`livemail.storage.lmdb.folder`), whose text says what to do.
        """
        folder = open_folder(Path(path), create=create)
        try:
            store = cls(
                folder,
                settings,
                call_from_thread=call_from_thread,
                run_blocking=run_blocking,
                watcher=watcher,
                after_turn=after_turn,
                now=now,
                maildir_of=maildir_of,
                quotas=quotas,
                seconds=seconds,
            )
        except BaseException:
            folder.close()
            raise
        await store.queue.void_leases()
        return store

    # --------------------------------------------------------------------------------------------- for LMDBAccount

    @property
    def is_open(self) -> bool:
        """Whether reading may begin."""
        return self._is_open

    @property
    def reader(self) -> Reader:
        """What reads the index.  Raises StorageFailed when the store is closed."""
        if not self._is_open:
            raise StorageFailed(reason="the store is closed")
        return self._reader

    def write(
        self,
        operation: Operation,
        origin: object = None,
        contents: Sequence[Content] = (),
        *,
        frees: bool = False,
        in_files: frozenset[bytes] = frozenset(),
    ) -> Deferred[Any]:
        """Run an operation in the next group.  frees: it makes room, and may use up the reserve file.

        in_files: digests of the contents no segment needs (`in_files`).
        """
        return self._writer.submit(Request(operation, origin, contents, frees=frees, in_files=in_files))

    def note_opening(self, mailbox: tuple[AccountId, MailboxId], note: NoteOpening) -> None:
        """Keep what a walk through a mailbox found, some time; one for each mailbox is under way at most."""
        if mailbox not in self._noting:
            self._noting.add(mailbox)

            def noted(_: object) -> None:
                self._noting.discard(mailbox)

            # Whatever refuses it (a full disk, the mailbox is gone): the next walk is a long one, and no more.
            self.write(note).addErrback(lambda failure: failure.trap(MailError)).addBoth(noted)

    def _move(self, operation: Operation, contents: Sequence[Content]) -> Deferred[Any]:
        """Run an operation for which contents are written that are stored already."""
        return self._writer.submit(Request(operation, None, contents, frees=False, moves=True))

    def in_files(self, copies: Sequence[tuple[AccountId, Content]]) -> frozenset[bytes]:
        """Return the digests of the contents that go to accounts in Maildirs only."""
        if not self.maildirs.has_any:
            return frozenset()
        kept = {content.digest for account, content in copies if self.maildirs.root(account) is None}
        return frozenset(content.digest for _, content in copies) - kept

    def _answered(self, events: Sequence[Event], removed: Sequence[int]) -> None:
        self._segments.forget(removed)
        self.feed.publish(events)

    # --------------------------------------------------------------------------------------------------- IMailStore

    def new_content(self, size_hint: int = 0) -> ContentSink:
        """Begin a message's content.  Raises StorageFull, TooBig, StorageFailed."""
        if not self._is_open:
            raise StorageFailed(reason="the store is closed")
        return self._spool.new_content(size_hint)

    async def account(self, id: AccountId) -> LMDBAccount:  # noqa: A002
        """Open an account.  Raises NoSuchAccount."""
        name = self.reader.account_record(id).name
        return LMDBAccount(self, id, name) if self.maildirs.root(id) is None else MaildirAccount(self, id, name)

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Delivered | MailError]:
        """File every delivery in one durable commit.  Raises StorageFull, StorageFailed, Overloaded."""
        self.disk.refuse_if_full()
        contents = {id(one.content): one.content for one in batch}
        results: Sequence[Delivered | MailError] = await self.write(
            Deliver(self.prepared(batch)),
            None,
            list(contents.values()),
            in_files=self.in_files([(one.account, one.content) for one in batch]),
        )
        return results

    @staticmethod
    def prepared(batch: Sequence[Delivery]) -> list[Item]:
        """Compute what can be computed before the writer has it."""
        prepared: dict[int, Prepared | Unread] = {}
        items = []
        for one in batch:
            at = id(one.content)
            if at not in prepared:
                prepared[at] = _prepared(one.content)
            items.append(Item(one.account, one.mailbox, prepared[at], one.prefix, one.flags, (), one.internal_date, 0))
        return items

    def note(self, transaction: str, story: bytes, digest: bytes = b"") -> None:
        """Keep a story with the next commit."""
        self._writer.stories.add(story_key(transaction), digest, story)

    def flush_stories(self) -> None:
        """Commit the stories that wait."""
        self._writer.flush_stories()

    async def story(self, transaction: str) -> KeptStory | None:
        """One transaction's story."""
        key = story_key(transaction)
        waiting, kept = self._writer.stories.get(key), self.reader.story(key)
        return with_places(waiting, kept)

    async def find_stories(self, text: bytes, limit: int, progress: Progress | None = None) -> Sequence[KeptStory]:
        """Stories that contain some octets, the latest first."""
        waiting = self._writer.stories.find(text)
        found: dict[bytes, KeptStory] = {}
        search = StorySearch(self._environment, self._tables, text)
        while len(found) < limit and not search.is_done:
            if not self._is_open:
                raise StorageFailed(reason="the store is closed")
            self._checks += 1
            try:
                found |= dict(await self._run_blocking(search.step))
            finally:
                self._leave()
            if progress is not None:
                progress(search.seen, search.total, "stories")
        for key, story in waiting.items():
            found[key] = with_places(story, found.get(key)) or story
        return [found[key] for key in sorted(found, reverse=True)][:limit]

    async def account_named(self, name: str) -> AccountRecord | None:
        """Look up a canonical login."""
        return self.reader.account_named(name)

    def record(self, id_: AccountId) -> AccountRecord:
        """Return an account's record.  Raises NoSuchAccount."""
        return self.reader.account_record(id_)

    async def accounts(self) -> Sequence[AccountRecord]:
        """All accounts by name, ascending."""
        return self.reader.accounts()

    async def add_accounts(self, accounts: Sequence[tuple[str, str]]) -> Sequence[AccountRecord | MailError]:
        """Create accounts.  Raises StorageFull."""
        self.disk.refuse_if_full()
        roots = {name: self._from_data(root) for name, _ in accounts if (root := self._maildir_of(name)) is not None}
        records: Sequence[AccountRecord | MailError] = await self.write(AddAccounts(accounts, roots))
        if roots:
            self.maildirs.refresh()
        return records

    def _from_data(self, root: Path) -> str:
        """The data folder may be moved with what is in it; what is elsewhere stays there."""
        data = self._folder.path.parent.absolute()
        root = data / root
        return str(root.relative_to(data) if root.is_relative_to(data) else root)

    async def quotas(self, name: str = "") -> Sequence[QuotaUse]:
        """What is used of every quota, or of one account's and those it is in.  Raises NoSuchAccount."""
        record = self.reader.account_named(name) if name else None
        if name and record is None:
            raise NoSuchAccount
        self._checks += 1
        try:
            used = await self._run_blocking(self._reader.usage)
        finally:
            self._leave()
        if name and name not in used:
            raise NoSuchAccount
        return quota_uses(self._quotas, used, name, is_one=bool(name))

    async def set_password(self, name: str, password: str) -> AccountRecord:
        """Replace the hash.  Raises NoSuchAccount."""
        record: AccountRecord = await self.write(SetPassword(name, password))
        return record

    async def remove_account(self, name: str) -> None:
        """Remove an account with all its mail.  Raises NoSuchAccount."""
        await self.write(RemoveAccount(name), frees=True)

    async def check(self, progress: Progress | None = None) -> Report:
        """Read everything and compare.  Runs beside the server: what is newer than its snapshot is left out."""
        if not self._is_open:
            raise StorageFailed(reason="the store is closed")
        check = Check(
            self._environment,
            self._tables,
            self._folder.segments,
            self._folder.hash_key,
            now=self._now(),
            instance=self._instance,
        )
        await self._in_steps(check, progress, "the check")
        return check.report()

    async def plan_repair(self) -> Sequence[Repaired]:
        """What `repair` would do.  Runs beside the server."""

        def plan() -> Sequence[Repaired]:
            with self._environment.begin() as txn:
                return Planner(txn, self._tables, self._folder.segments, int(self._now())).plan().fixes

        return await self.in_thread(plan)

    async def repair(self) -> Sequence[Repaired]:
        """Derive the index anew from what is left, in one commit.  Sessions are not told: none may be open."""
        fixes: Sequence[Repaired] = await self.write(Repair(self._folder.segments), frees=True)
        return fixes

    async def compact(self, percent: int | None = None, progress: Progress | None = None) -> Compacted:
        """Empty the segments in which much is dead.  Runs beside the server."""
        self._refuse_if_closed()
        return await self.compaction.run(percent, progress)

    async def backup(self, target: Path, recipient: str = "", progress: Progress | None = None) -> BackupReport:
        """Add one consistent backup to a folder.  Raises BackupFailed, StorageFailed."""
        self._refuse_if_closed()
        backup = Backup(self._environment, self._tables, self._folder, target, recipient, int(self._now()))
        try:
            await self._in_steps(backup, progress, "the backup")
        except OSError as error:
            raise BackupFailed(f"{error.filename or target}: {error.strerror}; the backup is not complete") from error
        return backup.report()

    def _refuse_if_closed(self) -> None:
        if not self._is_open:
            raise StorageFailed(reason="the store is closed")

    async def _in_steps(self, work: Steps, progress: Progress | None, what: str) -> None:
        """Work in a thread, a step at a time, and close it.  Raises StorageFailed when the store is closed meanwhile."""
        self._checks += 1
        try:
            while self._is_open:
                step = await self._run_blocking(work.step)
                if step is None:
                    return
                if progress is not None:
                    progress(*step)
            raise StorageFailed(reason=f"the store was closed during {what}")
        finally:
            work.close()
            self._leave()

    async def in_thread(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run something that reads the index.  Raises StorageFailed when the store is closed."""
        self._refuse_if_closed()
        self._checks += 1
        try:
            return await self._run_blocking(function, *args, **kwargs)
        finally:
            self._leave()

    def _leave(self) -> None:
        """A thread has let go of the index."""
        self._checks -= 1
        if not self._checks and self._when_idle is not None:
            self._when_idle.callback(None)

    async def close(self) -> None:
        """Finish what was accepted, then release files and threads."""
        if not self._is_open:
            return
        self._is_open = False
        self.sync.close()
        self.compaction.close()
        self.purging.close()
        self._reader.close()
        await self._writer.close()
        if self._checks:
            # Each ends after its slice; LMDB does not survive being closed under a transaction in another thread.
            self._when_idle = Deferred()
            await self._when_idle
        self._segments.close()
        self._environment.close()
        self._folder.close()


def _prepared(content: Content) -> Prepared | Unread:
    if isinstance(content, MemoryContent) and not content.is_scanned:
        return Unread(content.digest, content.size)
    return prepare(content)
