"""Which address is tried when, and which connection wins."""

from __future__ import annotations

import pytest
from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from livemail.smtp.relay.dial import NobodyAnswers, dial
from livemail.smtp.relay.settings import RelaySettings
from tests.smtp.relay.rig import hop

SIX, FOUR, OTHER = "2001:db8::1", "192.0.2.1", "192.0.2.2"
SETTINGS = RelaySettings(connect_stagger=0.25, connect_timeout=30)


class Dialling:
    def __init__(self, *addresses, to=None):
        self.reactor = MemoryReactorClock()
        self.built, self.found = [], []

        def build(address):
            self.built.append(address)
            return Protocol()

        self.done = dial(self.reactor, SETTINGS, to or hop(), addresses, build)
        self.done.addBoth(self.found.append)

    @property
    def tried(self):
        return [each[0] for each in self.reactor.tcpClients]

    def factory(self, address):
        return next(each[2] for each in self.reactor.tcpClients if each[0] == address)

    def connector(self, address):
        return next(each for each in self.reactor.connectors if each._address.host == address)

    def answer(self, address):
        protocol = self.factory(address).buildProtocol(None)
        if protocol is not None:
            protocol.makeConnection(StringTransport())
        self.reactor.advance(0)
        return protocol

    def fail(self, address, kind=error.ConnectionRefusedError):
        self.factory(address).clientConnectionFailed(self.connector(address), Failure(kind()))


def test_the_first_address_alone_is_tried_while_it_may_still_answer():
    dialling = Dialling(SIX, FOUR)
    dialling.reactor.advance(0.2)
    assert dialling.tried == [SIX]
    protocol = dialling.answer(SIX)
    assert dialling.found == [(protocol, SIX, [])]
    dialling.reactor.advance(60)
    assert dialling.tried == [SIX]
    assert not dialling.reactor.getDelayedCalls()


def test_the_next_is_tried_beside_it_after_a_quarter_of_a_second_and_the_first_that_answers_wins():
    dialling = Dialling(SIX, FOUR, OTHER)
    dialling.reactor.advance(0.25)
    assert dialling.tried == [SIX, FOUR]
    protocol = dialling.answer(FOUR)
    assert dialling.found == [(protocol, FOUR, [])]
    assert dialling.connector(SIX)._disconnected
    assert dialling.factory(SIX).buildProtocol(None) is None
    dialling.fail(SIX, error.UserError)
    dialling.reactor.advance(60)
    assert dialling.tried == [SIX, FOUR]
    assert dialling.built == [FOUR]


def test_a_refusal_lets_the_next_be_tried_at_once_and_is_told():
    dialling = Dialling(SIX, FOUR)
    dialling.fail(SIX)
    assert dialling.tried == [SIX, FOUR]
    dialling.answer(FOUR)
    ((_, address, unreached),) = dialling.found
    assert (address, [each.address for each in unreached]) == (FOUR, [SIX])
    assert unreached[0].reply.text == "Connection refused"


def test_nobody_answers_tells_why_of_each():
    dialling = Dialling(SIX, FOUR)
    dialling.fail(SIX, error.NoRouteError)
    assert not dialling.found
    dialling.fail(FOUR, error.TimeoutError)
    failure = dialling.found[0]
    assert failure.check(NobodyAnswers)
    assert [(each.address, each.reply.text, each.reply.stage) for each in failure.value.unreached] == [
        (SIX, "No route to the host", "connect"),
        (FOUR, "No connection within the time allowed", "connect"),
    ]
    assert not dialling.reactor.getDelayedCalls()


def test_the_source_is_of_the_targets_family():
    dialling = Dialling(SIX, FOUR, to=hop(source=("192.0.2.77", "2001:db8::77")))
    dialling.reactor.advance(0.3)
    assert [each[4] for each in dialling.reactor.tcpClients] == [("2001:db8::77", 0), ("192.0.2.77", 0)]
    assert [each[4] for each in Dialling(SIX, to=hop(source=("192.0.2.77",))).reactor.tcpClients] == [None]


def test_cancelling_gives_every_connection_up():
    dialling = Dialling(SIX, FOUR)
    dialling.reactor.advance(0.3)
    dialling.done.cancel()
    assert dialling.found[0].check(CancelledError)
    assert all(dialling.connector(address)._disconnected for address in (SIX, FOUR))
    assert dialling.factory(FOUR).buildProtocol(None) is None
    assert not dialling.reactor.getDelayedCalls()


@pytest.mark.parametrize("path", ["/run/lmtp"])
def test_a_unix_socket_is_connected_to(path):
    dialling = Dialling(path, to=hop(path=path))
    assert dialling.reactor.unixClients[0][0] == path
