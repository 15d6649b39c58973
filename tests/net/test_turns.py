"""What is put off to the end of a reactor's turn."""

from __future__ import annotations

import os
import socket

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from livemail.net.turns import MAX_PUT_OFF, Turns


@pytest.fixture
def reactor():
    """One that is not the process's own, turned by hand."""
    made = EPollReactor()
    yield made
    made.removeAll()
    for one in list(made._internalReaders):
        made.removeReader(one)
        one.connectionLost(None)
    made._poller.close()


@pytest.fixture
def failures():
    told = []
    globalLogPublisher.addObserver(told.append)
    yield told
    globalLogPublisher.removeObserver(told.append)


class Reader:
    """A descriptor that notes when it is served, and puts something off."""

    def __init__(self, turns, seen, name, error=None):
        self.near, self.far = socket.socketpair()
        self.turns, self.seen, self.name, self.error = turns, seen, name, error
        self.far.send(b"x")

    def fileno(self):
        return self.near.fileno()

    def logPrefix(self):
        return self.name

    def doRead(self):
        self.near.recv(1)
        self.seen.append(self.name)
        self.turns.after(lambda: self.seen.append(f"{self.name} put off"))
        if self.error:
            raise self.error

    def connectionLost(self, reason):
        self.seen.append(f"{self.name} lost {reason.type.__name__}")


@pytest.mark.parametrize("ours", [True, False])
def test_what_is_put_off_is_done_when_all_that_was_ready_has_been_served(reactor, ours):
    turns, seen = Turns(reactor), []
    if ours:
        turns.take_over()
    for name in "abc":
        reactor.addReader(Reader(turns, seen, name))
    reactor.iterate(0)
    reactor.iterate(0)
    assert sorted(seen[:3]) == ["a", "b", "c"]
    assert seen[3:] == [f"{name} put off" for name in seen[:3]]


def test_what_a_timed_call_puts_off_does_not_wait_for_the_next_octet(reactor):
    turns, seen = Turns(reactor), []
    turns.take_over()
    reactor.callLater(0, turns.after, lambda: seen.append("done"))
    reactor.runUntilCurrent()
    reactor.doIteration(0)
    assert seen == ["done"]


def test_a_reader_that_raises_is_dropped_and_told_and_the_others_are_served(reactor, failures):
    turns, seen = Turns(reactor), []
    turns.take_over()
    reactor.addReader(Reader(turns, seen, "bad", ValueError("bad reader")))
    reactor.addReader(Reader(turns, seen, "good"))
    reactor.iterate(0)
    assert {"bad", "good", "bad lost ValueError", "bad put off", "good put off"} == set(seen)
    assert any("bad reader" in repr(event) for event in failures)


def test_what_raises_is_told_and_does_not_keep_the_others_from_their_turn(reactor, failures):
    turns, seen = Turns(reactor), []
    turns.take_over()
    turns.after(lambda: 1 / 0)
    turns.after(lambda: seen.append("second"))
    reactor.doIteration(0)
    assert seen == ["second"]
    assert any("ZeroDivisionError" in str(event.get("log_failure")) for event in failures)


def test_so_many_wait_at_most(reactor):
    turns, seen = Turns(reactor), []
    turns.take_over()
    for number in range(MAX_PUT_OFF):
        assert not seen
        turns.after(lambda number=number: seen.append(number))
    assert seen == list(range(MAX_PUT_OFF))


def test_what_is_put_off_by_what_was_put_off_is_done_too(reactor):
    turns, seen = Turns(reactor), []
    turns.take_over()
    turns.after(lambda: turns.after(lambda: seen.append("inner")))
    reactor.doIteration(0)
    assert seen == ["inner"]


def test_a_reactor_of_another_kind_is_left_alone():
    clock, seen = Clock(), []
    turns = Turns(clock)
    turns.take_over()
    turns.after(lambda: seen.append("done"))
    assert not hasattr(clock, "doIteration")
    assert not seen
    clock.advance(0)
    assert seen == ["done"]


def test_a_connection_made_and_lost_within_a_turn_is_nobodys_trouble(reactor):
    turns, made, lost = Turns(reactor), [], []
    turns.take_over()

    class Echo(Protocol):
        def connectionMade(self):
            made.append(self)

        def connectionLost(self, reason):
            lost.append(self)

    port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
    client = socket.create_connection(("127.0.0.1", port.getHost().port))
    for _ in range(20):
        reactor.iterate(0.01)
        if made:
            client.close()
        if lost:
            break
    port.stopListening()
    assert made == lost
    assert len(made) == 1
    assert os.fstat(reactor._poller.fileno())
