"""The envelope: what SMTP says about a message, as opposed to what the message says about itself.  RFC 5321 §2.3.1."""

from __future__ import annotations

from typing import Literal

import msgspec

from livemail.mail.address import Path

BodyType = Literal["7BIT", "8BITMIME", "BINARYMIME"]


class Recipient(msgspec.Struct, frozen=True, array_like=True):
    """One forward-path accepted into an envelope, with its DSN options.  RFC 3461 §4.1, §4.2.

    notify: upper-case words of NOTIFY, empty when absent.  original: ORCPT's value as received, "" when absent.
    """

    path: Path
    notify: frozenset[str] = frozenset()
    original: str = ""


class ReversePath(msgspec.Struct, frozen=True, array_like=True):
    """MAIL with its parameters.  RFC 5321 §4.1.1.2, 1870, 6152, 6531, 3461 §4.3, §4.4, 4954 §5.

    size: announced octets, 0 when not announced.  ret: FULL, HDRS or "".  envid and auth: decoded xtext, "" when absent.
    """

    path: Path
    size: int = 0
    body: BodyType = "7BIT"
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    auth: str = ""


class Envelope(msgspec.Struct):
    """One mail transaction's envelope; recipients in the order of their RCPT."""

    reverse_path: ReversePath
    recipients: list[Recipient]
