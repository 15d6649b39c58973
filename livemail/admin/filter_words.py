"""The words ``livemail filter list|reload|replay``."""

from __future__ import annotations

import argparse
import re
import time
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from livemail.admin.command import Target, counted, say, show_progress
from livemail.admin.operations import EX_PROBLEMS, EX_USAGE, Refused

_UNITS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGE: Final = re.compile(r"([0-9]+)\s*(s|min|h|d|w)")


def add_words(verbs: Any) -> None:
    """Add the verbs that need a server or a store to ``filter``'s."""
    verbs.add_parser("list", help="the filters in their order, and the names there are").set_defaults(verb=_list)
    reload = verbs.add_parser("reload", help="read configuration and modules anew; new mail meets the new filters")
    reload.add_argument("name", nargs="?", default="", metavar="NAME", help="import only this one's module anew")
    reload.set_defaults(verb=_reload)
    replay = verbs.add_parser("replay", help="run a filter over stored mail and say what it would have done")
    replay.add_argument("name", metavar="NAME", help="of a configured filter, or what `use` would say")
    replay.add_argument(
        "--since", default="7d", metavar="AGE", help="mail that came within 30min, 12h, 7d, 4w (default 7d)"
    )
    replay.add_argument(
        "--account", action="append", default=[], metavar="NAME", help="only this one's; may stand often"
    )
    replay.add_argument(
        "--mailbox", default="", metavar="NAME", help="only this one (default all but Sent, Drafts, Trash)"
    )
    replay.add_argument("--limit", type=int, default=0, metavar="N", help="stop after so many messages")
    add_settings(replay)
    replay.set_defaults(verb=_replay)


def add_settings(words: argparse.ArgumentParser) -> None:
    """Let keys of the filter's own configuration be said on the command line."""
    words.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help='as in the table: --set limit=3 --set words=["a"]',
    )


def read_settings(written: list[str]) -> dict[str, Any]:
    """Parse ``--set``: a value is TOML, or text where it is not.  Raises Refused."""
    settings: dict[str, Any] = {}
    for each in written:
        key, equals, value = each.partition("=")
        if not equals or not key.strip().isidentifier():
            raise Refused(f"--set {each!r} is not KEY=VALUE", EX_USAGE)
        try:
            settings[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key.strip()] = value
    return settings


def read_age(text: str, now: float) -> float:
    """The time that ``7d`` ago was.  Raises Refused."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise Refused(f"--since {text!r} is not an age; write one such as 30min, 12h, 7d or 4w", EX_USAGE)
    return now - int(match.group(1)) * _UNITS[match.group(2)]


def _list(arguments: argparse.Namespace, target: Target) -> int:
    told = target("filter.list", {}, show_progress)
    say(arguments, told, listed(told))
    return 0


def listed(told: Mapping[str, Any]) -> str:
    """The answer of ``filter.list`` for people."""
    lines = [_line(each) for each in told["filters"]] or ["no filters are configured"]
    if not told["is_running"]:
        lines.insert(0, "(no server runs; this is the configuration)")
    lines += ["", "names for `use`:"]
    width = max([len(each["name"]) for each in told["known"]], default=0)
    lines += [f"  {each['name']:{width}}  {each['description']}" for each in told["known"]]
    return "\n".join(lines)


def _line(each: Mapping[str, Any]) -> str:
    words = [f"{each['name']}: {each['class']}", f"at {', '.join(each['stages']) or 'no stage'}"]
    words += [f"{key} {', '.join(each[key])}" for key in ("services", "domains", "accounts") if each[key]]
    if each["on_failure"] != "defer":
        words.append("skipped when it fails")
    if each["isolation"] != "none":
        words.append(f"process {each.get('pid') or 'not started yet'}")
    elif each["blocking"]:
        words.append("in threads")
    if each["shadow"]:
        words.append(f"shadow, {each.get('differed', 0)} of {each.get('compared', 0)} differ")
    return "; ".join(words)


def _reload(arguments: argparse.Namespace, target: Target) -> int:
    told = target("filter.reload", {"name": arguments.name}, show_progress)
    names = told["reloaded"]
    say(arguments, told, f"new from now on: {', '.join(names)}" if names else "nothing was other than before")
    return 0


def _replay(arguments: argparse.Namespace, target: Target) -> int:
    asked = {
        "name": arguments.name,
        "since": read_age(arguments.since, time.time()),
        "accounts": arguments.account,
        "mailbox": arguments.mailbox,
        "limit": arguments.limit,
        "settings": read_settings(arguments.set),
    }
    told = target("filter.replay", asked, show_progress)
    say(arguments, told, replayed(told))
    return EX_PROBLEMS if told["failures"] else 0


def replayed(told: Mapping[str, Any]) -> str:
    """The answer of ``filter.replay`` for people."""
    lines = []
    for each in told["found"]:
        day = time.strftime("%Y-%m-%d %H:%M", time.gmtime(each["date"]))
        what = " ".join(
            part for part in (each["verdict"], each["text"], each["reason"], ", ".join(each["edits"])) if part
        )
        lines.append(f"{day}  {each['account']} {each['mailbox']} {each['uid']}: {what}")
    if told["is_cut_off"]:
        lines.append("… and more")
    counts = ", ".join(f"{count:,} {word}" for word, count in sorted(told["verdicts"].items())) or "no verdicts"
    lines.append(
        f"{counted(told['messages'], 'message')}, {told['octets']:,} octets in {told['seconds']:.1f} s: {counts}"
    )
    return "\n".join(lines)
