"""Drives the milter target with what hypothesis makes of its alphabet."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz import fuzz_milter

_WORDS = [
    b"\xff", b"\0", b"\n", b"\r\n ", b"\r", b" ", b"<a@b.example>", b"<>", b"\xffM<a@b>\0", b"\xffR<c@d>\0", b"\xffT",
    b"\xffLSubject\0 x\0", b"\xffN", b"\xffBbody", b"\xffE", b"\xffA", b"\xffK", b"\xffDMi\0x\0", b"X-A\0 b\0",
    b"\0\0\0\1", b"\0\0\0\6", b"550-", b"550 5.7.1 no", b"%", b"SIZE=9\0", b"NOTIFY=NEVER\0", b"\0\0\0\3Aaa",
    b"host\x004\0\x19192.0.2.1\0", b'"', b"@",
]  # fmt: skip


@given(st.lists(st.sampled_from(_WORDS) | st.binary(max_size=4), max_size=14).map(b"".join))
@settings(max_examples=400, deadline=None)
@example(b"M<a@b>\0\xffR<c@d>\0\xffT\xffLSubject\0 x\0\xffN\xffBx\xffE\xffM<>\0")
@example(b"\0\0\0\1A\0\0\0\0")
@example(b"X\0a\n b\0")
def test_milter(data: bytes):
    fuzz_milter.fuzz_one(data)
