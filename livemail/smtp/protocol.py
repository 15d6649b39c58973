"""The connection of SMTP, submission and LMTP: the only module here that knows the transport.

Time: a client has `SMTPSettings.idle_timeout` seconds for each command and for each 64 KiB of content, counted from the last
one that was complete, so that an octet now and then does not keep a connection (RFC 5321 §4.5.3.2).
"""

from __future__ import annotations

import fcntl
import socket
import termios
from collections.abc import Coroutine
from typing import Any, Final

from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from livemail.mail.errors import MailError, WireError
from livemail.net.connection import TAKEN, Connection, Gone, Owner, Step
from livemail.smtp import replies
from livemail.smtp.session import Session
from livemail.smtp.site import Site
from livemail.smtp.state import State
from livemail.smtp.wire import Wire

_PROGRESS_OCTETS: Final = 64 * 1024
_NO_OCTETS: Final = bytes(4)
"""A C int that is 0."""


class SMTPConnection(Connection):
    """One client's connection."""

    wire: Wire

    def __init__(self, owner: Owner, site: Site) -> None:
        super().__init__(owner)
        self.site = site
        self.wire = Wire()
        self.idle_timeout = site.settings.idle_timeout
        self.session = Session(self, site)
        self._progress = _PROGRESS_OCTETS

    # ------------------------------------------------------------------------------------------ Connection's questions

    def greet(self) -> Coroutine[Any, Any, None]:
        return self._greet()

    async def _greet(self) -> None:
        delay = self.site.settings.greet_delay
        if delay:
            await deferLater(self.owner.clock, delay, _nothing)
        await self.session.greet()
        self.touch()
        self._made_progress()

    def next_step(self) -> Step:
        session, wire = self.session, self.wire
        while session.in_content:
            piece = wire.chunk()
            if piece is None:
                return None
            octets, is_end = piece
            session.take(octets)
            self._progress -= len(octets)
            if self._progress < 0:
                self._made_progress()
            if is_end:
                return session.end_of_content()
        try:
            line = wire.line()
            if line is None:
                return None
            self._made_progress()
            return session.command(line) or TAKEN
        except WireError as error:
            session.wire_error(error)
        except Exception as error:
            self.failed(error)
        return TAKEN

    def _made_progress(self) -> None:
        self._progress = _PROGRESS_OCTETS
        self.deadline = self._last_input + self.idle_timeout

    def failed(self, error: BaseException) -> None:
        if isinstance(error, WireError | MailError):
            self.session.refuse(error)
            return
        if isinstance(error, Gone):
            return
        self.log.failure(
            "{session} {peer}: a step failed",
            failure=Failure(error),
            session=self.session_id,
            peer=self.peer,
        )
        self.session.stop_authentication()
        self.session.reset()
        self.write(replies.BUG)

    def farewell(self, reason: str) -> bytes:
        text = {"timeout": "Timeout, closing", "shutdown": "Shutting down, try again later"}.get(reason, reason)
        enhanced = {"timeout": "4.4.2", "shutdown": "4.3.2"}.get(reason, "4.7.0")
        return replies.reply(421, enhanced, f"{self.site.hostname} {text}")

    @property
    def may_drain(self) -> bool:
        return self.session.state in {State.START, State.READY} and not self.session.in_content

    def cleanup(self) -> None:
        self.session.closed()

    def secured(self) -> None:
        self.session.secured()

    # ------------------------------------------------------------------------------------------ Link

    def spoke_first(self) -> bool:
        """Whether octets came that nobody asked for: already fed, or waiting in the socket.

        A client that waits for the greeting has sent nothing when we accept it, so one look tells (1 microsecond; a peek
        by `recv` costs three, most of them for the exception that means no).  Under TLS from the first octet the socket
        holds the handshake, and is not looked at.
        """
        if self.wire.pending:
            return True
        handle = getattr(self.transport, "socket", None)
        if not isinstance(handle, socket.socket) or self.tls or self.site.service == "submissions":
            return False
        try:
            return fcntl.ioctl(handle, termios.FIONREAD, _NO_OCTETS) != _NO_OCTETS
        except OSError:
            return False

    def offers_tls(self) -> bool:
        return self.owner.tls_options() is not None


def _nothing() -> None:
    """What `deferLater` calls."""
