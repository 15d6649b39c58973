"""AUTHENTICATE.  RFC 3501 §6.2.2, SASL-IR RFC 4959, RFC 4422."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

import msgspec

from livemail.imap.capability import capability_code
from livemail.imap.commands.login import connection_info, require_privacy
from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done
from livemail.interfaces.identity import AuthenticationFailed, ISASLExchange, Login
from livemail.mail.errors import MailError, WireError

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Authenticate(msgspec.Struct, frozen=True):
    """mechanism: as written.  initial: the decoded initial response, None when there is none."""

    mechanism: str
    initial: bytes | None

    def __repr__(self) -> str:
        return f"Authenticate({self.mechanism!r}, …)"


def parse(cursor: Cursor) -> Authenticate:
    """Parse the mechanism, and an initial response: base64, or ``=`` for an empty one (RFC 4959 §3)."""
    cursor.space()
    mechanism = cursor.atom()
    initial = None
    if not cursor.at_end():
        cursor.space()
        response = cursor.atom().encode("ascii")
        initial = b"" if response == b"=" else decode_response(response)
        cursor.end()
    return Authenticate(mechanism, initial)


def decode_response(response: bytes) -> bytes:
    """Decode one base64 response, strictly.  Raises WireError."""
    try:
        decoded = binascii.a2b_base64(response, strict_mode=True) if response else b""
    except binascii.Error:
        raise WireError("Not base64") from None
    # strict_mode lets stray bits and a surplus "=" through.
    if binascii.b2a_base64(decoded, newline=False) != response:
        raise WireError("Not base64")
    return decoded


async def run(session: Session, command: Authenticate) -> Done | Exchange:
    """Begin the exchange; it may be over with the initial response."""
    require_privacy(session)
    mechanism = command.mechanism.upper()
    if mechanism not in session.site.authenticator.mechanisms():
        raise MailError("Unsupported authentication mechanism")
    exchange = Exchange(session, session.site.authenticator.start(mechanism, connection_info(session)))
    return await exchange.step(command.initial) or exchange


class Exchange:
    """An exchange between two of the client's lines."""

    flushes = False

    def __init__(self, session: Session, exchange: ISASLExchange) -> None:
        self.limit = session.site.settings.sasl_response_limit
        self._session = session
        self._exchange = exchange

    async def line(self, line: bytes) -> Done | None:
        """Take a base64 response; ``*`` cancels (RFC 3501 §6.2.2)."""
        if line == b"*":
            raise WireError("Authentication cancelled")
        return await self.step(decode_response(line))

    async def step(self, response: bytes | None) -> Done | None:
        """Hand a response to the mechanism; send its challenge, or return when the login is made."""
        session = self._session
        try:
            answer = await self._exchange.step(response)
        except AuthenticationFailed:
            session.login_failed()
            raise
        if isinstance(answer, Login):
            session.logged_in(answer)
            return Done("Logged in", capability_code(session))
        session.send(b"+ " + binascii.b2a_base64(answer, newline=False) + b"\r\n")
        return None

    def stop(self) -> None:
        """Nothing is held."""
