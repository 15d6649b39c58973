"""Which name server to ask first, learnt from how they answered.

A server that answers is asked in the configured order.  One that does not (no answer in time, nothing listening, garbage,
REFUSED) is put behind those that do, for 5 s, then 10 s, … up to 5 min.  When that time is over no lookup waits for it
either: `due` names it, the resolver asks it beside the next lookup, and an answer puts it back in its place.  Only when no
other server is left is it asked in earnest.  SERVFAIL is about a name, not about the server, and changes nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from livemail.net.resolver.settings import DNS_PORT, Server

RESOLV_CONF: Final = "/etc/resolv.conf"
FIRST_PENALTY: Final = 5.0
LAST_PENALTY: Final = 300.0
MAX_HOSTS_OCTETS: Final = 1024 * 1024


class Servers:
    """The servers, and what is known of each."""

    def __init__(self, servers: Iterable[Server], seconds: Callable[[], float]) -> None:
        """seconds: a clock that does not go back."""
        self._seconds = seconds
        self._servers = tuple(dict.fromkeys(servers))
        self._failures: dict[Server, int] = {}
        self._until: dict[Server, float] = {}

    def __len__(self) -> int:
        return len(self._servers)

    def __str__(self) -> str:
        return ", ".join(str(server) for server in self._servers)

    def order(self) -> list[Server]:
        """Those that answer, in their order; then those that do not, the one that will be due first before the others."""
        well = [server for server in self._servers if server not in self._failures]
        ill = [server for server in self._servers if server in self._failures]
        return well + sorted(ill, key=lambda server: self._until[server])

    def due(self) -> Server | None:
        """Return a server whose penalty is over, beside which others answer; it is not named again for as long."""
        if len(self._failures) == len(self._servers):
            return None
        now = self._seconds()
        for server, until in self._until.items():
            if until <= now:
                self._until[server] = now + self._penalty(server)
                return server
        return None

    def answered(self, server: Server) -> bool:
        """Note an answer; return whether that is news."""
        self._until.pop(server, None)
        return self._failures.pop(server, None) is not None

    def failed(self, server: Server) -> bool:
        """Note that there was none; return whether that is news."""
        failures = self._failures.get(server, 0)
        self._failures[server] = failures + 1
        self._until[server] = self._seconds() + self._penalty(server)
        return not failures

    def _penalty(self, server: Server) -> float:
        return float(min(FIRST_PENALTY * 2 ** min(self._failures[server] - 1, 20), LAST_PENALTY))


def read_resolv_conf(path: str = RESOLV_CONF) -> list[Server]:
    """Return the name servers of a resolv.conf(5); this machine where it names none, or cannot be read."""
    found = []
    for words in _lines(path):
        if len(words) > 1 and words[0] == "nameserver":
            try:
                ipaddress.ip_address(words[1])
            except ValueError:
                continue
            found.append(Server(words[1], DNS_PORT))
    return found or [Server("127.0.0.1", DNS_PORT)]


def read_hosts(path: str) -> dict[str, tuple[str, ...]]:
    """Return addresses by lower-case name from a hosts(5); nothing where it cannot be read."""
    found: dict[str, list[str]] = {}
    for words in _lines(path):
        try:
            address = str(ipaddress.ip_address(words[0]))
        except ValueError:
            continue
        for name in words[1:]:
            found.setdefault(name.lower().removesuffix("."), []).append(address)
    return {name: tuple(dict.fromkeys(addresses)) for name, addresses in found.items()}


def _lines(path: str) -> list[list[str]]:
    """The words of each line that has any, comments left out."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_HOSTS_OCTETS).decode("utf-8", "replace")
    except OSError:
        return []
    lines = (line.partition("#")[0].partition(";")[0].split() for line in text.splitlines())
    return [words for words in lines if words]
