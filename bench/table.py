"""Figures of several runs as one line each: median, spread, ratio, and whether the client was the limit."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

CLIENT_LIMIT = 0.85
"""Share of a core from which on the client may have been what bound the figure."""


@dataclass
class Figures:
    """One server's rates in one measure.

    client: CPU seconds of the client per second of the run.  costs: CPU microseconds per message, by whom.
    """

    name: str
    rates: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    costs: dict[str, list[float]] = field(default_factory=dict)

    def add(self, messages: int, seconds: float, client: float, costs: Mapping[str, float]) -> None:
        """Note a run.  client, costs: CPU seconds."""
        self.rates.append(messages / seconds)
        self.client.append(client / seconds)
        for who, cpu in {**costs, "client": client}.items():
            self.costs.setdefault(who, []).append(cpu / messages * 1e6)

    @property
    def median(self) -> float:
        return statistics.median(self.rates)


def render(title: str, unit: str, ours: Figures, peer: Figures, bound: float | None) -> list[str]:
    """The measure's table as text lines."""
    lines = [f"{title}  ({unit}; median of {len(ours.rates)} runs, [least to most])"]
    for figures in (peer, ours):
        share = statistics.median(figures.client)
        limit = "  client was the limit" if share > CLIENT_LIMIT else ""
        lines.append(
            f"  {figures.name:<20}{figures.median:>12,.0f}   [{min(figures.rates):,.0f} to {max(figures.rates):,.0f}]"
            f"   client {share:.2f} cores{limit}"
        )
        if figures.costs:
            each = ", ".join(f"{who} {statistics.median(costs):,.0f}" for who, costs in figures.costs.items())
            lines.append(f"  {'':<20}CPU µs a message: {each}")
    ratio = ours.median / peer.median
    pairs = [our_rate / peer_rate for our_rate, peer_rate in zip(ours.rates, peer.rates, strict=True)]
    wanted = f", bound {bound:g}: {'reached' if ratio >= bound else 'MISSED'}" if bound is not None else ""
    lines.append(f"  ratio {ratio:.2f}{wanted}   (run by run {min(pairs):.2f} to {max(pairs):.2f})")
    return lines
