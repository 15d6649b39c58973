"""SASL mechanisms as the octets of their messages.  RFC 4422, RFC 4616 (PLAIN), draft-murchison-sasl-login-00 (LOGIN).

Base64 and ``*`` are the protocol's; here are the decoded messages.  An exchange ends in one call of the function it was
made with, which has the credentials checked.  Errors never contain what the client sent.

    PLAIN   C: [authzid] NUL authcid NUL password
    LOGIN   S: Username:   C: authcid (may be the initial response)   S: Password:   C: password
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from zope.interface import implementer

from livemail.interfaces.identity import ISASLExchange, Login
from livemail.mail.errors import WireError

MAX_NAME_OCTETS: Final = 512
"""Octets of an authentication or authorization identity: longer than any address."""

MAX_PASSWORD_OCTETS: Final = 1024

Verify = Callable[[str, str, str], Awaitable[Login]]
"""(authcid, password, authzid; "" for the client's own) → Login.  Raises as `IAuthenticator.login`."""


def _malformed(mechanism: str) -> WireError:
    return WireError(f"Malformed {mechanism} response", code=501, enhanced="5.5.2")


def _text(octets: bytes, limit: int, mechanism: str, *, may_be_empty: bool = False) -> str:
    if len(octets) > limit or (not octets and not may_be_empty) or b"\0" in octets:
        raise _malformed(mechanism)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed(mechanism) from None


def parse_plain(message: bytes) -> tuple[str, str, str]:
    """Parse PLAIN's message into (authzid, authcid, password).  RFC 4616 §2.

    authzid: "" when absent.  Raises WireError (501 5.5.2) for anything that is not three parts of UTF-8, the last two not
    empty, each within its limit.
    """
    parts = message.split(b"\0", 3)
    if len(parts) != 3:
        raise _malformed("PLAIN")
    return (
        _text(parts[0], MAX_NAME_OCTETS, "PLAIN", may_be_empty=True),
        _text(parts[1], MAX_NAME_OCTETS, "PLAIN"),
        _text(parts[2], MAX_PASSWORD_OCTETS, "PLAIN"),
    )


def parse_login_name(message: bytes) -> str:
    """Parse LOGIN's first response.  Raises WireError (501 5.5.2)."""
    return _text(message, MAX_NAME_OCTETS, "LOGIN")


def parse_login_password(message: bytes) -> str:
    """Parse LOGIN's second response.  Raises WireError (501 5.5.2)."""
    return _text(message, MAX_PASSWORD_OCTETS, "LOGIN")


@implementer(ISASLExchange)
class PlainExchange:
    """One PLAIN dialogue."""

    def __init__(self, verify: Verify) -> None:
        self._verify: Verify | None = verify

    async def step(self, response: bytes | None) -> bytes | Login:
        """See `ISASLExchange`."""
        if self._verify is None:
            raise _malformed("PLAIN")
        if response is None:
            return b""
        verify, self._verify = self._verify, None
        authzid, authcid, password = parse_plain(response)
        return await verify(authcid, password, authzid)


@implementer(ISASLExchange)
class LoginExchange:
    """One LOGIN dialogue."""

    def __init__(self, verify: Verify) -> None:
        self._verify: Verify | None = verify
        self._authcid = ""

    async def step(self, response: bytes | None) -> bytes | Login:
        """See `ISASLExchange`."""
        if self._verify is None:
            raise _malformed("LOGIN")
        if not self._authcid:
            if response is None:
                return b"Username:"
            self._authcid = parse_login_name(response)
            return b"Password:"
        verify, self._verify = self._verify, None
        return await verify(self._authcid, parse_login_password(response or b""), "")


MECHANISMS: Final[dict[str, Callable[[Verify], PlainExchange | LoginExchange]]] = {
    "PLAIN": PlainExchange,
    "LOGIN": LoginExchange,
}
"""Best first."""
