"""What shipped filters and the story's reader make of any octets: an answer, in bounded work, and nothing raised."""

from __future__ import annotations

import msgspec

from livemail.filters.shipped.attachments import (
    Attachments,
    Bounds,
    clean_name,
    kinds_of_name,
    kinds_of_octets,
    look_inside,
)
from livemail.filters.shipped.external import ExternalTag
from livemail.filters.shipped.identity import SenderIdentity
from livemail.filters.shipped.loops import LoopGuard
from livemail.interfaces.story import decode_story, encode_story
from livemail.testing.filters import run_filter


def fuzz_one(data: bytes) -> None:
    """Octets as an archive, a name, a message and a story."""
    bounds = Bounds(100, 100_000)
    found = list(look_inside(data, 3, bounds))
    assert len(found) < 1000
    assert bounds.octets >= -100_000
    name = data.decode("utf-8", "replace")
    assert "/" not in clean_name(name)
    kinds_of_name(name)
    kinds_of_octets(data)
    for kind in (Attachments, ExternalTag, SenderIdentity, LoopGuard):
        run_filter(kind, data)
    try:
        story = decode_story(data)
    except msgspec.DecodeError:
        return
    assert decode_story(encode_story(story)) == story
