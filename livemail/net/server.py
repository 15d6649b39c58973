"""The server's side of connections: who may connect, who is connected, and how all of them are sent home.

One `Limits` is shared by every listener, so that a client cannot have a hundred connections per service.  Each listener
has one `ConnectionFactory`, which is the `Owner` its connections know.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from livemail.net.connection import Connection
from livemail.net.tls import CertificateStore

TOO_MANY: Final = "Too many connections, try again later"
TOO_MANY_OF_YOURS: Final = "Too many connections from your address, try again later"
SHUTTING_DOWN: Final = "Server is shutting down, try again later"


def network_of(peer: str) -> str:
    """What one client is counted as: an IPv4 address, an IPv6 /64, "" for loopback and Unix sockets (not counted)."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return "" if address.is_loopback else str(ipaddress.ip_network((address, 64), strict=False))
        address = address.ipv4_mapped
    return "" if address.is_loopback else str(address)


def at_once(call: Callable[[], object]) -> None:
    """Put nothing off."""
    call()


class Limits:
    """Counts the connections of all services against the configured limits."""

    def __init__(self, total: int, per_address: int) -> None:
        self.total = total
        self.per_address = per_address
        self.open = 0
        self._by_network: Counter[str] = Counter()

    def take(self, peer: str) -> str:
        """Count one more connection; return "" or the refusal, and then nothing was counted."""
        network = network_of(peer)
        if self.open >= self.total:
            return TOO_MANY
        if network and self._by_network[network] >= self.per_address:
            return TOO_MANY_OF_YOURS
        self.open += 1
        if network:
            self._by_network[network] += 1
        return ""

    def give(self, peer: str) -> None:
        """One connection that was counted is gone."""
        self.open -= 1
        network = network_of(peer)
        if network:
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]


@implementer(IProtocolFactory)
class ConnectionFactory(Factory):
    """Makes the connections of one listener and owns them (`livemail.net.connection.Owner`)."""

    noisy = False
    log = Logger()

    def __init__(
        self,
        service: str,
        build: Callable[[ConnectionFactory], Connection],
        clock: IReactorTime,
        limits: Limits,
        certificates: CertificateStore | None = None,
        after_turn: Callable[[Callable[[], object]], object] = at_once,
    ) -> None:
        """service: smtp, submission, …; build: makes a connection for its owner; certificates: None when there is no TLS."""
        self.service = service
        self.clock = clock
        self._after_turn = after_turn
        self._build = build
        self._limits = limits
        self._certificates = certificates
        self.connections: set[Connection] = set()
        self.is_draining = False
        self._empty: list[Deferred[None]] = []

    def buildProtocol(self, addr: Any) -> Connection:
        connection = self._build(self)
        connection.factory = self
        return connection

    def after_turn(self, call: Callable[[], object]) -> None:
        """See `Owner.after_turn`."""
        self._after_turn(call)

    def opened(self, connection: Connection) -> str:
        """Count a connection, or return why it is refused."""
        if self.is_draining:
            return SHUTTING_DOWN
        refusal = self._limits.take(connection.peer)
        if refusal:
            self.log.warn(
                "{service}: {peer} refused: {reason}", service=self.service, peer=connection.peer, reason=refusal
            )
            return refusal
        self.connections.add(connection)
        return ""

    def closed(self, connection: Connection) -> None:
        """Forget a connection; one that was refused was never counted."""
        if connection in self.connections:
            self.connections.discard(connection)
            self._limits.give(connection.peer)
            if not self.connections:
                waiters, self._empty = self._empty, []
                for waiter in waiters:
                    waiter.callback(None)

    def tls_options(self) -> CertificateStore | None:
        """What STARTTLS needs; None when there is no certificate."""
        return self._certificates

    def drain(self) -> Deferred[None]:
        """Let every connection finish what it is in and close it.  The Deferred fires when none is left."""
        self.is_draining = True
        gone: Deferred[None] = Deferred()
        self._empty.append(gone)
        for connection in list(self.connections):
            connection.drain()
        if not self.connections:
            waiters, self._empty = self._empty, []
            for waiter in waiters:
                waiter.callback(None)
        return gone

    def abort(self) -> int:
        """Close every connection at once; return how many there were."""
        left = list(self.connections)
        for connection in left:
            connection.abort()
        return len(left)
