"""Five days of a queue over five hundred domains, half of which fail in changing ways.

``make test`` runs some of the recipients; ``LIVEMAIL_TEST_RECIPIENTS=100000`` runs them all, by the same code, in under a minute.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from functools import partial

from livemail.mail.envelope import Recipient
from tests.contracts.drive import finish
from tests.delivery.queue.world import (
    GO_AWAY,
    NEVER,
    NO_CONNECTION,
    NOT_NOW,
    OK,
    TOO_MUCH,
    Host,
    World,
)

RECIPIENTS = int(os.environ.get("LIVEMAIL_TEST_RECIPIENTS", "4000"))
DOMAINS = 500
HOUR, DAY = 3600.0, 86400.0


class Changing(Host):
    """Works, is down, says 421, is slow, defers, refuses: one after the other, for random times."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance.uniform(0.2, 3))
        self.moods: list[tuple[float, str]] = []
        at = 0.0
        while at < 6 * DAY:
            at += chance.expovariate(1 / chance.choice([0.5 * HOUR, 4 * HOUR, DAY]))
            self.moods.append((at, chance.choice(["well", "well", "down", "421", "defers", "crowded", "refuses"])))
        self.is_dead = chance.random() < 0.1

    def mood(self, now: float) -> str:
        return "down" if self.is_dead else next((mood for until, mood in self.moods if now < until), "well")

    def verdict(self, now: float):
        mood = self.mood(now)
        self.seconds = 30.0 if mood == "down" else 1.0
        return {"down": NO_CONNECTION, "421": GO_AWAY}.get(mood)

    def judge(self, now: float, recipient: Recipient):
        mood = self.mood(now)
        if mood == "defers":
            return "deferred", NOT_NOW
        if mood == "crowded" and self.active > 1:
            return "deferred", TOO_MUCH
        # One mailbox in eight does not exist on a day on which it refuses.
        if mood == "refuses" and hash_of(recipient) % 8 == 0:
            return "failed", NEVER
        return "delivered", OK


def hash_of(recipient: Recipient) -> int:
    """The same in every process, unlike `hash`."""
    assert recipient.path.address is not None
    return sum(recipient.path.address.local_part.encode())


def fill(world: World, chance: random.Random) -> Counter[str]:
    """Accept mail during the first half day: single letters mostly, and lists."""
    expected: Counter[str] = Counter()
    names = [f"d{number}.example" for number in range(DOMAINS)]
    for number, name in enumerate(names):
        world.hosts[name] = Changing(chance) if number % 2 else Host(chance.uniform(0.1, 2))
    made = 0
    at = 0.0
    while made < RECIPIENTS:
        count = min(RECIPIENTS - made, chance.choice([1, 1, 1, 2, 3, 10, 60]))
        some = chance.sample(names, min(4, count))
        addresses = [f"u{made + n}@{chance.choice(some)}" for n in range(count)]
        made += count
        expected.update(addresses)
        at += chance.expovariate(RECIPIENTS / (DAY / 2) / 11)
        priority = chance.choice([0, 0, 0, 5, -5])
        world.clock.callLater(at, partial(world.accept, *addresses, priority=priority))
    return expected


def live(seed: int) -> tuple[World, Counter[str], list[tuple[float, int]]]:
    world = World(seed=seed, lifetime=4 * DAY, retry_most=4 * HOUR, connections=100, destination_connections=8)
    expected = fill(world, random.Random(seed))
    world.runner.start()
    course = []
    for _ in range(10):
        world.run(DAY / 2)
        course.append((world.clock.seconds(), sum(world.relay.delivered.values())))
    return world, expected, course


def test_after_five_days_every_recipient_has_ended_once_and_every_failure_is_reported_once():
    world, expected, course = live(4)
    assert finish(world.queue.stats()).messages == 0
    delivered = Counter(each.partition("<")[2].rstrip(">") for each in world.relay.delivered.elements())
    failed: Counter[str] = Counter()
    delayed: Counter[str] = Counter()
    for line in world.reports():
        action, _, path = line.split()
        {"failed": failed, "delayed": delayed}[action][path.strip("<>")] += 1
    assert delivered + failed == expected
    assert len(failed) > RECIPIENTS / 100
    assert len(delayed) > RECIPIENTS / 50
    assert set(delayed.values()) == {1}
    # Nobody was crowded, and nobody had to wait for the others' troubles.
    assert max(host.most for host in world.hosts.values()) <= world.settings.destination_connections
    assert world.relay.most <= world.settings.connections
    assert course[0][1] > 0.6 * RECIPIENTS
    assert finish(world.store.check()).problems == ()


def test_five_days_are_the_same_days_each_time(monkeypatch):
    monkeypatch.setattr("tests.delivery.queue.test_five_days.RECIPIENTS", 1500)
    (first, _, one), (second, _, other) = live(7), live(7)
    assert one == other
    assert first.relay.delivered == second.relay.delivered
    assert first.reports() == second.reports()
    assert {name: host.attempts for name, host in first.hosts.items()} == {
        name: host.attempts for name, host in second.hosts.items()
    }
