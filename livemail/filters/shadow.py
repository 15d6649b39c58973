"""What a shadow would have done, beside what the live filter did.

Both note their decisions during a mail transaction; at its end they are compared.  A shadow without a live filter of its name is
compared with one that never objects and changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from livemail.filters.edits import Edits
from livemail.filters.plan import Plan
from livemail.interfaces.filter import Continue, Defer, Reject, Skip, Verdict

MAX_DECISIONS = 100
"""Of one filter in one transaction; what comes after is not compared."""


def in_words(verdict: Verdict) -> str:
    """A verdict in a few words."""
    name = type(verdict).__name__
    if isinstance(verdict, Reject | Defer):
        return f"{name} {verdict.code} {verdict.enhanced} {verdict.text}"
    reason = getattr(verdict, "reason", "")
    return f"{name} ({reason})" if reason else name


class Decisions:
    """What shadows and their twins decided in one transaction."""

    __slots__ = ("_of", "_plan", "_watched")

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._watched = plan.watched
        self._of: dict[int, list[str]] = {at: [] for at in self._watched}

    def note(self, at: int, stage: str, verdict: Verdict) -> None:
        """A filter came to a verdict."""
        if at in self._watched and not isinstance(verdict, Continue | Skip) and len(self._of[at]) < MAX_DECISIONS:
            self._of[at].append(f"{stage}: {in_words(verdict)}")

    def failed(self, at: int, stage: str, why: str) -> None:
        """A filter failed."""
        if at in self._watched and len(self._of[at]) < MAX_DECISIONS:
            self._of[at].append(f"{stage}: failed, {why}")

    def edited(self, at: int, edits: Edits) -> None:
        """A filter made edits."""
        if at not in self._watched or not edits.made:
            return
        for edit in edits.headers:
            self._of[at].append(
                f"{edit.action} {edit.name.decode()} [{edit.index}] {edit.value.decode(errors='replace')}"
            )
        self._of[at] += [f"{edit.action} {edit.path}" for edit in edits.envelope]
        if edits.body is not None:
            digest = hashlib.sha256(edits.body).hexdigest()[:16]
            self._of[at].append(f"replace-body {len(edits.body)} octets {digest}")

    def differences(self) -> Sequence[tuple[int, list[str], list[str]]]:
        """(position of the shadow, the live filter's decisions, the shadow's) where they are not the same."""
        found = []
        for at in self._plan.shadows:
            twin = self._plan.twins.get(at)
            live = self._of[twin] if twin is not None else []
            if live != self._of[at]:
                found.append((at, live, self._of[at]))
        return found
