"""Settings of the resolver."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final, NamedTuple

from livemail.interfaces.settings import Settings

DNS_PORT: Final = 53


class ResolverSettings(Settings, frozen=True):
    """The ``[resolver]`` section.

    servers: ``ADDRESS:PORT`` in the order to ask; empty for the name servers of /etc/resolv.conf.  hosts_file: names whose
    addresses are not asked for, "" for none.
    timeout: seconds to wait for one answer.  attempts: rounds through all servers before a lookup fails.
    trusted: networks of the servers whose DNSSEC verdict (the AD bit) is believed; the way there must be safe.
    cache_entries, cache_octets: bounds of what is remembered.  ttl_min, ttl_max, negative_ttl_max: seconds an answer is
    remembered at least and at most, and at most that there is none.  failure_ttl: seconds a failure is remembered.
    lookups_at_once: questions open at the same time; more wait.
    """

    servers: tuple[str, ...] = ()
    hosts_file: str = "/etc/hosts"
    timeout: float = 3.0
    attempts: int = 2
    trusted: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    cache_entries: int = 20_000
    cache_octets: int = 16 * 1024 * 1024
    ttl_min: float = 5.0
    ttl_max: float = 86_400.0
    negative_ttl_max: float = 3_600.0
    failure_ttl: float = 5.0
    lookups_at_once: int = 500

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong with it and what to write instead) for every fault."""
        for text in self.servers:
            try:
                parse_server(text)
            except ValueError as error:
                yield "servers", f'has "{text}"; {error}'
        for text in self.trusted:
            try:
                ipaddress.ip_network(text)
            except ValueError:
                yield "trusted", f'has "{text}", which is not a network; write one such as "192.0.2.0/24" or "::1/128"'
        for name in ("timeout", "attempts", "lookups_at_once"):
            if not getattr(self, name):
                yield name, "is 0, so that nothing could ever be asked; write 1 or more"
        if self.ttl_min > self.ttl_max:
            yield "ttl_min", f"is {self.ttl_min:g} and ttl_max {self.ttl_max:g}; the first must not be greater"


class Server(NamedTuple):
    """A name server.  host: textual address."""

    host: str
    port: int = DNS_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_server(text: str) -> Server:
    """Read ``ADDRESS:PORT``, ``[IPv6]:PORT`` or an address alone (port 53).  Raises ValueError."""
    host, port = text, str(DNS_PORT)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") if rest else port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            f'"{host}" is not an address; write one such as "192.0.2.53:53" or "[2001:db8::53]:53"'
        ) from None
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(f'"{port}" is not a port; ports are 1 to 65535')
    return Server(host, int(port))
