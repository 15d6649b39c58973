"""The queue's contract, by a state machine: random commands on a queue and on the model, compared after every step."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from livemail.interfaces.queue import (
    Addressed,
    Choice,
    DestinationNews,
    Drop,
    Edit,
    Fail,
    Filing,
    Hold,
    Outcome,
    Outgoing,
    Release,
    Retry,
    Settlement,
)
from tests.contracts.queue_model import Entry, QueueModel
from tests.contracts.queue_rig import LEASE, NEVER, NOT_NOW, OK, REFUSED, SENDER, QueueDriver, address_of, recipient
from tests.contracts.rig import EXAMPLES, RIGS

domains = st.sampled_from(["a.example", "b.example", "c.example"])
some_addresses = st.lists(st.builds("{}@{}".format, st.sampled_from("uvw"), domains), min_size=1, max_size=4)
patterns = st.sampled_from(["*", "u@*", "*@a.example", "*@b.example", "v@c.example"])
fates = st.sampled_from(["delivered", "deferred", "deferred", "failed", "moved"])


class QueueMachine(RuleBasedStateMachine):
    """rig: set by the test; one store for all examples, the queue emptied after each."""

    rig = None

    @initialize()
    def begin(self):
        self.driver = QueueDriver(self.rig)
        self.model = QueueModel()
        self.claims = []

    def teardown(self):
        if hasattr(self, "driver"):
            self.rig.clock.seconds += 2 * LEASE
            self.rig.wait(self.driver.queue.reclaim())
            self.driver.change(Drop())
            assert self.driver.stats().messages == self.driver.stats().destinations == 0

    @property
    def now(self):
        return self.rig.clock.seconds

    @rule(seconds=st.sampled_from([1, 10, 100, 400]))
    def time_passes(self, seconds):
        self.rig.clock.seconds += seconds
        if any(each.state == "claimed" and each.until + 500 < self.now for each in self.model.entries):
            self.leases_run_out()  # `check` complains of a queue nobody looks after.

    @rule(addresses=some_addresses, priority=st.sampled_from([0, 0, 5]), later=st.sampled_from([0, 0, 50]))
    def accept(self, addresses, priority, later):
        id_ = self.driver.accept(*addresses, priority=priority, not_before=self.now + later if later else 0.0)
        self.model.entries += [
            Entry(id_, number, address, address.partition("@")[2], priority, self.due_of(address, self.now + later))
            for number, address in enumerate(addresses)
        ]

    def due_of(self, address, due):
        """New mail for a destination that is down waits until that is looked at again."""
        failures, not_before = self.model.down.get(address.partition("@")[2], (0, 0.0))
        return max(due, not_before) if failures else due

    @rule(jobs=st.integers(0, 4), size=st.integers(1, 3), room=st.integers(1, 2))
    def claim_some(self, jobs, size, room):
        self.take(self.driver.claim(jobs, recipients=size, room=room))

    @rule()
    def claim_everything(self):
        due = self.model.due(self.now)
        self.take(self.driver.claim(1000, room=1000, probes=1000))
        left = [each for each in self.model.due(self.now) if each.state != "failing"]
        # Of a destination that is to be probed one job is given, and the rest waits for what it finds.
        assert all(self.model.down.get(each.destination, (0, 0.0))[0] for each in left)
        assert {each.destination for each in left} <= {each.destination for each in due if each.state == "claimed"}

    def take(self, jobs):
        for job in jobs:
            entries = []
            for one in job.message.recipients:
                entry = self.find(job.message.id, one.number)
                assert entry.state in {"queued", "deferred", "failing"}
                assert entry.due <= self.now
                assert (entry.state == "failing") == job.is_decided
                if not job.is_decided:
                    assert entry.destination == job.destination
                    failures, not_before = self.model.down.get(job.destination, (0, 0.0))
                    assert job.failures == failures
                    assert (job.down is not None) == (failures > 0 and not_before > self.now)
                entry.before, entry.state, entry.until = entry.state, "claimed", self.now + LEASE
                entries.append(entry)
            self.claims.append((job, entries))

    def find(self, id_, number):
        (found,) = [each for each in self.model.entries if (each.message, each.number) == (id_, number)]
        return found

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), is_down=st.booleans())
    def settle(self, data, is_down):
        job, entries = self.claims.pop(data.draw(st.integers(0, len(self.claims) - 1)))
        chosen = [data.draw(fates) if not job.is_decided else "failed" for _ in entries]
        outcomes = tuple(
            Outcome(entry.number, fate, REPLIES[fate], next_attempt=self.now + 60, destination="c.example")
            for entry, fate in zip(entries, chosen, strict=True)
        )
        is_learning = not job.is_decided
        news = DestinationNews(job.destination, int(is_down), self.now + 30 if is_down else 0.0, REFUSED)
        (settled,) = self.rig.wait(
            self.driver.queue.settle([Settlement(job.message.id, outcomes)], [news] if is_learning else [])
        )
        is_ours = all(each.state == "claimed" and each in self.model.entries for each in entries)
        assert settled.is_done == is_ours
        if is_learning:
            self.model.down[job.destination] = (int(is_down), news.not_before)
        if is_ours:
            for entry, fate in zip(entries, chosen, strict=True):
                self.settle_one(entry, fate)
        self.model.tidy()

    def settle_one(self, entry, fate):
        if fate in {"delivered", "failed"}:
            entry.state, entry.pending = fate, ""
            entry.attempts += 1
            return
        entry.state = entry.before
        if fate == "moved":
            entry.destination, entry.due = "c.example", self.now
        else:
            entry.state, entry.due = "deferred", self.now + 60
            entry.attempts += 1
        self.model.come_back(entry)

    @rule()
    def leases_run_out(self):
        self.rig.wait(self.driver.queue.reclaim())
        self.model.reclaim(lambda each: each.until <= self.now)
        self.forget_void_claims()

    @rule()
    def the_store_is_opened_anew(self):
        if self.rig.is_durable:
            self.rig.reopen()
            self.model.reclaim(lambda _: True)
            self.forget_void_claims()

    def forget_void_claims(self):
        """Those whose recipients were given to others meanwhile would look as if they were ours."""
        self.claims = [claim for claim in self.claims if all(each.state == "claimed" for each in claim[1])]

    # ---------------------------------------------------------------------------------------------------- changes

    @rule(pattern=patterns)
    def hold(self, pattern):
        changed = 0
        for each in self.model.matching(pattern):
            if each.state in {"queued", "deferred"}:
                each.state, each.since = "held", self.now
            elif each.state == "claimed" and each.before != "failing":
                each.pending = "hold"
            else:
                continue
            changed += 1
        assert self.driver.change(Hold(), recipient=pattern).changed == changed
        self.model.tidy()

    @rule(pattern=patterns)
    def release(self, pattern):
        for each in self.model.matching(pattern):
            if each.state == "held":
                each.state, each.due = "deferred" if each.attempts else "queued", self.now
                each.extended += max(0, self.now - each.since)
            elif each.state == "claimed" and each.pending == "hold":
                each.pending = ""
        self.driver.change(Release(), recipient=pattern)

    @rule(pattern=patterns)
    def retry(self, pattern):
        for each in self.model.matching(pattern):
            if each.state in {"queued", "deferred"}:
                each.due = min(each.due, self.now)
                failures = self.model.down.get(each.destination, (0, 0.0))[0]
                self.model.down[each.destination] = (failures, 0.0)
        self.driver.change(Retry(), recipient=pattern)

    @rule(pattern=patterns, state=st.sampled_from(["", "held", "claimed"]))
    def drop(self, pattern, state):
        chosen = self.model.matching(pattern, state)
        for each in chosen:
            if each.state == "claimed":
                each.pending = "drop"
            else:
                self.model.entries.remove(each)
        choice = {"states": frozenset([state])} if state else {}
        assert self.driver.change(Drop(), recipient=pattern, **choice).changed == len(chosen)
        self.model.tidy()

    @rule(pattern=patterns)
    def fail(self, pattern):
        for each in self.model.matching(pattern):
            if each.state == "claimed" and each.before != "failing":
                each.pending = "fail"
            elif each.state in {"queued", "deferred", "held"}:
                each.state, each.due = "failing", self.now
        self.driver.change(Fail(NEVER), recipient=pattern)
        self.model.tidy()

    @rule(pattern=patterns)
    def edit(self, pattern):
        chosen = self.model.matching(pattern)
        messages = {each.message for each in chosen}
        for each in chosen:
            if each.state != "claimed":
                each.address, each.destination = "u@b.example", "b.example"
        for each in self.model.entries:
            if each.message in messages:
                each.priority = 3
        edit = Edit(recipient("u@b.example"), "b.example", priority=3)
        self.driver.change(edit, recipient=pattern)
        self.model.tidy()

    @rule(addresses=some_addresses)
    def report(self, addresses):
        """A settlement that files something: as `accept`, in the same commit."""
        jobs = self.driver.claim(1, recipients=1)
        self.take(jobs)
        if not jobs:
            return
        job, entries = self.claims.pop()
        outgoing = Outgoing(
            self.rig.content(),
            SENDER,
            tuple(Addressed(recipient(each), each.partition("@")[2]) for each in addresses),
        )
        settled = self.driver.settle(job, "failed", report=Filing((), (outgoing,)))
        for entry in entries:
            self.settle_one(entry, "failed")
        self.model.entries += [
            Entry(
                settled.filed.queued[0], number, address, address.partition("@")[2], 0, self.due_of(address, self.now)
            )
            for number, address in enumerate(addresses)
        ]
        self.model.tidy()

    # ------------------------------------------------------------------------------------------------- comparison

    @invariant()
    def queue_and_model_agree(self):
        if not hasattr(self, "driver"):
            return
        every = frozenset(["queued", "deferred", "claimed", "held", "failing", "delivered", "failed"])
        page = self.rig.wait(self.driver.queue.find(Choice(states=every)))
        seen = [
            (message.id, one.number, address_of(one), one.destination, message.priority, one.state, one.attempts)
            for message in page.messages
            for one in message.recipients
        ]
        assert seen == [
            (each.message, each.number, each.address, each.destination, each.priority, each.state, each.attempts)
            for each in self.model.entries
        ]
        waiting = {
            (message.id, one.number): (one.next_attempt, one.extended)
            for message in page.messages
            for one in message.recipients
            if one.state in {"queued", "deferred", "failing"}
        }
        assert waiting == {
            (each.message, each.number): (each.due, each.extended)
            for each in self.model.entries
            if each.state in {"queued", "deferred", "failing"}
        }
        counts = {}
        for each in self.model.entries:
            if not each.is_over:
                counts[each.state] = counts.get(each.state, 0) + 1
        assert self.driver.counts() == counts
        assert self.rig.wait(self.rig.store.check()).problems == ()


REPLIES = {"delivered": OK, "deferred": NOT_NOW, "failed": NEVER, "moved": None}


@pytest.mark.parametrize("name", RIGS)
def test_a_queue_agrees_with_the_model(name):
    rig = RIGS[name]()
    machine = type("Machine", (QueueMachine,), {"rig": rig})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES or (80 if name == "memory" else 20),
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                # A failure is short enough to be read, and shrinking it takes five minutes.
                phases=[Phase.generate],
                database=None,
            ),
        )
        assert rig.wait(rig.store.check()).contents == 0
    finally:
        rig.close()
