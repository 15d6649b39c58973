"""The AUTH command's dialogue: base64 and cancellation around a SASL exchange.  RFC 4954 §4, RFC 4648 §4.

The octets of an exchange are secrets: nothing here logs them, and no error text holds them.
"""

from __future__ import annotations

import binascii

from livemail.interfaces.filter import ConnectionInfo
from livemail.interfaces.identity import IAuthenticator, ISASLExchange, Login
from livemail.mail.errors import WireError


class Authentication:
    """One AUTH command and the lines that follow it."""

    __slots__ = ("_exchange", "mechanism")

    def __init__(self, exchange: ISASLExchange, mechanism: str) -> None:
        self._exchange = exchange
        self.mechanism = mechanism

    @classmethod
    def start(
        cls, authenticator: IAuthenticator, argument: bytes, connection: ConnectionInfo
    ) -> tuple[Authentication, bytes | None]:
        """Begin from AUTH's argument; return it with the initial response, None when there was none.

        Raises WireError: 501 for malformed arguments, 504 for a mechanism that is not offered.
        """
        words = argument.split(b" ")
        if not words[0] or len(words) > 2 or not words[0].isascii():
            raise WireError("AUTH takes a mechanism and, at most, one response", code=501, enhanced="5.5.4")
        # RFC 4954 §4: "=" is the empty initial response; an empty one on the wire is none.
        response = None if len(words) == 1 else b"" if words[1] == b"=" else decode(words[1])
        mechanism = words[0].decode("ascii").upper()
        return cls(authenticator.start(mechanism, connection), mechanism), response

    @staticmethod
    def response(line: bytes) -> bytes:
        """Decode a continuation line.  Raises WireError: 501 when the client cancels, or for what is not base64."""
        if line == b"*":
            raise WireError("Authentication cancelled", code=501, enhanced="5.7.0")
        return decode(line)

    async def step(self, response: bytes | None) -> bytes | Login:
        """Go on: return the whole reply line with the next challenge, or the login.  Raises as `ISASLExchange.step`."""
        result = await self._exchange.step(response)
        if isinstance(result, Login):
            return result
        return b"334 " + binascii.b2a_base64(result, newline=False) + b"\r\n"


def decode(octets: bytes) -> bytes:
    """Decode base64 strictly: no space, tab or other octet is read over.  Raises WireError (501 5.5.2)."""
    try:
        if len(octets) % 4 == 0:  # strict_mode lets one superfluous "=" pass
            return binascii.a2b_base64(octets, strict_mode=True)
    except binascii.Error:
        pass
    raise WireError("Not base64", code=501, enhanced="5.5.2")
