"""Replies, with an enhanced status code on every one that may have it.  RFC 5321 §4.2, RFC 2034, RFC 3463.

What is said a thousand times a second is a constant.  Text that may hold what a peer sent goes through `reply`, which lets
no control character and no CR or LF out, whoever made the text.
"""

from __future__ import annotations

from typing import Final

from livemail.mail.errors import MailError, WireError

MAX_TEXT: Final = 480
"""A reply line has at most 512 octets with code and CRLF.  RFC 5321 §4.5.3.1.5."""

SENDER_OK: Final = b"250 2.1.0 Sender ok\r\n"
RECIPIENT_OK: Final = b"250 2.1.5 Recipient ok\r\n"
GO_AHEAD: Final = b"354 End data with <CR><LF>.<CR><LF>\r\n"
OK: Final = b"250 2.0.0 Ok\r\n"
CHUNK_OK: Final = b"250 2.0.0 Chunk taken\r\n"
BYE: Final = b"221 2.0.0 Bye\r\n"
CANNOT_VERIFY: Final = b"252 2.5.0 Send the mail and see\r\n"
NO_EXPANSION: Final = b"502 5.5.1 EXPN is not offered\r\n"
HELP: Final = b"214 2.0.0 https://www.rfc-editor.org/rfc/rfc5321\r\n"
READY_FOR_TLS: Final = b"220 2.0.0 Ready to start TLS\r\n"
AUTHENTICATED: Final = b"235 2.7.0 Authentication successful\r\n"
UNKNOWN: Final = b"500 5.5.1 Command not known\r\n"
NOT_A_MAIL_CLIENT: Final = b"554 5.5.1 This is a mail server\r\n"
TOO_EARLY: Final = b"554 5.5.0 You spoke before it was your turn\r\n"
BUG: Final = b"451 4.3.0 Internal error, try again later\r\n"

_PRINTABLE: Final = dict.fromkeys((*range(32), *range(127, 160), 0x2028, 0x2029), "?")


def reply(code: int, enhanced: str, text: str, *, utf8: bool = False) -> bytes:
    """Render one reply line; ``enhanced`` "" for the few that have none.

    utf8: the client said SMTPUTF8, so text may be UTF-8 (RFC 6531 §3.7.4); otherwise non-ASCII becomes escapes.
    """
    text = text.translate(_PRINTABLE)
    octets = text.encode("utf-8", "replace") if utf8 else text.encode("ascii", "backslashreplace")
    octets = octets[:MAX_TEXT]
    if utf8:
        octets = octets.decode("utf-8", "ignore").encode()
    return b"%d %s%s\r\n" % (code, enhanced.encode() + b" " if enhanced else b"", octets)


def refusal(error: MailError | WireError, *, utf8: bool = False) -> bytes:
    """Render what an error says to the peer."""
    return reply(error.code, error.enhanced, error.text, utf8=utf8)


def lines(code: int, texts: list[str]) -> bytes:
    """Render a multi-line reply without enhanced codes (EHLO's).  RFC 5321 §4.2.1."""
    last = len(texts) - 1
    return b"".join(
        b"%d%s%s\r\n" % (code, b" " if at == last else b"-", text.encode()) for at, text in enumerate(texts)
    )
