from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import fuzz_bounce

WORDS = [b"Subject:", b"Message-ID:", b"<a@b>", b"=?utf-8?Q?", b"=0D=0A", b"=E2=80=AE", b"?=", b"=?utf-8?B?DQpCY2M6IHg=?=", b" ", b"\t",
         b"\r\n", b"\n", b"\r", b"\0", b"\xff", "ä".encode(), b"\r\n\r\n", b"Bcc: x@y", b"--", b"x" * 200, b"=?rot13?Q?a?="]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=14).map(b"".join) | st.binary(max_size=80))
def test_reports_about_anything(data):
    fuzz_bounce.fuzz_one(data)
