"""Answers to queries, made with dnspython from zone-file text."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset

from livemail.net.resolver.message import NOERROR, Query

SOA = "a.test. 300 IN SOA ns.a.test. hostmaster.a.test. 1 3600 600 86400 60"


def answer(
    wire: bytes,
    *lines: str,
    authority: tuple[str, ...] = (),
    rcode: int = NOERROR,
    flags: int = dns.flags.QR | dns.flags.RA,
) -> bytes:
    """An answer to a query's octets.  lines: records as in a zone file."""
    query = dns.message.from_wire(wire)
    reply = dns.message.make_response(query, recursion_available=True)
    reply.flags = flags
    reply.set_rcode(dns.rcode.Rcode(rcode))
    for section, texts in ((reply.answer, lines), (reply.authority, authority)):
        for text in texts:
            name, ttl, klass, kind, rest = text.split(None, 4)
            rrset = dns.rrset.from_text(dns.name.from_text(name), int(ttl), klass, kind, rest)
            for known in section:
                if known.match(rrset.name, rrset.rdclass, rrset.rdtype, rrset.covers):
                    known.update(rrset)
                    break
            else:
                section.append(rrset)
    return reply.to_wire(max_size=65535)


def reply_to(query: Query, *lines: str, **more: object) -> bytes:
    """The same for a `Query`."""
    return answer(query.wire, *lines, **more)  # type: ignore[arg-type]
