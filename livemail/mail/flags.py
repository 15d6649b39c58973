"""System flags as bits of an int, keywords as text.  RFC 9051 §2.3.2.

Rows of a hundred thousand messages carry these, so they are plain ints and not enum members: an IntFlag costs forty
times a small int to combine.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from livemail.mail.errors import WireError

SEEN: Final = 1
ANSWERED: Final = 2
FLAGGED: Final = 4
DELETED: Final = 8
DRAFT: Final = 16

SYSTEM_FLAGS: Final[dict[str, int]] = {
    "\\Answered": ANSWERED,
    "\\Flagged": FLAGGED,
    "\\Deleted": DELETED,
    "\\Seen": SEEN,
    "\\Draft": DRAFT,
}
"""In the order in which FLAGS lists them."""

_BY_FOLDED: Final = {name.lower(): bit for name, bit in SYSTEM_FLAGS.items()}

MAX_KEYWORDS: Final = 64
"""Keywords one mailbox can name: one bit each in the message's record."""

MAX_KEYWORD_OCTETS: Final = 255

FlagOp = Literal["add", "remove", "replace"]


class FlagChange(msgspec.Struct, frozen=True, array_like=True):
    """What STORE asks for.  flags: system bits; keywords: names in the asker's case, compared without case."""

    op: FlagOp
    flags: int = 0
    keywords: tuple[str, ...] = ()


def system_flag(name: str) -> int:
    """Return the bit of a system flag in any case.

    Raises WireError for any other name that begins with a backslash (``\\Recent`` among them: only the server sets it).
    """
    try:
        return _BY_FOLDED[name.lower()]
    except KeyError:
        raise WireError(f"Unknown system flag {name[:40]}", code=501, enhanced="5.5.4") from None


def flag_names(flags: int) -> list[str]:
    """Return the names of the set system bits, in the order of `SYSTEM_FLAGS`."""
    return [name for name, bit in SYSTEM_FLAGS.items() if flags & bit]
