"""UIDRuns behaves like the list of its UIDs, whatever happens to it."""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from livemail.mail.ids import MAX_UID, UIDSet
from livemail.mail.uids import UIDRuns

SETS = st.lists(st.tuples(st.integers(1, 80), st.integers(0, 30)), max_size=6)


class Runs(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.runs = UIDRuns()
        self.listed: list[int] = []

    @rule(
        gaps=st.lists(st.integers(1, 3), max_size=20),
        kind=st.sampled_from([list, tuple, lambda x: array("I", x), iter, UIDRuns.of]),
    )
    def extend(self, gaps, kind):
        last = self.listed[-1] if self.listed else 0
        more = []
        for gap in gaps:
            last += gap
            more.append(last)
        self.runs.extend(kind(more))
        self.listed += more

    @rule(ranges=SETS)
    def remove(self, ranges):
        gone = UIDSet((first, first + more) for first, more in ranges)
        self.runs.remove(gone)
        self.listed = [uid for uid in self.listed if uid not in gone]

    @rule(low=st.integers(-5, 90), high=st.integers(-5, 90))
    def cut(self, low, high):
        made = self.runs[low:high]
        assert list(made) == self.listed[low:high]
        assert len(made) == len(self.listed[low:high])
        made.extend([5000, 5001])
        assert list(made)[-2:] == [5000, 5001]

    @rule()
    def copy(self):
        before = self.runs.copy()
        before.remove(UIDSet.all())
        assert len(before) == 0
        again = UIDRuns.of(self.listed)
        assert again == self.runs
        self.runs = again

    @rule(ranges=SETS)
    def select(self, ranges):
        wanted = UIDSet((first, first + more) for first, more in ranges)
        assert list(wanted.select(self.runs)) == list(wanted.select(self.listed))

    @invariant()
    def same(self):
        assert list(self.runs) == self.listed
        assert len(self.runs) == len(self.listed)
        assert [self.runs[at] for at in range(len(self.listed))] == self.listed
        for uid in range(100):
            assert self.runs.position(uid) == bisect_left(self.listed, uid)
            assert (uid in self.runs) == (uid in self.listed)
        if self.listed:
            assert self.runs[-1] == self.listed[-1]
        ranges = self.runs.ranges
        assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(ranges))


TestRuns = Runs.TestCase


def test_a_mailbox_without_gaps_is_one_run():
    runs = UIDRuns.of(array("I", range(1, 1_000_001)))
    assert runs.ranges == ((1, 1_000_000),)
    assert (runs[999_999], runs.position(500_000)) == (1_000_000, 499_999)
    runs.remove(UIDSet.of([500_000]))
    assert runs.ranges == ((1, 499_999), (500_001, 1_000_000))


def test_the_highest_uid_is_one_of_them():
    runs = UIDRuns([(1, 2), (MAX_UID - 1, MAX_UID)])
    assert list(runs) == [1, 2, MAX_UID - 1, MAX_UID]
    assert runs.position(MAX_UID) == 3
    runs.remove(UIDSet.of([MAX_UID]))
    assert list(runs) == [1, 2, MAX_UID - 1]


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="steps of one"):
        UIDRuns([(1, 9)])[::2]
    with pytest.raises(IndexError):
        UIDRuns([(1, 9)])[9]


@given(SETS)
def test_ranges_give_themselves_back(ranges):
    wanted = UIDSet((first, first + more) for first, more in ranges)
    assert UIDRuns(wanted.ranges).ranges == wanted.ranges
