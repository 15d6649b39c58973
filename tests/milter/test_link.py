from __future__ import annotations

import os

import pytest
from twisted.internet import error as failures
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from livemail.mail.errors import WireError
from livemail.milter import link
from livemail.milter.client import MilterError
from livemail.milter.link import MilterLink, open_link
from livemail.milter.place import Place, parse_place
from livemail.milter.wire import packet


class Transport(StringTransport):
    is_aborted = False

    def abortConnection(self):
        self.is_aborted = True


def made():
    clock = Clock()
    opened = MilterLink(clock)
    opened.makeConnection(Transport())
    return opened, clock


def failure(deferred):
    found = []
    deferred.addErrback(found.append)
    return found[0].value


def test_packets_are_received_in_order_whether_asked_for_before_or_after():
    opened, _ = made()
    opened.dataReceived(packet(b"c") + packet(b"p")[:3])
    received = [Deferred.fromCoroutine(opened.receive(5.0)) for _ in range(1)]
    received.append(Deferred.fromCoroutine(opened.receive(5.0)))
    assert received[0].result == (b"c", b"")
    assert not received[1].called
    opened.dataReceived(packet(b"p")[3:])
    assert received[1].result == (b"p", b"")


def test_a_milter_that_does_not_answer_in_time_is_dropped():
    opened, clock = made()
    receiving = Deferred.fromCoroutine(opened.receive(5.0))
    clock.advance(5)
    assert isinstance(failure(receiving), MilterError)
    assert not opened.is_open
    assert opened.transport.disconnecting


def test_who_stops_asking_leaves_no_answer_behind():
    opened, _ = made()
    receiving = Deferred.fromCoroutine(opened.receive(5.0))
    receiving.cancel()
    failure(receiving)
    assert not opened.is_open


def test_a_milter_that_leaves_is_known_to_have_left():
    opened, _ = made()
    receiving = Deferred.fromCoroutine(opened.receive(5.0))
    opened.connectionLost(Failure(connectionDone.value))
    assert "closed the connection" in str(failure(receiving))
    assert "closed the connection" in str(failure(Deferred.fromCoroutine(opened.receive(5.0))))
    opened.send(b"x")
    assert opened.transport.value() == b""


def test_a_packet_over_the_limit_closes_at_once():
    opened, _ = made()
    receiving = Deferred.fromCoroutine(opened.receive(5.0))
    opened.dataReceived(b"\xff\xff\xff\xff")
    assert isinstance(failure(receiving), WireError)
    assert opened.transport.is_aborted
    assert not opened.is_open


def test_a_milter_that_talks_ahead_is_not_read_until_what_it_said_was_taken():
    opened, _ = made()
    count = link.MAX_AHEAD // 60_000 + 1
    opened.dataReceived(packet(b"b", b"x" * 60_000) * count)
    assert opened.transport.producerState == "paused"
    for _ in range(count):
        Deferred.fromCoroutine(opened.receive(5.0))
    Deferred.fromCoroutine(opened.receive(5.0)).addErrback(lambda _: None)
    assert opened.transport.producerState == "producing"


def test_a_milter_that_does_not_read_is_waited_for_and_then_dropped():
    opened, clock = made()
    opened.pauseProducing()
    waiting = Deferred.fromCoroutine(opened.drained(9.0))
    opened.resumeProducing()
    assert waiting.called
    opened.pauseProducing()
    waiting = Deferred.fromCoroutine(opened.drained(9.0))
    clock.advance(9)
    assert "does not read" in str(failure(waiting))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("inet:8891@127.0.0.1", Place("127.0.0.1", 8891)),
        ("inet:8891@milter.example", Place("milter.example", 8891)),
        ("inet:8891", Place("127.0.0.1", 8891)),
        ("inet6:8891@[::1]", Place("::1", 8891, family="inet6")),
        ("unix:/run/x.sock", Place(path="/run/x.sock")),
        ("local:/run/x.sock", Place(path="/run/x.sock")),
    ],
)
def test_a_socket_is_read_as_sendmail_writes_it(text, place):
    assert parse_place(text) == place
    assert parse_place(str(place)) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8891",
        "inet:",
        "inet:0@x",
        "inet:70000@x",
        "inet:x@y",
        "inet:1@::1",
        "inet6:1@127.0.0.1",
        "unix:x",
        "tcp:1@x",
    ],
)
def test_a_socket_that_is_none_says_what_to_write(text):
    with pytest.raises(ValueError, match=r"write|needs|ports are"):
        parse_place(text)


@pytest.mark.parametrize(
    ("text", "clients"),
    [("inet:8891@127.0.0.1", "tcpClients"), ("inet6:1@::1", "tcpClients"), ("unix:/x", "unixClients")],
)
def test_connecting_goes_where_the_socket_says_and_gives_up_in_time(text, clients):
    reactor = MemoryReactorClock()
    opening = Deferred.fromCoroutine(open_link(reactor, parse_place(text), 3.0))
    (client,) = getattr(reactor, clients)
    assert str(client[0]) in text
    reactor.advance(3)
    assert str(failure(opening)) == "no connection within 3 seconds"


@pytest.mark.parametrize("error", [failures.ConnectionRefusedError(osError=111), failures.ConnectError(osError=2)])
def test_a_milter_that_is_not_there_is_told_in_words_and_without_the_socket_that_its_caller_names(error):
    reactor = MemoryReactorClock()
    opening = Deferred.fromCoroutine(open_link(reactor, parse_place("inet:8891@127.0.0.1"), 3.0))
    *_, factory, _, _ = reactor.tcpClients[0]
    factory.clientConnectionFailed(None, Failure(error))
    said = str(failure(opening))
    assert said == f"cannot connect: {os.strerror(error.osError)}; is the milter running?"
