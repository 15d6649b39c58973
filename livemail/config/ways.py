"""What ``[relay]`` and the ``[[route]]`` tables do not allow together."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from livemail.config.locate import KeyPath
from livemail.config.model import Config
from livemail.config.read import Source
from livemail.delivery.next_hop import parse_next_hop
from livemail.delivery.secret import SecretError, read_secret
from livemail.delivery.settings import WayOut, parse_pattern


def check_routes(config: Config, source: Source) -> None:
    """Note what is wrong with each route, and with all of them beside each other."""
    names: dict[str, int] = {}
    patterns: dict[str, int] = {}
    for position, route in enumerate(config.route):
        at: KeyPath = ("route", position)
        if source.is_doubtful(at):
            continue
        for field, text in route.faults():
            source.fault((*at, field), f"`{field}` {text}")
        if route.name and names.setdefault(route.name, position) != position:
            line = source.lines.get(("route", names[route.name]), 0)
            source.fault((*at, "name"), f'"{route.name}" is the name of the route of line {line} already')
        for domain in route.domains:
            with contextlib.suppress(ValueError):
                pattern = parse_pattern(domain)
                first = patterns.setdefault(pattern, position)
                if first != position:
                    line = source.lines.get(("route", first), 0)
                    source.fault((*at, "domains"), f"{domain} has a route already, in line {line}; keep one of the two")
        _check_ourselves(route.next_hop, (*at, "next_hop"), config, source)
        _check_cleartext(route, at, config, source)
        _check_secret(route.password_file, (*at, "password_file"), source)
    if config.relay.smarthost and "*" in patterns:
        source.fault(
            ("relay", "smarthost"),
            'stands beside a [[route]] with domains = ["*"]; both mean every other domain, keep one',
        )
    _check_ourselves(config.relay.hosts(), ("relay", "smarthost"), config, source)
    _check_cleartext(config.relay, ("relay",), config, source)
    _check_secret(config.relay.password_file, ("relay", "password_file"), source)
    _check_fallback(config.relay.fallback, ("relay", "fallback"), names, source)
    for position, route in enumerate(config.route):
        _check_fallback(route.fallback, ("route", position, "fallback"), names, source)


def _check_cleartext(way: WayOut, at: KeyPath, config: Config, source: Source) -> None:
    if not config.relay.allow_cleartext_auth:
        for field, text in way.cleartext_faults():
            source.fault((*at, field), f"`{field}` {text}")


def _check_ourselves(hops: Sequence[str], at: KeyPath, config: Config, source: Source) -> None:
    """A next hop that is one of our own listeners would get everything back."""
    places = set()
    for listen in config.listen:
        with contextlib.suppress(ValueError):
            if listen.service in {"smtp", "submission", "submissions", "lmtp"}:
                places.add(str(listen.place.path or (listen.place.host, listen.place.port)))
    for text in hops:
        with contextlib.suppress(ValueError):
            hop = parse_next_hop(text)
            host = "127.0.0.1" if hop.host == "localhost" else hop.host
            if str(hop.path or (host, hop.port)) in places:
                source.fault(at, f'"{text}" is this server itself, whose mail would go in a circle; name another host')


def _check_secret(path: str, at: KeyPath, source: Source) -> None:
    if path:
        try:
            read_secret(path)
        except SecretError as error:
            source.fault(at, str(error))


def _check_fallback(fallback: Sequence[str], at: KeyPath, names: dict[str, int], source: Source) -> None:
    for text in fallback:
        with contextlib.suppress(ValueError):
            hop = parse_next_hop(text)
            if hop.kind == "route" and hop.host not in names:
                known = ", ".join(sorted(names)) or "none has a name"
                source.fault(at, f'"{text}" names no [[route]] (names are: {known}); add name = "{hop.host}" to one')
