"""The words of ``livemail message``."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from livemail.admin.command import Target, counted, say, show_progress
from livemail.admin.explain import in_words
from livemail.admin.operations import EX_PROBLEMS, EX_USAGE, Refused
from livemail.admin.queue_words import duration


def add_words(words: Any) -> None:
    """Add ``message`` to the command's words."""
    message = words.add_parser("message", help="what became of a message").add_subparsers(metavar="VERB", required=True)
    explain = message.add_parser("explain", help="its whole story, from connection to mailbox or queue")
    explain.add_argument("id", metavar="ID", help="the id in our reply or in Received, a queue id, or a Message-ID")
    explain.set_defaults(verb=_explain)
    deleted = message.add_parser("deleted", help="what was expunged and can come back, the latest first")
    deleted.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many, default 50")
    _choosing(deleted)
    deleted.set_defaults(verb=_deleted)
    undelete = message.add_parser("undelete", help="bring expunged messages back, those of a deleted mailbox too")
    _choosing(undelete, is_change=True)
    undelete.add_argument("--into", default="", metavar="MAILBOX", help="another mailbox than each was in")
    undelete.set_defaults(verb=_undelete)
    purge = message.add_parser("purge", help="remove expunged messages for good, before their time")
    _choosing(purge, is_change=True)
    purge.add_argument("--yes", action="store_true", help="do not ask")
    purge.set_defaults(verb=_purge)


def _choosing(parser: argparse.ArgumentParser, *, is_change: bool = False) -> None:
    """Which messages are meant."""
    parser.add_argument(
        "ids", nargs="*", metavar="ID", help="an id as `livemail message deleted` prints it, or a Message-ID"
    )
    parser.add_argument("--account", required=True, metavar="NAME", help="whose mail it was")
    parser.add_argument("--mailbox", default="", metavar="MAILBOX", help="the one they were in")
    parser.add_argument(
        "--since", type=duration, default=0.0, metavar="TIME", help="expunged at most so long ago: 90s, 4h, 2d"
    )
    parser.add_argument("--text", default="", metavar="WORDS", help="in sender or subject")
    if is_change:
        parser.add_argument("--all", action="store_true", help="every one")


def _explain(arguments: argparse.Namespace, target: Target) -> int:
    stories = target("message.explain", {"id": arguments.id}, show_progress)
    say(arguments, stories, "\n\n".join(in_words(told) for told in stories))
    return 0


def _asked(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("ids", "account", "mailbox", "since", "text", "all", "into", "limit")
    return {name: getattr(arguments, name) for name in names if name in arguments}


def _deleted(arguments: argparse.Namespace, target: Target) -> int:
    result = target("message.deleted", _asked(arguments), show_progress)
    lines = []
    for one in result["messages"]:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["deleted"]))
        lines.append(f"{one['id']}  {when}  {one['octets']:>10,}  {one['mailbox']}  {one['sender']}  {one['subject']}")
    more = result["count"] - len(result["messages"])
    if more:
        lines.append(f"… and {more:,} before these; --limit {result['count']} shows them, or choose")
    whole = f"{counted(result['count'], 'deleted message')} of {result['account']}, {result['octets']:,} octets"
    say(arguments, result, "\n".join([*lines, whole]))
    return 0


def _undelete(arguments: argparse.Namespace, target: Target) -> int:
    result = target("message.undelete", _asked(arguments), show_progress)
    lines = [f"{counted(count, 'message')} back in {mailbox}" for mailbox, count in result["mailboxes"].items()]
    lines += [f"{one['id']} stays deleted: {one['why']} ({one['mailbox']})" for one in result["refused"]]
    lines += [f"{each} is not among the deleted messages" for each in result["unknown"]]
    say(arguments, result, "\n".join(lines or ["nothing came back: it has come back or gone meanwhile"]))
    return EX_PROBLEMS if result["refused"] or result["unknown"] or not result["undeleted"] else 0


def _purge(arguments: argparse.Namespace, target: Target) -> int:
    if not arguments.yes:
        _confirm(arguments, target)
    result = target("message.purge", _asked(arguments), show_progress)
    lines = [
        f"{counted(result['purged'], 'message')} of {result['account']} gone for good, {result['octets']:,} octets"
    ]
    lines += [f"{each} is not among the deleted messages" for each in result["unknown"]]
    say(arguments, result, "\n".join(lines))
    return EX_PROBLEMS if result["unknown"] else 0


def _confirm(arguments: argparse.Namespace, target: Target) -> None:
    """Ask before mail is lost.  Raises Refused."""
    if not sys.stdin.isatty():
        raise Refused("this loses mail, and there is no terminal to ask on; add --yes if it is meant", EX_USAGE)
    asked = _asked(arguments)
    if not arguments.all and not any(asked[name] for name in ("ids", "mailbox", "since", "text")):
        return  # The operation says what is missing.
    count = target("message.deleted", {**asked, "limit": 1}, show_progress)["count"]
    sys.stderr.write(f"Remove {counted(count, 'message')} for good?  Type yes to confirm: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != "yes":
        raise Refused("not confirmed; nothing was removed", EX_PROBLEMS)
