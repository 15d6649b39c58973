"""On which line of a TOML file each key stands.

`tomllib` gives values and forgets where they were; an error message without a line makes people search.  This walks
over a text that `tomllib` has accepted already, so it only has to find the ends of things, never to judge them.  TOML 1.0.0.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

KeyPath = tuple[str | int, ...]
"""``("listen", 0, "address")``: names of tables and keys, positions in arrays."""

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}(?!")' r"|'''.*?'{3,5}(?!')" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'", re.DOTALL
)
_SCALAR: Final = re.compile(r"[^,\]}#\r\n]+")


class _Walk:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self._counted_to = 0
        self._line = 1

    def line(self) -> int:
        """The line of the current position, 1-based."""
        self._line += self.text.count("\n", self._counted_to, self.at)
        self._counted_to = self.at
        return self._line

    def skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise ValueError(f"not TOML at octet {self.at}")
        self.at = match.end()
        return match.group()

    def take(self, token: str) -> bool:
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def key(self) -> list[str]:
        """A dotted key."""
        names = []
        while True:
            self.skip(_SPACE)
            if self.text[self.at] in "\"'":
                names.append(str(tomllib.loads("k=" + self.skip(_STRING))["k"]))
            else:
                names.append(self.skip(_BARE))
            self.skip(_SPACE)
            if not self.take("."):
                return names

    def note(self, path: KeyPath, line: int) -> None:
        for depth in range(1, len(path) + 1):
            self.lines.setdefault(path[:depth], line)

    def pair(self, table: KeyPath) -> None:
        line = self.line()
        path = (*table, *self.key())
        self.take("=")
        self.note(path, line)
        self.skip(_SPACE)
        self.value(path)

    def value(self, path: KeyPath) -> None:
        if self.take("["):
            position = 0
            self.skip(_BLANK)
            while not self.take("]"):
                self.note((*path, position), self.line())
                self.value((*path, position))
                position += 1
                self.skip(_BLANK)
                self.take(",")
                self.skip(_BLANK)
        elif self.take("{"):
            self.skip(_BLANK)
            while not self.take("}"):
                self.pair(path)
                self.skip(_BLANK)
                self.take(",")
                self.skip(_BLANK)
        elif self.text[self.at] in "\"'":
            self.skip(_STRING)
        else:
            self.skip(_SCALAR)


def locate(text: str) -> dict[KeyPath, int]:
    """Return the 1-based line of every key, table and array element of a valid TOML text."""
    walk = _Walk(text.replace("\r\n", "\n"))
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    walk.skip(_BLANK)
    while walk.at < len(walk.text):
        line = walk.line()
        if walk.take("[["):
            names = _absolute(walk.key(), counts)
            position = counts.get(names, 0)
            counts[names] = position + 1
            table = (*names, position)
            walk.lines[table] = line
            walk.note(table, line)
            walk.take("]]")
        elif walk.take("["):
            table = _absolute(walk.key(), counts)
            walk.note(table, line)
            walk.take("]")
        else:
            walk.pair(table)
        walk.skip(_BLANK)
    return walk.lines


def _absolute(names: list[str], counts: dict[KeyPath, int]) -> KeyPath:
    """``[a.b]`` below ``[[a]]`` means the last a."""
    path: KeyPath = ()
    for name in names[:-1]:
        path = (*path, name)
        if path in counts:
            path = (*path, counts[path] - 1)
    return (*path, names[-1])
