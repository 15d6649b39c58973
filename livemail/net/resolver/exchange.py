"""One question to one server: by UDP from a port of its own, by TCP when the answer is too large or doubtful.

Nothing here remembers anything.  An answer of a stranger (wrong id, wrong question) is not an answer, and waiting goes on;
after `MAX_STRANGERS` of them somebody is guessing, and TCP decides.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol, connectionDone
from twisted.python.failure import Failure

from livemail.net.resolver.message import Garbage, Query, Reply, read
from livemail.net.resolver.settings import Server

MAX_STRANGERS: Final = 50


class NoAnswer(Exception):
    """The server did not answer, or not with DNS; the text says what happened."""


async def ask(reactor: Any, server: Server, query: Query, patience: float) -> Reply:
    """Ask.  patience: seconds for UDP, and again for TCP where it comes to that.  Raises NoAnswer, CancelledError."""
    reply = await _by_udp(reactor, server, query, patience)
    if reply is None or reply.is_truncated or not reply.has_case:
        reply = await _by_tcp(reactor, server, query, patience)
    return reply


class _Waiting:
    """One exchange: its timer, and the Deferred that ends it once."""

    def __init__(self, reactor: Any, patience: float, close: Callable[[], object]) -> None:
        self.done: Deferred[Reply | None] = Deferred(self._cancelled)
        self._close = close
        self._timer: IDelayedCall | None = cast(IReactorTime, reactor).callLater(
            patience, self.fail, f"no answer in {patience:g} s"
        )

    def succeed(self, reply: Reply | None) -> None:
        if self._end():
            self.done.callback(reply)

    def fail(self, why: str) -> None:
        if self._end():
            self.done.errback(NoAnswer(why))

    def _cancelled(self, _: Deferred[Any]) -> None:
        self._end()

    def _end(self) -> bool:
        """Give the socket back; return whether this was the first to end it."""
        if self._timer is None:
            return False
        timer, self._timer = self._timer, None
        if timer.active():
            timer.cancel()
        self._close()
        return True


class _UDP(DatagramProtocol):
    """Bound to a random port and connected, so that the kernel drops what comes from elsewhere."""

    noisy = False

    def __init__(self, server: Server, query: Query) -> None:
        self._server = server
        self._query = query
        self._strangers = 0
        self.waiting: _Waiting

    def send(self) -> None:
        """Ask.  Raises OSError (no way to such an address)."""
        transport = cast(Any, self.transport)
        transport.connect(self._server.host, self._server.port)
        transport.write(self._query.wire)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        try:
            reply = read(self._query, datagram)
        except Garbage as error:
            self.waiting.fail(f"an answer that is not DNS ({error})")
            return
        if reply is not None:
            self.waiting.succeed(reply)
            return
        self._strangers += 1
        if self._strangers >= MAX_STRANGERS:
            self.waiting.succeed(None)

    def connectionRefused(self) -> None:
        self.waiting.fail("nothing listens there")

    def stopProtocol(self) -> None:
        # The epoll reactor takes an ICMP error for the end of the socket, and calls this instead.
        self.connectionRefused()


def _by_udp(reactor: Any, server: Server, query: Query, patience: float) -> Deferred[Reply | None]:
    protocol = _UDP(server, query)
    port: list[Any] = []

    def close() -> None:
        for each in port:
            each.stopListening()

    protocol.waiting = waiting = _Waiting(reactor, patience, close)
    try:
        # A kernel that gives out ports in order would give half of the protection away; Linux draws them.
        interface = "::" if ":" in server.host else "0.0.0.0"  # noqa: S104 (connected at once)
        port.append(reactor.listenUDP(0, protocol, interface=interface))
        protocol.send()
    except (CannotListenError, OSError) as error:
        waiting.fail(f"no UDP socket ({error})")
    return waiting.done


class _TCP(Protocol):
    """A two-octet length, then the message.  RFC 7766 §8."""

    def __init__(self, query: Query, waiting: _Waiting) -> None:
        self._query = query
        self._waiting = waiting
        self._buffer = bytearray()

    def connectionMade(self) -> None:
        cast(Any, self.transport).write(struct.pack("!H", len(self._query.wire)) + self._query.wire)

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) < 2:
            return
        (length,) = struct.unpack_from("!H", self._buffer)
        if len(self._buffer) < 2 + length:
            return
        try:
            reply = read(self._query, bytes(self._buffer[2 : 2 + length]))
        except Garbage as error:
            self._waiting.fail(f"an answer by TCP that is not DNS ({error})")
            return
        if reply is None:
            self._waiting.fail("an answer by TCP to something else")
        elif reply.is_truncated:
            self._waiting.fail("an answer truncated by TCP too")
        else:
            self._waiting.succeed(reply)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._waiting.fail("the TCP connection was closed before the answer")


class _TCPFactory(ClientFactory):
    noisy = False

    def __init__(self, query: Query) -> None:
        self._query = query
        self.waiting: _Waiting

    def buildProtocol(self, addr: IAddress | None) -> _TCP:
        return _TCP(self._query, self.waiting)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.waiting.fail(f"no TCP connection ({reason.getErrorMessage()})")


async def _by_tcp(reactor: Any, server: Server, query: Query, patience: float) -> Reply:
    factory = _TCPFactory(query)
    connectors: list[Any] = []

    def close() -> None:
        for connector in connectors:
            with contextlib.suppress(RuntimeError):  # not connecting any more, not connected
                connector.disconnect()

    factory.waiting = waiting = _Waiting(reactor, patience, close)
    connectors.append(reactor.connectTCP(server.host, server.port, factory, timeout=patience))
    reply = await waiting.done
    assert reply is not None, "TCP fails instead"
    # Who repeats the question in other case by TCP as well folds it for everybody; a connection is proof enough.
    return reply
