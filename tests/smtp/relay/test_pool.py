"""Connections at rest: who gets them, how many there are, when they end."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, ensureDeferred

from livemail.smtp.relay.pool import Pool, key_of
from livemail.smtp.relay.settings import RelaySettings
from tests.smtp.relay.peer import STALL, Peer
from tests.smtp.relay.rig import Rig, hop, job

KEY = key_of("d", hop())
OTHER = key_of("e", hop())


class Pooled:
    def __init__(self, **settings):
        self.settings = RelaySettings(**settings)
        self.first = Rig(Peer(), settings=self.settings)
        self.clock = self.first.clock
        self.pool = Pool(self.settings, self.clock)

    def connection(self, **actions):
        rig = Rig(Peer(**actions), settings=self.settings)
        rig.clock = self.clock
        rig.connection._clock = self.clock
        assert rig.introduce() is None
        assert rig.send(job()) is None
        return rig

    def take(self, key=KEY, **how):
        found = []
        taking = ensureDeferred(self.pool.take(key, **how))
        taking.addBoth(found.append)
        return taking, found


@pytest.fixture
def pooled():
    return Pooled(connections_per_host=2, max_connections=3, connection_idle_timeout=5, messages_per_connection=3)


def test_a_connection_is_used_again_by_its_own_key_alone(pooled):
    assert pooled.take()[1] == [None]
    rig = pooled.connection()
    pooled.pool.give(KEY, rig.connection)
    assert pooled.take(OTHER)[1] == [None]
    assert pooled.take()[1] == [rig.connection]
    assert not rig.transport.is_lost


def test_what_decides_the_dialogue_is_in_the_key():
    plain = hop()
    for other in (
        hop(26), hop(tls="verify"), hop(protocol="lmtp"), hop(login="u"), hop(password="p"), hop(source=("127.0.0.2",)), hop(reference="x"), hop(implicit_tls=True), hop(path="/x"),
    ):  # fmt: skip
        assert key_of("d", other) != key_of("d", plain)
    assert key_of("d", hop(addresses=("127.0.0.9",))) == key_of("d", plain)


def test_who_finds_no_room_waits_his_turn(pooled):
    assert pooled.take()[1] == pooled.take()[1] == [None]
    _, third = pooled.take()
    cancelled, fourth = pooled.take()
    _, fifth = pooled.take()
    assert third == fourth == fifth == []
    cancelled.cancel()
    assert fourth[0].check(CancelledError)
    rig = pooled.connection()
    pooled.pool.give(KEY, rig.connection)
    assert third == [rig.connection]
    pooled.pool.free(KEY)
    assert fifth == [None]


def test_a_rest_that_lasts_too_long_ends_with_quit(pooled):
    pooled.take()
    rig = pooled.connection()
    pooled.pool.give(KEY, rig.connection)
    pooled.clock.advance(4.9)
    assert not rig.transport.is_lost
    pooled.clock.advance(0.2)
    rig.transport.run()
    assert rig.peer.lines[-1] == b"QUIT"
    assert rig.transport.is_lost
    assert pooled.take()[1] == [None]


def test_a_connection_ends_after_its_messages_and_when_the_peer_says_so(pooled):
    pooled.take()
    rig = pooled.connection()
    rig.send(job())
    rig.send(job())
    pooled.pool.give(KEY, rig.connection)
    rig.transport.run()
    assert rig.peer.lines[-1] == b"QUIT"
    pooled.take()
    rig = Rig(Peer((b"LIMITS MAILMAX=1",)), settings=pooled.settings)
    rig.introduce()
    rig.send(job())
    pooled.pool.give(KEY, rig.connection)
    rig.transport.run()
    assert rig.peer.lines[-1] == b"QUIT"


def test_a_connection_lost_at_rest_is_forgotten_and_its_room_is_given(pooled):
    pooled.take()
    pooled.take()
    rig, other = pooled.connection(), pooled.connection()
    pooled.pool.give(KEY, rig.connection)
    pooled.pool.give(KEY, other.connection)
    other.transport.lose()
    assert pooled.take()[1] == [rig.connection]
    assert pooled.take()[1] == [None]
    assert pooled.take()[1] == []


def test_room_in_all_is_made_of_who_rests_longest(pooled):
    pooled.take()
    pooled.take()
    first, second = pooled.connection(), pooled.connection()
    pooled.pool.give(KEY, first.connection)
    pooled.pool.give(KEY, second.connection)
    assert pooled.take(OTHER)[1] == pooled.take(OTHER)[1] == [None]
    first.transport.run()
    assert first.transport.is_lost
    assert not second.transport.is_lost
    third = key_of("f", hop())
    assert pooled.take(third)[1] == [None]  # `second` goes
    _, fourth = pooled.take(key_of("g", hop()))
    assert fourth == []
    pooled.pool.free(OTHER)
    assert fourth == [None]


def test_a_fresh_connection_is_made_beside_one_at_rest(pooled):
    pooled.take()
    pooled.take()
    rigs = [pooled.connection(), pooled.connection()]
    for rig in rigs:
        pooled.pool.give(KEY, rig.connection)
    assert pooled.take(fresh=True)[1] == [None]
    rigs[0].transport.run()
    assert rigs[0].transport.is_lost
    assert pooled.take()[1] == [rigs[1].connection]


def test_the_last_connection_of_a_host_makes_room_for_a_fresh_one_of_the_same():
    pooled = Pooled(connections_per_host=1, max_connections=1)
    pooled.take()
    rig = pooled.connection()
    pooled.pool.give(KEY, rig.connection)
    assert pooled.take(fresh=True)[1] == [None]
    _, waiting = pooled.take()
    assert waiting == []
    pooled.pool.free(KEY)
    assert waiting == [None]
    pooled.pool.free(KEY)
    assert not pooled.pool._hosts
    assert pooled.pool._open == 0


def test_room_in_all_is_made_even_of_the_same_host():
    pooled = Pooled(connections_per_host=5, max_connections=1)
    pooled.take()
    rig = pooled.connection()
    pooled.pool.give(KEY, rig.connection)
    assert pooled.take(fresh=True)[1] == [None]
    pooled.pool.free(KEY)
    assert not pooled.pool._hosts
    assert pooled.pool._open == 0


def test_a_connection_found_dead_when_it_is_wanted_leaves_its_room(pooled):
    pooled.take()
    rig = pooled.connection()
    pooled.pool.give(KEY, rig.connection)
    rig.connection._replies.feed(b"25")  # half a reply nobody asked for
    assert pooled.take()[1] == [None]
    assert rig.transport.is_lost
    pooled.pool.free(KEY)
    assert not pooled.pool._hosts
    assert pooled.pool._open == 0


def test_closing_says_quit_and_sends_who_waits_away(pooled):
    pooled.take()
    rig = pooled.connection(quit=STALL)
    pooled.pool.give(KEY, rig.connection)
    pooled.take(OTHER)
    pooled.take(OTHER)
    _, waiting = pooled.take(OTHER)
    done = []
    ensureDeferred(pooled.pool.close()).addBoth(done.append)
    assert waiting[0].check(CancelledError)
    assert not done
    pooled.clock.advance(pooled.settings.quit_timeout + 0.1)
    assert done == [None]
    assert rig.peer.lines[-1] == b"QUIT"
    assert rig.transport.is_lost
    assert not pooled.clock.getDelayedCalls()


def test_nothing_is_kept_of_who_gave_up_waiting(pooled):
    for _ in range(2):
        pooled.take()
    pooled.take(OTHER)
    waiting, _ = pooled.take(key_of("f", hop()))
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    assert set(pooled.pool._hosts) == {KEY, OTHER}


def test_nothing_is_kept_of_a_host_nobody_talks_to(pooled):
    for at in range(50):
        key = key_of(f"d{at}", hop())
        pooled.take(key)
        pooled.pool.free(key)
    assert not pooled.pool._hosts
