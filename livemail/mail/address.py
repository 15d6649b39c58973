"""Addresses and paths.  RFC 5321 §4.1.2, §4.5.3.1, RFC 6531 §3.3.

The syntax of a path on the wire is `livemail.smtp.grammar`'s; here are the values, and what makes two of them equal.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import ClassVar, Final

import msgspec

MAX_LOCAL_PART_OCTETS: Final = 64
MAX_DOMAIN_OCTETS: Final = 255
MAX_PATH_OCTETS: Final = 256

_ATEXT: Final = r"[^\x00-\x20\x7f\"(),.:;<>@\[\\\]]"
"""RFC 5321's atext with RFC 6531's UTF8-non-ascii."""

_DOT_STRING: Final = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")


class Address(msgspec.Struct, frozen=True, array_like=True):
    """A mailbox at a domain.

    local_part: unquoted text (``a b`` for ``"a b"``), case kept.  domain: lower-case, no trailing dot, A-labels or
    U-labels as received, or an address literal with its brackets, or "" (only ``<postmaster>``, RFC 5321 §4.1.1.3).
    """

    local_part: str
    domain: str

    def __str__(self) -> str:
        return _written(self.local_part, self.domain)

    @property
    def is_ascii(self) -> bool:
        """Whether the address can go to a host without SMTPUTF8."""
        return self.local_part.isascii() and self.domain.isascii()


class Path(msgspec.Struct, frozen=True, array_like=True):
    """A reverse-path or forward-path; the null reverse-path has no address."""

    address: Address | None

    null: ClassVar[Path]

    def __str__(self) -> str:
        """The path with its angle brackets."""
        return f"<{self.address}>" if self.address else "<>"

    @property
    def is_null(self) -> bool:
        """``<>``, the reverse-path of bounces.  RFC 5321 §4.5.5."""
        return self.address is None


Path.null = Path(None)


@lru_cache(maxsize=4096)
def _written(local_part: str, domain: str) -> str:
    """Remembered, because each message has its sender and recipients written several times over."""
    local = quote_local_part(local_part)
    return f"{local}@{domain}" if domain else local


def quote_local_part(local_part: str) -> str:
    """Render a local part as a Dot-string where it is one, else as a Quoted-string.  RFC 5321 §4.1.2."""
    if _DOT_STRING.fullmatch(local_part):
        return local_part
    escaped = local_part.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
