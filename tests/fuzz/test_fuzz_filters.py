from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.filters.shipped_rig import attached, zipped
from tests.fuzz import fuzz_filters

ZIP = zipped(("a.exe", b"MZ"), ("b.zip", zipped(("c.txt", b"x" * 100))))
MAIL = attached(ZIP, "filename*=utf-8''a%E2%80%AE.zip")
WORDS = [
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"From: ",
    b"Received: by x;",
    b"\r\n",
    b"=?utf-8?q?",
    b"?=",
    b"<",
    b"@",
    b"\xff",
    b".exe",
]


def spoiled(octets):
    """Some octets of it changed, or cut off."""
    return st.tuples(st.integers(0, len(octets)), st.binary(max_size=6), st.integers(0, len(octets))).map(
        lambda change: octets[: change[0]] + change[1] + octets[change[0] + len(change[1]) : max(change[0], change[2])]
    )


@settings(max_examples=400, deadline=None)
@given(
    spoiled(ZIP) | spoiled(MAIL) | st.lists(st.sampled_from(WORDS), max_size=30).map(b"".join) | st.binary(max_size=300)
)
def test_filters(data):
    fuzz_filters.fuzz_one(data)
