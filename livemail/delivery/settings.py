"""What an administrator may choose about delivery."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Literal

from livemail.delivery.next_hop import SUBMISSIONS_PORT, Written, is_address, parse_next_hop
from livemail.interfaces.relay import TLSPolicy
from livemail.interfaces.settings import Settings
from livemail.mail.domains import domain_key

Family = Literal["ipv6", "ipv4"]


class DeliverySettings(Settings, frozen=True, kw_only=True):
    """Delivery's settings.

    capture_outbound: file what goes to other domains in the sender's own mailbox ``outbox`` instead of sending it.
    outbox: that mailbox's name.
    check_sender: a submitter's reverse-path must be an address of his account (RFC 6409 §6.1), or null.
    check_from: what it means that From names somebody else than the submitter (RFC 6409 §8.1): "flag", Sender names him; "refuse"; "off".
    repair_submissions: submitted messages get the From, Date and Message-ID they lack, and lose Bcc (RFC 6409 §8).
    rewrite_senders: what aliases send on to other domains gets a reverse-path of ours (SRS), see `livemail.delivery.srs`.
    """

    capture_outbound: bool = False
    outbox: str = "Outbox (captured)"
    check_sender: bool = True
    check_from: Literal["off", "flag", "refuse"] = "flag"
    repair_submissions: bool = True
    rewrite_senders: bool = True


class WayOut(Settings, frozen=True, kw_only=True):
    """What ``[relay]`` and ``[[route]]`` have in common.

    login, password: for AUTH at the next hops, "" for none; password_file: whose first line is the password instead.
    tls: none, may, encrypt or verify (see `livemail.interfaces.relay.TLSPolicy`); "" is verify where there is a login, else may.
    implicit_tls: the handshake comes first (always so at port 465).  source: local addresses to connect from, at most one of
    each family, empty for the system's choice.  fallback: next hops to try when those before cannot be reached; without login, but for ``route:NAME``.
    """

    login: str = ""
    password: str = ""
    password_file: str = ""
    tls: Literal["", "none", "may", "encrypt", "verify"] = ""
    implicit_tls: bool = False
    source: tuple[str, ...] = ()
    fallback: tuple[str, ...] = ()

    @property
    def policy(self) -> TLSPolicy:
        """The TLS policy in effect."""
        return self.tls or ("verify" if self.login else "may")

    def _common_faults(self) -> Iterator[tuple[str, str]]:
        if self.login and not self.password and not self.password_file:
            yield "login", 'has no password; add password_file = "/path/to/file" (or password = "…")'
        if (self.password or self.password_file) and not self.login:
            yield "password_file" if self.password_file else "password", "has no login; add login = …"
        if self.password and self.password_file:
            yield "password", "stands beside password_file; keep one of the two"
        if self.implicit_tls and self.tls == "none":
            yield "implicit_tls", 'stands beside tls = "none"; keep one of the two'
        families = []
        for text in self.source:
            try:
                families.append(ipaddress.ip_address(text).version)
            except ValueError:
                yield "source", f'has "{text}", which is not an address'
        if len(families) != len(set(families)):
            yield "source", "has two addresses of one family; keep one IPv4 and one IPv6 address at most"
        for text in self.fallback:
            yield from _hop_faults("fallback", text)

    def hosts(self) -> tuple[str, ...]:
        """Where the login goes to."""
        raise NotImplementedError

    def cleartext_faults(self) -> Iterator[tuple[str, str]]:
        """Yield a fault for each host that would get the password in the clear, this machine excepted."""
        if not self.login or self.policy not in {"none", "may"} or self.implicit_tls:
            return
        for text in self.hosts():
            hop = _parsed(text)
            if hop is None or hop.kind == "unix" or hop.port == SUBMISSIONS_PORT or _is_loopback(hop.host):
                continue
            yield "tls", f'would let the password cross to {text} unencrypted; write tls = "verify", or "encrypt"'


class RoutingSettings(WayOut, frozen=True, kw_only=True):
    """What ``[relay]`` says about where mail goes.

    smarthost: the next hop of every domain without a route of its own, "" for the domain's MX hosts; see
    `livemail.delivery.next_hop`.  login, password and their kin belong to it.
    mx_port: the port of hosts found by MX.  families: of the addresses to use, in the order to try.
    own_names: names, beside ``hostname``, under which MX records may mean this server, and addresses others know it by.  forbidden_networks: addresses that
    DNS may not send us to (routes and smarthosts may).
    """

    smarthost: str = ""
    mx_port: int = 25
    families: tuple[Family, ...] = ("ipv6", "ipv4")
    own_names: tuple[str, ...] = ()
    forbidden_networks: tuple[str, ...] = ()

    def hosts(self) -> tuple[str, ...]:
        """See `WayOut.hosts`."""
        return (self.smarthost,) if self.smarthost else ()

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong with it and what to write instead) for every fault."""
        if self.smarthost:
            yield from _hop_faults("smarthost", self.smarthost, is_fallback=False)
        elif self.login:
            yield "login", 'is sent to the smarthost, and there is none; add smarthost = "HOST:PORT"'
        yield from self._common_faults()
        if not 1 <= self.mx_port <= 65535:
            yield "mx_port", f"is {self.mx_port}; ports are 1 to 65535"
        if not self.families or len(set(self.families)) != len(self.families):
            yield "families", 'has each family once, in the order to try: ["ipv6", "ipv4"], or one of them'
        for text in self.own_names:
            if is_address(text):
                continue
            try:
                domain_key(text)
            except ValueError as error:
                yield "own_names", f'has "{text}", which is not a host name, nor an address ({error})'
        for text in self.forbidden_networks:
            try:
                ipaddress.ip_network(text)
            except ValueError:
                yield "forbidden_networks", f'has "{text}", which is not a network; write one such as "10.0.0.0/8"'


class RouteSettings(WayOut, frozen=True, kw_only=True):
    """One ``[[route]]``: another way for some domains.

    domains: ``example.net`` is that domain, ``*.example.net`` (or ``.example.net``) every one below it, ``*`` every other.  The
    most precise route wins, wherever it stands.  next_hop: in the order to try; see `livemail.delivery.next_hop`.
    name: for ``route:NAME`` in a fallback; a route with a name needs no domains.  protocol: what is spoken.
    """

    domains: tuple[str, ...] = ()
    next_hop: tuple[str, ...] = ()
    name: str = ""
    protocol: Literal["smtp", "lmtp"] = "smtp"

    def hosts(self) -> tuple[str, ...]:
        """See `WayOut.hosts`."""
        return self.next_hop

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong with it and what to write instead) for every fault."""
        if not self.domains and not self.name:
            yield "domains", 'is missing; write domains = ["example.net"], with "*.example.net" for those below it'
        for text in self.domains:
            try:
                parse_pattern(text)
            except ValueError as error:
                yield "domains", f'has "{text}"; {error}'
        if not self.next_hop:
            yield "next_hop", 'is missing; write next_hop = ["HOST:PORT"]'
        for text in self.next_hop:
            yield from _hop_faults("next_hop", text, is_fallback=False)
        yield from self._common_faults()


def parse_pattern(text: str) -> str:
    """Return the key of a route's domain: ``example.net``, ``.example.net`` for those below it, "*".  Raises ValueError."""
    if text == "*":
        return text
    below = text.startswith(("*.", "."))
    domain = text.removeprefix("*").removeprefix(".") if below else text
    if not domain or "*" in domain:
        raise ValueError('a star stands alone, or before a dot: "*", "*.example.net"')
    return ("." if below else "") + domain_key(domain)


def _hop_faults(field: str, text: str, *, is_fallback: bool = True) -> Iterator[tuple[str, str]]:
    try:
        hop = parse_next_hop(text)
    except ValueError as error:
        yield field, f'cannot be "{text}": {error}'
        return
    if hop.kind == "route" and not is_fallback:
        yield field, f'cannot be "{text}": route:NAME stands in a fallback only'


def _parsed(text: str) -> Written | None:
    try:
        return parse_next_hop(text)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
