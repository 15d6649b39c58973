"""The words of ``livemail dkim``: keys are made and shown on the data folder itself, beside a running server or without one.

A server that runs signs with a new key from its next message on; so publish the record soon, or make the key before it is needed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Final, Protocol

from livemail.admin.command import say
from livemail.admin.operations import EX_DATA, EX_EXISTS, EX_NO_STORE, EX_PROBLEMS, Refused
from livemail.filters.dkim.keys import DEFAULT_BITS, DKIMKeyError, Key, KeyFolder, checked_domain, checked_selector

FOLDER: Final = ("filters", "dkim")
"""In the data folder: where the filter dkim-sign looks."""


class HasData(Protocol):
    """The configuration, as far as keys are concerned."""

    data: str


def add_words(words: Any) -> None:
    """Add ``dkim`` to the command's words."""
    dkim = words.add_parser("dkim", help="make and show the keys that sign mail").add_subparsers(
        metavar="VERB", required=True
    )
    create = dkim.add_parser("create", help="make a key and print the DNS record to publish")
    create.add_argument("domain", metavar="DOMAIN")
    create.add_argument("--selector", metavar="S", default="", help="its name below _domainkey (else one by the month)")
    create.add_argument(
        "--algorithm", choices=["rsa", "ed25519"], default="rsa", help="rsa (default) is what everybody reads"
    )
    create.add_argument("--bits", type=int, default=DEFAULT_BITS, help=f"of an RSA key, {DEFAULT_BITS} by default")
    create.set_defaults(local=_create)
    show = dkim.add_parser("show", help="print the DNS records of a domain's keys")
    show.add_argument("domain", metavar="DOMAIN")
    show.add_argument("--selector", metavar="S", default="", help="only this one's")
    show.set_defaults(local=_show)
    dkim.add_parser("list", help="all domains and selectors").set_defaults(local=_list)


def _folder(config: HasData) -> KeyFolder:
    data = Path(config.data)
    if not data.is_dir():
        raise Refused(f"the data folder {data} does not exist; make it first (install -d -m 700 {data})", EX_NO_STORE)
    return KeyFolder(data.joinpath(*FOLDER))


def _told(key: Key, folder: KeyFolder) -> dict[str, Any]:
    return {
        "domain": key.domain,
        "selector": key.selector,
        "algorithm": key.algorithm,
        "bits": key.bits,
        "file": str(folder.path_of(key.domain, key.selector)),
        "name": key.name,
        "type": "TXT",
        "value": key.record,
        "strings": key.strings,
        "zone": key.zone_line,
    }


def _create(arguments: argparse.Namespace, config: HasData) -> int:
    folder = _folder(config)
    selector = arguments.selector or time.strftime(f"{arguments.algorithm}%Y%m", time.gmtime())
    try:
        key = folder.create(arguments.domain, selector, arguments.algorithm, arguments.bits)
    except DKIMKeyError as error:
        raise Refused(str(error), EX_DATA) from None
    except FileExistsError:
        name = f"{checked_selector(selector)}._domainkey.{checked_domain(arguments.domain)}"
        raise Refused(
            f"{name} exists already; `livemail dkim show {arguments.domain}` prints it, --selector makes another",
            EX_EXISTS,
        ) from None
    told = _told(key, folder)
    text = f"{told['file']}\nPublish this record; then others can verify what is signed with it:\n\n{key.zone_line}"
    say(arguments, told, text)
    return 0


def _keys(folder: KeyFolder, domain: str) -> list[Key]:
    try:
        return folder.keys(domain)
    except DKIMKeyError as error:
        raise Refused(str(error), EX_DATA) from None


def _show(arguments: argparse.Namespace, config: HasData) -> int:
    folder = _folder(config)
    keys = [key for key in _keys(folder, arguments.domain) if arguments.selector.lower() in {"", key.selector}]
    if not keys:
        which = f" and selector {arguments.selector}" if arguments.selector else ""
        raise Refused(
            f"there is no key of {arguments.domain}{which}; `livemail dkim create {arguments.domain}` makes one",
            EX_PROBLEMS,
        )
    say(arguments, [_told(key, folder) for key in keys], "\n".join(key.zone_line for key in keys))
    return 0


def _list(arguments: argparse.Namespace, config: HasData) -> int:
    folder = _folder(config)
    keys = [key for domain in folder.domains() for key in _keys(folder, domain)]
    lines = [f"{key.domain}  {key.selector}  {key.algorithm} {key.bits}" for key in keys]
    if arguments.json or lines:
        say(arguments, [_told(key, folder) for key in keys], "\n".join(lines))
    return 0
