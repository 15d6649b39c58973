"""A POP3 connection: the only module here that knows the transport."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure

from livemail.mail.errors import MailError, WireError
from livemail.net.connection import Connection, Gone, Owner
from livemail.pop3.session import Session
from livemail.pop3.site import Site
from livemail.pop3.wire import Wire


class POP3Connection(Connection):
    """See `livemail.net.connection`."""

    log = Logger()
    wire: Wire

    def __init__(self, owner: Owner, site: Site) -> None:
        super().__init__(owner)
        self.site = site
        self.wire = Wire(site.settings.line_limit, site.settings.sasl_response_limit)
        self.session = Session(self, site)
        self.idle_timeout = site.settings.login_timeout

    # ------------------------------------------------------------------------------------------ for Connection

    def greet(self) -> None:
        """Speak first."""
        self.set_deadline(self.site.settings.login_timeout)
        self.session.greet()

    def next_step(self) -> Coroutine[Any, Any, None] | None:
        """Take a line; refusals of lines are answered here."""
        while not self.is_closing:
            try:
                line = self.wire.line()
            except WireError as error:
                self.session.refuse(error)
                continue
            return None if line is None else self.session.run(line)
        return None

    def failed(self, error: BaseException) -> None:
        """Answer a failure of ours; amid a multi-line answer, cut the connection."""
        if isinstance(error, Gone | CancelledError):
            return
        if isinstance(error, MailError):
            self.log.warn(
                "{session} {peer}: {reason}", session=self.session_id, peer=self.peer, reason=error.reason or error.text
            )
        else:
            self.log.failure(
                "{session} {peer}: a command failed", Failure(error), session=self.session_id, peer=self.peer
            )
        if self.session.is_amid_answer:
            self.abort()
        else:
            self.write(b"-ERR [SYS/TEMP] Internal error, try again later\r\n")

    def farewell(self, reason: str) -> bytes:
        """Last words; messages marked as deleted stay (RFC 1939 §3, §6)."""
        texts = {
            "timeout": "[SYS/TEMP] Timeout, nothing was removed" if self.session.account_name else "Timeout",
            "shutdown": "[SYS/TEMP] Server is shutting down, nothing was removed",
        }
        return f"-ERR {texts.get(reason, f'[SYS/TEMP] {reason}')}\r\n".encode("ascii", "replace")

    def cleanup(self) -> None:
        """Give the maildrop back."""
        session = self.session
        if session.retrieved or session.removed:
            self.log.info(
                "{session} {service} {peer}: {retrieved} messages retrieved, {removed} removed",
                session=self.session_id,
                service=self.site.service,
                peer=self.peer,
                retrieved=session.retrieved,
                removed=session.removed,
            )
        session.closed()

    # ------------------------------------------------------------------------------------------ for Session

    def has_tls_to_offer(self) -> bool:
        """See `livemail.pop3.session.Link`."""
        return self.owner.tls_options() is not None

    def expect_sasl(self, is_expected: bool) -> None:
        """See `livemail.pop3.session.Link`."""
        self.wire.takes_long_lines = is_expected

    def logged_in(self) -> None:
        """See `livemail.pop3.session.Link`."""
        self.set_deadline(None)
        self.set_idle_timeout(self.site.settings.idle_timeout)

    def secured(self) -> None:
        """TLS is up."""
        self.session.secured()
