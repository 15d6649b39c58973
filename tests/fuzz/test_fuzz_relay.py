from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz import fuzz_relay

WORDS = [
    b"250 ok\r\n", b"250-", b"550 5.1.1 no\r\n", b"354 go\r\n", b"421 4.3.2 bye\r\n", b"250 ", b"2", b"\r\n", b"\r", b"\n", b"\0", b".", b"\r\n.\r\n",
    b"\xff", b"x" * 2100, b"5.1.1 ", b"SIZE 10", b"PIPELINING\r\n", b"Content-Type: multipart/mixed; boundary=b\r\n", b"--b\r\n", b"--b--",
    b"Content-Transfer-Encoding: 8bit\r\n", "ü".encode(), b" ", b":",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12).map(b"".join) | st.binary(max_size=60))
@example(b"250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n")
@example(b"")
def test_the_relay(data):
    fuzz_relay.fuzz_one(data)
