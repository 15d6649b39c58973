"""The words of ``livemail domain`` and ``livemail alias``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from livemail.admin.command import Target, counted, say, show_progress
from livemail.admin.operations import EX_DATA, EX_USAGE, Refused


def add_words(words: Any) -> None:
    """Add ``domain`` and ``alias`` to the command's words."""
    _add_domain_words(words.add_parser("domain", help="add, list, show, change, remove domains"))
    _add_alias_words(words.add_parser("alias", help="add, list, show, change, remove aliases and groups"))


def _add_domain_words(parser: argparse.ArgumentParser) -> None:
    domain = parser.add_subparsers(metavar="VERB", required=True)
    add = domain.add_parser("add", help="take mail for another domain")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--backup", action="store_true", help="hand its mail to its better MX hosts: we are its backup MX")
    add.add_argument("--catch-all", metavar="ADDRESS", default="", help=_CATCH_ALL)
    add.add_argument("--postmaster", metavar="ADDRESS", default="", help=_POSTMASTER)
    add.set_defaults(verb=_domain_add)
    domain.add_parser("list", help="all domains by name").set_defaults(verb=_domain_list)
    show = domain.add_parser("show", help="one domain with its settings")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(verb=_domain_show)
    change = domain.add_parser("set", help='change a domain; "" takes a setting away')
    change.add_argument("name", metavar="NAME")
    change.add_argument("--role", choices=["local", "backup"], help="final destination, or backup MX")
    change.add_argument("--catch-all", metavar="ADDRESS", help=_CATCH_ALL)
    change.add_argument("--postmaster", metavar="ADDRESS", help=_POSTMASTER)
    change.set_defaults(verb=_domain_set)
    remove = domain.add_parser("remove", help="take no more mail for a domain without accounts and aliases")
    remove.add_argument("name", metavar="NAME")
    remove.set_defaults(verb=_domain_remove)


def _add_alias_words(parser: argparse.ArgumentParser) -> None:
    alias = parser.add_subparsers(metavar="VERB", required=True)
    add = alias.add_parser("add", help="send mail for an address to others; with many targets it is a group")
    add.add_argument("address", metavar="NAME", help="name, or name@domain")
    add.add_argument("targets", nargs="*", metavar="TARGET", help="address here or elsewhere")
    add.add_argument("--targets-file", metavar="FILE", help="more targets, one a line; - is standard input")
    add.add_argument("--keep-copy", action="store_true", help="the account of the same name gets the mail too")
    add.add_argument("--senders", metavar="WHO", action="append", default=[], help=_SENDERS)
    add.set_defaults(verb=_alias_add)
    listed = alias.add_parser("list", help="all aliases, or those of one domain")
    listed.add_argument("domain", nargs="?", metavar="DOMAIN")
    listed.set_defaults(verb=_alias_list)
    show = alias.add_parser("show", help="one alias with all its targets")
    show.add_argument("address", metavar="NAME")
    show.set_defaults(verb=_alias_show)
    change = alias.add_parser("set", help="change an alias")
    change.add_argument("address", metavar="NAME")
    change.add_argument("--add", metavar="TARGET", action="append", default=[], help="one more target")
    change.add_argument("--drop", metavar="TARGET", action="append", default=[], help="one target less")
    change.add_argument("--targets-file", metavar="FILE", help="more targets, one a line; - is standard input")
    change.add_argument("--keep-copy", action=argparse.BooleanOptionalAction, help="for the account of the same name")
    change.add_argument("--senders", metavar="WHO", action="append", help=f'{_SENDERS}; "" lets everybody')
    change.set_defaults(verb=_alias_set)
    remove = alias.add_parser("remove", help="remove an alias; accounts stay")
    remove.add_argument("address", metavar="NAME")
    remove.set_defaults(verb=_alias_remove)


_CATCH_ALL = "who gets mail for addresses nobody has; without @ at this domain"
_POSTMASTER = "who gets mail for postmaster where no account or alias of that name exists; without @ at this domain"
_SENDERS = "who may write to it: an address, @domain for all of a domain, members for its targets; may be repeated"


def read_targets(name: str | None) -> list[str]:
    """Read a file of targets, one a line.  Raises Refused."""
    if not name:
        return []
    try:
        octets = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        lines = octets.decode("utf-8").splitlines()
    except OSError as error:
        raise Refused(f"{name} cannot be read: {error.strerror}", EX_DATA) from None
    except UnicodeDecodeError as error:
        raise Refused(f"{name} is not UTF-8 (octet {error.start})", EX_DATA) from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _domain_line(domain: dict[str, Any]) -> str:
    words = [domain["name"], domain["role"]]
    words += [f"catch-all {domain['catch_all']}"] if domain["catch_all"] else []
    words += [f"postmaster {domain['postmaster']}"] if domain["postmaster"] else []
    words += ["(configuration file)"] if domain["configured"] else []
    return "  ".join(words)


def _alias_line(alias: dict[str, Any]) -> str:
    more = alias["target_count"] - len(alias["targets"])
    targets = ", ".join(alias["targets"]) + (f", … {more:,} more" if more else "")
    words = [f"{alias['address']} → {targets}"]
    words += ["and its own account"] if alias["keep_copy"] else []
    words += [f"from {', '.join(alias['senders'])} only"] if alias["senders"] else []
    words += ["(configuration file)"] if alias["configured"] else []
    words += [f"(nobody has {', '.join(alias['missing'])} yet)"] if alias.get("missing") else []
    return "  ".join(words)


def _domain_add(arguments: argparse.Namespace, target: Target) -> int:
    asked = {
        "name": arguments.name,
        "role": "backup" if arguments.backup else "local",
        "catch_all": arguments.catch_all,
        "postmaster": arguments.postmaster,
    }
    domain = target("domain.add", asked, show_progress)
    say(arguments, domain, f"added {_domain_line(domain)}")
    return 0


def _domain_list(arguments: argparse.Namespace, target: Target) -> int:
    domains = target("domain.list", {}, show_progress)
    say(arguments, domains, "\n".join(_domain_line(domain) for domain in domains))
    return 0


def _domain_show(arguments: argparse.Namespace, target: Target) -> int:
    domain = target("domain.show", {"name": arguments.name}, show_progress)
    numbers = f"{counted(domain['accounts'], 'account')}, {domain['aliases']:,} {'alias' if domain['aliases'] == 1 else 'aliases'}"
    say(arguments, domain, f"{_domain_line(domain)}\n  {numbers}")
    return 0


def _domain_set(arguments: argparse.Namespace, target: Target) -> int:
    asked = {
        "name": arguments.name,
        "role": arguments.role,
        "catch_all": arguments.catch_all,
        "postmaster": arguments.postmaster,
    }
    if all(value is None for key, value in asked.items() if key != "name"):
        raise Refused("nothing to change; write --catch-all ADDRESS, --postmaster ADDRESS or --role ROLE", EX_USAGE)
    domain = target("domain.set", asked, show_progress)
    say(arguments, domain, _domain_line(domain))
    return 0


def _domain_remove(arguments: argparse.Namespace, target: Target) -> int:
    result = target("domain.remove", {"name": arguments.name}, show_progress)
    say(arguments, result, f"removed {result['name']}")
    return 0


def _alias_add(arguments: argparse.Namespace, target: Target) -> int:
    targets = arguments.targets + read_targets(arguments.targets_file)
    if not targets:
        raise Refused("name at least one TARGET, or --targets-file FILE", EX_USAGE)
    asked = {
        "address": arguments.address,
        "targets": targets,
        "senders": arguments.senders,
        "keep_copy": arguments.keep_copy,
    }
    alias = target("alias.add", asked, show_progress)
    say(arguments, alias, f"added {_alias_line({**alias, 'targets': alias['targets'][:20]})}")
    return 0


def _alias_list(arguments: argparse.Namespace, target: Target) -> int:
    aliases = target("alias.list", {"domain": arguments.domain}, show_progress)
    if arguments.json or aliases:
        say(arguments, aliases, "\n".join(_alias_line(alias) for alias in aliases))
    return 0


def _alias_show(arguments: argparse.Namespace, target: Target) -> int:
    alias = target("alias.show", {"address": arguments.address}, show_progress)
    lines = [_alias_line({**alias, "targets": []} if alias["target_count"] > 20 else alias)]
    if alias["target_count"] > 20:
        lines = [
            f"{alias['address']}: {counted(alias['target_count'], 'target')}",
            *(f"  {each}" for each in alias["targets"]),
        ]
    say(arguments, alias, "\n".join(lines))
    return 0


def _alias_set(arguments: argparse.Namespace, target: Target) -> int:
    senders = arguments.senders
    asked = {
        "address": arguments.address,
        "add": arguments.add + read_targets(arguments.targets_file),
        "drop": arguments.drop,
        "senders": senders if senders is None else [each for each in senders if each],
        "keep_copy": arguments.keep_copy,
    }
    if not asked["add"] and not asked["drop"] and senders is None and arguments.keep_copy is None:
        raise Refused("nothing to change; write --add TARGET, --drop TARGET, --senders WHO or --keep-copy", EX_USAGE)
    alias = target("alias.set", asked, show_progress)
    say(arguments, alias, _alias_line({**alias, "targets": alias["targets"][:20]}))
    return 0


def _alias_remove(arguments: argparse.Namespace, target: Target) -> int:
    result = target("alias.remove", {"address": arguments.address}, show_progress)
    say(arguments, result, f"removed {result['address']}")
    return 0
