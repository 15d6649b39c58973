"""The words of ``livemail queue``: what is asked, and how the answer is printed."""

from __future__ import annotations

import argparse
import re
import sys
import time
from typing import Any, Final

from livemail.admin.command import Target, counted, say, show_progress
from livemail.admin.operations import EX_PROBLEMS, EX_USAGE, Refused

_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def add_words(words: Any) -> None:
    """Add ``queue`` to the command's words."""
    queue = words.add_parser("queue", help="what waits to be sent on").add_subparsers(metavar="VERB", required=True)
    listing = queue.add_parser("list", help="messages with their recipients, the oldest first")
    _choosing(listing)
    listing.add_argument("--limit", type=int, default=1000, metavar="N", help="messages at most (1000)")
    listing.set_defaults(verb=_list)
    show = queue.add_parser("show", help="one message: envelope, recipients, every attempt that is remembered")
    show.add_argument("id", metavar="ID")
    show.set_defaults(verb=_show)
    stats = queue.add_parser("stats", help="counts, and the destinations")
    stats.add_argument("--destinations", type=int, default=20, metavar="N", help="destinations to tell of (20)")
    stats.set_defaults(verb=_stats)
    texts = {
        "retry": "try now, whatever the schedule says",
        "hold": "leave alone until released",
        "release": "end a hold",
        "drop": "remove, without a word or with --bounce",
        "edit": "rewrite recipient, sender, priority or expiry",
    }
    for verb, text in texts.items():
        parser = queue.add_parser(verb, help=text)
        _choosing(parser)
        parser.add_argument("--all", action="store_true", help="the whole queue is meant")
        parser.set_defaults(verb=_change, do=verb)
        if verb in {"hold", "drop"}:
            parser.add_argument("--reason", default="", metavar="TEXT", help="why: shown by show, sent with --bounce")
        if verb == "drop":
            parser.add_argument("--bounce", action="store_true", help="report to the sender")
            parser.add_argument("--yes", action="store_true", help="do not ask")
        if verb == "edit":
            _editing(parser)
    flush = queue.add_parser("flush", help="try everything now, and show how it goes")
    _choosing(flush)
    flush.add_argument("--no-wait", action="store_true", help="do not follow the attempts")
    flush.set_defaults(verb=_flush)


def _choosing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", metavar="ID", help="messages, such as Q1F3")
    parser.add_argument("--sender", default="", metavar="TEXT", help="* stands for anything; <> for reports")
    parser.add_argument("--recipient", default="", metavar="TEXT", help="likewise")
    parser.add_argument("--domain", default="", metavar="TEXT", help="of the recipient, likewise")
    parser.add_argument(
        "--destination", default="", metavar="NAME", help="as stats tells it: a domain, or a route's next hop"
    )
    parser.add_argument("--transaction", default="", metavar="ID", help="the mail transaction's, as the log has it")
    parser.add_argument("--state", action="append", dest="states", default=[], metavar="STATE", help="queued, deferred, claimed, held, failing; may be given several times")  # fmt: skip
    parser.add_argument("--older", type=duration, default=0, metavar="TIME", help="than 90s, 5m, 4h, 2d")
    parser.add_argument("--newer", type=duration, default=0, metavar="TIME", help="likewise")


def _editing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--new-recipient", default="", metavar="ADDRESS")
    parser.add_argument("--new-sender", default="", metavar="ADDRESS", help="or <>")
    parser.add_argument("--priority", type=int, default=None, metavar="N", help="-9 to 9, higher is sooner")
    parser.add_argument("--expires", type=duration, default=0, metavar="TIME", help="from now: 4h, 2d")


def duration(text: str) -> float:
    """Read a time such as ``90``, ``90s``, ``5m``, ``4h``, ``2d``, ``1w``; in seconds."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write 90s, 5m, 4h or 2d")
    return float(match.group(1)) * _SECONDS[match.group(2)]


def _asked(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("ids", "sender", "recipient", "domain", "destination", "transaction", "states", "older", "newer")
    return {name: getattr(arguments, name) for name in names}


# ---------------------------------------------------------------------------------------------------------------- verbs


def _list(arguments: argparse.Namespace, target: Target) -> int:
    result = target("queue.list", {**_asked(arguments), "limit": arguments.limit}, show_progress)
    lines: list[str] = []
    for message in result["messages"]:
        lines.append(f"{message['id']}  {_when(message['created'])}  {message['size']:>10,}  {message['sender']}")
        lines += [_recipient_line(one) for one in message["recipients"]]
    if result["more"]:
        lines.append(f"… and more; --limit {2 * arguments.limit} shows them, or choose")
    if arguments.json or lines:
        say(arguments, result, "\n".join(lines))
    else:
        print("the queue has none of these")
    return 0


def _recipient_line(one: dict[str, Any]) -> str:
    line = f"    {one['state']:9} {one['recipient']}"
    if one["state"] in {"queued", "deferred"}:
        line += f"  next {_when(one['next_attempt'])}"
    if one["note"]:
        line += f"  ({one['note']})"
    return line + (f"\n              {one['last']}" if one["last"] else "")


def _show(arguments: argparse.Namespace, target: Target) -> int:
    message = target("queue.show", {"id": arguments.id}, show_progress)
    expires = _when(message["expires"]) if message["expires"] else "by [queue] lifetime"
    lines = [
        f"{message['id']}  from {message['sender']}  {message['size']:,} octets",
        f"came {_when(message['created'])}, expires {expires}, priority {message['priority']}"
        + (f", transaction {message['transaction']}" if message["transaction"] else ""),
    ]
    for one in message["recipients"]:
        lines.append(_recipient_line(one) + f"  [{counted(one['attempts'], 'attempt')}, to {one['destination']}]")
        lines += [
            f"      {_when(each['started'])}  {each['seconds']:.1f} s  {each['host']} {each['address']}"
            f"  {each['tls'] or 'no TLS'}  {each['stage']}: {each['reply']}"
            for each in one["history"]
        ]
    lines += ["", message["header"].replace("\r\n", "\n")]
    # A stranger's header must not drive the terminal.
    say(arguments, message, "".join(c if c.isprintable() or c in "\n\t" else "?" for c in "\n".join(lines)))
    return 0


def _stats(arguments: argparse.Namespace, target: Target) -> int:
    stats = target("queue.stats", {"destinations": arguments.destinations}, show_progress)
    states = [f"{count:,} {state}" for state, count in stats["recipients"].items() if count]
    counts = [counted(stats[key], key.removesuffix("s")) for key in ("messages", "octets", "destinations")]
    lines = [f"{', '.join(counts)}; recipients: {', '.join(states) or 'none'}"]
    if stats["oldest"]:
        lines.append(f"the oldest is of {_when(stats['oldest'])}")
    if not stats["is_running"] and stats["messages"]:
        lines.append("no server runs: nothing is sent until it is started")
    for each in stats["by_destination"]:
        line = (
            f"  {each['destination']}: {each['waiting']:,} wait, {each['claimed']:,} under way, {each['held']:,} held"
        )
        if each["failures"]:
            line += f"; down {each['failures']} times in a row, left alone until {_when(each['not_before'])}: {each['reply']}"
        lines.append(line)
    say(arguments, stats, "\n".join(lines))
    return 0


def _change(arguments: argparse.Namespace, target: Target) -> int:
    asked: dict[str, Any] = {**_asked(arguments), "do": arguments.do, "all": arguments.all}
    asked["note"] = getattr(arguments, "reason", "")
    if arguments.do == "drop":
        if arguments.bounce:
            asked["do"] = "bounce"
        _confirm(arguments, target)
    if arguments.do == "edit":
        asked |= {name: getattr(arguments, name) for name in ("new_recipient", "new_sender", "priority", "expires")}
    result = target("queue.change", asked, show_progress)
    word = {"retry": "due now", "hold": "held", "release": "released", "drop": "dropped", "edit": "changed"}[
        arguments.do
    ]
    text = f"{counted(result['changed'], 'recipient')} {word}"
    if result["busy"]:
        text += f"; {result['busy']:,} are being attempted now and were left alone"
    say(arguments, result, text)
    return 0 if result["changed"] or not result["seen"] else EX_PROBLEMS


def _confirm(arguments: argparse.Namespace, target: Target) -> None:
    """Ask before mail is lost.  Raises Refused."""
    if arguments.yes:
        return
    if not sys.stdin.isatty():
        raise Refused("this loses mail, and there is no terminal to ask on; add --yes if it is meant", EX_USAGE)
    found = target("queue.list", {**_asked(arguments), "limit": 1000}, show_progress)
    count = sum(len(message["recipients"]) for message in found["messages"])
    more = "more than " if found["more"] else ""
    sys.stderr.write(f"Drop {more}{counted(count, 'recipient')} for good?  Type yes to confirm: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != "yes":
        raise Refused("not confirmed; nothing was dropped", EX_PROBLEMS)


class _Flow:
    """Progress with its rate."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, done: int, total: int, what: str) -> None:
        seconds = time.monotonic() - self._started
        show_progress(done, total, f"{what}, {done / seconds:,.0f} a second" if seconds > 0.5 else what)


def _flush(arguments: argparse.Namespace, target: Target) -> int:
    started = time.monotonic()
    result = target("queue.flush", {**_asked(arguments), "wait": not arguments.no_wait}, _Flow())
    seconds = time.monotonic() - started
    text = f"{counted(result['changed'], 'recipient')} due now"
    if not result["is_running"]:
        text += "; no server runs: they are tried when it is started"
    elif result["finished"]:
        text += f"; {result['finished']:,} tried in {seconds:.1f} s, {result['finished'] / max(seconds, 0.001):,.0f} a second"
    say(arguments, result | {"seconds": seconds}, text)
    return 0


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
