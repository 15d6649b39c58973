"""The IMAP connection: wire and session on a transport."""

from __future__ import annotations

from collections.abc import Coroutine
from ipaddress import ip_address
from typing import Any

from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from livemail.imap.capability import capability_code
from livemail.imap.session import Session, limits_before_login, public_text
from livemail.imap.site import Site
from livemail.imap.wire import Wire
from livemail.net.connection import Connection, Owner

_FAREWELLS = {
    "timeout": "Autologout: idle for too long",
    "shutdown": "Server is shutting down",
}


class IMAPConnection(Connection):
    """One client."""

    log = Logger("livemail.imap")
    wire: Wire

    def __init__(self, owner: Owner, site: Site) -> None:
        super().__init__(owner)
        self.site = site
        self.idle_timeout = site.settings.login_timeout
        self._begin_session()

    def _begin_session(self) -> None:
        self.wire = Wire(limits_before_login(self.site.settings))
        self.session = Session(self, self.site)

    @property
    def is_secure(self) -> bool:
        """Whether TLS protects the connection (also while its handshake is still on: nothing is said before)."""
        return bool(self.tls) or ISSLTransport.providedBy(self.transport)

    @property
    def is_local(self) -> bool:
        """Whether the peer is this host: loopback, or a Unix socket."""
        if not self.peer:
            return True
        try:
            address = ip_address(self.peer)
        except ValueError:
            return False
        # A dual-stack listener sees IPv4's loopback as ::ffff:127.0.0.1.
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback

    def restart(self) -> None:
        """Be as at the start, behind TLS now; a session before login holds nothing.  RFC 3501 §6.2.1."""
        self._begin_session()

    # ------------------------------------------------------------------------------------------ Connection's

    def greet(self) -> None:
        self.set_deadline(self.site.settings.login_timeout)
        code = capability_code(self.session)
        self.write(b"* OK [" + code + b"] " + public_text(self.site.hostname) + b" livemail ready\r\n")

    def next_step(self) -> Coroutine[Any, Any, None] | None:
        while True:
            # Chunks, "+" and malformed lines are dealt with inside; only what may have to wait becomes a step.
            step = self.session.urgent()
            if step is None:
                event = self.wire.next_event()
                if event is None:
                    return self.session.urgent()
                step = self.session.take(event)
            if step is not None:
                return step

    def failed(self, error: BaseException) -> None:
        self.log.failure(
            "{session} {peer}: session ended by an error", Failure(error), session=self.session_id, peer=self.peer
        )
        self.write(b"* BYE [SERVERBUG] Internal error\r\n")
        self.close()

    def farewell(self, reason: str) -> bytes:
        return b"* BYE " + public_text(_FAREWELLS.get(reason, reason)) + b"\r\n"

    @property
    def may_drain(self) -> bool:
        return self.session.upload is None

    def cleanup(self) -> None:
        self.session.end()
