"""When an account's folder is compared with the index.

Asked for: before a mailbox is opened, looked at or listed.  By itself: every `POLL_SECONDS` for accounts somebody watches.  Two
times of the last change, of ``cur`` and ``new``, say whether there can be something new; our own changes move the stamp in the
index along.  A time has a grain, so that a change of somebody else may hide behind one of ours: a folder that changed since it
was read last is read again after `RECHECK_SECONDS`, however its stamp looks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from livemail.interfaces.runtime import RunBlocking
from livemail.mail.errors import MailError, NoSuchMailbox, StorageFailed
from livemail.mail.ids import AccountId, MailboxId
from livemail.mail.names import INBOX, superiors
from livemail.storage.lmdb.files.compare import Difference, Found, batches, compare
from livemail.storage.lmdb.files.operations import AdoptMailbox, DropMailbox, TakeIn
from livemail.storage.lmdb.files.reading import MaildirReader
from livemail.storage.lmdb.operations.group import Operation
from livemail.storage.lmdb.reader import Reader
from livemail.storage.lmdb.records import MAILBOX_KEY
from livemail.storage.lmdb.schema import Environment, Tables
from livemail.storage.maildir.folders import stamp
from livemail.storage.maildir.names import NAME_FILE, folder_name, is_hashed, mailbox_name

POLL_SECONDS: Final = 2.0
RECHECK_SECONDS: Final = 10.0
PROGRESS_EVERY: Final = 10_000

_log = Logger()


class Write(Protocol):
    """Runs an operation in the writer."""

    def __call__(self, operation: Operation, /) -> Deferred[Any]:
        """Fires when it is durable."""


class MaildirSync:
    """Keeps the index of every account in a Maildir up to date."""

    def __init__(
        self,
        environment: Environment,
        tables: Tables,
        reader: Reader,
        maildirs: MaildirReader,
        hash_key: bytes,
        write: Write,
        run_blocking: RunBlocking,
        seconds: Callable[[], float],
    ) -> None:
        """seconds: a clock that never goes back."""
        self._environment = environment
        self._tables = tables
        self._reader = reader
        self._maildirs = maildirs
        self._hash_key = hash_key
        self._write = write
        self._run_blocking = run_blocking
        self._seconds = seconds
        self._locks: dict[AccountId, DeferredLock] = {}
        self._roots: dict[AccountId, int] = {}
        self._read_at: dict[bytes, tuple[float, bytes]] = {}
        self._watched: dict[AccountId, int] = {}
        self._clock: IReactorTime | None = None
        self._is_polling = False

    # ------------------------------------------------------------------------------------------------------- asked for

    async def mailbox(self, account: AccountId, name: str) -> None:
        """Bring one mailbox up to date.  Raises StorageFailed when the account's folder is not there."""
        root = self._maildirs.root(account)
        if root is None or not self._is_stale(account, root, name):
            return
        await self._locked(account, lambda: self._bring(account, root, name))

    async def account(self, account: AccountId) -> None:
        """Bring an account up to date: which mailboxes there are, and each of them.  Raises as `mailbox`."""
        root = self._maildirs.root(account)
        if root is None:
            return
        await self._locked(account, lambda: self._bring_all(account, root))

    async def _locked(self, account: AccountId, work: Callable[[], Any]) -> None:
        lock = self._locks.setdefault(account, DeferredLock())
        await lock.acquire()
        try:
            await work()
        finally:
            lock.release()

    def _is_stale(self, account: AccountId, root: Path, name: str) -> bool:
        """Whether the folder may have something the index does not know."""
        folder = root / folder_name(name)
        try:
            now = stamp(folder)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise StorageFailed(reason=f"{folder}: {error.strerror}") from error
        try:
            key = MAILBOX_KEY.pack(account, self._reader.mailbox(account, name).id)
        except NoSuchMailbox:
            return True
        with self._environment.begin() as txn:
            known = txn.get(key, db=self._tables.mdir)
        if known != now:
            return True
        at, read = self._read_at.get(key, (float("-inf"), b""))
        return read != now and self._seconds() - at >= RECHECK_SECONDS

    async def _bring_all(self, account: AccountId, root: Path) -> None:
        await self._bring_mailboxes(account, root)
        for info in self._reader.mailboxes(account).mailboxes:
            if self._is_stale(account, root, info.name):
                await self._bring(account, root, info.name)

    async def _bring_mailboxes(self, account: AccountId, root: Path) -> None:
        """Adopt folders that are new, drop mailboxes whose folder is gone."""
        try:
            changed = _root_changed(root)
        except OSError as error:
            raise StorageFailed(
                "The mail folder is not available", reason=f"{root}: {error.strerror}; mount its disk, or restore it"
            ) from error
        if self._roots.get(account) == changed:
            return
        there = await self._run_blocking(_mailboxes_in, root)
        known = {info.name for info in self._reader.mailboxes(account).mailboxes} - {INBOX}
        needed = {above for name in there for above in superiors(name)}
        for name in sorted(there - known):
            await self._attempt(AdoptMailbox(account, name), f"{root}: the folder of {name}")
        for name in sorted(known - there - needed):
            await self._attempt(DropMailbox(account, name), f"{root}: the folder of {name}")
        self._roots[account] = changed

    async def _attempt(self, operation: Operation, what: str) -> None:
        try:
            await self._write(operation)
        except MailError as error:
            _log.warn("{what} cannot be taken into the index: {error}", what=what, error=str(error))

    async def _bring(self, account: AccountId, root: Path, name: str) -> None:
        """Bring one mailbox up to date, if it is one."""
        folder = root / folder_name(name)
        try:
            mailbox = self._reader.mailbox(account, name).id
        except NoSuchMailbox:
            await self._bring_mailboxes(account, root)
            try:
                mailbox = self._reader.mailbox(account, name).id
            except NoSuchMailbox:
                return
        key = MAILBOX_KEY.pack(account, mailbox)
        try:
            difference = await self._run_blocking(compare, self._environment, self._tables, key, folder)
        except FileNotFoundError:
            self._roots.pop(account, None)
            await self._bring_mailboxes(account, root)
            return
        except OSError as error:
            raise StorageFailed(reason=f"{folder}: {error.strerror}") from error
        self._read_at[key] = (self._seconds(), difference.stamp)
        try:
            await self._take(account, mailbox, folder, difference)
        except NoSuchMailbox:
            return  # Deleted meanwhile.

    async def _take(self, account: AccountId, mailbox: MailboxId, folder: Path, difference: Difference) -> None:
        uidlist = difference.uidlist
        validity, following = (uidlist.uid_validity, uidlist.uid_next) if uidlist is not None else (0, 0)
        steps = batches(folder, difference, self._hash_key)
        batch: list[Found] = []
        gone, changed = difference.gone, difference.changed
        done = told = 0
        total = len(difference.added)
        while True:
            following_batch = await self._run_blocking(next, steps, None) if total else None
            if following_batch is None:
                break
            if batch:
                await self._write(TakeIn(account, mailbox, batch, gone, changed, uid_validity=validity))
                gone, changed = (), ()
                done += len(batch)
                if done - told >= PROGRESS_EVERY:
                    told = done
                    _log.info("{folder}: {done} of {total} messages read", folder=folder, done=done, total=total)
            batch = following_batch
        await self._write(
            TakeIn(account, mailbox, batch, gone, changed, difference.stamp, uid_validity=validity, uid_next=following)
        )

    # ------------------------------------------------------------------------------------------------------- by itself

    def poll_with(self, clock: IReactorTime) -> None:
        """Look after watched accounts as time passes on ``clock``."""
        self._clock = clock
        self._poll_later()

    def watch(self, account: AccountId) -> None:
        """Somebody wants to hear of changes."""
        if self._maildirs.root(account) is not None:
            self._watched[account] = self._watched.get(account, 0) + 1
            self._poll_later()

    def unwatch(self, account: AccountId) -> None:
        """One does not any more."""
        left = self._watched.get(account, 0) - 1
        if left > 0:
            self._watched[account] = left
        else:
            self._watched.pop(account, None)

    def _poll_later(self) -> None:
        if self._clock is not None and self._watched and not self._is_polling:
            self._is_polling = True
            self._clock.callLater(POLL_SECONDS, self._poll)

    def _poll(self) -> None:
        Deferred.fromCoroutine(self._poll_all()).addBoth(self._polled)

    async def _poll_all(self) -> None:
        for account in list(self._watched):
            try:
                await self.account(account)
            except MailError as error:
                _log.warn("account {account}: {error}", account=account, error=str(error))

    def _polled(self, result: object) -> None:
        if isinstance(result, Failure):
            _log.failure("looking after Maildirs failed", result)
        self._is_polling = False
        self._poll_later()

    def close(self) -> None:
        """No more polling."""
        self._clock = None
        self._watched.clear()


def _root_changed(root: Path) -> int:
    (root / "cur").stat()
    return root.stat().st_mtime_ns


def _mailboxes_in(root: Path) -> set[str]:
    """Return the mailboxes that have a folder."""
    found = set()
    for entry in root.iterdir():
        if not entry.name.startswith(".") or not (entry / "cur").is_dir() or entry.is_symlink():
            continue
        name = mailbox_name(entry.name)
        if is_hashed(entry.name):
            try:
                name = (entry / NAME_FILE).read_text(encoding="utf-8")
            except (OSError, UnicodeError):
                continue
            name = name if folder_name(name) == entry.name else None
        if name is not None:
            found.add(name)
    return found
