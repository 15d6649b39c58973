"""Drives the DKIM target with what hypothesis makes of its alphabet."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz import fuzz_dkim

_WORDS = [
    b" ", b"\t", b"\r\n", b"\r\n\t", b"\r", b"\n", b";", b"=", b":", b"v=1;", b"a=rsa-sha256;", b"a=ed25519-sha256;", b"d=example.org;",
    b"s=s;", b"h=from:to;", b"h=", b"bh=AAAA;", b"b=AAAA;", b"l=5;", b"t=9", b"x=0;", b"i=@a.example.org;", b"q=dns/txt;", b"c=relaxed/",
    b"p=", b"k=rsa;", b"t=s;", b"AAAA", b"@", b"\xff", b"(", b")", b"\\", b'"', b"mx.example",
]  # fmt: skip


@given(st.lists(st.sampled_from(_WORDS) | st.binary(max_size=3), max_size=14).map(b"".join))
@settings(max_examples=300, deadline=None)
@example(b"v=1; a=rsa-sha256; d=example.org; s=s; h=from; bh=AAAA; b=AAAA; l=0")
@example(b"((((\\")
def test_dkim(data: bytes):
    fuzz_dkim.fuzz_one(data)
