"""What the ``[[domain]]`` and ``[[account]]`` tables do not allow together."""

from __future__ import annotations

from livemail.config.locate import KeyPath
from livemail.config.model import Config
from livemail.config.read import Source


def check_placement(config: Config, source: Source) -> None:
    """Note what is wrong with each table, and names that stand twice."""
    for word, tables in (("domain", config.domain), ("account", config.account)):
        first: dict[str, int] = {}
        for position, table in enumerate(tables):
            at: KeyPath = (word, position)
            if source.is_doubtful(at):
                continue
            for field, text in table.faults():
                source.fault((*at, field), f"`{field}` {text}")
            if ("@" in table.name) != (word == "account") or not table.name:
                example = "ann@example.org" if word == "account" else "example.org"
                source.fault((*at, "name"), f'"{table.name}" is no {word}; write one such as "{example}"')
            other = first.setdefault(table.name.lower(), position)
            if other != position:
                line = source.lines.get((word, other), 0)
                source.fault((*at, "name"), f'"{table.name}" has a [[{word}]] already, in line {line}; keep one')
