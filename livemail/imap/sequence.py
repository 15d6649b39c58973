"""Sequence sets as written, before anything is known about the mailbox.  RFC 9051 §9 sequence-set, RFC 3501 §9.

A set is kept as the pairs the client wrote; only the view, which knows what ``*`` is today and which message stands at
which number, makes a UID set of it.  Parsing is one pass and the number of ranges is limited, because every range costs a
search in the mailbox and later a range of storage.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from livemail.mail.errors import WireError
from livemail.mail.ids import MAX_UID

MAX_RANGES: Final = 16_384
"""More than a command line of one message per range holds."""

_RANGE: Final = re.compile(rb"([1-9][0-9]{0,9}|\*)(?::([1-9][0-9]{0,9}|\*))?")


class SequenceSet(msgspec.Struct, frozen=True):
    """Ranges (first, last) as written, either end first; None stands for ``*``.  Numbers are 1 to 2^32-1."""

    ranges: tuple[tuple[int | None, int | None], ...]

    @classmethod
    def parse(cls, text: bytes) -> SequenceSet:
        """Parse a whole sequence set.  RFC 9051 §9.

        Raises WireError: not the grammar, a number over 2^32-1, more than `MAX_RANGES` ranges, or ``$``
        (RFC 5182, not offered).
        """
        if text.count(b",") >= MAX_RANGES:
            raise WireError(f"At most {MAX_RANGES} ranges in a sequence set")
        return cls(tuple(_parse_range(item) for item in text.split(b",")))


def _parse_range(item: bytes) -> tuple[int | None, int | None]:
    match = _RANGE.fullmatch(item)
    if match is None:
        raise WireError("Expected a sequence set")
    first = _number(match[1])
    return first, first if match[2] is None else _number(match[2])


def _number(digits: bytes) -> int | None:
    if digits == b"*":
        return None
    number = int(digits)
    if number > MAX_UID:
        raise WireError("Number in a sequence set is over 4294967295")
    return number
