"""Filters in processes of their own: the same verdicts and edits, and what a process that hangs, eats or dies means."""

from __future__ import annotations

import os
import re
from pathlib import Path as File

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from livemail.filters import Continue, Defer, Server
from livemail.filters.chain import FilterChain, FilterSpec
from livemail.interfaces.filter import ConnectionInfo
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Envelope, Recipient, ReversePath
from livemail.storage.memory.store import MemoryStore
from tests.filters.faults import STAGES, Editing, Misbehaving

FAULTS = File(__file__).with_name("faults.py").read_text().splitlines()

MAIL = b"Subject: one\r\n\r\n" + b"body\r\n" * 20_000 * 5
SMALL = b"Subject: one\r\n\r\nbody\r\n"
SENDER = ReversePath(Path(Address("a", "b.example")))
YOU = Recipient(Path(Address("you", "localhost")))


def later(seconds):
    fires = Deferred()
    reactor.callLater(seconds, fires.callback, None)
    return fires


class Isolated(TestCase):
    timeout = 60

    def setUp(self):
        self.store = MemoryStore()
        self.texts = []
        self.lines = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)

    def _observe(self, event):
        text = formatEvent(event) or ""
        if "failed at" in text or "the process of filter" in text:
            self.lines.append(text)

    def chain(self, *specs):
        chain = FilterChain(
            specs, self.store, reactor, deferToThread, server=Server(reactor=reactor, run_blocking=deferToThread)
        )

        async def over():
            self.flushLoggedErrors()
            for loaded in chain.plan.filters:
                loaded.retire()
                if loaded.worker is not None and loaded.worker.stopped is not None:
                    await loaded.worker.stopped

        self.pids = []
        self.addCleanup(lambda: ensureDeferred(over()))
        return chain

    def spec(self, at, how, **more):
        config = Misbehaving.Config(at=at, how=how)
        return FilterSpec("breaker", Misbehaving, config, isolation="process", **{"timeout": 20.0, **more})

    async def content(self, octets):
        sink = self.store.new_content()
        sink.write(octets)
        return await sink.finish()

    async def pass_through(self, chain, octets=SMALL):
        """Every stage until one objects; the verdict and the outcome."""
        verdict, state = await chain.connect(ConnectionInfo("s", "smtp", "192.0.2.1"))
        envelope = Envelope(SENDER, [YOU])
        outcome = None
        for stage in (
            lambda: state.helo("client"), lambda: state.mail(SENDER), lambda: state.rcpt(YOU), lambda: state.data(envelope)
        ):  # fmt: skip
            if not isinstance(verdict, Continue):
                break
            verdict = await stage()
        if isinstance(verdict, Continue):
            outcome = await state.message(await self.content(octets), envelope)
            verdict = outcome.verdict
        records = list(state.records)
        state.closed()
        return verdict, outcome, records

    async def test_it_sees_and_edits_the_same(self):
        for octets in (SMALL, MAIL):
            here = FilterChain([FilterSpec("e", Editing)], self.store, reactor)
            _, expected, _ = await self.pass_through(here, octets)
            chain = self.chain(FilterSpec("e", Editing, isolation="process"))
            verdict, outcome, records = await self.pass_through(chain, octets)
            self.pids.append(chain.plan.filters[0].worker.pid)
            assert isinstance(verdict, Continue)
            theirs, ours = (each.content.read(0, each.content.size) for each in (outcome, expected))
            pid = re.match(rb"X-Process: (\d+)\r\n", theirs)[1]
            assert int(pid) == self.pids[-1] != os.getpid()
            assert theirs.replace(pid, b"") == ours.replace(b"%d" % os.getpid(), b"")
            assert b"X-Seen: %d %d one\r\n" % ((len(octets) - 16,) * 2) in theirs
            assert records[-1].edits == ("insert-header X-Process", "add-header X-Seen", "add-header X-Read")

    async def _each(self, how, octets=SMALL, **more):
        for at in STAGES:
            chain = self.chain(self.spec(at, how, **more))
            worker = chain.plan.filters[0].worker
            verdict, outcome, _ = await self.pass_through(chain, octets)
            assert isinstance(verdict, Defer), (at, verdict)
            assert outcome is None or outcome.verdict is verdict
            assert re.search(rf"breaker failed at {at}, faults\.py:\d+: ", self.lines[-1]) or any(
                re.search(rf"breaker failed at {at}, faults\.py:\d+: ", line) for line in self.lines
            ), (at, self.lines)
            self.lines.clear()
            self.pids.append(worker.pid)

    async def test_it_raises(self):
        await self._each("raise")

    async def test_what_it_raises_when_it_is_closed_concerns_nobody_else(self):
        chain = self.chain(self.spec("closed", "raise"))
        worker = chain.plan.filters[0].worker
        for _ in range(2):
            verdict, *_ = await self.pass_through(chain)
            assert isinstance(verdict, Continue)
            self.pids.append(worker.pid)
        assert self.pids[0] == self.pids[1]
        number = next(n for n, line in enumerate(FAULTS, 1) if 'ZeroDivisionError("closed")' in line)
        for _ in range(500):
            if self.lines:
                break
            await later(0.02)
        assert f"filter breaker failed at closed, faults.py:{number}: ZeroDivisionError: closed" in self.lines[0]

    async def test_its_process_dies(self):
        await self._each("die")

    async def test_it_exits(self):
        await self._each("exit")

    async def test_it_eats_more_memory_than_it_may(self):
        await self._each("eat_slowly", memory=160 << 20)

    async def test_it_edits_twice(self):
        await self._each("edit_twice")

    async def test_it_answers_nonsense(self):
        await self._each("nonsense")

    async def test_it_spins_and_is_killed_on_the_line_it_is_at(self):
        number = next(n for n, line in enumerate(FAULTS, 1) if "time.sleep(0.01)" in line)
        for at in ("connect", "rcpt", "body"):
            chain = self.chain(self.spec(at, "spin", timeout=1.0))
            worker = chain.plan.filters[0].worker
            verdict, *_ = await self.pass_through(chain)
            assert isinstance(verdict, Defer)
            assert any(f"faults.py:{number}" in line for line in self.lines), self.lines
            self.lines.clear()
            self.pids.append(worker.pid)

    async def test_a_process_that_died_is_replaced_and_what_it_knew_of_a_transaction_is_not_guessed(self):
        chain = self.chain(self.spec("rcpt", "die"), FilterSpec("e", Editing, isolation="process"))
        worker = chain.plan.filters[0].worker
        _, state = await chain.connect(ConnectionInfo("s", "smtp", "192.0.2.1"))
        assert isinstance(await state.mail(SENDER), Continue)
        first = worker.pid
        assert isinstance(await state.rcpt(YOU), Defer)
        assert isinstance(await state.data(Envelope(SENDER, [])), Defer)
        outcome = await state.message(await self.content(SMALL), Envelope(SENDER, [YOU]))
        assert isinstance(outcome.verdict, Defer)
        state.reset()
        await later(1.1)
        assert isinstance(await state.mail(SENDER), Continue)
        assert worker.pid not in {0, first}
        self.pids.append(worker.pid)
        state.closed()

    async def test_a_shared_process_answers_many_transactions_at_once(self):
        chain = self.chain(FilterSpec("e", Editing, isolation="process"))
        answers = []
        for _ in range(20):
            running = ensureDeferred(self.pass_through(chain))
            answers.append(running)
        for answer in answers:
            verdict, outcome, _ = await answer
            assert isinstance(verdict, Continue)
            assert b"X-Seen: 6 6 one" in outcome.content.read(0, 1000)
        self.pids.append(chain.plan.filters[0].worker.pid)
