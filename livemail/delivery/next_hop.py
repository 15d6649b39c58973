"""Next hops as an administrator writes them.

    mail.example.net:587    a host by name, its addresses from DNS; MX records are not asked for
    [192.0.2.1]:25          an address; [2001:db8::1]:25 likewise; [mail.example.net]:587 is mail.example.net:587
    unix:/run/lmtp          a Unix socket
    mx                      the MX hosts of the recipient's own domain: what happens without a route
    mx:example.net          the MX hosts of another domain; mx:example.net:2525 at that port
    route:NAME              the next hops of the [[route]] of that name, with its login and TLS policy; as a fallback only

A bare host never means MX, because a smarthost is nearly always one host with a name of its own; brackets, which keep
Postfix from asking for MX, are therefore allowed and change nothing.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Literal

import msgspec

from livemail.mail.domains import domain_key

SMTP_PORT: Final = 25
SUBMISSIONS_PORT: Final = 465

_HOST_PORT: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
_HOST: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*")
_ADVICE: Final = 'write "HOST:PORT", "[ADDRESS]:PORT", "unix:/path", "mx" or "mx:DOMAIN"'


class Written(msgspec.Struct, frozen=True):
    """A next hop, parsed.

    kind: ``host`` (name or address of one machine), ``mx`` (host is a domain, "" the recipient's own), ``unix`` (path), ``route``
    (host is a route's name).  port: 0 where none is written.
    """

    kind: Literal["host", "mx", "unix", "route"]
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """One spelling for equal next hops: it keys connections and back-off."""
        if self.kind == "unix":
            return f"unix:{self.path}"
        place = f"[{self.host}]" if ":" in self.host else self.host
        place += f":{self.port}" if self.port else ""
        if self.kind == "host":
            return place
        return f"{self.kind}:{place}" if place else self.kind


def parse_next_hop(text: str) -> Written:
    """Read one.  Raises ValueError, whose text says what to write."""
    if text == "mx":
        return Written("mx")
    kind, colon, rest = text.partition(":")
    if colon and kind == "unix":
        if not rest.startswith("/"):
            raise ValueError('a Unix socket needs a path from the root, such as "unix:/run/lmtp"')
        return Written("unix", path=rest)
    if colon and kind == "route":
        if not rest:
            raise ValueError('"route:" needs the name of a [[route]]')
        return Written("route", rest)
    if colon and kind == "mx" and not rest.isdigit():
        host, port = _host_and_port(rest)
        if _is_address(host):
            raise ValueError(f"{host} is an address and has no MX records; write it without mx:")
        return Written("mx", host, port)
    host, port = _host_and_port(text)
    if not port:
        raise ValueError(f'it has no port; write "{text}:25", or the port your provider names (usually 587 or 465)')
    return Written("host", host, port)


def is_address(host: str) -> bool:
    """Whether a host is a textual address."""
    return _is_address(host)


def _host_and_port(text: str) -> tuple[str, int]:
    match = _HOST_PORT.fullmatch(text.strip())
    if match is None or not match.group(1).strip("[]"):
        raise ValueError(_ADVICE)
    host, port = match.group(1).strip("[]"), int(match.group(2) or 0)
    if port > 65535 or (match.group(2) and not port):
        raise ValueError(f"{match.group(2)} is not a port; ports are 1 to 65535")
    if match.group(1).startswith("[") and ":" in host:
        host = host[5:] if host.lower().startswith("ipv6:") else host
        try:
            return ipaddress.IPv6Address(host).compressed, port
        except ValueError:
            raise ValueError(f"{host} is not an IPv6 address") from None
    if _is_address(host):
        return host, port
    try:
        host = domain_key(host)
    except ValueError as error:
        raise ValueError(f"{host} is not a host name ({error}); {_ADVICE}") from None
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host} is not a host name; {_ADVICE}")
    return host, port


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
