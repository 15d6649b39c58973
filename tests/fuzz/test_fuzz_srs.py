from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import fuzz_srs

WORDS = [
    b"SRS0",
    b"SRS1",
    b"srs0",
    b"=",
    b"+",
    b"-",
    b"aaaaaa",
    b"aa",
    b"a.example",
    b"alice",
    b"@",
    b"\xff",
    "\u017f".encode(),
    b" ",
]


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12).map(b"".join) | st.binary(max_size=70))
def test_srs(data):
    fuzz_srs.fuzz_one(data)
