"""Backup, verify and restore, as operations over the store or, where no store is needed, over folders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from livemail.admin.operations import EX_DATA, EX_NO_ACCOUNT, EX_PROBLEMS, Refused, canonical_login
from livemail.interfaces.backup import BackupFailed, IBackupStore
from livemail.interfaces.runtime import RunBlocking
from livemail.interfaces.storage import FetchWant, IAccount, IMailStore, Progress
from livemail.mail.ids import UIDSet
from livemail.storage.lmdb.backup.restore import restore_steps, verify_steps
from livemail.storage.lmdb.backup.sealing import Keys
from livemail.storage.lmdb.backup.source import BackupSource
from livemail.storage.transfer.importer import Importer, Options
from livemail.storage.transfer.source import SourceError


class Backups:
    """What needs the store: making a backup, and bringing messages back into an account."""

    def __init__(self, store: IMailStore, domains: Callable[[], Sequence[str]], run_blocking: RunBlocking) -> None:
        self._store = store
        self._domains = domains
        self._run_blocking = run_blocking

    def operations(self) -> dict[str, Callable[[Mapping[str, Any], Progress], Awaitable[Any]]]:
        """What is offered, by name."""
        return {"store.backup": self.backup, "store.restore": self.restore}

    async def backup(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """target, recipient."""
        try:
            verifyObject(IBackupStore, self._store)
        except Invalid:
            raise Refused("this store cannot be backed up by livemail", EX_PROBLEMS) from None
        store = IBackupStore(self._store)
        try:
            report = await store.backup(Path(arguments["target"]), arguments.get("recipient") or "", progress)
        except BackupFailed as error:
            raise Refused(str(error), EX_PROBLEMS) from None
        return msgspec.to_builtins(report)

    async def restore(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """source, account; generation, identity, from, mailbox, message, again, into: into an account that is there."""
        login = canonical_login(arguments["account"], self._domains())
        record = await self._store.account_named(login)
        if record is None:
            raise Refused(
                f"there is no account {login}; make it with `livemail account add {login}`, its mail comes then",
                EX_NO_ACCOUNT,
            )
        account = await self._store.account(record.id)
        importer = Importer(
            self._store,
            account,
            self._run_blocking,
            progress,
            Options(keep_uids=True, again=arguments.get("again") or "", into=arguments.get("into") or ""),
        )
        try:
            keys = Keys(arguments.get("identity") or "")
            source = await self._run_blocking(
                partial(
                    BackupSource,
                    Path(arguments["source"]),
                    int(arguments.get("generation") or 0),
                    keys,
                    login,
                    mailbox=arguments.get("mailbox") or "",
                    message=arguments.get("message") or "",
                    present={} if arguments.get("into") else await _present(account),
                )
            )
            report = await importer.run(source)
        except (SourceError, BackupFailed) as error:
            raise Refused(str(error), EX_DATA) from None
        return {"account": login, **msgspec.to_builtins(report)}


async def _present(account: IAccount) -> dict[str, tuple[int, frozenset[int]]]:
    """What the account's mailboxes have now."""
    found = {}
    for info in (await account.mailboxes()).mailboxes:
        uids: set[int] = set()
        async for batch in account.fetch(info.id, UIDSet.all(), FetchWant()):
            uids.update(row[0] for row in batch.rows)
        found[info.name] = (info.uid_validity, frozenset(uids))
    return found


def verify(folder: str, generation: int, identity: str, progress: Progress) -> list[str]:
    """Return what is wrong with a backup.  Blocks.  Raises Refused."""
    problems: list[str] = []
    try:
        _walk(verify_steps(Path(folder), generation, Keys(identity), problems), progress)
    except (BackupFailed, OSError) as error:
        raise Refused(str(error), EX_DATA) from None
    return problems


def restore_whole(folder: str, generation: int, identity: str, data: Path, progress: Progress) -> None:
    """Put a whole store into a data folder.  Blocks.  Raises Refused."""
    try:
        _walk(restore_steps(Path(folder), generation, Keys(identity), data), progress)
    except (BackupFailed, OSError) as error:
        raise Refused(str(error), EX_PROBLEMS) from None


def _walk(steps: Iterator[tuple[int, int, str]], progress: Progress) -> None:
    for step in steps:
        progress(*step)
