"""Drives the POP3 and SASL targets with what hypothesis makes of their alphabets."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz import fuzz_pop3, fuzz_sasl

_POP3 = st.lists(
    st.sampled_from(
        [
            b"\r\n",
            b"\n",
            b"\r",
            b".",
            b"..",
            b"\0",
            b" ",
            b"RETR",
            b"TOP 1 -1",
            b"PASS  x ",
            b"AUTH PLAIN",
            b"\xff",
            b"a" * 39,
        ]
    )
    | st.binary(max_size=5),
    max_size=20,
).map(b"".join)
_SASL = st.lists(st.sampled_from([b"\0", b"tim", b"\xc3\xa4", b"\xff", b"x" * 600]) | st.binary(max_size=3), max_size=8)


@given(_POP3)
@settings(max_examples=500, deadline=None)
@example(b"\x01\r\n.\r\n")
@example(b".\n.\r\n")
def test_pop3(data: bytes):
    fuzz_pop3.fuzz_one(data)


@given(_SASL.map(b"".join))
@settings(max_examples=300, deadline=None)
@example(b"\0tim\0secret")
def test_sasl(data: bytes):
    fuzz_sasl.fuzz_one(data)
