"""What a peer's reply to EHLO or LHLO says it can.  RFC 5321 §4.1.1.1."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from livemail.smtp.relay.wire import Said

_NUMBER: Final = re.compile(r"[0-9]{1,15}")


class Offers(msgspec.Struct, frozen=True):
    """The extensions we know.  All of it is forgotten when TLS begins (RFC 3207 §4.2).

    has_size, size: SIZE, and the largest message taken, 0 when the peer does not say (RFC 1870 §4).  auth: upper-case mechanisms (RFC 4954 §3).
    rcpt_max, mail_max: recipients of one transaction and transactions of one connection, 0 when not said (RFC 9422).
    """

    starttls: bool = False
    pipelining: bool = False
    has_size: bool = False
    size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    chunking: bool = False
    binary: bool = False
    dsn: bool = False
    auth: frozenset[str] = frozenset()
    rcpt_max: int = 0
    mail_max: int = 0


NOTHING: Final = Offers()
"""What a peer offers that only knows HELO."""

_FLAGS: Final = {
    "STARTTLS": "starttls",
    "PIPELINING": "pipelining",
    "8BITMIME": "eight_bit",
    "SMTPUTF8": "smtputf8",
    "CHUNKING": "chunking",
    "DSN": "dsn",
}


def parse_offers(said: Said) -> Offers:
    """Read the reply to EHLO; its first line is the peer's name.  What is not understood is not offered."""
    found: dict[str, bool | int] = {}
    mechanisms: set[str] = set()
    keywords: set[str] = set()
    for line in said.texts[1:]:
        words = line.decode("ascii", "replace").upper().split()
        if not words:
            continue
        keyword, values = words[0], words[1:]
        keywords.add(keyword)
        if keyword in _FLAGS:
            found[_FLAGS[keyword]] = True
        elif keyword == "SIZE":
            found["has_size"] = True
            if values and _NUMBER.fullmatch(values[0]):
                found["size"] = int(values[0])
        elif keyword == "AUTH":
            mechanisms.update(values)
        elif keyword.startswith("AUTH="):
            # Lenient: how Exchange 5 and its kin wrote it.
            mechanisms.update((keyword[5:], *values))
        elif keyword == "LIMITS":
            found.update(_limits(values))
    # RFC 3030 §3: BINARYMIME needs CHUNKING, for DATA cannot carry it.
    is_binary = {"BINARYMIME", "CHUNKING"} <= keywords
    return Offers(**found, binary=is_binary, auth=frozenset(mechanisms))  # type: ignore[arg-type]


def _limits(values: list[str]) -> dict[str, int]:
    found = {}
    for word in values:
        name, _, value = word.partition("=")
        key = {"RCPTMAX": "rcpt_max", "MAILMAX": "mail_max"}.get(name)
        if key and _NUMBER.fullmatch(value) and int(value):
            found[key] = int(value)
    return found
