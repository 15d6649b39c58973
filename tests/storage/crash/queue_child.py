"""A queue that works until it dies: mail accepted, claimed, settled with reports, and changed at random; a log of what was acknowledged.

Arguments as `tests.storage.crash.child`.  A line of the log is written after the acknowledgement and before the next step:
``accepted ID RECIPIENTS``; ``ended ID NUMBER`` (settled).  Before a settlement that ends recipients ``going ID NUMBER REPORT`` is written:
from there on they may be over or not; REPORT is the subject of what reports it, - when nothing does.
"""

from __future__ import annotations

import os
import random
import signal
import sys

from livemail.interfaces.queue import (
    Addressed,
    Choice,
    ClaimLimits,
    Filing,
    Hold,
    Outcome,
    Outgoing,
    Release,
    Settlement,
)
from livemail.interfaces.storage import Delivery
from livemail.mail.address import Path
from livemail.mail.envelope import ReversePath
from livemail.storage import failpoints
from tests.contracts.drive import Pump
from tests.contracts.queue_rig import NEVER, NOT_NOW, OK, SENDER, addressed
from tests.contracts.stores import content
from tests.storage.crash.child import IN_FLIGHT, octets_of, open_store


class Work:
    """Several sessions and one runner at once."""

    def __init__(self, folder: str, log: str, seed: int) -> None:
        self._pump = Pump()
        self._store = open_store(self._pump, folder)
        self._queue = self._store.queue
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._random = random.Random(seed)
        self._seed = seed
        self._made = 0
        record = self._pump.wait(self._store.account_named("a@localhost"))
        if record is None:
            (record,) = self._pump.wait(self._store.add_accounts([("a@localhost", "")]))
        self._account = record.id

    def note(self, line: str) -> None:
        os.write(self._log, line.encode() + b"\n")

    async def accept(self) -> None:
        self._made += 1
        made = await content(self._store, octets_of(f"m{self._seed}-{self._made}"))
        count = self._random.choice([1, 1, 2, 3])
        recipients = tuple(addressed(f"u{n}@d{self._random.randrange(5)}.example") for n in range(count))
        try:
            filing = Filing(
                (Delivery(self._account, "INBOX", made),), (Outgoing(made, SENDER, recipients, prefix=b"X: y\r\n"),)
            )
            filed = await self._queue.accept(filing)
        finally:
            made.close()
        self.note(f"accepted {filed.queued[0]} {count}")

    async def run(self) -> None:
        claims = await self._queue.claim(ClaimLimits(4, room=2), 600.0)
        for job in claims.jobs:
            await self._settle(job)

    async def _settle(self, job) -> None:
        fate = self._random.choice(["delivered", "delivered", "deferred", "failed"])
        reply = {"delivered": OK, "deferred": NOT_NOW, "failed": NEVER}[fate]
        outcomes = tuple(Outcome(one.number, fate, reply, next_attempt=1.0) for one in job.message.recipients)
        report = None
        made = None
        subject = "-"
        if fate == "failed" and not job.message.reverse_path.path.is_null:
            self._made += 1
            subject = f"r{self._seed}-{self._made}"
            made = await content(self._store, octets_of(subject))
            report = Filing((), (Outgoing(made, ReversePath(Path.null), (Addressed(addressed("p@far.example").recipient, "far.example"),)),))  # fmt: skip
        if fate != "deferred":
            for one in job.message.recipients:
                self.note(f"going {job.message.id} {one.number} {subject}")
        try:
            (settled,) = await self._queue.settle([Settlement(job.message.id, outcomes, (), report)])
        finally:
            if made is not None:
                made.close()
        if settled.is_done and fate != "deferred":
            for one in job.message.recipients:
                self.note(f"ended {job.message.id} {one.number}")

    async def change(self) -> None:
        pattern = f"u*@d{self._random.randrange(5)}.example"
        change = self._random.choice([Hold("crash"), Release(), Release()])
        await self._queue.change(Choice(recipient=pattern), change)

    def round(self) -> None:
        steps = [self.change() if self._random.random() < 0.1 else self.accept() for _ in range(IN_FLIGHT - 1)]
        self._pump.gather([self.run(), *steps])


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
