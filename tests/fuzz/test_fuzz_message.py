"""Runs the message target on made-up messages and on mutated vectors."""

from __future__ import annotations

import pathlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from livemail.mail.message import scanner
from tests.fuzz.fuzz_message import fuzz_one

_VECTORS = [
    path.read_bytes() for path in sorted((pathlib.Path(__file__).parent.parent / "vectors" / "mime").glob("*.eml"))
]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_octets_are_a_message(data: bytes) -> None:
    fuzz_one(data)


def test_mutated_messages_are_messages() -> None:
    rng = random.Random(2045)
    pieces = [line + b"\n" for vector in _VECTORS for line in vector.split(b"\n")]
    kept = scanner._BATCH_OCTETS
    scanner._BATCH_OCTETS = 1  # type: ignore[misc]  # So that the cut is a border between batches.
    try:
        for _ in range(1500):
            data = bytearray(
                b"".join(rng.choices(pieces, k=rng.randrange(40))) if rng.random() < 0.5 else rng.choice(_VECTORS)
            )
            for _ in range(rng.randrange(6)):
                at = rng.randrange(len(data) + 1)
                data[at : at + rng.randrange(4)] = rng.choice(
                    [b"", b"\r", b"\n", b"\0", b"--", b'"', b"(", b"\xff", b"=", b":"]
                )
            fuzz_one(bytes(data))
    finally:
        scanner._BATCH_OCTETS = kept  # type: ignore[misc]
