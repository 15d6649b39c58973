"""Drives the Maildir target with what hypothesis makes of its alphabet."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz import fuzz_maildir

_PIECES = st.sampled_from(
    [
        b"3 V1 N9",
        b"1 7 8",
        b"\n",
        b" ",
        b":",
        b":2,",
        b"FSab",
        b"5 :x",
        b"6 W3 :y",
        b".",
        b".a",
        b"\\2e",
        b"&AOQ-",
        b"0 k",
    ]
)


@given(st.lists(_PIECES | st.binary(max_size=4), max_size=16).map(b"".join))
@settings(max_examples=500, deadline=None)
@example(b"3 V1 N4294967296\n")
@example(b"3 V1 N9\n4294967295 :x\n")
def test_maildir(data: bytes):
    fuzz_maildir.fuzz_one(data)
