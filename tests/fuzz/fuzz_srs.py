"""SRS under any local part: back only ever undoes forward, and nothing but NotRewritten is raised."""

from __future__ import annotations

from livemail.delivery.srs import NotRewritten, Rewriter, is_rewritten
from livemail.mail.address import Address, Path

REWRITER = Rewriter([b"k" * 32], "us.example", lambda: 1_790_000_000.0)


def fuzz_one(data: bytes) -> None:
    """One local part, as a bounce's recipient and as a reverse-path."""
    local = data.decode("utf-8", "replace") or "x"
    address = Address(local, "us.example")
    is_rewritten(address)
    try:
        REWRITER.back(address)
    except NotRewritten:
        pass
    else:
        raise AssertionError(f"{local!r} was never made by us")
    foreign = Address(local, "a.example")
    there = REWRITER.forward(Path(foreign)).address
    assert there is not None
    if there != foreign:
        assert there.domain == "us.example"
        assert len(there.local_part.encode()) <= 64
        origin = REWRITER.back(there)
        assert origin == foreign or origin.local_part.startswith("SRS0")
