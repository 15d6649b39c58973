"""A store under test: how each back end is made, and the few calls that make its tests short."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from livemail.interfaces.storage import AppendItem, Delivery, IMailStore, MailboxInfo
from livemail.mail.ids import UIDSet
from livemail.storage.lmdb import LMDBStore
from livemail.storage.memory import MemoryStore
from livemail.storage.placement import PlacementSettings
from livemail.storage.quota import Quotas
from livemail.storage.settings import StorageSettings
from tests.contracts.drive import Pump
from tests.contracts.stores import content, fetch_all, message, read_whole

T = TypeVar("T")

EXAMPLES = int(os.environ.get("LIVEMAIL_TEST_EXAMPLES", "0"))
"""Raises how many examples the long tests run; 0 is the default run."""

QUIET_DISK = {"reserve_octets": 0, "reserve_percent": 0, "reserve_inodes": 0, "reserve_file": 0, "writer": "thread"}
"""Settings under which a test machine whose disk is nearly full still runs the suite, without a process per store."""


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def __call__(self) -> float:
        return self.seconds


class Rig:
    """One open store of a back end, with the pump that drives it.  A subclass says how it is opened."""

    is_durable = False
    is_single_instance = True

    def __init__(
        self,
        *,
        domain: tuple[PlacementSettings, ...] = (),
        account: tuple[PlacementSettings, ...] = (),
        **settings: Any,
    ) -> None:
        self.pump = Pump()
        self.clock = Clock()
        self.settings = StorageSettings(**(QUIET_DISK | settings))
        self.quotas = Quotas.of(self.settings, domain, account)
        self._contents: list[Any] = []
        self._names = itertools.count(1)
        self.store: IMailStore = self.open()

    def open(self) -> IMailStore:
        """Open the store."""
        raise NotImplementedError

    def reopen(self) -> None:
        """Close the store and open what it left behind."""
        self.wait(self.store.close())
        self.store = self.open()

    def close(self) -> None:
        """Close the store and remove what it left behind."""
        for made in self._contents:
            made.close()
        self.wait(self.store.close())

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return self.pump.wait(coroutine)

    def handle(self, account_id: int) -> Any:
        """Return a new handle on an account."""
        return self.wait(self.store.account(account_id))

    def new_account(self, name: str = "") -> Any:
        """Create an account; return a handle on it."""
        (record,) = self.wait(self.store.add_accounts([(name or f"user{next(self._names)}@localhost", "")]))
        return self.handle(record.id)

    def content(self, octets: bytes | None = None) -> Any:
        """Return content, closed at the end of the test."""
        made = self.wait(content(self.store, message() if octets is None else octets))
        self._contents.append(made)
        return made

    def append(self, account: Any, mailbox: str, *octets: bytes, **fields: Any) -> Any:
        """Append messages with the same flags, keywords and date."""
        return self.wait(account.append(mailbox, [AppendItem(self.content(each), **fields) for each in octets]))

    def deliver(self, account: Any, mailbox: str = "INBOX", octets: bytes | None = None, **fields: Any) -> Any:
        """Deliver one message; return the result."""
        (result,) = self.wait(self.store.deliver([Delivery(account.id, mailbox, self.content(octets), **fields)]))
        return result

    def info(self, account: Any, name: str = "INBOX") -> MailboxInfo:
        """Return a mailbox."""
        return self.wait(account.mailbox(name))

    def rows(self, account: Any, name: str = "INBOX", uids: UIDSet | None = None, **want: Any) -> list[Any]:
        """Return the rows of a mailbox."""
        return self.fetch(account, name, uids, **want)["rows"]

    def fetch(self, account: Any, name: str = "INBOX", uids: UIDSet | None = None, **want: Any) -> dict[str, list]:
        """Return rows and wanted columns of a mailbox."""
        return self.wait(fetch_all(account, self.info(account, name).id, uids, **want))

    def read(self, account: Any, mailbox: int, uid: int, piece: int = 1 << 20) -> bytes | None:
        """Return one message's octets, prefix included."""
        return self.wait(read_whole(account, mailbox, uid, piece))


class MemoryRig(Rig):
    """The memory back end."""

    def open(self) -> IMailStore:
        return MemoryStore(now=self.clock, settings=self.settings, quotas=self.quotas)


class LMDBRig(Rig):
    """The LMDB back end in a folder of its own, its writer a real thread."""

    is_durable = True
    maildir_of = staticmethod(lambda folder, name: None)

    def __init__(self, **settings: Any) -> None:
        self._folder = tempfile.mkdtemp(prefix="livemail-contract-")
        super().__init__(**({"segment_octets": 4 * 1024 * 1024} | settings))

    def open(self) -> IMailStore:
        return self.wait(
            LMDBStore.open(
                self._folder,
                self.settings,
                call_from_thread=self.pump.call_from_thread,
                run_blocking=self.pump.run_blocking,
                watcher=self.pump,
                now=self.clock,
                create=True,
                quotas=self.quotas,
                maildir_of=lambda name: self.maildir_of(self._folder, name),
            )
        )

    def close(self) -> None:
        try:
            super().close()
        finally:
            shutil.rmtree(self._folder)


class MaildirRig(LMDBRig):
    """Every account in a Maildir."""

    is_single_instance = False
    maildir_of = staticmethod(lambda folder, name: Path(folder) / "maildir" / name)


RIGS: dict[str, Callable[..., Rig]] = {"memory": MemoryRig, "lmdb": LMDBRig, "maildir": MaildirRig}
DURABLE = ["lmdb", "maildir"]
"""The back ends of RIGS whose `is_durable` holds: by name, because pytest wants names."""
