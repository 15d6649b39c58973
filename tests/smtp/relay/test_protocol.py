"""The connection: time, back-pressure, cancelling, closing down."""

from __future__ import annotations

import itertools

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs

from livemail.smtp.relay.needs import Broken
from livemail.smtp.relay.settings import RelaySettings
from tests.smtp.relay.peer import ALL, PIPELINED, STALL, Peer
from tests.smtp.relay.rig import Reader, Rig, hop, job, sent

SETTINGS = RelaySettings(
    greeting_timeout=1, command_timeout=2, mail_timeout=3, rcpt_timeout=4, data_timeout=5, block_timeout=6, end_timeout=7, attempt_timeout=1000
)  # fmt: skip
LARGE = (b"y" * 998 + b"\r\n") * 3000


@pytest.mark.parametrize(
    ("stage", "seconds"),
    [("greeting", 1), ("ehlo", 2), ("mail", 3), ("rcpt", 4), ("data", 5), ("content", 7)],
)
def test_each_stage_has_its_own_time(stage, seconds):
    rig = Rig(Peer(**{stage: STALL}), settings=SETTINGS)
    found = rig.introduce()
    if stage not in {"greeting", "ehlo"}:
        assert found is None
        rig.send(job())
    assert not rig.found
    rig.clock.advance(seconds - 0.01)
    assert not rig.found
    rig.clock.advance(0.02)
    error = rig.found[0].value
    assert (error.kind, error.reply.stage, error.reply.enhanced) == ("timeout", stage, "4.4.2")
    assert rig.transport.is_lost


def test_a_short_time_behind_a_long_one_is_kept():
    rig = Rig(Peer(ehlo=STALL), settings=RelaySettings(greeting_timeout=1000, command_timeout=2))
    rig.introduce()
    rig.clock.advance(2.1)
    assert rig.found[0].value.kind == "timeout"


def test_octets_do_not_extend_the_time_but_replies_do():
    rig = Rig(Peer(PIPELINED, rcpt=STALL), settings=SETTINGS)
    rig.introduce()
    rig.send(job(to=("a@b.example", "c@b.example")))
    for octet in b"250 2.1.5":
        rig.clock.advance(0.4)
        rig.connection.dataReceived(bytes([octet]))
    rig.connection.dataReceived(b" ok\r\n")  # at 3.6 of 4 seconds
    rig.clock.advance(3.9)
    assert not rig.found
    rig.clock.advance(0.2)
    assert rig.found[0].value.kind == "timeout"


def test_a_whole_attempt_has_its_time_however_lively_it_is():
    settings = RelaySettings(rcpt_timeout=100, attempt_timeout=150)
    rig = Rig(Peer(PIPELINED, rcpt=STALL), settings=settings)
    rig.introduce()
    rig.send(job(to=tuple(f"u{at}@b.example" for at in range(9))))
    rig.clock.advance(90)
    rig.connection.dataReceived(b"250 ok\r\n")
    rig.clock.advance(59)
    assert not rig.found
    rig.clock.advance(2)
    assert rig.found[0].value.kind == "timeout"


def test_while_the_peer_does_not_read_nothing_is_read_from_the_store():
    rig = Rig(Peer(PIPELINED), settings=SETTINGS)
    rig.introduce()
    transport, write = rig.transport, rig.transport.write

    def full(octets):
        write(octets)
        if len(octets) > 1000:
            transport.producer.pauseProducing()

    transport.write = full
    what = job(LARGE)
    assert rig.send(what) is None
    sizes = []
    while not rig.found:
        sizes.append(sum(map(len, transport.writes)))
        rig.clock.advance(5.9)  # a block has six seconds
        transport.producer.resumeProducing()
        transport.run()
    assert rig.verdicts() == ["delivered 250"]
    assert rig.peer.messages[0].content == LARGE
    assert max(b - a for a, b in itertools.pairwise(sizes)) <= 65_536
    rig.send(job(LARGE))
    rig.clock.advance(6.1)
    assert rig.found[0].value.kind == "timeout"
    assert not rig.outcomes


def test_a_peer_that_refuses_while_it_does_not_read_is_heard_at_once():
    rig = Rig(Peer(PIPELINED), settings=SETTINGS)
    rig.introduce()
    rig.transport.producer.pauseProducing()
    rig.send(job(LARGE))
    assert not rig.found
    rig.connection.dataReceived(b"552 5.3.4 too big\r\n")
    assert isinstance(rig.found[0].value, Broken)
    assert rig.verdicts() == ["failed 552"]


def test_a_large_message_gives_the_reactor_its_turns():
    rig = Rig(Peer(PIPELINED), settings=SETTINGS)
    rig.introduce()
    turns = 0
    original = rig.clock.callLater

    def counted(delay, *rest):
        nonlocal turns
        turns += delay == 0
        return original(delay, *rest)

    rig.clock.callLater = counted
    rig.send(job(LARGE))
    assert rig.verdicts() == ["delivered 250"]
    assert turns == len(LARGE) // (1024 * 1024)


def test_content_that_has_to_be_waited_for():
    for fails in (False, True):
        rig = Rig(Peer(PIPELINED), settings=SETTINGS)
        rig.introduce()
        waiting: Deferred[None] = Deferred()

        class Slow(Reader):
            async def read(self, offset, length, waiting=waiting):
                await waiting
                return await super().read(offset, length)

        rig.send(job(Slow(b"x\r\n")))
        assert not rig.found
        if fails:
            waiting.errback(OSError("disk"))
            assert rig.found[0].value.kind == "content"
        else:
            waiting.callback(None)
            rig.transport.run()
            assert rig.verdicts() == ["delivered 250"]


def test_a_reader_that_ends_early_is_no_message():
    class Short(Reader):
        async def read(self, offset, length):
            return (await super().read(offset, length))[:-1]

    rig = sent(Peer(PIPELINED), job(Short(b"Subject: x\r\n\r\n")))
    assert rig.result.kind == "content"
    assert not rig.peer.messages


def test_cancelling_drops_the_connection_and_calls_nobody_twice():
    for stage in ("greeting", "mail", "content"):
        rig = Rig(Peer(PIPELINED, **{stage: STALL}))
        rig.introduce()
        if stage != "greeting":
            rig.send(job())
        rig.done.cancel()
        assert isinstance(rig.found[0].value, CancelledError)
        assert rig.transport.is_lost
        rig.clock.advance(10_000)
        assert len(rig.found) == 1
        assert not rig.clock.getDelayedCalls()


def test_stopping_spares_who_waits_for_the_answer_to_a_whole_message():
    rig = Rig(Peer(PIPELINED, content=STALL))
    rig.introduce()
    rig.send(job())
    rig.connection.stop()
    assert not rig.found
    rig.connection.dataReceived(b"250 2.0.0 taken\r\n")
    assert rig.verdicts() == ["delivered 250"]
    rig = Rig(Peer(PIPELINED, content=STALL))
    rig.introduce()
    rig.send(job())
    rig.connection.break_off()
    assert rig.verdicts() == ["deferred 451"]
    rig = Rig(Peer(PIPELINED, rcpt=STALL))
    rig.introduce()
    rig.send(job())
    rig.connection.stop()
    assert rig.found[0].value.kind == "stopped"
    assert not rig.outcomes


@pytest.mark.parametrize("offers", [PIPELINED, ALL])
def test_octets_nobody_asked_for_end_a_connection_at_rest(offers):
    rig = sent(Peer(offers))
    told = []
    rig.connection.on_lost = told.append
    rig.connection.dataReceived(b"421 4.4.2 idle too long\r\n")
    assert rig.transport.is_lost
    assert told == [rig.connection]
    assert not rig.connection.is_reusable


def test_replies_without_end_are_not_kept_without_bound():
    rig = Rig(Peer(PIPELINED, content=STALL), settings=SETTINGS)
    rig.introduce()
    waiting: Deferred[None] = Deferred()

    class Slow(Reader):
        async def read(self, offset, length):
            await waiting
            return b""

    rig.send(job(Slow(b"x\r\n")))
    with capturedLogs() as logged:
        for _ in range(10_000):
            if rig.found:
                break
            rig.connection.dataReceived(b"250 ok\r\n" * 100)
    assert not logged, "reading was given up, which is no fault of the store's"
    assert rig.connection._replies.size < 129 * 1024
    assert rig.found[0].value.kind in {"garbage", "early"}


def test_no_timer_is_left_and_few_are_made():
    rig = Rig(Peer(ALL))
    made = 0
    original = rig.clock.callLater

    def counted(*rest):
        nonlocal made
        made += 1
        return original(*rest)

    rig.clock.callLater = counted
    rig.introduce()
    for _ in range(100):
        rig.send(job())
        rig.clock.advance(0.1)
    assert made < 5
    rig.connection.abort()
    assert not rig.clock.getDelayedCalls()


def test_a_connection_whose_last_octets_are_not_taken_is_cut():
    rig = sent(Peer())
    rig.transport.loseConnection = lambda: None
    rig.connection.close()
    rig.clock.advance(rig.settings.quit_timeout + 1)
    assert rig.transport.is_lost


def test_a_dialogue_on_a_lost_connection_fails_at_once():
    rig = sent(Peer())
    rig.transport.lose()
    rig.send(job())
    assert rig.found[0].value.kind == "lost"
    assert rig.outcomes == {}


def test_the_password_stands_in_no_repr():
    assert "secret" not in repr(hop(login="u", password="secret"))
