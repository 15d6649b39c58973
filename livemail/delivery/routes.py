"""The route table: which way mail for a domain takes, before DNS is asked.

Looked up from the most precise to the least: the domain itself, then ``.example.net`` for each domain it is below (the
nearest first), then ``*``.  ``[relay] smarthost`` is what ``*`` means where no route says it.  Without any of them the way is
``mx``: the domain's own MX hosts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from livemail.delivery.next_hop import Written, parse_next_hop
from livemail.delivery.secret import read_secret
from livemail.delivery.settings import RouteSettings, RoutingSettings, WayOut, parse_pattern
from livemail.interfaces.relay import TLSPolicy


class Way(msgspec.Struct, frozen=True):
    """One route, ready to use.  hops: where to, in the order to try.  destination: see `Hops.destination`, "" for each domain its own.

    fallback: further hops, each with the way that says how to speak to it.
    """

    hops: tuple[Written, ...]
    protocol: Literal["smtp", "lmtp"] = "smtp"
    tls: TLSPolicy = "may"
    implicit_tls: bool = False
    login: str = ""
    password: str = ""
    source: tuple[str, ...] = ()
    fallback: tuple[tuple[Written, Way], ...] = ()

    def __repr__(self) -> str:
        """Without the password: this stands in tracebacks."""
        return f"Way({[str(hop) for hop in self.hops]}, {self.protocol}, tls={self.tls})"

    @property
    def destination(self) -> str:
        """The key of `Hops.destination`: the first next hop and the login used there; "" where each domain is its own."""
        first = self.hops[0]
        if first.kind == "mx" and not first.host:
            return ""
        key = f"lmtp:{first}" if self.protocol == "lmtp" else str(first)
        return f"{key} as {self.login}" if self.login else key


class RouteTable:
    """All ways."""

    def __init__(self, relay: RoutingSettings, routes: Sequence[RouteSettings]) -> None:
        """Read the password files.  Raises SecretError when one cannot be read; other faults are the configuration's to tell."""
        named = {route.name: _way(route, route.next_hop, route.protocol) for route in routes if route.name}
        self._ways: dict[str, Way] = {}
        for route in routes:
            way = _with_fallback(_way(route, route.next_hop, route.protocol), route.fallback, named)
            for domain in route.domains:
                self._ways[parse_pattern(domain)] = way
        smarthost = (relay.smarthost,) if relay.smarthost else ("mx",)
        self._default = _with_fallback(_way(relay, smarthost, "smtp"), relay.fallback, named)

    def way(self, domain: str) -> Way:
        """Return the way for a domain's key (`livemail.mail.domains.domain_key`), or an address literal's."""
        found = self._ways.get(domain)
        above = "" if domain.startswith("[") else domain
        while found is None and above:
            _, dot, above = above.partition(".")
            found = self._ways.get(f".{above}") if dot else None
        return found or self._ways.get("*") or self._default


def _way(settings: WayOut, hops: Sequence[str], protocol: Literal["smtp", "lmtp"]) -> Way:
    password = read_secret(settings.password_file) if settings.password_file else settings.password
    return Way(
        tuple(parse_next_hop(hop) for hop in hops),
        protocol=protocol,
        tls=settings.policy,
        implicit_tls=settings.implicit_tls,
        login=settings.login,
        password=password,
        source=settings.source,
    )


def _with_fallback(way: Way, fallback: Sequence[str], named: dict[str, Way]) -> Way:
    """Add the fallback's hops; a plain one is spoken to as the way says, without its login."""
    plain = msgspec.structs.replace(way, login="", password="", protocol="smtp", implicit_tls=False)
    further: list[tuple[Written, Way]] = []
    for text in fallback:
        hop = parse_next_hop(text)
        if hop.kind == "route":
            further += [(each, named[hop.host]) for each in named[hop.host].hops]
        else:
            further.append((hop, plain))
    return msgspec.structs.replace(way, fallback=tuple(further))
