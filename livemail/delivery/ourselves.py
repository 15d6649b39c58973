"""Which hosts are this server: the ones that must not be sent to.  RFC 5321 §5.1, §6.3.

A host is us when it has one of our names, when one of its addresses is one that others know us by (behind NAT it is none of
this machine), or when one of its addresses is one we take SMTP at, on the port it would be asked on.  Another port of the same machine is somebody else: a filter, a list manager, a second server.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Final

_EVERYWHERE: Final = frozenset({"", "::", "0.0.0.0"})  # noqa: S104 (compared, not bound)


def is_local_address(address: str) -> bool:
    """Whether an address is this machine's.  Asks the kernel which source it would use; nothing is sent."""
    parsed = ipaddress.ip_address(address)
    if parsed.is_loopback or parsed.is_unspecified:
        return True
    family = socket.AF_INET6 if parsed.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]) == parsed
    except OSError:  # no way there, so not here
        return False


def _compared(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower().removesuffix(".")


class Ourselves:
    """Our names and the places we listen at."""

    def __init__(
        self,
        names: Iterable[str],
        listeners: Iterable[tuple[str, int]],
        is_local: Callable[[str], bool] = is_local_address,
    ) -> None:
        """names: host names, in any case, and addresses others know us by.  listeners: address and port of each that takes SMTP; "::" is every address."""
        self._names = frozenset(_compared(name) for name in names if name)
        self._ports: dict[int, set[str]] = {}
        for host, port in listeners:
            self._ports.setdefault(port, set()).add(host)
        self._is_local = is_local

    def is_name(self, host: str) -> bool:
        """Whether a host name, or an address others know us by, is ours."""
        return host in self._names

    def listens(self, address: str, port: int) -> bool:
        """Whether connecting there would be connecting to us."""
        hosts = self._ports.get(port)
        if hosts is None:
            return False
        if hosts & _EVERYWHERE and self._is_local(address):
            return True
        parsed = ipaddress.ip_address(address)
        return any(ipaddress.ip_address(host) == parsed for host in hosts - _EVERYWHERE)

    def listen_at(self, addresses: Iterable[str], port: int) -> bool:
        """Whether one of a host's addresses is ours."""
        return any(self.listens(address, port) for address in addresses)
