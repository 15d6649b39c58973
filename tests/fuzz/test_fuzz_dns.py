"""Drives the DNS target with pieces of answers, and with answers that were damaged."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz import fuzz_dns

_OWNER = st.sampled_from(
    [b"\xc0\x0c", b"\0", b"\4mail\xc0\x11", b"\xc0\xff", b"\xff", b"\x3f" + b"x" * 63 + b"\0", b"\1\n\1.\0"]
)
_TYPE = st.sampled_from([1, 2, 5, 6, 12, 15, 16, 28, 41, 46, 52, 250, 255]).map(lambda kind: kind.to_bytes(2, "big"))
_CLASS = st.sampled_from([b"\0\1", b"\0\3", b"\0\xff", b"\x04\xd0"])
_TTL = st.sampled_from([b"\0\0\1\0", b"\xff\xff\xff\xff", b"\0\0\0\0"])
_RDATA = st.sampled_from(
    [
        b"\xc0\0\2\1",
        b"\0\x0a\xc0\x0c",
        b"\xc0\x0c",
        b"\0",
        b"\0\0\0",
        b"\5hello",
        b"\xff",
        b"\3\1\1" + b"x" * 32,
        b"\3\1\1x",
        b"",
    ]
) | st.binary(max_size=40)
_LENGTH = st.none() | st.integers(0, 65535)


@st.composite
def _record(draw: st.DrawFn) -> bytes:
    rdata = draw(_RDATA)
    length = draw(_LENGTH) if draw(st.integers(0, 5)) == 0 else None
    size = (len(rdata) if length is None else length).to_bytes(2, "big")
    return draw(_OWNER) + draw(_TYPE) + draw(_CLASS) + draw(_TTL) + size + rdata


_ANSWER = st.tuples(st.binary(min_size=6, max_size=6), st.lists(_record() | st.binary(max_size=9), max_size=8)).map(
    lambda parts: parts[0] + b"".join(parts[1])
)


@given(_ANSWER | st.binary(max_size=200))
@settings(max_examples=600, deadline=None)
@example(b"\1\0\0\0\0\0" + b"\xc0\x0c\0\x05\0\1\0\0\0\1\0\2\xc0\x0c")
@example(b"\0\0\1\0\0\0" + b"\0\0\x29\x04\xd0\xff\0\0\0\0\0")
@example(b"\1\0\0\0\0\0" + b"\xc0\x0c\0\x0f\0\1\0\0\0\1\0\4\0\1\xc0\x7f")
def test_dns(data: bytes) -> None:
    fuzz_dns.fuzz_one(data)
