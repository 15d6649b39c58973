"""The pool under anything that may happen, in any order: its counts are right, its limits hold, and nobody waits beside free room."""

from __future__ import annotations

import random

import pytest
from twisted.internet.defer import ensureDeferred, succeed
from twisted.internet.task import Clock

from livemail.smtp.relay.pool import Pool
from livemail.smtp.relay.settings import RelaySettings

KEYS = ("a", "b", "c", "d")


class FakeSession:
    is_spent = False

    def __init__(self):
        self.messages = 0

    def farewell(self):
        return None


class FakeConnection:
    def __init__(self):
        self.session, self.is_reusable, self.on_lost, self.rested_since = FakeSession(), True, None, 0.0

    def run(self, dialogue):
        self.is_reusable = False
        return succeed(None)

    def close(self):
        self.is_reusable = False

    def abort(self):
        self.is_reusable = False

    def lose(self):
        self.is_reusable = False
        if self.on_lost is not None:
            self.on_lost(self)


class Model:
    def __init__(self, seed):
        self.source = random.Random(seed)
        self.clock = Clock()
        self.settings = RelaySettings(
            connections_per_host=self.source.randint(1, 3), max_connections=self.source.randint(1, 5), messages_per_connection=4, connection_idle_timeout=5
        )  # fmt: skip
        self.pool = Pool(self.settings, self.clock)
        self.held = []  # (key, connection)
        self.waiting = []  # (key, Deferred, found)

    def take(self, key, fresh):
        found = []
        taking = ensureDeferred(self.pool.take((key,), fresh=fresh))
        taking.addBoth(found.append)
        self.waiting.append((key, taking, found))

    def settle(self):
        for each in list(self.waiting):
            key, _, found = each
            if found:
                self.waiting.remove(each)
                connection = found[0] or FakeConnection()
                assert connection.is_reusable
                self.held.append((key, connection))

    def step(self):
        what = self.source.randint(0, 9)
        if what <= 3:
            self.take(self.source.choice(KEYS), self.source.random() < 0.2)
        elif what <= 7 and self.held:
            key, connection = self.held.pop(self.source.randrange(len(self.held)))
            connection.session.messages += 1
            connection.rested_since = self.clock.seconds()
            if what == 7:
                connection.is_reusable = False
                self.pool.free((key,))
            else:
                self.pool.give((key,), connection)
        elif what == 8 and self.pool._resting:
            self.source.choice(list(self.pool._resting)).lose()
        elif what == 9:
            if self.waiting and self.source.random() < 0.5:
                _, taking, _ = self.waiting.pop(self.source.randrange(len(self.waiting)))
                taking.addErrback(lambda _: None)
                taking.cancel()
            else:
                self.clock.advance(self.source.choice([0.5, 3, 6]))
        self.settle()
        self.check()

    def check(self):
        pool, settings = self.pool, self.settings
        assert pool._open == len(self.held) + len(pool._resting)
        assert pool._open <= settings.max_connections
        for key, host in pool._hosts.items():
            held = sum(1 for other, _ in self.held if (other,) == key)
            assert host.open == held + len(host.resting) <= settings.connections_per_host
        for key, _, _ in self.waiting:
            host = pool._hosts[key,]
            assert host.open >= settings.connections_per_host or (
                pool._open >= settings.max_connections and not pool._resting
            )

    def end(self):
        while self.held or self.waiting:
            key, connection = self.held.pop()
            self.pool.give((key,), connection)
            self.settle()
        self.clock.advance(100)
        assert not self.pool._hosts
        assert self.pool._open == 0
        assert not self.clock.getDelayedCalls()


@pytest.mark.parametrize("seed", range(150))
def test_the_pool(seed):
    model = Model(seed)
    for _ in range(150):
        model.step()
    model.end()
