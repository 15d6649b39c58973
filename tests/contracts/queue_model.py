"""What a queue is, said as simply as it can be: a list of recipients, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass
class Entry:
    """One recipient."""

    message: int
    number: int
    address: str
    destination: str
    priority: int
    due: float
    state: str = "queued"
    attempts: int = 0
    until: float = 0.0
    before: str = ""
    pending: str = ""
    extended: float = 0.0
    since: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.state in {"delivered", "failed"}


class QueueModel:
    """All of them, and which destinations are left alone until when."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.down: dict[str, tuple[int, float]] = {}

    def matching(self, pattern: str, state: str = "") -> list[Entry]:
        return [
            each
            for each in self.entries
            if fnmatchcase(each.address, pattern or "*") and (each.state == state if state else not each.is_over)
        ]

    def tidy(self) -> None:
        """Messages all of whose recipients are over are gone, and so is what nobody is to be sent to."""
        living = {each.message for each in self.entries if not each.is_over}
        self.entries = [each for each in self.entries if each.message in living]
        used = {each.destination for each in self.entries if not each.is_over and each.state != "failing"}
        used -= {
            each.destination
            for each in self.entries
            if each.state == "claimed" and each.before == "failing" and each.destination not in self._waited()
        }
        self.down = {name: news for name, news in self.down.items() if name in used}

    def _waited(self) -> set[str]:
        """Destinations whose row something refers to."""
        return {
            each.destination
            for each in self.entries
            if each.state in {"queued", "deferred", "held"} or (each.state == "claimed" and each.before != "failing")
        }

    def due(self, now: float) -> list[Entry]:
        """What a claim without limits gets: a destination found down gives all (to be deferred) or one job (a probe)."""
        return [each for each in self.entries if each.state in {"queued", "deferred", "failing"} and each.due <= now]

    def come_back(self, entry: Entry) -> None:
        """A claim ended without settling the recipient; its state and due time are set already."""
        pending, entry.pending = entry.pending, ""
        if pending == "drop":
            self.entries.remove(entry)
        elif pending == "fail":
            entry.state = "failing"
        elif pending == "hold" and entry.state != "failing":
            entry.state, entry.since = "held", entry.due

    def reclaim(self, is_void: Any) -> None:
        for each in [each for each in self.entries if each.state == "claimed" and is_void(each)]:
            each.state = each.before
            self.come_back(each)
        self.tidy()
