"""The words ``livemail store backup|verify|restore``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from livemail.admin.backups import restore_whole, verify
from livemail.admin.command import Target, counted, say
from livemail.admin.operations import EX_PROBLEMS, EX_USAGE, Refused
from livemail.admin.transfer_words import Rate, told_import


def add_words(store: Any) -> None:
    """Add the words to ``livemail store``'s."""
    backup = store.add_parser("backup", help="add a backup to a folder, of what the folder does not have yet")
    backup.add_argument("folder", metavar="DIR")
    backup.add_argument("--recipient", metavar="KEY", default="", help="encrypt to an age or SSH public key")
    backup.set_defaults(verb=_backup)
    check = store.add_parser("verify", help="read a backup and compare; status 1 when something is wrong")
    check.set_defaults(verb=_verify)
    restore = store.add_parser("restore", help="bring back a whole store, an account, a mailbox or one message")
    restore.add_argument(
        "--to", metavar="DATA", help="data folder; with --account the one of --data or --config otherwise"
    )
    restore.add_argument(
        "--account", metavar="NAME", default="", help="only this account's mail, into the account that is there"
    )
    restore.add_argument("--mailbox", metavar="M", default="", help="only this mailbox")
    restore.add_argument("--message", metavar="ID", default="", help="only this message: a Message-ID or an email id")
    restore.add_argument(
        "--into", metavar="MAILBOX", default="", help="put it below this mailbox, what is there already too"
    )
    restore.add_argument("--again", action="store_true", help="also what was restored before and is gone again")
    restore.set_defaults(verb=_restore)
    for words in (check, restore):
        words.add_argument("folder", metavar="DIR")
        words.add_argument("--generation", type=int, default=0, metavar="N", help="which backup, the latest otherwise")
        words.add_argument("--identity", metavar="FILE", default="", help="file with the secret key")


def _backup(arguments: argparse.Namespace, target: Target) -> int:
    rate = Rate()
    try:
        asked = {"target": str(Path(arguments.folder).absolute()), "recipient": arguments.recipient}
        result = target("store.backup", asked, rate)
    finally:
        rate.end()
    text = (
        f"backup {result['generation']} in {arguments.folder}: {counted(result['accounts'], 'account')},"
        f" {counted(result['messages'], 'message')}, {result['octets']:,} octets, {result['new_octets']:,} of them new"
    )
    say(arguments, result, text)
    return 0


def _verify(arguments: argparse.Namespace, _target: Target) -> int:
    rate = Rate()
    try:
        problems = verify(arguments.folder, arguments.generation, _identity(arguments), rate)
    finally:
        rate.end()
    say(
        arguments,
        {"problems": problems},
        "\n".join([*problems, counted(len(problems), "problem") if problems else "no problems"]),
    )
    return EX_PROBLEMS if problems else 0


def _restore(arguments: argparse.Namespace, target: Target) -> int:
    rate = Rate()
    if not arguments.account:
        if arguments.mailbox or arguments.message or arguments.into:
            raise Refused("say whose mail it is with --account NAME; without it a whole store is restored", EX_USAGE)
        if not arguments.to:
            raise Refused("say where the store is to be with --to DATA, a data folder without one", EX_USAGE)
        data = Path(arguments.to).absolute()
        try:
            restore_whole(arguments.folder, arguments.generation, _identity(arguments), data, rate)
        finally:
            rate.end()
        say(arguments, {"data": str(data)}, f"restored to {data}; `livemail --data {data} store check` looks at it")
        return 0
    asked = {
        "source": str(Path(arguments.folder).absolute()),
        "account": arguments.account,
        "generation": arguments.generation,
        "identity": _identity(arguments),
        "mailbox": arguments.mailbox,
        "message": arguments.message,
        "into": arguments.into,
        "again": f"again {time.time_ns()}" if arguments.again else "",
    }
    try:
        result = target("store.restore", asked, rate)
    finally:
        rate.end()
    say(arguments, result, "\n".join(told_import(result, "restored")))
    return EX_PROBLEMS if result["skipped_count"] else 0


def _identity(arguments: argparse.Namespace) -> str:
    return str(Path(arguments.identity).absolute()) if arguments.identity else ""
