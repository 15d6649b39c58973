"""UIDs in order, as a session has been told of them.

A mailbox of a million messages has few gaps: as runs it takes a few numbers where an array takes four megabytes, and it is opened,
searched and added to at the price of its gaps, not of its messages.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from operator import add, sub
from typing import Final, overload

from livemail.mail.ids import UID, UIDSet

_TYPE: Final = "I"


class UIDRuns(Sequence[UID]):
    """Ascending UIDs without duplicates; behaves like the list of them, and gets longer at its end and shorter anywhere."""

    __slots__ = ("_before", "_count", "_firsts", "_lasts")

    def __init__(self, ranges: Iterable[tuple[UID, UID]] = ()) -> None:
        """ranges: (first, last) inclusive, ascending, disjoint."""
        self._firsts = array(_TYPE)
        self._lasts = array(_TYPE)
        self._count = 0
        self._before = array(_TYPE)
        for first, last in ranges:
            self._add(first, last)

    @classmethod
    def of(cls, uids: Iterable[UID]) -> UIDRuns:
        """Make one of UIDs, ascending."""
        if isinstance(uids, UIDRuns):
            return uids.copy()
        made = cls()
        made.extend(uids)
        return made

    @classmethod
    def of_ends(cls, firsts: array[int], lasts: array[int]) -> UIDRuns:
        """Make one of the ends of its runs, ascending and disjoint; a run after the other would take twenty times as long."""
        made = cls()
        made._firsts, made._lasts = firsts, lasts
        if firsts:
            made._count = made._starts()[-1] + lasts[-1] - firsts[-1] + 1
        return made

    def copy(self) -> UIDRuns:
        """Return another with the same UIDs."""
        made = UIDRuns()
        made._firsts, made._lasts, made._before = self._firsts[:], self._lasts[:], self._before[:]
        made._count = self._count
        return made

    @property
    def ranges(self) -> tuple[tuple[UID, UID], ...]:
        """(first, last) of each run."""
        return tuple(zip(self._firsts, self._lasts, strict=True))

    @property
    def run_count(self) -> int:
        """How many runs there are."""
        return len(self._firsts)

    def _add(self, first: UID, last: UID) -> None:
        if self._lasts and self._lasts[-1] + 1 == first:
            self._lasts[-1] = last
        else:
            self._firsts.append(first)
            self._lasts.append(last)
        self._count += last - first + 1

    # ------------------------------------------------------------------------------------------------------ as a list

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[UID]:
        for first, last in zip(self._firsts, self._lasts, strict=True):
            yield from range(first, last + 1)

    def __contains__(self, uid: object) -> bool:
        if not isinstance(uid, int):
            return False
        run = bisect_right(self._firsts, uid) - 1
        return run >= 0 and uid <= self._lasts[run]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UIDRuns) and (self._firsts, self._lasts) == (other._firsts, other._lasts)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"UIDRuns({UIDSet(self.ranges).to_wire().decode()})"

    @overload
    def __getitem__(self, at: int) -> UID: ...
    @overload
    def __getitem__(self, at: slice) -> UIDRuns: ...
    def __getitem__(self, at: int | slice) -> UID | UIDRuns:
        if isinstance(at, slice):
            low, high, step = at.indices(self._count)
            if step != 1:
                raise ValueError("UIDs are cut in steps of one only")
            return self._cut(low, high)
        index = at + self._count if at < 0 else at
        if not 0 <= index < self._count:
            raise IndexError(at)
        run = bisect_right(self._starts(), index) - 1
        return self._firsts[run] + index - self._starts()[run]

    def _cut(self, low: int, high: int) -> UIDRuns:
        made = UIDRuns()
        if low < high:
            starts = self._starts()
            first, last = bisect_right(starts, low) - 1, bisect_left(starts, high)
            made._firsts, made._lasts = self._firsts[first:last], self._lasts[first:last]
            made._firsts[0] += low - starts[first]
            made._lasts[-1] = self._firsts[last - 1] + high - 1 - starts[last - 1]
            made._count = high - low
        return made

    def _starts(self) -> Sequence[int]:
        """Return the index of each run's first UID; those before the first change are known from the last time."""
        before, known = self._before, len(self._before)
        if known < len(self._firsts):
            start = before[-1] + self._lasts[known - 1] - self._firsts[known - 1] + 1 if known else 0
            # A run of n UIDs reaches n - 1 above its first, so each is preceded by one more than the differences say.
            reaches = accumulate(map(sub, self._lasts[known:-1], self._firsts[known:-1]), initial=start)
            before.extend(map(add, reaches, range(len(self._firsts) - known)))
        return before

    def position(self, uid: UID) -> int:
        """Return how many UIDs are lower: where ``uid`` stands, or would."""
        run = bisect_right(self._firsts, uid) - 1
        if run < 0:
            return 0
        return self._starts()[run] + min(uid, self._lasts[run] + 1) - self._firsts[run]

    # ------------------------------------------------------------------------------------------------------ changes

    def extend(self, uids: Iterable[UID]) -> None:
        """Add UIDs above all there are, ascending."""
        if isinstance(uids, UIDRuns):
            for first, last in uids.ranges:
                self._add(first, last)
            return
        listed = uids if isinstance(uids, array | list | tuple) else list(uids)
        at, end = 0, len(listed)
        while at < end:
            # A stretch without gaps is found by its ends, however long: the last UID tells how many may be missing.
            length = _stretch(listed, at, end)
            self._add(listed[at], listed[at + length - 1])
            at += length

    def remove(self, uids: UIDSet) -> None:
        """Remove those that are there."""
        for first, last in reversed(uids.ranges):
            low, high = bisect_left(self._lasts, first), bisect_right(self._firsts, last)
            if low >= high:
                continue
            firsts, lasts = array(_TYPE), array(_TYPE)
            gone = sum(map(sub, self._lasts[low:high], self._firsts[low:high])) + high - low
            if self._firsts[low] < first:
                firsts.append(self._firsts[low])
                lasts.append(first - 1)
                gone -= first - self._firsts[low]
            if self._lasts[high - 1] > last:
                firsts.append(last + 1)
                lasts.append(self._lasts[high - 1])
                gone -= self._lasts[high - 1] - last
            self._firsts[low:high], self._lasts[low:high] = firsts, lasts
            self._count -= gone
            del self._before[low:]


def _stretch(uids: Sequence[UID], at: int, end: int) -> int:
    """Return how many consecutive UIDs begin at an index: doubled, then halved."""
    first = uids[at]
    length, more = 1, 1
    while at + length + more <= end and uids[at + length + more - 1] == first + length + more - 1:
        length += more
        more *= 2
    while more:
        if at + length + more <= end and uids[at + length + more - 1] == first + length + more - 1:
            length += more
        more //= 2
    return length
