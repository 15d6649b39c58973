"""What a name server, or somebody who pretends to be one, may send: an answer, no answer, or Garbage; never anything else."""

from __future__ import annotations

import random
import re

from livemail.net.resolver.message import MX, TLSA, TXT, A, Found, Garbage, Question, follow, make_query, read

_TEXT = re.compile(r"[!-~]*")
_QUERIES = [
    make_query(Question("mail.example.test", kind), 0x4142, random.Random(kind).getrandbits)
    for kind in (MX, A, TXT, TLSA)
]


def fuzz_one(data: bytes) -> None:
    for query in _QUERIES:
        # As it is; and with a header and question that pass, so that what is behind them is met.
        counts = bytes(data[:6]).ljust(6, b"\0")
        answers = bytes([0, counts[0] & 15, 0, counts[1] & 15, 0, counts[2] & 15])
        flags = bytes([0x84 | counts[3] & 1, counts[4]])
        passing = query.wire[:2] + flags + b"\0\1" + answers + query.section + data[6:]
        for octets in (data, passing):
            try:
                reply = read(query, octets)
                if reply is None or reply.is_truncated:
                    continue
                found = follow(query.question, reply)
            except Garbage:
                continue
            _check(found, query.question.type)


def _check(found: Found, kind: int) -> None:
    assert _TEXT.fullmatch(found.canonical)
    assert found.ttl is None or 0 <= found.ttl <= 0x7FFFFFFF
    for record in found.records:
        if kind == MX:
            assert 0 <= record[0] <= 65535
            assert _TEXT.fullmatch(record[1])
        elif kind == A:
            assert re.fullmatch(r"[0-9.]{7,15}", record)
        elif kind == TXT:
            assert isinstance(record, bytes)
        else:
            assert [type(part) for part in record] == [int, int, int, bytes]
