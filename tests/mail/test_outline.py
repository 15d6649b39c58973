"""The outline of a message says what its summary would."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemail.mail.message.outline import Outline, outline
from livemail.mail.message.scanner import Limits, scan

_VECTORS = sorted((pathlib.Path(__file__).parent.parent / "vectors" / "mime").glob("*.eml"))
_NAMES = ("header_size", "message_id", "received_count", "has_bare_newline", "has_8bit")
_PIECES = [
    b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"Received: x", b"RECEIVED \t: y", b"Message-ID: <a@b>", b"message-id:\r\n <x@y>",
    b"Message-Id: none", b" folded <c@d>", b"body", b"\xff", b"From someone", b":", b"X-Received: z", b"\0",
]  # fmt: skip


def _same(content: bytes) -> None:
    found, summary = outline(content), scan(content)
    assert {name: getattr(found, name) for name in _NAMES} == {name: getattr(summary, name) for name in _NAMES}


@given(st.lists(st.sampled_from(_PIECES), max_size=12).map(b"".join), st.booleans())
def test_it_says_what_the_summary_says(content: bytes, is_regular: bool) -> None:
    if is_regular:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    _same(content)


@pytest.mark.parametrize("path", _VECTORS, ids=lambda path: path.name)
def test_of_real_messages_too(path: pathlib.Path) -> None:
    octets = path.read_bytes()
    _same(octets)
    _same(octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))


def test_a_regular_message_is_not_scanned() -> None:
    assert isinstance(outline(b"Subject: x\r\n\r\nbody\r\n"), Outline)


def test_a_header_longer_than_what_is_looked_into() -> None:
    line = b"X-Filler: " + b"y" * 70 + b"\r\n"
    long = line * (Limits().header_octets // len(line) + 2)
    _same(b"Received: a\r\n" + long + b"Received: b\r\nMessage-ID: <late@x>\r\n\r\nbody\r\n")
