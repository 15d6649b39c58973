"""``livemail store repair`` and ``compact``: the operations and their words."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from livemail.admin.command import Target, counted, say, show_progress
from livemail.admin.operations import EX_PROBLEMS, EX_TEMPORARY, Refused
from livemail.admin.transfer_words import Rate
from livemail.interfaces.mending import IMendStore
from livemail.interfaces.storage import IMailStore, Progress


class Mending:
    """What mends a store."""

    def __init__(self, store: IMailStore, *, is_serving: bool) -> None:
        """is_serving: sessions may be open."""
        self._store = store
        self._is_serving = is_serving

    def operations(self) -> dict[str, Callable[[Mapping[str, Any], Progress], Awaitable[Any]]]:
        """What is offered, by name."""
        return {"store.repair": self.repair, "store.compact": self.compact}

    async def compact(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """over: percent of a segment that must be dead, None for the setting's."""
        store = IMendStore(self._store, None)
        if store is None:
            raise Refused("this store cannot be compacted by livemail", EX_PROBLEMS)
        return msgspec.to_builtins(await store.compact(arguments.get("over"), progress))

    async def repair(self, arguments: Mapping[str, Any], _progress: Progress) -> Any:
        """dry_run: only say what would be done."""
        store = IMendStore(self._store, None)
        if store is None:
            raise Refused("this store cannot be repaired by livemail", EX_PROBLEMS)
        if arguments.get("dry_run"):
            return msgspec.to_builtins(list(await store.plan_repair()))
        if self._is_serving:
            raise Refused(
                "the server is running, and what its sessions were told would change under them; stop it, repair, and start it"
                " again.  --dry-run works beside it",
                EX_TEMPORARY,
            )
        return msgspec.to_builtins(list(await store.repair()))


def add_words(store: Any) -> None:
    """Add ``repair`` to ``livemail store``'s words."""
    repair = store.add_parser("repair", help="derive the index anew from what is left; the rest goes to lost+found")
    repair.add_argument("--dry-run", action="store_true", help="print the plan and change nothing")
    repair.set_defaults(verb=_repair)

    compact = store.add_parser("compact", help="give back the space of messages that are gone, now")
    compact.add_argument(
        "--over",
        type=_percent,
        metavar="PERCENT",
        help="move what lives in a segment when so much of it is dead; [storage] compact_dead_percent otherwise",
    )
    compact.set_defaults(verb=_compact)


def _percent(text: str) -> int:
    if not text.isdecimal() or int(text) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage; write a number from 0 to 100")
    return int(text)


def _compact(arguments: argparse.Namespace, target: Target) -> int:
    rate = Rate()
    try:
        result = target("store.compact", {"over": arguments.over}, rate)
    finally:
        rate.end()
    lines = [f"left where it is: {each}; `livemail store check` names the messages" for each in result["damaged"]]
    lines.append(
        f"{result['before']:,} octets before, {result['after']:,} after, {result['returned']:,} returned:"
        f" {counted(result['segments'], 'segment')} gone, {result['moved']:,} octets copied"
    )
    if result["deleted"]:
        lines.append(
            f"{result['deleted']:,} octets are deleted mail that can come back ([storage] undelete); `livemail message purge` lets it go"
            " before its time"
        )
    say(arguments, result, "\n".join(lines))
    return EX_PROBLEMS if result["damaged"] else 0


def _repair(arguments: argparse.Namespace, target: Target) -> int:
    fixes = target("store.repair", {"dry_run": arguments.dry_run}, show_progress)
    lines = [f"{each['kind']}: {each['where']}: {each['action']}" for each in fixes]
    if arguments.dry_run:
        lines.append(f"{counted(len(fixes), 'repair')} to make; nothing was changed" if fixes else "nothing to repair")
    else:
        lines.append(
            f"{counted(len(fixes), 'repair')} made; `livemail store check` looks at it"
            if fixes
            else "nothing to repair"
        )
    say(arguments, fixes, "\n".join(lines))
    return EX_PROBLEMS if fixes and arguments.dry_run else 0
