"""From a host's addresses to a connection.  RFC 8305 §5.

The first address is tried; when it has not answered within `connect_stagger` seconds, or has refused, the next one is tried beside
it.  The first connection that is established wins and the others are given up.  So a host whose IPv6 is broken costs a quarter of a
second, not a timeout.  The order is the caller's, who got it from DNS.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

from livemail.interfaces.relay import NextHop, Reply
from livemail.smtp.relay.settings import RelaySettings


class Unreached(msgspec.Struct, frozen=True):
    """An address that could not be connected to."""

    address: str
    reply: Reply


class NobodyAnswers(Exception):
    """No address could be connected to; ``unreached`` says why of each."""

    def __init__(self, unreached: list[Unreached]) -> None:
        super().__init__("; ".join(f"{each.address}: {each.reply.text}" for each in unreached))
        self.unreached = unreached


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, race: _Race, address: str) -> None:
        self._race = race
        self.address = address

    def buildProtocol(self, addr: Any) -> Protocol | None:
        return self._race.connected(self.address)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._race.failed(self.address, reason)


class _Race:
    """One attempt at one host.  build: makes the protocol of the connection that wins, from its address."""

    def __init__(
        self,
        reactor: Any,
        settings: RelaySettings,
        hop: NextHop,
        addresses: Sequence[str],
        build: Callable[[str], Protocol],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._hop = hop
        self._left = list(addresses)
        self._build = build
        self._connectors: dict[str, Any] = {}
        self._unreached: list[Unreached] = []
        self._next: Any = None
        self.done: Deferred[tuple[Protocol, str, list[Unreached]]] = Deferred(self._cancelled)
        self._winner: tuple[Protocol, str] | None = None
        self._try_next()

    def _try_next(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None
        if not self._left:
            return
        address = self._left.pop(0)
        factory = _Factory(self, address)
        timeout = self._settings.connect_timeout
        if self._hop.path:
            self._connectors[address] = self._reactor.connectUNIX(self._hop.path, factory, timeout=timeout)
        else:
            source = _source(self._hop.source, address)
            self._connectors[address] = self._reactor.connectTCP(
                address, self._hop.port, factory, timeout=timeout, bindAddress=(source, 0) if source else None
            )
        if self._left and self._next is None and not self.done.called:
            self._next = self._reactor.callLater(self._settings.connect_stagger, self._try_next)

    def connected(self, address: str) -> Protocol | None:
        """An address answers: it wins, unless another has."""
        if self._winner is not None or self.done.called:
            return None
        protocol = self._build(address)
        self._winner = (protocol, address)
        self._stop(address)
        # Not before Twisted has given the protocol its transport.
        self._reactor.callLater(0, self._won)
        return protocol

    def _won(self) -> None:
        if not self.done.called and self._winner is not None:
            self.done.callback((*self._winner, self._unreached))

    def failed(self, address: str, reason: Failure) -> None:
        """An address does not answer."""
        self._connectors.pop(address, None)
        if self._winner is not None or self.done.called:
            return
        self._unreached.append(Unreached(address, Reply(451, "4.4.1", _words(reason), "connect", is_remote=False)))
        if self._left:
            self._try_next()
        elif not self._connectors:
            self.done.errback(NobodyAnswers(self._unreached))

    def _stop(self, but: str) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._left = []
        for address, connector in list(self._connectors.items()):
            if address != but:
                connector.disconnect()

    def _cancelled(self, done: Deferred[Any]) -> None:
        self._stop("")
        if self._winner is not None:
            transport: Any = self._winner[0].transport
            if transport is not None:
                transport.abortConnection()
        done.errback(CancelledError())


def dial(
    reactor: Any, settings: RelaySettings, hop: NextHop, addresses: Sequence[str], build: Callable[[str], Protocol]
) -> Deferred[tuple[Protocol, str, list[Unreached]]]:
    """Connect to the first address that answers, or to the hop's Unix socket.

    addresses: of the host, at least one; anything for a Unix socket.  Fires with the protocol, its address and those that did not answer before;
    fails with NobodyAnswers.
    """
    return _Race(reactor, settings, hop, addresses, build).done


def _source(sources: Sequence[str], address: str) -> str:
    """The local address of the same family."""
    version = ipaddress.ip_address(address.partition("%")[0]).version
    for source in sources:
        if ipaddress.ip_address(source).version == version:
            return source
    return ""


def _words(reason: Failure) -> str:
    if reason.check(error.TimeoutError):
        return "No connection within the time allowed"
    if reason.check(error.ConnectionRefusedError):
        return "Connection refused"
    if reason.check(error.NoRouteError):
        return "No route to the host"
    if reason.check(error.ConnectBindError):
        return "The local address to connect from cannot be used"
    return "The host cannot be connected to"
