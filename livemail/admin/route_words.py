"""``livemail route show``: where mail for an address or a domain would go now, and how it would be spoken to."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from livemail.admin.command import Target, say, show_progress
from livemail.admin.operations import EX_PROBLEMS, EX_TEMPORARY, EX_UNAVAILABLE, Operations, Refused
from livemail.interfaces.directory import IDirectory
from livemail.interfaces.relay import IRouting, NextHop
from livemail.interfaces.storage import Progress
from livemail.mail.errors import MailError

SHOW = "route.show"


def add_to(operations: Operations, directory: IDirectory, routing: IRouting | None) -> None:
    """Offer ``route.show``.  routing: None where no server runs, whose memory and name servers it would take."""

    async def show(asked: Mapping[str, Any], _progress: Progress) -> Any:
        if routing is None:
            raise Refused("only a running server asks DNS; start it, then ask again", EX_UNAVAILABLE)
        domain = asked["domain"].rpartition("@")[2].strip().lower()
        if directory.is_local_domain(domain):
            return {"domain": domain, "local": True, "destination": "", "hops": [], "refusal": None}
        told: dict[str, Any] = {
            "domain": domain,
            "local": False,
            "destination": routing.destination(domain),
            "hops": [],
        }
        try:
            hops = await routing.hops(domain)
        except MailError as error:
            refusal = {"code": error.code, "enhanced": error.enhanced, "text": error.text, "reason": error.reason}
            return {**told, "refusal": refusal}
        return {**told, "hops": [_hop(hop) for hop in hops.hops], "refusal": None}

    operations.add(SHOW, show)


def _hop(hop: NextHop) -> dict[str, Any]:
    """A next hop without its password."""
    return {
        "host": hop.host,
        "port": hop.port,
        "path": hop.path,
        "addresses": list(hop.addresses),
        "protocol": hop.protocol,
        "tls": hop.tls,
        "implicit_tls": hop.implicit_tls,
        "login": hop.login,
        "source": list(hop.source),
    }


def add_words(words: Any) -> None:
    """Add ``route`` to the command's words."""
    route = words.add_parser("route", help="show where mail goes").add_subparsers(metavar="VERB", required=True)
    show = route.add_parser("show", help="the hosts for an address or a domain, in the order they are tried")
    show.add_argument("domain", metavar="ADDRESS")
    show.set_defaults(verb=_show)


def _show(arguments: argparse.Namespace, target: Target) -> int:
    told = target(SHOW, {"domain": arguments.domain}, show_progress)
    refusal = told["refusal"]
    if told["local"]:
        say(arguments, told, f"{told['domain']}: delivered here")
    elif refusal:
        reason = f" ({refusal['reason']})" if refusal["reason"] else ""
        say(arguments, told, f"{told['domain']}: {refusal['code']} {refusal['enhanced']} {refusal['text']}{reason}")
        return EX_TEMPORARY if refusal["code"] < 500 else EX_PROBLEMS
    else:
        say(arguments, told, "\n".join([f"{told['domain']}: by {told['destination']}", *map(_line, told["hops"])]))
    return 0


def _line(hop: dict[str, Any]) -> str:
    place = f"unix:{hop['path']}" if hop["path"] else f"{hop['host']}:{hop['port']}"
    words = [
        f"  {place}",
        *hop["addresses"],
        hop["protocol"],
        f"tls {'at once, ' if hop['implicit_tls'] else ''}{hop['tls']}",
    ]
    words += [f"login {hop['login']}"] if hop["login"] else []
    words += [f"from {' '.join(hop['source'])}"] if hop["source"] else []
    return "  ".join(words)
