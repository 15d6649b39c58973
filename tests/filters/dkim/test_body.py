from __future__ import annotations

import random
from hashlib import sha256

import pytest
from dkim.canonicalization import Relaxed, Simple

from livemail.filters.dkim.body import BodyHash

OTHERS = {"simple": Simple, "relaxed": Relaxed}


def hashed(kind, pieces):
    body = BodyHash(kind)
    for piece in pieces:
        body.feed(piece)
    return body.finish(), body.octets


def expected(kind, octets):
    canonical = OTHERS[kind].canonicalize_body(octets)
    return sha256(canonical).digest(), len(canonical)


CASES = [
    b"",
    b"\r\n",
    b"\r\n\r\n\r\n",
    b"a\r\n",
    b"a \t b\t\r\n\r\n c  \r\n\r\n\r\n",
    b" \r\n",
    b"a\r\n \r\n\t\r\n",
    b"a\rb\r\n\r\r\n",
    b"a\nb\n\r\n",
    b"\n\r\n",
    b"\r\r\n\r\n",
    b"x  y\r\n\r\n\r\nz\r\n",
    b"\r\n\r\na\r\n",
]


@pytest.mark.parametrize("kind", ["simple", "relaxed"])
@pytest.mark.parametrize("octets", CASES)
def test_the_hash_is_the_same_however_the_body_is_cut(kind, octets):
    want = expected(kind, octets)
    assert hashed(kind, [octets]) == want
    assert hashed(kind, [octets[at : at + 1] for at in range(len(octets))]) == want
    for at in range(len(octets)):
        assert hashed(kind, [octets[:at], octets[at:]]) == want


@pytest.mark.parametrize("kind", ["simple", "relaxed"])
def test_any_body_hashes_as_dkimpy_does_it_whole(kind):
    chance = random.Random(3)
    for _ in range(4000):
        octets = b"".join(
            chance.choice([b"\r\n", b"\r\n", b" ", b"\t", b"a", b"\r", b"\n"]) for _ in range(chance.randrange(14))
        )
        octets += b"\r\n"
        cuts = sorted(chance.randrange(len(octets) + 1) for _ in range(3))
        pieces = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
        assert hashed(kind, pieces) == expected(kind, octets), octets


@pytest.mark.parametrize("kind", ["simple", "relaxed"])
def test_a_last_line_without_its_end_gets_one(kind):
    assert hashed(kind, [b"a\r\nb"]) == hashed(kind, [b"a\r\nb\r\n"])


def test_nothing_of_a_long_body_is_kept():
    body = BodyHash("relaxed")
    for _ in range(100):
        body.feed(b"\r\n" * 30_000)
        body.feed(b" \t" * 30_000)
    assert len(body._tail) <= 2
    body.feed(b"x\r\n")
    body.finish()
    assert body.octets == 100 * 60_000 + 100 * 0 + len(b" x\r\n")
