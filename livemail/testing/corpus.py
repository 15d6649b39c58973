"""A folder of messages and transcripts through a filter: verdicts beside the golden ones, seconds and octets of memory for each.

``NAME.eml`` is a message; its envelope comes from Return-Path or From, and from X-Original-To, Delivered-To or To.  ``NAME.smtp`` is a
transcript (`livemail.testing.dialogue`).  ``NAME.verdict`` beside a message is what must come of it, as `describe` writes it.
"""

from __future__ import annotations

import re
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from livemail.filters import Continue, Defer, Reject, Server, Verdict
from livemail.filters.chain import FilterSpec
from livemail.filters.once import FilterResult
from livemail.filters.plan import Loaded
from livemail.mail.message.addresses import parse_addresses
from livemail.testing.dialogue import Player
from livemail.testing.filters import run_filter_async
from livemail.testing.hostile import hostile_messages

HOSTILE = "hostile"


class Tried(msgspec.Struct):
    """One message or transcript.  lines: what came of it; golden: what must, None where nothing is said.

    octets: the peak of memory Python took for it, the message's own octets in the store included.
    """

    name: str
    lines: list[str]
    golden: list[str] | None
    seconds: float
    octets: int
    failure: str = ""

    @property
    def is_right(self) -> bool:
        """Whether the filter did not fail, and did what is golden."""
        return not self.failure and (self.golden is None or self.golden == self.lines)


class Item(msgspec.Struct):
    """What is tried.  path: None for a message that was made."""

    name: str
    octets: bytes
    path: Path | None = None
    is_transcript: bool = False


def in_words(verdict: Verdict) -> str:
    """A verdict in one line, the same for the same verdict."""
    word = type(verdict).__name__.lower()
    if isinstance(verdict, Reject | Defer):
        return f"{word} {verdict.code} {verdict.enhanced} {verdict.text}"
    reason = getattr(verdict, "reason", "")
    return f"{word} {reason}" if reason else word


def describe(result: FilterResult) -> list[str]:
    """What came of a message, line by line, without times: what a golden file holds."""
    lines = [in_words(result.verdict)]
    if result.is_junk and not lines[0].startswith("quarantine"):
        lines.append("quarantine")
    lines += [f"refused {path}: {in_words(verdict)}" for path, verdict in result.refused.items()]
    lines += [f"edit {edit}" for edit in result.edits]
    lines += [f"score {points:g} {reason}" for points, reason in result.scores]
    return lines


def items(corpus: str, *, with_hostile: bool) -> Iterator[Item]:
    """Yield what is in a folder or file, by name, and the hostile messages behind it.  Raises OSError."""
    if corpus != HOSTILE:
        place = Path(corpus)
        paths = (
            sorted(each for each in place.rglob("*") if each.suffix in {".eml", ".smtp"}) if place.is_dir() else [place]
        )
        for path in paths:
            name = str(path.relative_to(place)) if place.is_dir() else path.name
            yield Item(name, path.read_bytes(), path, path.suffix == ".smtp")
    if with_hostile or corpus == HOSTILE:
        for name, octets in hostile_messages():
            yield Item(f"{HOSTILE}/{name}", octets)


def envelope_of(octets: bytes) -> tuple[str, list[str]]:
    """Sender and recipients a message seems to have had."""
    head = octets[: 64 * 1024].replace(b"\r\n", b"\n").partition(b"\n\n")[0] + b"\n"

    def addresses(name: bytes) -> list[str]:
        field = re.search(rb"^" + name + rb":((?:.*\n)(?:[ \t].*\n)*)", head, re.IGNORECASE | re.MULTILINE)
        found = parse_addresses(field.group(1), 50) if field is not None else []
        pairs = [
            (local.decode("ascii", "ignore"), domain.decode("ascii", "ignore"))
            for _, local, domain in found
            if local and domain
        ]
        return [f"{local}@{domain}" for local, domain in pairs if local and domain and " " not in local]

    sender = next(iter(addresses(b"return-path") or addresses(b"from")), "")
    for name in (b"x-original-to", b"delivered-to", b"to"):
        if recipients := addresses(name):
            return sender, recipients
    return sender, ["you@localhost"]


async def try_one(item: Item, specs: Sequence[FilterSpec], server: Server) -> Tried:
    """Try one twice: once for time, once for memory."""
    golden = None
    if item.path is not None and item.path.with_suffix(".verdict").exists() and not item.is_transcript:
        golden = item.path.with_suffix(".verdict").read_text("utf-8").splitlines()
    began = time.perf_counter()
    lines, failure, seconds = await _once(item, specs, server)
    seconds = seconds or time.perf_counter() - began
    tracemalloc.start()
    try:
        await _once(item, specs, server)
        octets = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return Tried(item.name, lines, golden, seconds, octets, failure)


async def _once(item: Item, specs: Sequence[FilterSpec], server: Server) -> tuple[list[str], str, float]:
    if not item.is_transcript:
        sender, recipients = envelope_of(item.octets)
        result = await run_filter_async(
            specs, item.octets, sender=sender, recipients=recipients, server=server, may_fail=True
        )
        return describe(result), result.failure, result.seconds
    loaded = [Loaded(spec, server) for spec in specs]
    try:
        heard = await Player(loaded, server).play(item.octets.decode("utf-8", "surrogateescape"))
    finally:
        for each in loaded:
            each.retire()
    wrong = [f"line {each.line}: expected {each.expected!r}, came {each.said!r}" for each in heard if not each.fits]
    return [each.said for each in heard], "; ".join(wrong), 0.0


def is_objection(verdict: Verdict) -> bool:
    """Whether a verdict says anything."""
    return not isinstance(verdict, Continue)


def summary(tried: Sequence[Tried]) -> dict[str, Any]:
    """Counts and extremes."""
    slowest = max(tried, key=lambda each: each.seconds, default=None)
    largest = max(tried, key=lambda each: each.octets, default=None)
    return {
        "messages": len(tried),
        "wrong": sum(not each.is_right for each in tried),
        "golden": sum(each.golden is not None for each in tried),
        "slowest": slowest.name if slowest else "",
        "slowest_seconds": slowest.seconds if slowest else 0.0,
        "largest": largest.name if largest else "",
        "largest_octets": largest.octets if largest else 0,
    }
