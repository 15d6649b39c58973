"""Keyword names and the bits that stand for them in one mailbox.  RFC 9051 §2.3.2.

A name is compared without case and keeps the spelling it came with first.  Bits are never given to another name: a
session that learned the table long ago still reads rows rightly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from livemail.mail.errors import LimitReached
from livemail.mail.flags import MAX_KEYWORDS
from livemail.storage.lmdb.records import MailboxRecord


def keyword_bits(record: MailboxRecord, names: Iterable[str]) -> int:
    """Return the bits of those names the mailbox knows."""
    known = {keyword.lower(): bit for bit, keyword in enumerate(record.keywords)}
    bits = 0
    for name in names:
        bit = known.get(name.lower())
        if bit is not None:
            bits |= 1 << bit
    return bits


def assign_keywords(record: MailboxRecord, names: Sequence[Iterable[str]]) -> tuple[MailboxRecord, list[int]]:
    """Return the record with every name entered (the same object when none is new), and the bits of each group of names.

    Raises LimitReached.
    """
    known = {keyword.lower(): bit for bit, keyword in enumerate(record.keywords)}
    table = list(record.keywords)
    all_bits = []
    for group in names:
        bits = 0
        for name in group:
            folded = name.lower()
            bit = known.get(folded)
            if bit is None:
                if len(table) >= MAX_KEYWORDS:
                    raise LimitReached(f"A mailbox has at most {MAX_KEYWORDS} keywords")
                bit = known[folded] = len(table)
                table.append(name)
            bits |= 1 << bit
        all_bits.append(bits)
    if len(table) == len(record.keywords):
        return record, all_bits
    return msgspec.structs.replace(record, keywords=tuple(table)), all_bits


def translate_keywords(
    source: MailboxRecord, target: MailboxRecord, used: Iterable[int]
) -> tuple[MailboxRecord, dict[int, int]]:
    """Map keyword bits of one mailbox to another's.

    used: every combination of bits that occurs.  Returns the target's record and the combination there of each.
    Raises LimitReached.
    """
    combinations = list(used)
    names = [[name for bit, name in enumerate(source.keywords) if bits >> bit & 1] for bits in combinations]
    record, bits = assign_keywords(target, names)
    return record, dict(zip(combinations, bits, strict=True))
