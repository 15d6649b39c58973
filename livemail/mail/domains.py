"""What makes two spellings of a domain equal.

A-labels and U-labels of one domain are one domain: the key is the A-label form, lower-case, by UTS #46 and IDNA 2008 (RFC
5890 §2.3.2.4), through the `idna` package, because the codec of that name in Python is IDNA 2003 and maps ß to ss.
Address literals (RFC 5321 §4.1.3) are equal when their addresses are.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import Final

import idna

from livemail.mail.address import MAX_DOMAIN_OCTETS

_ASCII_DOMAIN: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


def domain_key(domain: str) -> str:
    """Return the form of a domain or address literal that equals that of every other spelling of it.

    Raises ValueError for what cannot be a domain.
    """
    domain = domain.lower().removesuffix(".")
    if domain.startswith("["):
        return _literal_key(domain)
    if len(domain) > MAX_DOMAIN_OCTETS:
        raise ValueError("the domain is too long")
    if not domain.isascii():
        domain = idna.encode(domain, uts46=True).decode("ascii").lower()
    if not _ASCII_DOMAIN.fullmatch(domain):
        raise ValueError("the domain has empty labels, labels over 63 octets, or characters no domain has")
    return domain


def spellings(domain: str) -> tuple[str, ...]:
    """Return the ways in which a domain may stand in an account's name, the given one first, all lower-case."""
    given = domain.lower().removesuffix(".")
    key = domain_key(domain)
    known = {given: None, key: None}
    if "xn--" in key:
        with contextlib.suppress(
            idna.IDNAError
        ):  # a label that begins with xn-- and is no A-label has only this spelling
            known[idna.decode(key)] = None
    return tuple(known)


def _literal_key(literal: str) -> str:
    if not literal.endswith("]"):
        raise ValueError("an address literal ends with ]")
    inner = literal[1:-1]
    if inner.startswith("ipv6:"):
        return f"[ipv6:{ipaddress.IPv6Address(inner.removeprefix('ipv6:')).compressed}]"
    return f"[{ipaddress.IPv4Address(inner)}]"
