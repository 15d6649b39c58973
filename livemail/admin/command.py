"""The words of ``livemail account`` and ``livemail store``: what is asked, and how the answer is printed."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from livemail.admin.operations import EX_DATA, EX_EXISTS, EX_PROBLEMS, EX_USAGE, Refused
from livemail.admin.quota_words import quota_lines
from livemail.interfaces.storage import Progress


class Target(Protocol):
    """Where operations are performed: a running server, or the data folder."""

    def __call__(self, operation: str, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """Perform one operation and return its result.  Raises Refused."""


Verb = Callable[[argparse.Namespace, Target], int]


def add_words(words: Any) -> Any:
    """Add ``account`` and ``store`` to the command's words (what `ArgumentParser.add_subparsers` returned).

    Returns those of ``store``, for more.
    """
    account = words.add_parser(
        "account", help="add, list, show, remove accounts, set passwords, see quotas"
    ).add_subparsers(metavar="VERB", required=True)
    add = account.add_parser("add", help="make an account, or many")
    add.add_argument("name", nargs="?", metavar="NAME", help="name, or name@domain")
    add.add_argument("--password-stdin", action="store_true", help="read the password from standard input, one line")
    add.add_argument("--batch", metavar="FILE", help="one account a line: name, tab, password; - is standard input")
    add.set_defaults(verb=_account_add)
    account.add_parser("list", help="all accounts by name").set_defaults(verb=_account_list)
    show = account.add_parser("show", help="one account with its mailboxes")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(verb=_account_show)
    quota = account.add_parser("quota", help="what is used of the quotas of accounts, domains and the store")
    quota.add_argument("name", nargs="?", default="", metavar="NAME", help="one account, and what it is in")
    quota.set_defaults(verb=_account_quota)
    password = account.add_parser("password", help="set another password")
    password.add_argument("name", metavar="NAME")
    password.add_argument("--password-stdin", action="store_true", help="read it from standard input, one line")
    password.set_defaults(verb=_account_password)
    remove = account.add_parser("remove", help="remove an account with all its mail")
    remove.add_argument("name", metavar="NAME")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    remove.set_defaults(verb=_account_remove)
    store = words.add_parser("store", help="check, back up and restore the mail store").add_subparsers(
        metavar="VERB", required=True
    )
    store.add_parser("check", help="read everything and compare; status 1 when something is wrong").set_defaults(
        verb=_store_check
    )
    return store


def show_progress(done: int, total: int, what: str) -> None:
    """Draw a bar on a terminal; elsewhere nothing, because what reads it reads the answer."""
    if not sys.stderr.isatty():
        return
    if total:
        filled = 30 * done // total
        sys.stderr.write(f"\r[{'#' * filled}{'.' * (30 - filled)}] {done:,} of {total:,} {what} ")
    else:
        sys.stderr.write(f"\r{done:,} {what} ")
    if total and done >= total:
        sys.stderr.write("\n")
    sys.stderr.flush()


def say(arguments: argparse.Namespace, result: Any, text: str) -> None:
    """Print an answer: JSON for programs, text for people."""
    print(json.dumps(result, ensure_ascii=False) if arguments.json else text)


def counted(count: int, word: str) -> str:
    """``1 account``, ``2 accounts``, ``2 mailboxes``."""
    plural = word + ("es" if word.endswith("x") else "s")
    return f"{count:,} {word if count == 1 else plural}"


def read_password(arguments: argparse.Namespace) -> str:
    """One line of standard input, or asked twice on a terminal.  Raises Refused."""
    if arguments.password_stdin:
        return sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    if not sys.stdin.isatty():
        raise Refused("no terminal to ask for the password on; pipe it in with --password-stdin", EX_USAGE)
    first = getpass.getpass("Password: ")
    if first != getpass.getpass("Once more: "):
        raise Refused("the two are not the same; nothing was changed", EX_DATA)
    return first


def read_batch(name: str) -> tuple[list[int], list[tuple[str, str]], list[tuple[int, str]]]:
    """Read a batch file: line numbers and (name, password) of its accounts, and what is wrong with other lines.

    Raises Refused when it cannot be read.
    """
    try:
        octets = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        text = octets.decode("utf-8")
    except OSError as error:
        raise Refused(f"{name} cannot be read: {error.strerror}", EX_DATA) from None
    except UnicodeDecodeError as error:
        raise Refused(f"{name} is not UTF-8 (octet {error.start})", EX_DATA) from None
    numbers: list[int] = []
    accounts: list[tuple[str, str]] = []
    faults: list[tuple[int, str]] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        login, tab, password = line.partition("\t")
        if tab:
            numbers.append(number)
            accounts.append((login, password))
        else:
            faults.append((number, "no tab; write name, tab, password"))
    return numbers, accounts, faults


def _account_add(arguments: argparse.Namespace, target: Target) -> int:
    if arguments.batch:
        if arguments.name or arguments.password_stdin:
            raise Refused("--batch brings names and passwords; leave out NAME and --password-stdin", EX_USAGE)
        return _account_add_batch(arguments, target)
    if not arguments.name:
        raise Refused("write the account's NAME, or --batch FILE", EX_USAGE)
    wanted = [(arguments.name, read_password(arguments))]
    result = target("account.add", {"accounts": wanted}, show_progress)
    if any(result["faults"]):
        raise Refused(result["faults"][0], EX_DATA)
    if result["exists"]:
        name = result["exists"][0]
        raise Refused(f"{name} exists already; `livemail account password {name}` sets its password", EX_EXISTS)
    say(arguments, {"added": result["added"]}, f"added {result['added'][0]}")
    return 0


def _account_add_batch(arguments: argparse.Namespace, target: Target) -> int:
    numbers, accounts, faults = read_batch(arguments.batch)
    result = target("account.add", {"accounts": accounts, "only_check": bool(faults)}, show_progress)
    faults += [(numbers[n], text) for n, text in enumerate(result["faults"]) if text]
    if faults:
        lines = [f"{arguments.batch}:{number}: {text}" for number, text in sorted(faults)]
        raise Refused("\n".join([*lines, "nothing was added; mend these lines and try again"]), EX_DATA)
    text = f"added {counted(len(result['added']), 'account')}"
    if result["exists"]:
        text += f"; {len(result['exists'])} existed and were left alone: " + ", ".join(result["exists"][:10])
        text += ", …" if len(result["exists"]) > 10 else ""
    say(arguments, {"added": result["added"], "exists": result["exists"]}, text)
    return EX_EXISTS if result["exists"] else 0


def _account_list(arguments: argparse.Namespace, target: Target) -> int:
    accounts = target("account.list", {}, show_progress)
    lines = [each["name"] + ("" if each["enabled"] else "  (disabled)") for each in accounts]
    if arguments.json or lines:
        say(arguments, accounts, "\n".join(lines))
    return 0


def _account_show(arguments: argparse.Namespace, target: Target) -> int:
    account = target("account.show", {"name": arguments.name}, show_progress)
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(account["created"]))
    lines = [
        f"{account['name']}, made {made}" + ("" if account["has_password"] else ", no password: nobody can log in")
    ]
    width = max([len(box["name"]) for box in account["mailboxes"]], default=0)
    lines += [
        f"  {box['name']:{width}}  {box['messages']:>9,} messages  {box['unseen']:>9,} unseen  {box['octets']:>15,} octets"
        for box in account["mailboxes"]
    ]
    lines += [f"  {line}" for line in quota_lines(account.get("quota", ()))]
    kept = account.get("deleted")
    if kept and kept["messages"]:
        lines.append(f"  {counted(kept['messages'], 'deleted message')} can come back, {kept['octets']:,} octets")
    say(arguments, account, "\n".join(lines))
    return 0


def _account_quota(arguments: argparse.Namespace, target: Target) -> int:
    uses = target("account.quota", {"name": arguments.name}, show_progress)
    say(arguments, uses, "\n".join(quota_lines(uses)))
    return 0


def _account_password(arguments: argparse.Namespace, target: Target) -> int:
    asked = {"name": arguments.name, "password": read_password(arguments)}
    result = target("account.password", asked, show_progress)
    say(arguments, result, f"{result['name']} has a new password")
    return 0


def _account_remove(arguments: argparse.Namespace, target: Target) -> int:
    account = target("account.show", {"name": arguments.name}, show_progress)
    if not arguments.yes:
        messages = sum(box["messages"] for box in account["mailboxes"])
        if not sys.stdin.isatty():
            raise Refused("this loses mail, and there is no terminal to ask on; add --yes if it is meant", EX_USAGE)
        sys.stderr.write(f"Remove {account['name']} with {messages:,} messages, for good?  Type its name to confirm: ")
        sys.stderr.flush()
        if sys.stdin.readline().strip() != account["name"]:
            raise Refused("not confirmed; nothing was removed", EX_PROBLEMS)
    result = target("account.remove", {"name": account["name"]}, show_progress)
    say(arguments, result, f"removed {result['name']}")
    return 0


def _store_check(arguments: argparse.Namespace, target: Target) -> int:
    report = target("store.check", {}, show_progress)
    counts = (("accounts", "account"), ("mailboxes", "mailbox"), ("messages", "message"), ("contents", "content"))
    lines = [", ".join(counted(report[key], word) for key, word in (*counts, ("octets", "octet")))]
    lines += [f"{each['kind']}: {each['where']}: {each['detail']}" for each in report["problems"]]
    lines.append(counted(len(report["problems"]), "problem") if report["problems"] else "no problems")
    say(arguments, report, "\n".join(lines))
    return EX_PROBLEMS if report["problems"] else 0
