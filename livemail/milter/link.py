"""The transport under a dialogue with an external milter: TCP or a Unix socket, packets with a time limit."""

from __future__ import annotations

import os
from collections import deque
from typing import Any, Final

from twisted.internet import interfaces as net
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from livemail.mail.errors import WireError
from livemail.milter.client import MilterError
from livemail.milter.place import Place
from livemail.milter.wire import Wire

MAX_AHEAD: Final = 256 * 1024
"""Octets a milter may send ahead of our reading them; then the transport is paused."""


@implementer(net.IPushProducer)
class MilterLink(Protocol):
    """One connection to a milter (`livemail.milter.client.Link`)."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._wire = Wire()
        self._packets: deque[tuple[bytes, bytes]] = deque()
        self._ahead = 0
        self._error: Exception | None = None
        self._waiter: Deferred[None] | None = None
        self._drained: Deferred[None] | None = None
        self._is_output_paused = False
        self._is_input_paused = False

    @property
    def is_open(self) -> bool:
        """Whether the connection is there."""
        return self._error is None

    def send(self, octets: bytes) -> None:
        """Queue octets for the milter."""
        if self._error is None:
            transport: Any = self.transport
            transport.write(octets)

    async def drained(self, seconds: float) -> None:
        """Wait until the milter has read enough for more.  Raises MilterError."""
        if self._is_output_paused and self._error is None:
            self._drained = Deferred()
            await self._bounded(self._drained, seconds, "does not read what is sent")

    async def receive(self, seconds: float) -> tuple[bytes, bytes]:
        """Wait for the next packet.  Raises MilterError, WireError."""
        while not self._packets:
            if self._error is not None:
                raise self._error
            self._resume_input()
            self._waiter = Deferred()
            await self._bounded(self._waiter, seconds, "does not answer")
        packet = self._packets.popleft()
        self._ahead -= len(packet[1])
        return packet

    async def _bounded(self, waiter: Deferred[None], seconds: float, what: str) -> None:
        waiter.addTimeout(seconds, self._clock)
        try:
            await waiter
        except DeferredTimeout:
            self.drop()
            raise MilterError(f"{what}, {seconds:g} seconds are over") from None
        except CancelledError:
            # Who asked is gone, or out of time: an answer that comes now would be taken for another's.
            self.drop()
            raise
        finally:
            self._waiter = self._drained = None

    def raise_limit(self, octets: int) -> None:
        """Packets with so many octets of data are allowed from now on."""
        self._wire.limit = max(self._wire.limit, octets)

    def drop(self) -> None:
        """Close after what is queued.  Allowed more than once."""
        if self._error is None:
            self._error = MilterError("the connection was closed")
            transport: Any = self.transport
            transport.unregisterProducer()
            transport.loseConnection()

    # ------------------------------------------------------------------------------------------ transport's callbacks

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if self._error is not None:
            return
        self._wire.feed(data)
        try:
            while (packet := self._wire.packet()) is not None:
                self._packets.append(packet)
                self._ahead += len(packet[1])
        except WireError as error:
            self._error = error
            transport: Any = self.transport
            transport.abortConnection()
        if self._ahead > MAX_AHEAD and not self._is_input_paused:
            self._is_input_paused = True
            producer: Any = self.transport
            producer.pauseProducing()
        self._wake()

    def _resume_input(self) -> None:
        if self._is_input_paused and not self._packets:
            self._is_input_paused = False
            transport: Any = self.transport
            transport.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._error is None:
            self._error = MilterError("closed the connection")
        self._wake()
        self.resumeProducing()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    def pauseProducing(self) -> None:
        self._is_output_paused = True

    def resumeProducing(self) -> None:
        self._is_output_paused = False
        waiter, self._drained = self._drained, None
        if waiter is not None:
            waiter.callback(None)

    def stopProducing(self) -> None:
        """The transport is going down; connectionLost follows."""


class _LinkFactory(Factory):
    noisy = False

    def __init__(self, clock: Any) -> None:
        self._clock = clock

    def buildProtocol(self, addr: Any) -> MilterLink:
        return MilterLink(self._clock)


async def open_link(reactor: Any, place: Place, seconds: float) -> MilterLink:
    """Connect.  Raises MilterError."""
    endpoint: Any
    if place.path:
        endpoint = UNIXClientEndpoint(reactor, place.path, timeout=seconds)
    elif place.is_ipv6:
        endpoint = TCP6ClientEndpoint(reactor, place.host, place.port, timeout=seconds)
    elif place.is_address:
        endpoint = TCP4ClientEndpoint(reactor, place.host, place.port, timeout=seconds)
    else:
        endpoint = HostnameEndpoint(reactor, place.host, place.port, timeout=seconds)
    connecting: Deferred[MilterLink] = endpoint.connect(_LinkFactory(reactor))
    connecting.addTimeout(seconds, reactor)
    try:
        return await connecting
    except (DeferredTimeout, ConnectingCancelledError, ConnectTimeout):
        raise MilterError(f"no connection within {seconds:g} seconds") from None
    except CancelledError:
        raise
    except Exception as error:
        number = getattr(error, "osError", None)  # Twisted's name for the number
        said = os.strerror(number) if isinstance(number, int) else str(number or error)
        raise MilterError(f"cannot connect: {said}; is the milter running?") from None
