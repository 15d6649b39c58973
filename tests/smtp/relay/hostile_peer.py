"""`Peer` on a real socket, and the certificates it shows."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import Clock, deferLater
from zope.interface import implementer

from tests.smtp.relay.peer import DROP, ENDLESS, RESET, SLOW, STALL, TLS, Peer

DEAF = "deaf"  # read nothing more
GARBLE = "garble"  # answer the handshake with text


QUIET_TURNS = 25


class Hurry:
    """The reactor for connections, a clock of ours for time: when both ends are silent, time goes on to what is next due.

    Both ends live in this process, so silence is a number of turns in which nothing arrived, however slow the machine is.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.connectTCP, self.connectUNIX = reactor.connectTCP, reactor.connectUNIX
        self.seconds, self.callLater = self.clock.seconds, self.clock.callLater

    async def until(self, done: Callable[[], bool], factories: list[HostileFactory]) -> None:
        """Let both ends do what they do until ``done``."""
        quiet = seen = 0
        while not done():
            await deferLater(reactor, 0, lambda: None)
            self.clock.advance(0)
            events = sum(factory.events for factory in factories)
            quiet = quiet + 1 if events == seen else 0
            seen = events
            due = self.clock.getDelayedCalls()
            if quiet > QUIET_TURNS and due:
                self.clock.advance(max(0.0, min(call.getTime() for call in due) - self.clock.seconds()))
                quiet = 0

    async def finish(self, coroutine: Any, factories: list[HostileFactory]) -> Any:
        """The result of a coroutine."""
        running = ensureDeferred(coroutine)
        await self.until(lambda: bool(running.called), factories)
        return await running


class HostileProtocol(Protocol):
    def __init__(self, factory: HostileFactory, peer: Peer) -> None:
        self.owner, self.peer = factory, peer
        self.is_stalled = self.is_lost = self.garbles = False

    def connectionMade(self) -> None:
        self.owner.events += 1
        self.owner.open.add(self)
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)  # else the kernel waits, and that is no silence of ours
        if self.owner.implicit_tls:
            self.act([TLS, *self.peer.greet()])
        else:
            self.act(self.peer.greet())

    def dataReceived(self, data: bytes) -> None:
        self.owner.events += 1
        if self.garbles:
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        elif not self.is_stalled:
            self.act(self.peer.feed(data))

    def act(self, actions: list[Any]) -> None:
        for action in actions:
            if self.is_lost or self.is_stalled:
                return
            if isinstance(action, bytes):
                self.transport.write(action)
            elif action == DROP:
                self.transport.loseConnection()
                self.is_stalled = True
            elif action == RESET:
                self.transport.abortConnection()
                self.is_stalled = True
            elif action == STALL:
                self.is_stalled = True
            elif action == DEAF:
                self.transport.pauseProducing()
                self.is_stalled = True
            elif action == GARBLE:
                self.garbles = True
            elif action == TLS:
                if self.owner.options is not None:
                    self.transport.startTLS(self.owner.options)
                    self.peer.secured()
            elif isinstance(action, list):
                self.act(action)
            elif action[0] == SLOW:
                self.slowly(action[1])
            elif action[0] == ENDLESS:
                self.endlessly(action[1])

    def listen_again(self) -> None:
        """So that the end of the connection is noticed."""
        self.transport.resumeProducing()

    def slowly(self, octets: bytes) -> None:
        if octets and not self.is_lost:
            self.transport.write(octets[:1])
            self.owner.events += 1
            reactor.callLater(0, self.slowly, octets[1:])

    def endlessly(self, octets: bytes) -> None:
        if not self.is_lost:
            self.transport.write(octets)
            self.owner.endless_octets += len(octets)
            self.owner.events += 1
            reactor.callLater(0, self.endlessly, octets)

    def connectionLost(self, reason: Any = None) -> None:
        self.is_lost = True
        self.owner.events += 1
        self.owner.open.discard(self)


class HostileFactory(ServerFactory):
    """make: the peer of the n-th connection, from 0."""

    noisy = False

    def __init__(self, make: Callable[[int], Peer], options: Any = None, *, implicit_tls: bool = False) -> None:
        self.make, self.options, self.implicit_tls = make, options, implicit_tls
        self.peers: list[Peer] = []
        self.open: set[HostileProtocol] = set()
        self.endless_octets = 0
        self.events = 0  # what arrived, and what is under way

    def buildProtocol(self, addr: Any) -> HostileProtocol:
        peer = self.make(len(self.peers))
        self.peers.append(peer)
        return HostileProtocol(self, peer)

    @property
    def messages(self) -> list[Any]:
        return [message for peer in self.peers for message in peer.messages]


@implementer(IOpenSSLServerConnectionCreator)
class Shown:
    """A certificate, and the names clients asked for."""

    def __init__(self, certificate: x509.Certificate, key: Any) -> None:
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.context.use_certificate(certificate)
        self.context.use_privatekey(key)
        self.context.set_tlsext_servername_callback(lambda connection: self.asked.append(connection.get_servername()))
        self.asked: list[bytes | None] = []

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self.context, None)


class Authority:
    """Makes certificates."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        self.certificate = self._make(self.name, self.key, ["test CA"], 30, is_ca=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def _make(
        self, subject: x509.Name, key: Any, names: list[str], days: float, *, is_ca: bool = False, own: bool = False
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)

        def name(text: str) -> x509.GeneralName:
            try:
                return x509.IPAddress(ipaddress.ip_address(text))
            except ValueError:
                return x509.DNSName(text)

        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if own else self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + min(days, 0) * day - day)
            .not_valid_after(now + days * day)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if not is_ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([name(each) for each in names]), critical=False)
        return builder.sign(key if own else self.key, hashes.SHA256())

    def show(self, *names: str, days: float = 10, own: bool = False) -> Shown:
        """days: until it expires; below 0 for one that has.  own: signed by itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
        return Shown(self._make(subject, key, list(names), days, own=own), key)
