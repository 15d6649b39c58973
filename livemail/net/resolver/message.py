"""Questions to octets, octets to answers.  RFC 1035 §4, RFC 6891, RFC 2308; no I/O.

What keeps a stranger's answer out
    The id is random, the source port is new for each question, and the letters of the name are in random case
    (an answer repeats the question as it was asked): some 16 + 15 bits and one for each letter.  An answer whose id
    or question differ is not one (`read` returns None), and one that differs in case only is `CASE`: the question is asked
    again by TCP, which cannot be answered from elsewhere.

What an answer says
    `Reply` is the header and the sections as far as they matter; `follow` walks the CNAMEs in it and tells what it means for
    the name asked: records, none of this type, no such name, or a referral of a server that does not know.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import dns.exception
import dns.flags
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.wire
import msgspec

EDNS_OCTETS: Final = 1232
"""Largest answer by UDP: what fits into the smallest packet every IPv6 link carries (1280 octets), headers taken off."""

MAX_RECORDS: Final = 2000
"""Of one message; what has more is no answer about mail."""

MAX_LABELS: Final = 8000
"""Of all names in one message: compression packs a hundred labels into two octets, and each costs 3 µs."""

MAX_TTL: Final = 0x7FFFFFFF
MAX_ALIASES: Final = 12
"""CNAMEs followed for one question."""

CIRCLE: Final = "CNAME records go in a circle, or on and on"

A: Final = int(dns.rdatatype.A)
AAAA: Final = int(dns.rdatatype.AAAA)
CNAME: Final = int(dns.rdatatype.CNAME)
MX: Final = int(dns.rdatatype.MX)
NS: Final = int(dns.rdatatype.NS)
OPT: Final = int(dns.rdatatype.OPT)
PTR: Final = int(dns.rdatatype.PTR)
SOA: Final = int(dns.rdatatype.SOA)
TLSA: Final = int(dns.rdatatype.TLSA)
TXT: Final = int(dns.rdatatype.TXT)

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

_HEADER: Final = struct.Struct("!HHHHHH")
_RESPONSE: Final = 0x8000
_OPCODE: Final = 0x7800
_TRUNCATED: Final = 0x0200
_RECURSION_AVAILABLE: Final = 0x0080
_AUTHORITATIVE: Final = 0x0400
_AUTHENTIC: Final = 0x0020
_IN: Final = 1


class Garbage(Exception):
    """The answer is to our question, and what it holds is not DNS."""


class Question(msgspec.Struct, frozen=True):
    """What is asked.  name: A-labels, lower-case, without trailing dot, checked by `as_name`.  type: an RR type."""

    name: str
    type: int

    def __str__(self) -> str:
        return f"{self.name} {dns.rdatatype.to_text(dns.rdatatype.RdataType(self.type))}"


class Query(msgspec.Struct, frozen=True):
    """A question as it is sent.  section: the octets of its question section."""

    question: Question
    id: int
    wire: bytes
    section: bytes
    has_edns: bool


class Reply(msgspec.Struct, frozen=True):
    """An answer.  records: (owner, type, ttl, value) of the answer section, values as `interfaces.relay.IResolver` has them.

    negative_ttl: of the SOA in the authority section (RFC 2308 §5), None without one.  is_referral: neither an answer nor
    the word of a server that could know.
    """

    rcode: int
    is_truncated: bool = False
    is_authentic: bool = False
    is_referral: bool = False
    has_case: bool = True
    records: tuple[tuple[str, int, int, Any], ...] = ()
    negative_ttl: int | None = None


class Found(msgspec.Struct, frozen=True):
    """What a reply means for a name.  next: name to ask for, when the CNAMEs end outside the reply; else "".

    ttl: seconds, of the record that goes first; None when the reply did not say (no SOA).  aliases: names gone through.
    """

    records: tuple[Any, ...]
    exists: bool
    ttl: int | None
    canonical: str
    next: str = ""
    aliases: int = 0


def as_name(text: str) -> dns.name.Name | None:
    """Return the name, or None for what cannot be one (empty labels, labels over 63 octets, names over 255)."""
    try:
        name = dns.name.from_text(text)
    except (dns.exception.DNSException, UnicodeError, ValueError):
        return None
    return name if len(name.labels) > 1 else None


def make_query(question: Question, identity: int, mix: Callable[[int], int], *, has_edns: bool = True) -> Query:
    """Make the octets to send.  mix: returns that many random bits, for the case of the letters."""
    name = as_name(question.name)
    assert name is not None, "checked by who asks"
    octets = bytearray()
    for label in name.labels:
        octets.append(len(label))
        bits = mix(len(label)) if label else 0
        octets += bytes(
            (octet | 0x20 if bits >> at & 1 else octet & ~0x20) if octet | 0x20 in _LETTERS else octet
            for at, octet in enumerate(label)
        )
    section = bytes(octets) + struct.pack("!HH", question.type, _IN)
    # RD: a recursive server shall go and look.  AD: tell whether DNSSEC says so (RFC 6840 §5.7).
    header = _HEADER.pack(identity, 0x0120, 1, 0, 0, int(has_edns))
    edns = b"\0" + struct.pack("!HHIH", OPT, EDNS_OCTETS, 0, 0) if has_edns else b""
    return Query(question, identity, header + section + edns, section, has_edns)


_LETTERS: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz")


def read(query: Query, octets: bytes) -> Reply | None:
    """Read what came back.  None: it is not the answer to this query.  Raises Garbage."""
    if len(octets) < _HEADER.size:
        return None
    identity, flags, questions, _, _, _ = _HEADER.unpack_from(octets)
    if identity != query.id or not flags & _RESPONSE or flags & _OPCODE:
        return None
    rcode = flags & 0x0F
    if questions == 0 and rcode in {FORMERR, NOTIMP, SERVFAIL, REFUSED}:
        return Reply(rcode)  # Lenient: servers that could not read the question do not repeat it
    end = _HEADER.size + len(query.section)
    asked = octets[_HEADER.size : end]
    has_case = asked == query.section
    if questions != 1 or (not has_case and asked.lower() != query.section.lower()):
        return None
    if flags & _TRUNCATED:  # the rest may be cut anywhere
        return Reply(rcode, is_truncated=True, has_case=has_case)
    try:
        return _Body(octets, end).reply(flags, has_case=has_case)
    except (dns.exception.DNSException, ValueError, struct.error) as error:
        raise Garbage(type(error).__name__) from None


class _Body:
    """The sections behind the question.  Only what is needed is parsed, so that nothing else can be in the way."""

    def __init__(self, octets: bytes, at: int) -> None:
        _, _, _, *self._counts = _HEADER.unpack_from(octets)
        if sum(self._counts) > MAX_RECORDS:
            raise dns.exception.FormError
        self._parser = dns.wire.Parser(octets, at)
        self._labels = 0

    def reply(self, flags: int, *, has_case: bool) -> Reply:
        answers, authorities, additional = self._counts
        records = tuple(
            (name_text(owner), kind, ttl, value) for owner, kind, ttl, value in self._section(answers, _VALUES)
        )
        negative = None
        has_servers = False
        for _, kind, ttl, value in self._section(authorities, _AUTHORITY):
            if kind == SOA:
                negative = min(ttl, value)
            else:
                has_servers = True
        rcode = flags & 0x0F
        for _, _, extended, _ in self._section(additional, _ADDITIONAL):
            rcode |= (extended >> 24) << 4  # RFC 6891 §6.1.3
        could_know = flags & (_AUTHORITATIVE | _RECURSION_AVAILABLE)
        is_referral = rcode == NOERROR and not records and negative is None and (has_servers or not could_know)
        return Reply(
            rcode,
            is_authentic=bool(flags & _AUTHENTIC),
            is_referral=is_referral,
            has_case=has_case,
            records=records,
            negative_ttl=negative,
        )

    def _count(self, labels: int, value: Any) -> None:
        text = value[-1] if isinstance(value, tuple) else value
        self._labels += labels + (text.count(".") if isinstance(text, str) else 0)
        if self._labels > MAX_LABELS:
            raise dns.exception.FormError

    def _section(
        self, count: int, wanted: Mapping[int, Callable[[dns.wire.Parser], Any]]
    ) -> Iterator[tuple[dns.name.Name, int, int, Any]]:
        """Yield owner, type, ttl and value of the records of wanted types; step over the others."""
        parser = self._parser
        for _ in range(count):
            owner, used = dns.name.from_wire(parser.wire, parser.current)
            parser.seek(parser.current + used)
            kind, klass, ttl, length = parser.get_struct("!HHIH")
            make = wanted.get(kind)
            if make is None or (klass != _IN and kind != OPT):
                parser.seek(parser.current + length)
                self._count(len(owner.labels), None)
                continue
            with parser.restrict_to(length):
                value = make(parser)
            self._count(len(owner.labels), value)
            # A time with the highest bit set counts as 0 (RFC 2181 §8); in OPT it is no time.
            yield owner, kind, ttl if ttl <= MAX_TTL or kind == OPT else 0, value


def name_text(name: dns.name.Name) -> str:
    """A-labels, lower-case, without trailing dot; the root is "".  Octets that no host name has are escaped."""
    return name.to_text(omit_final_dot=True).lower() if len(name.labels) > 1 else ""


def _rdata(kind: int) -> Callable[[dns.wire.Parser], Any]:
    def parse(parser: dns.wire.Parser) -> Any:
        return dns.rdata.from_wire_parser(dns.rdataclass.IN, dns.rdatatype.RdataType(kind), parser)

    return parse


def _value_of(kind: int, make: Callable[[Any], Any]) -> Callable[[dns.wire.Parser], Any]:
    parse = _rdata(kind)
    return lambda parser: make(parse(parser))


def _tlsa(parser: dns.wire.Parser) -> tuple[int, int, int, bytes]:
    """Not through dnspython, which refuses records that DANE shall see and leave unused (RFC 7672 §2.1)."""
    usage, selector, matching = parser.get_struct("!BBB")
    return usage, selector, matching, parser.get_remaining()


_VALUES: Final[dict[int, Callable[[dns.wire.Parser], Any]]] = {
    A: _value_of(A, lambda rdata: str(rdata.address)),
    AAAA: _value_of(AAAA, lambda rdata: str(rdata.address)),
    CNAME: _value_of(CNAME, lambda rdata: name_text(rdata.target)),
    MX: _value_of(MX, lambda rdata: (int(rdata.preference), name_text(rdata.exchange))),
    PTR: _value_of(PTR, lambda rdata: name_text(rdata.target)),
    TLSA: _tlsa,
    TXT: _value_of(TXT, lambda rdata: b"".join(rdata.strings)),
}
_AUTHORITY: Final[dict[int, Callable[[dns.wire.Parser], Any]]] = {
    SOA: _value_of(SOA, lambda rdata: int(rdata.minimum)),
    NS: lambda parser: parser.get_remaining(),
}
_ADDITIONAL: Final[dict[int, Callable[[dns.wire.Parser], Any]]] = {OPT: lambda parser: parser.get_remaining()}


def follow(question: Question, reply: Reply) -> Found:
    """Say what a reply without error (or with NXDOMAIN) means.  Raises Garbage for CNAMEs in a circle or too long a chain."""
    name, ttl = question.name, None
    passed: list[str] = []
    while True:
        records = [
            (value, left) for owner, kind, left, value in reply.records if owner == name and kind == question.type
        ]
        if records:
            ttl = min(left for _, left in records) if ttl is None else min(ttl, *(left for _, left in records))
            values = tuple(dict.fromkeys(value for value, _ in records))
            return Found(values, exists=True, ttl=ttl, canonical=name, aliases=len(passed))
        onward = next(
            ((value, left) for owner, kind, left, value in reply.records if owner == name and kind == CNAME), None
        )
        if onward is None:
            break
        passed.append(name)
        name, left = onward
        ttl = left if ttl is None else min(ttl, left)
        if name in passed or len(passed) > MAX_ALIASES:
            raise Garbage(CIRCLE)
    exists = reply.rcode != NXDOMAIN
    if passed and exists and reply.negative_ttl is None:
        return Found((), exists=True, ttl=ttl, canonical=name, next=name, aliases=len(passed))
    if reply.negative_ttl is None:
        return Found((), exists=exists, ttl=None, canonical=name, aliases=len(passed))
    ttl = reply.negative_ttl if ttl is None else min(ttl, reply.negative_ttl)
    return Found((), exists=exists, ttl=ttl, canonical=name, aliases=len(passed))
