"""Where a milter listens: ``inet:PORT@HOST``, ``inet6:PORT@HOST``, ``unix:/path`` (also ``local:``), as Sendmail writes it."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import msgspec

_INET: Final = re.compile(r"(inet6?):([0-9]{1,5})(?:@(.+))?")


class Place(msgspec.Struct, frozen=True):
    """A socket.  host: an address without brackets, or a name; path: of a Unix socket, or ""."""

    host: str = ""
    port: int = 0
    path: str = ""
    family: str = "inet"

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.family}:{self.port}@{self.host}"

    @property
    def is_address(self) -> bool:
        """Whether the host is an address."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is an IPv6 address."""
        return ":" in self.host


def parse_place(text: str) -> Place:
    """Read a socket.  Raises ValueError that says what to write."""
    scheme, _, rest = text.partition(":")
    if scheme in {"unix", "local"}:
        if not rest.startswith("/"):
            raise ValueError('a Unix socket needs a path from the root, such as "unix:/run/opendkim/opendkim.sock"')
        return Place(path=rest)
    match = _INET.fullmatch(text)
    if match is None:
        raise ValueError('write "inet:PORT@HOST" such as "inet:8891@127.0.0.1", "inet6:PORT@HOST", or "unix:/path"')
    family, port, host = match[1], int(match[2]), (match[3] or "").strip("[]")
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is not a port; ports are 1 to 65535")
    if not host:
        host = "127.0.0.1" if family == "inet" else "::1"
    place = Place(host, port, family=family)
    if place.is_address and place.is_ipv6 != (family == "inet6"):
        raise ValueError(f'{host} is not an address of {family}; write "{"inet6" if place.is_ipv6 else "inet"}:…"')
    return place
