"""A simulated world of mail hosts, and a runner in it: everything is decided by a seed and a clock that tests move."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from livemail.delivery.queue.runner import Runner
from livemail.delivery.queue.settings import QueueSettings
from livemail.interfaces.queue import (
    Addressed,
    Concerned,
    Filing,
    Outgoing,
    QueuedMessage,
    Report,
)
from livemail.interfaces.relay import (
    Attempt,
    Attempted,
    Hops,
    IRelay,
    IRouting,
    Job,
    NextHop,
    RecipientResult,
    Reply,
)
from livemail.interfaces.storage import Delivery, IContentReader, IMailStore
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Envelope, Recipient, ReversePath
from livemail.net.coroutines import Run
from livemail.storage.memory import MemoryStore
from tests.contracts.drive import finish
from tests.contracts.stores import content

START = 1_700_000_000.0

OK = Reply(250, "2.0.0", "OK", "content")
NOT_NOW = Reply(451, "4.3.0", "not now", "rcpt")
TOO_MUCH = Reply(450, "4.7.1", "too many connections, slow down", "rcpt")
NEVER = Reply(550, "5.1.1", "no such user", "rcpt")
NO_CONNECTION = Reply(421, "4.4.1", "connection timed out", "connect", is_remote=False)
GO_AWAY = Reply(421, "4.3.2", "shutting down", "greeting")

Judge = Callable[[float, Recipient], tuple[str, Reply]]
"""(seconds since START, recipient) → fate and reply."""

SENDER = Address("ann", "here.example")


class Call:
    """A delayed call."""

    __slots__ = ("arguments", "function", "is_active")

    def __init__(self, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.is_active = True

    def active(self) -> bool:
        return self.is_active

    def cancel(self) -> None:
        self.is_active = False


class HeapClock:
    """As `twisted.internet.task.Clock`, which sorts all calls each time one is made; five days have a million."""

    def __init__(self) -> None:
        self._now = 0.0
        self._calls: list[tuple[float, int, Call]] = []
        self._made = 0

    def seconds(self) -> float:
        return self._now

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> Call:  # noqa: A002
        call = Call(callable, args)
        self._made += 1
        heappush(self._calls, (self._now + delay, self._made, call))
        return call

    def run(self, seconds: float) -> None:
        """Let time pass, from one call to the next."""
        end = self._now + seconds
        while self._calls and self._calls[0][0] <= end:
            when, _, call = heappop(self._calls)
            self._now = max(self._now, when)
            if call.is_active:
                call.is_active = False
                call.function(*call.arguments)
        self._now = end


class Host:
    """The hosts of one domain.  verdict: None while they can be talked to, else the reply that says they cannot."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.active = 0
        self.most = 0
        self.attempts = 0

    def verdict(self, now: float) -> Reply | None:
        """What is the matter at ``now``, seconds since START."""

    def judge(self, now: float, recipient: Recipient) -> tuple[str, Reply]:
        """What they say to a recipient."""
        return "delivered", OK


@implementer(IRouting)
class Routing:
    """Every domain is its own destination, unless told otherwise."""

    def __init__(self) -> None:
        self.destinations: dict[str, str] = {}
        self.errors: dict[str, Exception] = {}

    def destination(self, domain: str) -> str:
        return self.destinations.get(domain, domain)

    async def hops(self, domain: str) -> Hops:
        if domain in self.errors:
            raise self.errors[domain]
        return Hops(self.destination(domain), (NextHop(f"mx.{domain}"),))


@implementer(IRelay)
class Relay:
    """Talks to simulated hosts; takes time by the clock, and counts."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.active = 0
        self.most = 0
        self.delivered: Counter[str] = Counter()
        self.jobs: list[Job] = []
        self.keeps_jobs = False
        self.is_closed = False

    async def attempt(self, hops: Hops, job: Job) -> Attempted:
        if self.keeps_jobs:
            self.jobs.append(job)
        host = self.world.host(hops.destination)
        started = self.world.now()
        self.active += 1
        self.most = max(self.most, self.active)
        host.active += 1
        host.attempts += 1
        host.most = max(host.most, host.active)
        done: Deferred[None] = Deferred()
        self.world.clock.callLater(host.seconds, done.callback, None)
        try:
            await done
        finally:
            self.active -= 1
            host.active -= 1
        now = self.world.now() - START
        down = host.verdict(now)
        results = []
        for one in job.recipients:
            fate, reply = ("deferred", down) if down is not None else host.judge(now, one)
            if fate == "delivered":
                self.delivered[f"{job.id} {one.path}"] += 1
            results.append(RecipientResult(one, fate, reply, hops.hops[0].host))  # type: ignore[arg-type]
        last = down or results[-1].reply
        attempt = Attempt(started, host.seconds, hops.hops[0].host, "192.0.2.1", "", last)
        return Attempted(tuple(results), (attempt,), is_down=down is not None)

    async def close(self) -> None:
        self.is_closed = True


class World:
    """Hosts, a store, and the runner of its queue."""

    def __init__(self, *, seed: int = 1, store: IMailStore | None = None, **settings: Any) -> None:
        self.clock = HeapClock()
        self.random = random.Random(seed)
        self.store = store or MemoryStore(now=self.now)
        self.queue: Any = self.store.queue
        self.hosts: dict[str, Host] = {}
        self.routing = Routing()
        self.relay = Relay(self)
        self.reported: Counter[tuple[str, str]] = Counter()
        self.reporter: Any = self.report
        self.settings = QueueSettings(**settings)
        (self.account,) = finish(self.store.add_accounts([(str(SENDER), "")]))
        self.runner = self.new_runner()

    def new_runner(self) -> Runner:
        return Runner(
            self.queue,
            self.routing,
            self.relay,
            self.reporter_of,
            self.file,
            self.settings,
            clock=self.clock,
            now=self.now,
            random=self.random.random,
            running=Run,
        )

    def now(self) -> float:
        return START + self.clock.seconds()

    def host(self, name: str) -> Host:
        return self.hosts.setdefault(name, Host())

    async def reporter_of(
        self, message: QueuedMessage, original: IContentReader, concerned: Sequence[Concerned]
    ) -> Sequence[Report]:
        """Whatever the test has put in place of `report`."""
        reports: Sequence[Report] = await self.reporter(message, original, concerned)
        return reports

    async def report(
        self, message: QueuedMessage, original: IContentReader, concerned: Sequence[Concerned]
    ) -> Sequence[Report]:
        """A line for each recipient."""
        if message.reverse_path.path.is_null:
            return ()
        lines = [f"{each.action} {message.id} {each.recipient.recipient.path}\r\n" for each in concerned]
        made = await content(self.store, "".join(["Subject: report\r\n\r\n", *lines]).encode())
        return [Report(made, Envelope(ReversePath(Path.null), [Recipient(message.reverse_path.path)]))]

    async def file(self, report: Report) -> Filing:
        return Filing((Delivery(self.account.id, "INBOX", report.content),))

    def accept(self, *addresses: str, octets: bytes = b"Subject: x\r\n\r\ntext\r\n", **fields: Any) -> int:
        """Put a message on the queue."""
        made = finish(content(self.store, octets))
        fields = {"reverse_path": ReversePath(Path(SENDER))} | fields
        recipients = tuple(map(self.addressed, addresses))
        (id_,) = finish(self.queue.accept(Filing((), (Outgoing(made, recipients=recipients, **fields),)))).queued
        return int(id_)

    def addressed(self, address: str) -> Addressed:
        local, _, domain = address.rpartition("@")
        return Addressed(Recipient(Path(Address(local, domain))), self.routing.destination(domain))

    def run(self, seconds: float) -> None:
        """Let time pass, from one event to the next."""
        self.clock.run(seconds)

    def reports(self) -> list[str]:
        """The lines of every report that was filed."""
        from tests.contracts.stores import fetch_all

        account = finish(self.store.account(self.account.id))
        inbox = finish(account.mailbox("INBOX"))
        contents = finish(fetch_all(account, inbox.id, contents=True, contents_up_to=1 << 30)).get("contents", [])
        return [line.decode() for octets in contents for line in octets.split(b"\r\n\r\n", 1)[1].splitlines()]
