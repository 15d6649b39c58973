"""Identity as protocols meet it: one authenticator, SASL exchanges, logins.  RFC 4422, design: twisted.cred behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from zope.interface import Interface

from livemail.interfaces.filter import ConnectionInfo
from livemail.interfaces.storage import AccountRecord, IAccount
from livemail.mail.errors import MailError


class AuthenticationFailed(MailError):
    """Wrong name or wrong secret: never said which.  RFC 4954 §6, RFC 5530 AUTHENTICATIONFAILED."""

    code, enhanced, condition = 535, "5.7.8", "AUTHENTICATIONFAILED"
    default_text = "Authentication credentials invalid"


class AuthenticationUnavailable(MailError):
    """The credentials could not be checked now.  RFC 4954 §6, RFC 5530 UNAVAILABLE."""

    code, enhanced, condition = 454, "4.7.0", "UNAVAILABLE"
    default_text = "Temporary authentication failure, try again later"


class Login(msgspec.Struct, frozen=True):
    """A successful authentication.  account: a fresh handle for this session.  logout: called once at its end."""

    record: AccountRecord
    account: IAccount
    logout: Callable[[], None]


class ISASLExchange(Interface):
    """One authentication dialogue of one mechanism."""

    async def step(response: bytes | None) -> bytes | Login:
        """Take the client's decoded response (None: it sent no initial response); return a challenge, or the login.

        Raises AuthenticationFailed, AuthenticationUnavailable, WireError (malformed message of the mechanism).
        """


class IAuthenticator(Interface):
    """The one door."""

    def mechanisms() -> Sequence[str]:
        """SASL mechanism names, best first."""

    def start(mechanism: str, connection: ConnectionInfo) -> ISASLExchange:
        """Begin an exchange; the name in any case.  Raises WireError (504 5.5.4) for an unknown mechanism."""

    async def login(authcid: str, password: str, connection: ConnectionInfo) -> Login:
        """IMAP LOGIN and POP3 USER/PASS.  Failures are slowed.  Raises as `ISASLExchange.step`."""
