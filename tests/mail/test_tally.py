"""The tally against a reading of the same octets one by one, cut anywhere."""

from __future__ import annotations

import random
import re

import pytest

from livemail.mail.message.tally import Tally


def slow(octets: bytes) -> tuple[int, bool, bool, bool, int, int]:
    bare = bool(re.search(rb"\r(?!\n)|(?<!\r)\n", octets))
    longest = max(map(len, re.split(rb"\r\n" if not bare else rb"\r?\n", octets)))
    return len(octets), bare, b"\0" in octets, max(octets, default=0) > 127, longest, octets.count(b"\n")


def fast(pieces: list[bytes]) -> tuple[int, bool, bool, bool, int, int]:
    tally = Tally()
    for at, piece in enumerate(pieces, start=1):
        tally.add(piece, final=at == len(pieces))
    return (
        tally.size,
        tally.has_bare_newline,
        tally.has_nul,
        tally.has_8bit,
        tally.longest_line,
        tally.line_feeds,
    )


@pytest.mark.parametrize("seed", range(8))
def test_whole_it_is_what_reading_octet_by_octet_says(seed):
    rng = random.Random(seed)
    for _ in range(1000):
        octets = b"".join(
            rng.choices([b"\r\n", b"\r", b"\n", b"a", b"bcd", b"\0", b"\x80", b"\x0b\x85"], k=rng.randrange(12))
        )
        if rng.random() < 0.5:
            octets = re.sub(rb"\r\n|\r|\n", b"\r\n", octets)
        assert fast([octets]) == slow(octets), octets


@pytest.mark.parametrize("seed", range(4))
def test_cut_anywhere_it_is_the_same_as_whole_where_lines_are_sound(seed):
    rng = random.Random(seed)
    for _ in range(1000):
        octets = b"".join(rng.choices([b"\r\n", b"a", b"bcd", b"\0", b"\x80"], k=rng.randrange(12)))
        cuts = sorted(rng.randrange(len(octets) + 1) for _ in range(3))
        pieces = [octets[start:end] for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
        assert fast(pieces) == slow(octets), (octets, cuts)
