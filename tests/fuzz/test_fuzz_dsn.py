from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import fuzz_dsn

WORDS = [b"+2B", b"+0D", b"+0A", b"+", b"=", b"\\x{", b"}", b"3B4", b"D800", b"41", b"5C", b"20", b"a@b", b";", b"utf-8", b"rfc822",
         b" ", b"\\", "δ".encode(), b"\xff", "\u202e".encode(), b"\r\n", b"x" * 99]  # fmt: skip


@settings(max_examples=800, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12).map(b"".join) | st.binary(max_size=60))
def test_dsn_parameters(data):
    fuzz_dsn.fuzz_one(data)
