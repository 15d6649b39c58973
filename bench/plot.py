"""A measure's medians as an SVG: both axes logarithmic, a line for each thing that was done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM = 720, 420, 70, 60
COLOURS = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#b9770e")


@dataclass
class Series:
    """Seconds by size."""

    name: str
    points: dict[int, float]


def draw(path: Path, title: str, across: str, unit: str, series: Sequence[Series]) -> None:
    """Write the plot.  unit: of the seconds' thousandths."""
    sizes = [size for each in series for size in each.points]
    values = [value * 1000 for each in series for value in each.points.values()]
    x_from, x_to = math.log10(min(sizes)), math.log10(max(sizes))
    y_from, y_to = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def x(size: float) -> float:
        return LEFT + (WIDTH - LEFT - 20) * (math.log10(size) - x_from) / max(1e-9, x_to - x_from)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 40) * (math.log10(value) - y_from) / max(1, y_to - y_from)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{escape(title)}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 14}" text-anchor="middle">{escape(across)}</text>',
    ]
    for power in range(y_from, y_to + 1):
        at = y(10**power)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g} {escape(unit)}</text>')
    parts += [
        f'<text x="{x(size):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{size:,}</text>'
        for size in sorted(set(sizes))
    ]
    for number, each in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(f"{x(size):.1f},{y(value * 1000):.1f}" for size, value in sorted(each.points.items()))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + 10}" y="{50 + 16 * number}" fill="{colour}">{escape(each.name)}</text>')
    path.write_text("\n".join([*parts, "</svg>\n"]))
