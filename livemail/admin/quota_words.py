"""How quotas are shown: a line for each account, domain and the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def quota_lines(uses: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return aligned lines.  uses: `livemail.interfaces.quota.QuotaUse` as JSON says it."""
    rows = [
        (
            "the store" if use["kind"] == "store" else f"{use['kind']} {use['name']}",
            _used(use, "octets"),
            _used(use, "messages"),
            _used(use, "mailboxes"),
            f"{use['percent']} %" if use["octets_limit"] or use["messages_limit"] else "no limit",
        )
        for use in uses
    ]
    if not rows:
        return []
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    return [
        "  ".join((row[0].ljust(widths[0]), *(row[at].rjust(widths[at]) for at in (1, 2, 3)), row[4].rjust(8)))
        for row in rows
    ]


def _used(use: Mapping[str, Any], word: str) -> str:
    limit = use[f"{word}_limit"]
    return f"{use[word]:,} of {limit:,} {word}" if limit else f"{use[word]:,} {word}"
