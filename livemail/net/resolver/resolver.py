"""The resolver: what the rest of the server asks, answered from memory, from a question in flight, or by the servers.

A lookup
    cache → the same question in flight (everybody waits for one answer) → the servers, in the order `Servers` has learnt,
    each once a round; the first that knows answers.  CNAMEs are followed, by further questions where they leave the answer.

What counts as knowing
    NOERROR and NXDOMAIN.  SERVFAIL, REFUSED, a referral, garbage and silence mean the next server.  When none knows the
    lookup fails with 451 4.4.3, which is remembered for `failure_ttl` seconds, so that a thousand messages to a broken
    domain are not a thousand rounds.

DNSSEC
    `Answer.is_secure` is the AD bit of a server among ``trusted``, for every step of the way.  Nothing is validated here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import dns.reversename
import msgspec
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from livemail.interfaces.relay import Answer, IResolver
from livemail.mail.domains import domain_key
from livemail.mail.errors import MailError
from livemail.net.coroutines import run
from livemail.net.resolver.cache import Cache, Entry
from livemail.net.resolver.exchange import NoAnswer
from livemail.net.resolver.message import (
    AAAA,
    BADVERS,
    CIRCLE,
    FORMERR,
    MAX_ALIASES,
    MX,
    NOERROR,
    NOTIMP,
    NXDOMAIN,
    PTR,
    SERVFAIL,
    TLSA,
    TXT,
    A,
    Found,
    Garbage,
    Query,
    Question,
    Reply,
    as_name,
    follow,
    make_query,
)
from livemail.net.resolver.servers import Servers, read_hosts, read_resolv_conf
from livemail.net.resolver.settings import ResolverSettings, Server, parse_server

Ask = Callable[[Server, Query, float], Awaitable[Reply]]
"""One question to one server, `exchange.ask` with its reactor; raises NoAnswer."""

RandomBits = Callable[[int], int]
"""That many bits nobody can guess: `secrets.randbits`."""

NO_SOA_TTL: Final = 60
"""Seconds that "there is none" holds when the server gave no SOA to say how long (RFC 2308 §5 says not to cache it; we do, briefly)."""

_TYPE_OF_FAMILY: Final = {4: A, 6: AAAA}


class LookupFailed(MailError):
    """No server knows."""

    code, enhanced, default_text = 451, "4.4.3", "DNS lookup failed"


@implementer(IResolver)
class Resolver:
    """DNS for one process."""

    log = Logger()

    def __init__(
        self, settings: ResolverSettings, ask: Ask, seconds: Callable[[], float], random_bits: RandomBits
    ) -> None:
        """seconds: a clock that does not go back."""
        self._settings = settings
        self._ask = ask
        self._seconds = seconds
        self._random_bits = random_bits
        self._trusted = [ipaddress.ip_network(text) for text in settings.trusted]
        self._cache = Cache(seconds, entries=settings.cache_entries, octets=settings.cache_octets)
        self._flights: dict[Question, list[Deferred[Entry]]] = {}
        self._turns = DeferredSemaphore(settings.lookups_at_once)
        self._without_edns: set[Server] = set()
        self._hosts: dict[str, tuple[str, ...]] = {}
        self._servers = Servers((), seconds)
        self.reload()

    def reload(self) -> None:
        """Read /etc/resolv.conf (unless servers are configured) and the hosts file again, and forget every answer."""
        servers = [parse_server(text) for text in self._settings.servers] or read_resolv_conf()
        self._servers = Servers(servers, self._seconds)
        self._without_edns.clear()
        self._hosts = read_hosts(self._settings.hosts_file) if self._settings.hosts_file else {}
        self._cache.clear()

    # ------------------------------------------------------------------------------------------------- questions

    async def mx(self, name: str) -> Answer:
        """See `IResolver.mx`."""
        answer = await self._lookup(name, MX)
        return msgspec.structs.replace(answer, records=tuple(sorted(answer.records)))

    async def txt(self, name: str) -> Answer:
        """See `IResolver.txt`."""
        return await self._lookup(name, TXT)

    async def tlsa(self, name: str) -> Answer:
        """See `IResolver.tlsa`."""
        return await self._lookup(name, TLSA)

    async def ptr(self, address: str) -> Answer:
        """See `IResolver.ptr`."""
        return await self._lookup(dns.reversename.from_address(address).to_text(omit_final_dot=True), PTR)

    async def addresses(self, name: str, families: Sequence[int] = (6, 4)) -> Answer:
        """See `IResolver.addresses`.  An address is its own answer; names of the hosts file, and localhost, are not asked for."""
        known = self._without_asking(name)
        if known is not None:
            ordered = [each for family in families for each in known if ipaddress.ip_address(each).version == family]
            return Answer(tuple(ordered), exists=True, seconds=self._settings.ttl_max, canonical=name)
        asked = [Deferred.fromCoroutine(self._lookup(name, _TYPE_OF_FAMILY[family])) for family in families]
        results: Any = await DeferredList(asked, consumeErrors=True)
        answers = [result for succeeded, result in results if succeeded]
        records = tuple(record for answer in answers for record in answer.records)
        if len(answers) < len(asked) and not records:
            next(result for succeeded, result in results if not succeeded).raiseException()
        telling = [answer for answer in answers if answer.records] or answers
        return Answer(
            records,
            exists=any(answer.exists for answer in answers),
            is_secure=all(answer.is_secure for answer in telling),
            seconds=min(answer.seconds for answer in answers) if len(answers) == len(asked) else 0.0,
            canonical=telling[0].canonical,
        )

    def _without_asking(self, name: str) -> tuple[str, ...] | None:
        try:
            return (str(ipaddress.ip_address(name)),)
        except ValueError:
            pass
        name = name.lower().removesuffix(".")
        if name in self._hosts:
            return self._hosts[name]
        if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 §6.3
            return ("::1", "127.0.0.1")
        return None

    # --------------------------------------------------------------------------------------------------- lookups

    async def _lookup(self, name: str, kind: int) -> Answer:
        """One type of one name, CNAMEs followed.  Raises LookupFailed."""
        try:
            name = domain_key(name) if not name.isascii() else name.lower().removesuffix(".")
        except ValueError:
            return Answer((), exists=False)
        if as_name(name) is None:
            return Answer((), exists=False, canonical=name)
        entry = await self._entry(Question(name, kind))
        return Answer(
            entry.records,
            exists=entry.exists,
            is_secure=entry.is_secure,
            seconds=max(0.0, entry.until - self._seconds()),
            canonical=entry.canonical,
        )

    async def _entry(self, question: Question) -> Entry:
        entry = self._cache.get(question)
        if entry is None:
            waiting: Deferred[Entry] = Deferred()
            flight = self._flights.get(question)
            if flight is None:
                self._flights[question] = [waiting]
                fetched = self._turns.run(lambda: Deferred.fromCoroutine(self._fetch(question)))
                fetched.addBoth(partial(self._landed, question))
            else:
                flight.append(waiting)
            entry = await waiting
        if entry.failure:
            raise LookupFailed(f"DNS lookup of {question} failed", reason=entry.failure)
        return entry

    def _landed(self, question: Question, result: Entry | Failure) -> None:
        for waiting in self._flights.pop(question):
            if isinstance(result, Failure):
                waiting.errback(result)
            else:
                waiting.callback(result)

    async def _fetch(self, question: Question) -> Entry:
        """Ask; what came out is in the cache."""
        try:
            found, is_secure, ttl = await self._follow(question)
        except NoAnswer as error:
            entry = Entry(self._seconds() + self._settings.failure_ttl, failure=str(error))
        else:
            ttl = min(ttl, self._settings.ttl_max if found.records else self._settings.negative_ttl_max)
            until = self._seconds() + max(ttl, self._settings.ttl_min)
            entry = Entry(until, found.records, found.exists, is_secure, found.canonical)
        self._cache.put(question, entry)
        return entry

    async def _follow(self, question: Question) -> tuple[Found, bool, float]:
        """Ask until the CNAMEs end; return what is there, whether every answer was secure, and for how many seconds all hold.

        Raises NoAnswer.
        """
        is_secure, ttl = True, float("inf")
        passed = {question.name}
        while True:
            found, authentic = await self._ask_servers(question)
            is_secure = is_secure and authentic
            ttl = min(ttl, NO_SOA_TTL if found.ttl is None else found.ttl)
            if not found.next:
                return found, is_secure, ttl
            if found.next in passed or len(passed) > MAX_ALIASES:
                raise NoAnswer(CIRCLE)
            passed.add(found.next)
            question = Question(found.next, question.type)

    async def _ask_servers(self, question: Question) -> tuple[Found, bool]:
        """Ask one server after the other until one knows.  Raises NoAnswer."""
        due = self._servers.due()
        if due is not None:
            run(self._ask_one(due, question), lambda *_: None)
        reasons: dict[str, None] = {}
        for _ in range(self._settings.attempts):
            for server in self._servers.order():
                try:
                    found, authentic = await self._ask_one(server, question)
                except NoAnswer as error:
                    reasons[f"{server}: {error}"] = None
                    continue
                return found, authentic and self._trusts(server)
        raise NoAnswer("; ".join(reasons))

    async def _ask_one(self, server: Server, question: Question) -> tuple[Found, bool]:
        """Ask one server, and learn from it.  Returns what it knows, and the AD bit.  Raises NoAnswer."""
        servers = self._servers
        try:
            reply = await self._exchange(server, question)
            found = _meaning(question, reply)
        except NoAnswer as error:
            if isinstance(error, _Unlucky):
                servers.answered(server)
            elif servers.failed(server):
                self.log.warn("name server {server} is asked last now: {why}", server=str(server), why=str(error))
            raise
        if servers.answered(server):
            self.log.info("name server {server} answers again", server=str(server))
        return found, reply.is_authentic

    async def _exchange(self, server: Server, question: Question) -> Reply:
        has_edns = server not in self._without_edns
        reply = await self._ask(server, self._query(question, has_edns), self._settings.timeout)
        if has_edns and reply.rcode in {FORMERR, NOTIMP, BADVERS}:  # RFC 6891 §7: a server from before EDNS
            reply = await self._ask(server, self._query(question, has_edns=False), self._settings.timeout)
            if reply.rcode in {NOERROR, NXDOMAIN}:
                self._without_edns.add(server)
        return reply

    def _query(self, question: Question, has_edns: bool) -> Query:
        return make_query(question, self._random_bits(16), self._random_bits, has_edns=has_edns)

    def _trusts(self, server: Server) -> bool:
        address = ipaddress.ip_address(server.host.partition("%")[0])
        return any(address in network for network in self._trusted)


class _Unlucky(NoAnswer):
    """The server works, and does not know this name."""


def _meaning(question: Question, reply: Reply) -> Found:
    """Return what an answer says.  Raises NoAnswer."""
    if reply.rcode == SERVFAIL:
        raise _Unlucky("SERVFAIL")
    if reply.is_referral:
        raise NoAnswer("a referral")
    if reply.rcode not in {NOERROR, NXDOMAIN}:
        raise NoAnswer(f"rcode {reply.rcode}")
    try:
        return follow(question, reply)
    except Garbage as error:
        raise _Unlucky(str(error)) from None
