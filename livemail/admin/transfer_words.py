"""The words ``livemail import`` and ``livemail export``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from livemail.admin.command import Target, counted, read_password, say
from livemail.admin.operations import EX_DATA, EX_PROBLEMS, EX_USAGE, Refused
from livemail.admin.transfers import KINDS
from livemail.storage.transfer.exporter import WRITERS

SHOWN: Final = 20
"""Of what was skipped, on a terminal; ``--json`` names a thousand."""


def add_words(words: Any) -> None:
    """Add ``import`` and ``export`` to the command's words."""
    bring_in = words.add_parser("import", help="take mail from a Maildir, mbox, .eml files or another IMAP server")
    bring_in.add_argument("kind", choices=KINDS, metavar="maildir|mbox|eml|imap")
    bring_in.add_argument(
        "source",
        metavar="SOURCE",
        help="folder, file or archive (zip, tar, also compressed); for imap imaps://user@host",
        nargs="?",
    )
    bring_in.add_argument("--account", metavar="NAME", help="whose mail it becomes")
    bring_in.add_argument("--keep-uids", action="store_true", help="take UIDs and UIDVALIDITY where they can be")
    bring_in.add_argument("--into", metavar="MAILBOX", default="", help="put everything below this mailbox")
    bring_in.add_argument("--again", action="store_true", help="take what was imported before once more")
    bring_in.add_argument(
        "--variant", choices=("auto", "mboxo", "mboxrd", "mboxcl2"), default="auto", help="of the mbox"
    )
    bring_in.add_argument("--password-stdin", action="store_true", help="imap: read the password from standard input")
    bring_in.add_argument(
        "--token-stdin", action="store_true", help="imap: read an OAuth bearer token from standard input"
    )
    bring_in.add_argument("--ca", metavar="FILE", default="", help="imap: authority of the server's certificate, PEM")
    bring_in.add_argument("--batch", metavar="FILE", help="imap: an account a line: NAME, tab, address, tab, password")
    bring_in.add_argument("--jobs", type=int, default=4, metavar="N", help="accounts of a batch at once, default 4")
    bring_in.set_defaults(verb=_import)
    bring_out = words.add_parser("export", help="write an account's mail as Maildir, mbox or .eml files")
    bring_out.add_argument("kind", choices=tuple(WRITERS), metavar="maildir|mbox|eml")
    bring_out.add_argument("target", metavar="TARGET", help="folder; what is there already is left")
    bring_out.add_argument("--account", metavar="NAME", required=True)
    bring_out.set_defaults(verb=_export)


class Rate:
    """Progress with rate and remaining time: a line on a terminal, now and then a line of a log elsewhere."""

    def __init__(self, label: str = "") -> None:
        self._label = f"{label}: " if label else ""
        self._began = time.monotonic()
        self._told = 0.0
        self._first = -1
        self._is_drawn = False

    def __call__(self, done: int, total: int, what: str) -> None:
        """See `livemail.interfaces.storage.Progress`."""
        now = time.monotonic()
        if self._first < 0:
            self._first, self._began = done, now
        every = 0.2 if sys.stderr.isatty() else 10.0
        if now - self._told < every:
            return
        self._told = now
        rate = (done - self._first) / (now - self._began) if now > self._began else 0.0
        text = f"{self._label}{done:,}" + (f" of {total:,}" if total else "") + f" {what}"
        if rate:
            text += f", {rate:,.0f} a second"
            if total:
                text += f", {duration((total - done) / rate)} left"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{text:<78}")
            self._is_drawn = True
        else:
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """The answer comes next."""
        if self._is_drawn:
            sys.stderr.write("\r" + " " * 78 + "\r")
            sys.stderr.flush()


def duration(seconds: float) -> str:
    """``40 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _asked(arguments: argparse.Namespace) -> dict[str, Any]:
    if not arguments.source:
        raise Refused(
            "write the SOURCE: a folder, a file, or for imap an address such as imaps://ann@mail.example.org", EX_USAGE
        )
    if not arguments.account:
        raise Refused("say whose mail it becomes with --account NAME", EX_USAGE)
    asked: dict[str, Any] = {
        "kind": arguments.kind,
        "account": arguments.account,
        "source": arguments.source if arguments.kind == "imap" else str(Path(arguments.source).absolute()),
        "keep_uids": arguments.keep_uids,
        "again": arguments.again,
        "into": arguments.into,
        "variant": arguments.variant,
        "ca": str(Path(arguments.ca).absolute()) if arguments.ca else "",
    }
    if arguments.kind == "imap":
        if arguments.token_stdin:
            asked["token"] = sys.stdin.readline().strip()
        else:
            asked["password"] = read_password(arguments)
    return asked


def _import(arguments: argparse.Namespace, target: Target) -> int:
    if arguments.batch:
        if arguments.kind != "imap":
            raise Refused("--batch is for imap; for files run one import for each account", EX_USAGE)
        return _import_batch(arguments, target)
    rate = Rate()
    try:
        result = target("import", _asked(arguments), rate)
    finally:
        rate.end()
    say(arguments, result, "\n".join(told_import(result)))
    return EX_PROBLEMS if result["skipped_count"] else 0


def told_import(result: Mapping[str, Any], verb: str = "imported") -> list[str]:
    """Return an import's report for people."""
    lines = [f"{result['account']}: {verb} {counted(result['imported'], 'message')}, {result['octets']:,} octets"]
    if result["known"]:
        lines.append(f"{counted(result['known'], 'message')} came in an earlier run and were left alone")
    if result["made"]:
        lines.append(f"made {counted(len(result['made']), 'mailbox')}: {', '.join(result['made'][:10])}")
    if result["skipped_count"]:
        lines.append(f"{counted(result['skipped_count'], 'message')} did not come:")
        lines += [f"  {each['where']}: {each['why']}" for each in result["skipped"][:SHOWN]]
        if result["skipped_count"] > SHOWN:
            lines.append("  … (--json names more)")
    return lines


def read_batch(path: str) -> list[tuple[str, str, str]]:
    """Read a batch file: name, address and password of each line.  Raises Refused with every line that is wrong."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path} cannot be read: {error}", EX_DATA) from None
    rows, faults = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) == 3 and all(fields):
            rows.append((fields[0], fields[1], fields[2]))
        else:
            faults.append(f"{path}:{number}: write name, tab, address, tab, password")
    if faults:
        raise Refused("\n".join([*faults, "nothing was imported; mend these lines and try again"]), EX_DATA)
    return rows


def _import_batch(arguments: argparse.Namespace, target: Target) -> int:
    asked = {
        "rows": read_batch(arguments.batch),
        "jobs": arguments.jobs,
        "keep_uids": arguments.keep_uids,
        "again": arguments.again,
        "into": arguments.into,
        "ca": str(Path(arguments.ca).absolute()) if arguments.ca else "",
    }
    rate = Rate()
    try:
        results = target("import.batch", asked, rate)
    finally:
        rate.end()
    lines = [
        line
        for each in results
        for line in ([f"{each['account']}: {each['error']}"] if "error" in each else told_import(each))
    ]
    say(arguments, results, "\n".join(lines))
    return EX_PROBLEMS if any("error" in each or each["skipped_count"] for each in results) else 0


def _export(arguments: argparse.Namespace, target: Target) -> int:
    asked = {"kind": arguments.kind, "account": arguments.account, "target": str(Path(arguments.target).absolute())}
    rate = Rate()
    try:
        result = target("export", asked, rate)
    finally:
        rate.end()
    lines = [
        f"{result['account']}: exported {counted(result['exported'], 'message')}, {result['octets']:,} octets, to {asked['target']}"
    ]
    if result["known"]:
        lines.append(f"{counted(result['known'], 'message')} were there already")
    skipped: Sequence[Mapping[str, str]] = result["skipped"]
    lines += [f"not exported: {each['where']}: {each['why']}" for each in skipped]
    say(arguments, result, "\n".join(lines))
    return EX_PROBLEMS if skipped else 0
