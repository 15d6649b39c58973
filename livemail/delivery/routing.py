"""From a domain to the hosts that take its mail.  RFC 5321 §5, RFC 7505.

    route table     a [[route]] or the smarthost → its next hops, names looked up for addresses only
    address literal → that address
    MX              records by preference, equal ones in random order, each with its addresses
      null MX       556 5.1.10: the domain takes no mail
      no MX         the domain's own addresses (the implicit MX); none of them either: 550 5.1.2
      we are in it  only hosts with a lower preference than ours remain; none: 550 5.4.6.  So a backup MX sends upwards only
      no address    a host without any, or only such as must not be used, is left out; none left: 550 5.4.4
    fallback        further next hops behind all of these; and in their place when DNS does not answer

Never used, whoever names them: unspecified, multicast, broadcast and link-local addresses.  Loopback and private ones are
used unless ``[relay] forbidden_networks`` has them: split DNS and servers of one machine are ordinary, and what is us is
recognised by itself.

An MX record that names an alias is followed although RFC 2181 §10.3 forbids it, as everybody does.  Host names with
characters that no host name has are left out: they would stand in commands and logs.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar, cast

import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from zope.interface import implementer

from livemail.delivery.next_hop import SMTP_PORT, SUBMISSIONS_PORT, Written, is_address
from livemail.delivery.ourselves import Ourselves
from livemail.delivery.routes import RouteTable, Way
from livemail.delivery.settings import RouteSettings, RoutingSettings
from livemail.interfaces.relay import Answer, Hops, IResolver, IRouting, NextHop
from livemail.mail.domains import domain_key
from livemail.mail.errors import MailError

MAX_HOSTS: Final = 20
"""MX hosts that are looked at, best first; who has more has them for show."""

REMEMBERED: Final = 1000
"""Domains whose destination, or whose hosts where no lookup is needed, are remembered."""

MAX_ADDRESSES: Final = 16
"""Addresses of one host that are used."""

_HOST: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.(?!-)[a-z0-9_-]{1,63})*")

T = TypeVar("T")

Shuffle = Callable[[list[Any]], None]
"""Puts a list in random order: `random.Random.shuffle`."""


class NullMX(MailError):
    """RFC 7505 §3, §4.1."""

    code, enhanced, default_text = 556, "5.1.10", "The domain takes no mail (null MX)"


class NoSuchDomain(MailError):
    """RFC 5321 §5.1: neither MX nor address."""

    code, enhanced, default_text = 550, "5.1.2", "There is no such mail domain"


class Unroutable(MailError):
    """MX hosts there are, and none that could be connected to."""

    code, enhanced, default_text = 550, "5.4.4", "No mail host of the domain has a usable address"


class LoopsBack(MailError):
    """We are the best MX, and the domain is not ours."""

    code, enhanced, default_text = 550, "5.4.6", "Mail for the domain would loop back to this server"


class RouteUnusable(MailError):
    """The configuration says where to, and there is nothing to be found there."""

    code, enhanced, default_text = 451, "4.3.5", "The route to the domain cannot be used now"


class _Host(msgspec.Struct):
    """One host with what DNS said of it; error instead of addresses when it did not answer."""

    preference: int
    name: str
    addresses: tuple[str, ...] = ()
    is_us: bool = False
    canonical: str = ""
    seconds: float = 0.0
    error: MailError | None = None


@implementer(IRouting)
class Routing:
    """The routes of the configuration over DNS."""

    log = Logger()

    def __init__(
        self,
        relay: RoutingSettings,
        routes: Sequence[RouteSettings],
        *,
        resolver: IResolver,
        ourselves: Ourselves,
        shuffle: Shuffle,
    ) -> None:
        """Raises SecretError when a password file cannot be read."""
        self._relay = relay
        self._routes = routes
        self._table = RouteTable(relay, routes)
        self._resolver = resolver
        self._ourselves = ourselves
        self._shuffle = shuffle
        self._families = [6 if family == "ipv6" else 4 for family in relay.families]
        self._destinations: dict[str, str] = {}
        self._fixed: dict[str, Hops] = {}
        self._forbidden = [ipaddress.ip_network(text) for text in relay.forbidden_networks]

    def reload(self) -> None:
        """Read the password files again.  Raises SecretError, and keeps the passwords as they were."""
        self._table = RouteTable(self._relay, self._routes)
        self._fixed.clear()

    def destination(self, domain: str) -> str:
        """See `IRouting.destination`."""
        known = self._destinations.get(domain)
        if known is not None:
            return known
        try:
            key = domain_key(domain)
        except ValueError:
            return domain.lower()
        return _remember(self._destinations, domain, self._table.way(key).destination or key)

    async def hops(self, domain: str) -> Hops:
        """See `IRouting.hops`."""
        known = self._fixed.get(domain)
        if known is not None:
            return known
        try:
            key = domain_key(domain)
        except ValueError as error:
            raise NoSuchDomain(f"{domain} is not a domain: {error}") from None
        way = self._table.way(key)
        found: list[NextHop] = []
        seconds, problem = 0.0, None
        try:
            found, seconds = await self._hops_of_way(way, key)
        except MailError as error:
            if not error.temporary:
                raise
            problem = error
        for hop, spoken in way.fallback:
            try:
                further, holds = await self._written(hop, spoken, key)
            except MailError as error:
                self.log.warn("the fallback {hop} cannot be used: {error}", hop=str(hop), error=str(error))
                seconds = 0.0
                continue
            found += further
            seconds = min(seconds, holds)
        if not found and problem is not None:
            raise problem
        hops = Hops(way.destination or key, tuple(found), seconds)
        return _remember(self._fixed, domain, hops) if seconds == float("inf") else hops

    # ------------------------------------------------------------------------------------------------------- ways

    async def _hops_of_way(self, way: Way, domain: str) -> tuple[list[NextHop], float]:
        """Return the hops of a way without its fallback, and for how many seconds.  Raises MailError when there is none."""
        found: list[NextHop] = []
        seconds = float("inf")
        problem: MailError | None = None
        for hop in way.hops:
            try:
                some, holds = await self._written(hop, way, domain)
            except MailError as error:
                # What can be mended by waiting is told before what cannot: the mail stays.
                problem = error if problem is None or error.temporary else problem
                continue
            found += some
            seconds = min(seconds, holds)
        if not found:
            assert problem is not None, "a way has hops, and each is found or has a problem"
            raise problem
        return found, 0.0 if problem is not None else seconds

    async def _written(self, hop: Written, way: Way, domain: str) -> tuple[list[NextHop], float]:
        """Return what one configured next hop stands for.  Raises MailError."""
        if hop.kind == "unix":
            return [self._next_hop(way, "", 0, (), path=hop.path)], float("inf")
        if hop.kind == "host":
            host = await self._addresses(hop.host)
            if not host.addresses:
                raise RouteUnusable(reason=str(host.error or f"{hop.host} has no address"))
            others = [address for address in host.addresses if not self._ourselves.listens(address, hop.port)]
            if not others:
                raise RouteUnusable(reason=f"the next hop {hop} is this server itself")
            return [self._next_hop(way, hop.host, hop.port, others)], host.seconds
        port = hop.port or self._relay.mx_port
        asked = hop.host or domain
        if asked.startswith("["):
            return [self._next_hop(way, *self._literal(asked, port))], float("inf")
        return await self._by_mx(way, asked, port)

    def _literal(self, literal: str, port: int) -> tuple[str, int, tuple[str, ...]]:
        """An address literal is its own host.  RFC 5321 §4.1.3, §5.1.  Raises LoopsBack, Unroutable."""
        address = literal[1:-1].removeprefix("ipv6:")
        if self._ourselves.listens(address, port):
            raise LoopsBack(f"{literal} is this server, which does not take mail for it")
        if not self._usable((address,)):
            raise Unroutable(f"{literal} is not an address this server sends to")
        return address, port, (address,)

    def _next_hop(self, way: Way, host: str, port: int, addresses: Sequence[str], path: str = "") -> NextHop:
        return NextHop(
            host,
            port or SMTP_PORT,
            tuple(addresses[:MAX_ADDRESSES]),
            path=path,
            protocol=way.protocol,
            tls=way.tls,
            implicit_tls=way.implicit_tls or (port == SUBMISSIONS_PORT and way.protocol == "smtp"),
            login=way.login,
            password=way.password,
            source=way.source,
            reference=host,
        )

    # --------------------------------------------------------------------------------------------------------- DNS

    async def _by_mx(self, way: Way, domain: str, port: int) -> tuple[list[NextHop], float]:
        """Return the MX hosts of a domain.  RFC 5321 §5.1.  Raises MailError."""
        answer = await self._resolver.mx(domain)
        if not answer.exists:
            raise NoSuchDomain(f"The domain {domain} does not exist")
        records = cast("Sequence[tuple[int, str]]", answer.records)
        if records and not any(name for _, name in records):
            raise NullMX(f"The domain {domain} takes no mail (null MX)")
        is_implicit = not records
        if is_implicit:
            records = [(0, domain)]
        hosts = await self._hosts(self._in_order(records), port)
        ours = min((host.preference for host in hosts if host.is_us), default=None)
        if ours is not None:
            hosts = [host for host in hosts if host.preference < ours]
            if not hosts:
                raise LoopsBack(f"Mail for {domain} would loop back to this server, which does not take it")
        usable = [(host, self._usable(host.addresses)) for host in hosts]
        found = [self._next_hop(way, host.name, port, addresses) for host, addresses in usable if addresses]
        if not found:
            raise self._why_none(domain, hosts, is_implicit=is_implicit)
        missing = any(host.error is not None for host in hosts)
        return found, 0.0 if missing else min(answer.seconds, *(host.seconds for host in hosts))

    def _in_order(self, records: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
        """Valid records by preference, equal ones shuffled.  RFC 5321 §5.1."""
        mixed = [(preference, name) for preference, name in dict.fromkeys(records) if _HOST.fullmatch(name)]
        self._shuffle(mixed)
        return sorted(mixed, key=lambda record: record[0])[:MAX_HOSTS]

    async def _hosts(self, records: Sequence[tuple[int, str]], port: int) -> list[_Host]:
        """Look up all addresses, side by side."""
        asked = [Deferred.fromCoroutine(self._host(preference, name, port)) for preference, name in records]
        results: Any = await DeferredList(asked, fireOnOneErrback=True, consumeErrors=True)
        return [host for _, host in results]

    async def _host(self, preference: int, name: str, port: int) -> _Host:
        """Look up an MX host; ours by name needs no address."""
        if self._ourselves.is_name(name):
            return _Host(preference, name, is_us=True)
        host = await self._addresses(name)
        host.preference = preference
        known_as = any(self._ourselves.is_name(each) for each in (host.canonical, *host.addresses))
        host.is_us = known_as or self._ourselves.listen_at(host.addresses, port)
        return host

    async def _addresses(self, name: str) -> _Host:
        """Look up a host; an address is its own.  Lenient: in an MX record too, where many have one by mistake."""
        if is_address(name):
            return _Host(0, name, (name,), seconds=float("inf"))
        try:
            answer: Answer = await self._resolver.addresses(name, self._families)
        except MailError as error:
            return _Host(0, name, error=error)
        addresses = cast("tuple[str, ...]", answer.records)
        return _Host(0, name, addresses, seconds=answer.seconds, canonical=answer.canonical)

    def _usable(self, addresses: Iterable[str]) -> list[str]:
        return [address for address in addresses if self._may_use(ipaddress.ip_address(address))]

    def _may_use(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        address = mapped or address
        if address.is_unspecified or address.is_multicast or address.is_link_local or str(address) == "255.255.255.255":
            return False
        return not any(address in network for network in self._forbidden)

    def _why_none(self, domain: str, hosts: Sequence[_Host], *, is_implicit: bool) -> MailError:
        """Say why no host of a domain can be used; the reason that may pass goes first."""
        failed = [host.error for host in hosts if host.error is not None]
        if failed:
            return failed[0]
        if is_implicit and not any(host.addresses for host in hosts):
            return NoSuchDomain(f"The domain {domain} has neither MX nor address records")
        return Unroutable(f"No mail host of {domain} has a usable address")


def _remember(known: dict[str, T], domain: str, what: T) -> T:
    if len(known) >= REMEMBERED:
        known.clear()
    known[domain] = what
    return what
