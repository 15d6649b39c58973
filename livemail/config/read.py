"""From TOML to typed settings, with every error at once.

The structs say what is allowed; this walks them beside the parsed file.  A value may be written with a unit where that
reads better: octets as ``"50 MiB"``, seconds as ``"5 min"``.  Which
numbers are octets is in their names (``_octets``, ``_limit``, ``_quota``); which are seconds, in their type (float).
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from livemail.config.locate import KeyPath, locate

S = TypeVar("S", bound=msgspec.Struct)

SIZES: Final = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip
TIMES: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

LARGEST: Final = (1 << 63) - 1
"""What a TOML integer may be, and more octets or seconds than anybody has.  TOML 1.0, Integer."""

_UNBOUNDED: Final = msgspec.Meta()
_MEASURE: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")
_SYNTAX: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


class Fault(msgspec.Struct, frozen=True, order=True):
    """One thing that is wrong.  line: 1-based, 0 for the file as a whole.  text: what, and what to write instead."""

    line: int
    text: str


class ConfigError(ValueError):
    """The configuration cannot be used; all that is wrong with it."""

    def __init__(self, path: str, faults: list[Fault]) -> None:
        self.path = path
        self.faults = sorted(set(faults))
        super().__init__(path, self.faults)

    def __str__(self) -> str:
        return "\n".join(
            f"{self.path}:{fault.line}: {fault.text}" if fault.line else f"{self.path}: {fault.text}"
            for fault in self.faults
        )


class Source:
    """One file while it is read: where its keys are, and what was found wrong with them."""

    def __init__(self, lines: Mapping[KeyPath, int]) -> None:
        self.lines = lines
        self.faults: list[Fault] = []
        self._bad: set[KeyPath] = set()

    def is_doubtful(self, path: KeyPath) -> bool:
        """Whether something at or below a key is wrong already, so that what it seems to say means nothing."""
        return path in self._bad

    def fault(self, path: KeyPath, text: str) -> None:
        """Note an error at a key, or at the nearest table around it that is in the file."""
        self._bad.update(path[:depth] for depth in range(1, len(path) + 1))
        while path and path not in self.lines:
            path = path[:-1]
        self.faults.append(Fault(self.lines.get(path, 0), text))


def parse(text: str, path: str) -> tuple[dict[str, Any], Source]:
    """Read TOML.  Raises ConfigError with line and column for what is not TOML."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _SYNTAX.search(str(error))
        what = _SYNTAX.sub("", str(error))
        if place and place.group(1):
            fault = Fault(int(place.group(1)), f"column {place.group(2)}: not TOML: {what}")
        else:
            fault = Fault(text.count("\n") + 1, f"not TOML: {what}, the file ends in the middle")
        raise ConfigError(path, [fault]) from None
    except RecursionError:
        raise ConfigError(
            path, [Fault(0, "lists or tables are nested too deep; no setting needs more than two")]
        ) from None
    return table, Source(locate(text))


def read_text(path: Path) -> str:
    """Read a configuration file.  Raises ConfigError."""
    try:
        return path.read_text("utf-8-sig")  # Lenient: some editors put a byte order mark in front.
    except OSError as error:
        raise ConfigError(str(path), [Fault(0, f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [Fault(0, f"is not UTF-8 (octet {error.start})")]) from None


def build(kind: type[S], table: Mapping[str, Any], source: Source, at: KeyPath = ()) -> S:
    """Make a struct from a table.  What is wrong is noted in ``source``, and the default (or something harmless) stands in."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    values = {}
    for key, value in table.items():
        if key not in fields:
            source.fault((*at, key), unknown(key, list(fields), at))
            continue
        made = _value(fields[key].type, value, source, (*at, key))
        if made is not None:
            values[fields[key].name] = made
    for key, field in fields.items():
        if field.required and field.name not in values:
            kind_, _ = _bare(field.type)
            values[field.name] = get_args(kind_)[0] if get_origin(kind_) is Literal else kind_()
            if key not in table:
                source.fault((*at, key), f"{_where(at)} has no {key}; add a line `{key} = {_example(kind_)}`")
    return kind(**values)


def _bare(kind: Any) -> tuple[Any, msgspec.Meta]:
    """Take a type and its bounds apart.  What may be None is what is not written: TOML has no word for it."""
    if get_origin(kind) in {Union, UnionType}:
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is Annotated:
        bare, bounds = get_args(kind)
        return bare, bounds
    return kind, _UNBOUNDED


def _where(at: KeyPath) -> str:
    names = ".".join(str(name) for name in at if isinstance(name, str))
    if not names:
        return "the file"
    return f"[[{names}]]" if isinstance(at[-1], int) else f"[{names}]"


def unknown(key: str, known: list[str], at: KeyPath) -> str:
    """What to say of a key nobody knows."""
    near = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(sorted(known))}"
    return f"unknown key `{key}` in {_where(at)}; {hint}"


def _value(kind: Any, value: Any, source: Source, path: KeyPath) -> Any:
    name = str(next(part for part in reversed(path) if isinstance(part, str)))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if isinstance(value, dict):
            return build(kind, value, source, path)
        source.fault(path, f"`{name}` is a section; write [{name}] on a line of its own and its keys below")
        return None
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple and arguments and isinstance(arguments[0], type) and issubclass(arguments[0], msgspec.Struct):
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return tuple(build(arguments[0], item, source, (*path, n)) for n, item in enumerate(value))
        source.fault(path, f"`{name}` is a list of tables; write [[{name}]] above each of them")
        return None
    bare, bounds = _bare(kind)
    return _plain(bare, bounds, _measured(bare, value, name), source, path, name)


def _measured(kind: Any, value: Any, name: str) -> Any:
    """Turn ``"5 min"`` and ``"50 MiB"`` into numbers where times and octets are wanted."""
    if not isinstance(value, str) or not (kind is float or (kind is int and _counts_octets(name))):
        return value
    units: Mapping[str, float] = SIZES if kind is int else TIMES
    match = _MEASURE.fullmatch(value)
    if match is None or match.group(2) not in units:
        return value
    return kind(float(match.group(1)) * units[match.group(2)])


def _counts_octets(name: str) -> bool:
    """Sizes are named alike in every section."""
    return name.endswith(("_octets", "quota", "quota_total", "reserve_file")) or "_limit" in name


def _plain(kind: Any, bounds: msgspec.Meta, value: Any, source: Source, path: KeyPath, name: str) -> Any:
    if get_origin(kind) is Literal:
        allowed = [str(word) for word in get_args(kind)]
        if value not in get_args(kind):
            source.fault(path, f"`{name}` cannot be {_shown(value)}; {_allowed(value, allowed)}")
            return None
        return value
    words = _words_of(kind)
    if words and isinstance(value, list) and (wrong := [word for word in value if word not in words]):
        source.fault(path, f"`{name}` cannot hold {_shown(wrong[0])}; {_allowed(wrong[0], words)}")
        return None
    try:
        made = msgspec.convert(value, kind)
    except msgspec.ValidationError:
        source.fault(path, f"`{name}` cannot be {_shown(value)}; write {_wanted(kind, name)}")
        return None
    if isinstance(made, (int, float)) and made < 0:
        source.fault(path, f"`{name}` cannot be negative; write {_wanted(kind, name)}")
        return None
    beyond = _beyond(made, bounds)
    if beyond:
        source.fault(path, f"`{name}` cannot be {_shown(value)}; write {beyond}")
        return None
    return made


def _words_of(kind: Any) -> list[str]:
    """The words a list of words may hold; [] for a list of anything else."""
    arguments = get_args(kind) if get_origin(kind) in {tuple, list, frozenset} else ()
    return [str(word) for word in get_args(arguments[0])] if arguments and get_origin(arguments[0]) is Literal else []


def _allowed(value: Any, words: list[str]) -> str:
    # That 1.0 looks like 1.3 is no reason to think it was meant.
    near = difflib.get_close_matches(str(value), words, 1) if str(value).isalpha() else []
    return (f'did you mean "{near[0]}"? ' if near else "") + f"allowed are {', '.join(words)}"


def _beyond(value: Any, bounds: msgspec.Meta) -> str:
    """What to write instead of a number that is out of bounds; "" when it is not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if bounds.ge is not None and value < bounds.ge:
        return f"{bounds.ge} or more"
    if bounds.gt is not None and value <= bounds.gt:
        return f"more than {bounds.gt:g}"
    highest = LARGEST if bounds.le is None else bounds.le
    if value > highest or not math.isfinite(value):
        return f"{highest} or less"
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value[:60]}"' if isinstance(value, str) else repr(value)[:60]


def _wanted(kind: Any, name: str) -> str:
    if kind is bool:
        return "true or false, without quotes"
    if kind is int:
        return "a whole number without quotes" + (', or a size such as "50 MiB"' if _counts_octets(name) else "")
    if kind is float:
        return 'seconds as a number without quotes, or a time such as "5 min"'
    if kind is str:
        return 'text in quotes, such as "…"'
    if get_origin(kind) in {tuple, list, frozenset}:
        words = _words_of(kind) or ["one", "two"]
        return f"a list, such as [{', '.join(_shown(word) for word in words[:2])}]"
    return f"{kind}"


def _example(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f'"{get_args(kind)[0]}"'
    if get_origin(kind) is tuple:
        return '["…"]'
    return {bool: "true", int: "1", float: "1.0"}.get(kind, '"…"')
