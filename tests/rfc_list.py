"""Reads livemail/rfc.txt, and what the code cites."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import livemail

PACKAGE = Path(livemail.__file__).parent
_LINE = re.compile(r" *(\d+)  (yes|partial|no)  (\S.*?)(?: \[([^\]]+)\])?")
_CITED = re.compile(r"\bRFCs?[\s#]+(\d+)((?:(?:,| and)[\s#]+\d{4,5}\b)*)")


class Entry(NamedTuple):
    """One line: names is what stands in brackets."""

    number: int
    status: str
    text: str
    names: tuple[str, ...]


def read(text: str | None = None) -> list[Entry]:
    """Every line of rfc.txt.  Raises ValueError for one that is not of its form."""
    entries = []
    for line in (PACKAGE.joinpath("rfc.txt").read_text("utf-8") if text is None else text).splitlines():
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"not of the form 'number  status  what [names]': {line!r}")
        number, status, what, names = match.groups()
        entries.append(Entry(int(number), status, what, tuple(names.split(", ")) if names else ()))
    return entries


def cited(text: str) -> set[int]:
    """The numbers behind "RFC": alone, and in lists such as "RFC 2045, 2046 and 9051"."""
    return {int(number) for first, more in _CITED.findall(text) for number in [first, *re.findall(r"\d+", more)]}


def offered() -> set[str]:
    """The names that may be advertised."""
    return {name for entry in read() if entry.status != "no" for name in entry.names}
