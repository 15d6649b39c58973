"""Identities, and sets of UIDs.

A UID set holds disjoint ascending ranges, so that the size of ``1:4294967295`` is two ints.  RFC 9051 §2.3.1.1, §9
sequence-set; the ``*`` of the grammar is resolved by the protocol, which knows the mailbox, before a set is made.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, NewType

AccountId = NewType("AccountId", int)
"""u32, never reused."""

MailboxId = NewType("MailboxId", int)
"""u32, unique within its account, never reused."""

UID = int
"""1 to 2^32-1, ascending in arrival order within a mailbox and one UIDVALIDITY."""

ModSeq = int
"""1 to 2^63-1; one counter per account.  RFC 7162 §3.1."""

MAX_UID: Final = 0xFFFF_FFFF


class UIDSet:
    """An immutable set of ints from 1 to `MAX_UID`, kept as ascending, disjoint, non-adjacent ranges."""

    __slots__ = ("_firsts", "ranges")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        """ranges: (first, last) pairs, inclusive, in any order, overlapping or not, either end first."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted((a, b) if a <= b else (b, a) for a, b in ranges):
            if merged and first <= merged[-1][1] + 1:
                if last > merged[-1][1]:
                    merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        self.ranges: Final = tuple(merged)
        self._firsts: list[int] | None = None

    @classmethod
    def of(cls, uids: Iterable[int]) -> UIDSet:
        """Make a set of single UIDs, in any order."""
        return cls._of_ascending(sorted(uids))

    @classmethod
    def _of_ascending(cls, uids: Sequence[int]) -> UIDSet:
        """uids: ascending; repeats are allowed."""
        ranges: list[tuple[int, int]] = []
        if uids:
            first = last = uids[0]
            for uid in uids:
                if uid > last + 1:
                    ranges.append((first, last))
                    first = uid
                last = uid
            ranges.append((first, last))
        made = cls()
        object.__setattr__(made, "ranges", tuple(ranges))
        return made

    @classmethod
    def all(cls) -> UIDSet:
        """Every possible UID."""
        return cls([(1, MAX_UID)])

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges:
            yield from range(first, last + 1)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __contains__(self, uid: object) -> bool:
        if not isinstance(uid, int):
            return False
        if self._firsts is None:
            self._firsts = [first for first, _ in self.ranges]
        at = bisect_right(self._firsts, uid) - 1
        return at >= 0 and uid <= self.ranges[at][1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UIDSet) and self.ranges == other.ranges

    def __hash__(self) -> int:
        return hash(self.ranges)

    def __or__(self, other: UIDSet) -> UIDSet:
        return UIDSet((*self.ranges, *other.ranges))

    def __repr__(self) -> str:
        return f"UIDSet({self.to_wire().decode()!r})"

    def select(self, uids: Sequence[int]) -> Sequence[int]:
        """Return those of ``uids`` (ascending, no duplicates) that are in the set.  O(ranges · log uids + result)."""
        # `livemail.mail.uids.UIDRuns` knows a quicker way than to be asked for its items.
        position: Callable[[int], int] = getattr(uids, "position", None) or partial(bisect_left, uids)
        if len(self.ranges) == 1:
            first, last = self.ranges[0]
            low, high = position(first), position(last + 1)
            return uids if low == 0 and high == len(uids) else uids[low:high]
        found: list[int] = []
        for first, last in self.ranges:
            low, high = position(first), position(last + 1)
            found.extend(uids[low:high])
            if high == len(uids):
                break
        return found

    def to_wire(self) -> bytes:
        """Render as IMAP's sequence-set, empty for the empty set."""
        return b",".join(b"%d" % a if a == b else b"%d:%d" % (a, b) for a, b in self.ranges)
