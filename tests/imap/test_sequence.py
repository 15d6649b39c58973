"""Sequence sets: the grammar, and what it refuses.  RFC 9051 §9."""

from __future__ import annotations

import pytest

from livemail.imap.sequence import MAX_RANGES, SequenceSet
from livemail.mail.errors import WireError


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        (b"1", ((1, 1),)),
        (b"*", ((None, None),)),
        (b"2:4", ((2, 4),)),
        (b"4:2", ((4, 2),)),
        (b"*:3", ((None, 3),)),
        (b"1,3:*,4294967295", ((1, 1), (3, None), (4294967295, 4294967295))),
    ],
)
def test_a_set_is_read_as_it_was_written(text, ranges):
    assert SequenceSet.parse(text).ranges == ranges


@pytest.mark.parametrize(
    "text",
    [b"", b"0", b"01", b"1:0", b"1,", b",1", b"1:2:3", b"-1", b"4294967296", b"99999999999999999999", b"$", b"1 ", b"a",
     b"**", b"1:", b":1", b"1,,2", b"\xd9\xa1"],
)  # fmt: skip
def test_what_is_no_set_is_a_wire_error(text):
    with pytest.raises(WireError):
        SequenceSet.parse(text)


def test_thirty_thousand_ranges_are_refused():
    SequenceSet.parse(b",".join([b"1:2"] * MAX_RANGES))
    with pytest.raises(WireError, match="At most"):
        SequenceSet.parse(b",".join([b"%d" % n for n in range(1, 30_001)]))
