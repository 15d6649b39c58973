"""The Received field.  RFC 5321 §4.4, RFC 3848 (with-protocol words), RFC 6531 §4.3.

Written into the content sink before the first octet of content, so that it is part of what the filters see and of what is
stored.  The date is formatted once a second.
"""

from __future__ import annotations

from email.utils import formatdate

from livemail.mail.address import Path

_second = -1
_date = ""


def _date_text(now: float) -> str:
    global _second, _date
    if int(now) != _second:
        _second = int(now)
        _date = formatdate(_second)[:-5] + "+0000"
    return _date


def protocol_word(*, is_lmtp: bool, is_esmtp: bool, is_tls: bool, is_authenticated: bool, is_utf8: bool) -> str:
    """Return the word after ``with``.  RFC 3848, RFC 6531 §4.3 (the words with UTF8 replace ESMTP by UTF8SMTP)."""
    if not is_esmtp and not is_lmtp:
        return "SMTP"
    word = ("UTF8LMTP" if is_utf8 else "LMTP") if is_lmtp else ("UTF8SMTP" if is_utf8 else "ESMTP")
    return word + ("S" if is_tls else "") + ("A" if is_authenticated else "")


def received(
    *, helo: str, peer: str, hostname: str, word: str, message: str, tls: str, recipient: Path | None, now: float
) -> bytes:
    """Render the field with its CRLF.

    helo: as `livemail.smtp.grammar.parse_helo` let it through.  peer: textual IP address, "" for a Unix socket.
    message: the id our 250 and our log name.  recipient: the only one, or None: several would tell them of each other.
    now: seconds since the epoch.
    """
    origin = f" ([IPv6:{peer}])" if ":" in peer else f" ([{peer}])" if peer else ""
    comment = f" ({tls})" if tls else ""
    for_clause = f"\r\n\tfor {recipient}" if recipient is not None else ""
    return (
        f"Received: from {helo}{origin}\r\n\tby {hostname} with {word} id {message}{comment}{for_clause};"
        f"\r\n\t{_date_text(now)}\r\n"
    ).encode()
