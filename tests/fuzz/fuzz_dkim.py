"""Signatures, key records, fields that pretend to be ours and bodies of any octets: refused in words, the same however they are cut."""

from __future__ import annotations

import contextlib
from hashlib import sha256

from dkim.canonicalization import Relaxed, Simple

from livemail.filters.dkim.body import BodyHash
from livemail.filters.dkim.results import SignatureResult, authserv_id, render
from livemail.filters.dkim.signature import Refused, checked_key, checked_signature, parse_signature

GOOD = b"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; h=from; bh=AAAA; b=AAAA;"
SIGNATURE = parse_signature((b"DKIM-Signature", GOOD), 0.0)


def fuzz_one(data: bytes) -> None:
    for raw in (b"DKIM-Signature:" + data + b"\r\n", GOOD + data + b"\r\n"):
        with contextlib.suppress(Refused):
            signature = parse_signature((b"DKIM-Signature", raw), 1e9)
            told = render("mx.example", [signature.result("fail", "why")])
            assert told.count(b"\r\n") == told.count(b"\r\n\t")
            with contextlib.suppress(Refused):
                checked_signature(signature, [(b"From", b"From: a\r\n")], b"k=rsa; p=AAAA", (signature.body_hash, 0))
    for record in (data, b"v=DKIM1; p=" + data, b"k=ed25519; p=" + data):
        with contextlib.suppress(Refused):
            checked_key(SIGNATURE, record)
    found = authserv_id(data)
    assert found == found.lower()
    told = render("mx.example", [SignatureResult("fail", data.decode("latin-1"), data.decode("latin-1"))])
    assert told.isascii()
    assert told.count(b"\r\n") == told.count(b"\r\n\t")
    _body(data + b"\r\n")


def _body(data: bytes) -> None:
    cut = data[0] + 1
    for kind, other in (("simple", Simple), ("relaxed", Relaxed)):
        expected = other.canonicalize_body(data)
        for size in (len(data), cut):
            hashing = BodyHash(kind)
            for at in range(0, len(data), size):
                hashing.feed(data[at : at + size])
            assert (hashing.finish(), hashing.octets) == (sha256(expected).digest(), len(expected))
