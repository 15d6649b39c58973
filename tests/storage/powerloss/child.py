"""A store at work, for the recorder: deliveries, flags, moves, expunges, compaction and the queue at random, several at once.

Arguments: data folder, seed, rounds, "lmdb" or "maildir", what is broken ("-" for nothing), file of acknowledgements.  It gets a line of JSON for each:
before what is irrevocable once begun (``moving``, ``going``, ``back``, ``settling``), and after what was acknowledged.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from livemail.interfaces.queue import ClaimLimits, Filing, Outcome, Outgoing, Settlement
from livemail.interfaces.storage import Delivered, Delivery
from livemail.mail.flags import FLAGGED, FlagChange
from livemail.mail.ids import UIDSet
from livemail.storage.lmdb.files.effects import Effects
from livemail.storage.lmdb.flushing import Flusher
from livemail.storage.lmdb.segments import Tail, sync_folder
from livemail.storage.maildir import lines
from tests.contracts.drive import Pump
from tests.contracts.queue_rig import NOT_NOW, OK, SENDER, addressed
from tests.contracts.stores import content
from tests.storage.crash.child import octets_of, open_store

IN_FLIGHT = 6
PREFIX = b"Return-Path: <>\r\n"
QUEUE_PREFIX = b"X: y\r\n"


class Work:
    """Several sessions and a queue runner."""

    def __init__(self, folder: str, seed: int, kind: str, acks: str) -> None:
        self._pump = Pump()
        self._random = random.Random(seed)
        self._acks = os.open(acks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._store = open_store(self._pump, folder, kind)
        (record,) = self._pump.wait(self._store.add_accounts([("a@localhost", "")]))
        self._account = self._pump.wait(self._store.account(record.id))
        self._inbox = self._pump.wait(self._account.mailbox("INBOX")).id
        self._gone: list[str] = []
        self._free: dict[str, int] = {}
        """UID by subject of what lies in INBOX and nothing works on."""
        self._made = 0
        self.note("account")

    def note(self, what: str, **more: Any) -> None:
        os.write(self._acks, json.dumps({"what": what, **more}).encode() + b"\n")

    async def add(self) -> None:
        self._made += 1
        subject = f"m-{self._made}"
        made = await content(self._store, octets_of(subject))
        try:
            (done,) = await self._store.deliver([Delivery(self._account.id, "INBOX", made, PREFIX)])
        finally:
            made.close()
        assert isinstance(done, Delivered)
        self.note("add", subject=subject, uid=done.uid)
        self._free[subject] = done.uid

    async def change(self) -> None:
        if not self._free:
            return
        subject = self._random.choice(sorted(self._free))
        uid = self._free.pop(subject)
        one = UIDSet.of([uid])
        match self._random.choice(["flag", "flag", "move", "expunge"]):
            case "flag":
                keyword = f"k{self._random.randrange(6)}"
                stored = await self._account.store(self._inbox, one, FlagChange("add", FLAGGED, (keyword,)))
                self.note("flag", subject=subject, keyword=keyword, modseq=stored.modseq)
                self._free[subject] = uid
            case "move":
                self.note("moving", subject=subject)
                copied = await self._account.move(self._inbox, one, "Archive")
                self.note("moved", subject=subject, uid=copied.target[0])
            case _:
                self.note("going", subject=subject)
                await self._account.expunge(self._inbox, one, only_deleted=False)
                self.note("gone", subject=subject)
                self._gone.append(subject)

    async def undelete(self) -> None:
        """Bring back one that was expunged, or let the oldest go for good."""
        if not self._gone:
            return
        kept = await self._account.deleted()
        subject = self._gone.pop(self._random.randrange(len(self._gone)))
        key = next(each.key for each in kept if f'"{subject}"'.encode() in each.envelope)
        if self._random.random() < 0.3:
            await self._account.forget_deleted([key])
            return
        self.note("back", subject=subject)
        ((_, uid),) = await self._account.undelete([key], "INBOX")
        self.note("came", subject=subject, uid=uid)
        self._free[subject] = uid

    async def accept(self) -> None:
        self._made += 1
        subject = f"q-{self._made}"
        made = await content(self._store, octets_of(subject))
        try:
            outgoing = Outgoing(made, SENDER, (addressed("u@d1.example"),), prefix=QUEUE_PREFIX)
            filed = await self._store.queue.accept(Filing((), (outgoing,)))
        finally:
            made.close()
        self.note("queued", subject=subject, id=filed.queued[0])

    async def run(self) -> None:
        claims = await self._store.queue.claim(ClaimLimits(2, room=2), 600.0)
        for job in claims.jobs:
            is_over = self._random.random() < 0.6
            outcome = Outcome(
                job.message.recipients[0].number,
                "delivered" if is_over else "deferred",
                OK if is_over else NOT_NOW,
                next_attempt=1.0,
            )
            if is_over:
                self.note("settling", id=job.message.id)
            await self._store.queue.settle([Settlement(job.message.id, (outcome,), (), None)])
            if is_over:
                self.note("settled", id=job.message.id)

    async def compact(self) -> None:
        await self._store.compact(1)

    def round(self) -> None:
        steps: list[Callable[[], Any]] = [
            self.add if self._random.random() < 0.6 else self.change for _ in range(IN_FLIGHT)
        ]
        if self._random.random() < 0.5:
            steps += [self.accept, self.run]
        if self._random.random() < 0.3:
            steps.append(self.undelete)
        if self._random.random() < 0.3:
            steps.append(self.compact)
        self._pump.gather([step() for step in steps])

    def close(self) -> None:
        self._pump.wait(self._store.close())


def _commit_first() -> None:
    flushes: list[Callable[[], None]] = []
    commit = Tail.commit

    def committed(tail: Tail) -> None:
        commit(tail)
        while flushes:
            flushes.pop()()

    Flusher.begin = lambda _, flush: flushes.append(flush)  # type: ignore[method-assign]
    Flusher.end = lambda _: False  # type: ignore[method-assign]
    Tail.commit = committed  # type: ignore[method-assign]


def _only_folder(tail: Tail) -> None:
    if tail._is_folder_changed:
        sync_folder(tail.folder)


def _only_file(tail: Tail) -> None:
    if tail._is_unflushed:
        os.fdatasync(tail._fd)


def break_(what: str) -> None:
    """Take one promise away from the product: what the test must notice."""
    match what:
        case "segment-not-flushed":
            Tail.flush = _only_folder  # type: ignore[method-assign]
        case "segment-folder-not-flushed":
            Tail.flush = _only_file  # type: ignore[method-assign]
        case "index-before-contents":
            _commit_first()
        case "index-made-in-place":
            from livemail.storage.lmdb import recovery

            recovery.make_index = lambda *_: None  # type: ignore[attr-defined]
        case "spool-not-flushed":
            from livemail.storage import spool

            spool._sync.__defaults__ = (lambda _: None,)
        case "maildir-file-not-flushed":
            names = {**vars(os), "fdatasync": lambda _: None}
            lines.os = SimpleNamespace(**names)  # type: ignore[attr-defined]
        case "maildir-folders-not-flushed":
            Effects.flush = lambda _: None  # type: ignore[method-assign]
        case "-":
            pass
        case _:
            raise AssertionError(what)


def main() -> None:
    folder, seed, rounds, kind, broken, acks = sys.argv[1:]
    break_(broken)
    work = Work(folder, int(seed), kind, acks)
    for _ in range(int(rounds)):
        work.round()
    work.close()


if __name__ == "__main__":
    main()
