"""A store that works until it dies: deliveries, flags, copies and expunges at random, compaction beside them, and a log of what was acknowledged.

Arguments: data folder, log file, seed, how many steps, the failpoint at which to die ("-" for none), how often it is passed first.
The log gets one line per acknowledged change, written after the acknowledgement and before the next step:
``add SUBJECT``, ``gone SUBJECT`` or, undeleted, ``came SUBJECT``; before it ``going`` or ``back``, from where on it may be there or not.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
from pathlib import Path

from msgspec import structs

from livemail.interfaces.storage import Delivery
from livemail.mail.flags import FLAGGED, FlagChange
from livemail.mail.ids import UIDSet
from livemail.storage import failpoints
from livemail.storage.lmdb import LMDBStore
from livemail.storage.settings import StorageSettings
from tests.contracts.drive import Pump
from tests.contracts.stores import content, message

SETTINGS = StorageSettings(
    reserve_octets=0,
    reserve_percent=0,
    reserve_inodes=0,
    reserve_file=0,
    segment_octets=8 * 1024,
    memory_content_limit=16 * 1024,
    writer=os.environ.get("CRASH_WRITER", "thread"),
)
IN_FLIGHT = 8


def octets_of(subject: str) -> bytes:
    """The message named by a subject; every seventh is spooled."""
    number = int(subject.rpartition("-")[2])
    return message(subject, body=f"{subject}\r\n" * (6000 if number % 7 == 0 else 20))


def open_store(
    pump: Pump, folder: str, kind: str = os.environ.get("CRASH_STORE", "lmdb"), *, keeps: bool = True
) -> LMDBStore:
    """kind: "maildir" for accounts in Maildirs.  keeps: what is expunged can come back."""
    return pump.wait(
        LMDBStore.open(
            folder,
            structs.replace(SETTINGS, undelete=SETTINGS.undelete if keeps else 0.0),
            call_from_thread=pump.call_from_thread,
            run_blocking=pump.run_blocking,
            watcher=pump,
            create=True,
            maildir_of=lambda name: Path(folder) / "maildir" / name if kind == "maildir" else None,
        )
    )


class Work:
    """Several sessions at once on one account."""

    def __init__(self, folder: str, log: str, seed: int) -> None:
        self._pump = Pump()
        # Kept contents never die: with odd seeds they come back instead, with even ones segments go.
        self._store = open_store(self._pump, folder, keeps=bool(seed % 2))
        self._coming: set[str] = set()
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._random = random.Random(seed)
        self._name = f"m{seed}"
        self._made = 0
        record = self._pump.wait(self._store.account_named("a@localhost"))
        if record is None:
            (record,) = self._pump.wait(self._store.add_accounts([("a@localhost", "")]))
        self._account = self._pump.wait(self._store.account(record.id))

    def note(self, line: str) -> None:
        os.write(self._log, line.encode() + b"\n")

    async def add(self) -> None:
        self._made += 1
        subject = f"{self._name}-{self._made}"
        made = await content(self._store, octets_of(subject))
        try:
            await self._store.deliver([Delivery(self._account.id, "INBOX", made, b"Return-Path: <>\r\n")])
        finally:
            made.close()
        self.note(f"add {subject}")

    async def compact(self) -> None:
        await self._store.compact(1)

    async def change(self) -> None:
        inbox = await self._account.mailbox("INBOX")
        if not inbox.exists:
            return
        uid = self._random.randrange(1, inbox.uid_next)
        one = UIDSet.of([uid])
        what = self._random.randrange(5)
        if what == 0:
            await self._account.store(inbox.id, one, FlagChange("add", FLAGGED, (f"k{uid % 5}",)))
        elif what == 1:
            await self._account.copy(inbox.id, one, "Archive")
            archive = await self._account.mailbox("Archive")
            await self._account.expunge(archive.id, None, only_deleted=False)
        elif what == 2:
            await self.undelete()
        else:
            reader = await self._account.open_content(inbox.id, uid)
            if reader is not None:
                head = await reader.read(0, 200)
                reader.close()
                subject = head.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode()
                if subject in self._coming:
                    return
                self.note(f"going {subject}")
                await self._account.expunge(inbox.id, one, only_deleted=False)
                self.note(f"gone {subject}")

    async def undelete(self) -> None:
        """Bring back one of ours that was in INBOX, or let the oldest go for good."""
        kept = await self._account.deleted(limit=50)
        if self._random.random() < 0.3:
            await self._account.forget_deleted([each.key for each in kept[:1]])
            return
        for each in kept:
            found = re.search(rb"m\d+-\d+", each.envelope)
            assert found is not None
            subject = found[0].decode()
            if each.mailbox == "INBOX" and subject.startswith(self._name + "-") and subject not in self._coming:
                self._coming.add(subject)
                self.note(f"back {subject}")
                if await self._account.undelete([each.key], "INBOX"):
                    self.note(f"came {subject}")
                self._coming.discard(subject)
                return

    def round(self) -> None:
        works = [self.change() if self._random.random() < 0.4 else self.add() for _ in range(IN_FLIGHT)]
        self._pump.gather([*works, self.compact()])


def main() -> None:
    folder, log, seed, rounds, point, skip = sys.argv[1:]
    left = int(skip)

    def die(name: str) -> None:
        nonlocal left
        if name == point:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    work = Work(folder, log, int(seed))
    if point != "-":
        failpoints.install(die)
    sys.stdout.write("working\n")
    sys.stdout.flush()
    for _ in range(int(rounds)):
        work.round()
    sys.stdout.write("alive\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
