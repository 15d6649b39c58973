"""One DKIM-Signature, from its field to a result: what is checked before DNS is asked, and what of the key.

Every reason not to trust a signature is a result with words, in the order in which RFC 6376 §6.1 checks.  What is stricter
than the RFC must be, and on purpose:

    l=   a signature over a part of the body says nothing of the rest, and mail readers show the rest: fail, unless the part
         is the whole
    key  RSA below 1024 bits is fail (RFC 8301 §3.2), SHA-1 permerror (§3.1)
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, Literal, cast

import dkim
import msgspec
from dkim.util import InvalidTagValueList, parse_tag_value

from livemail.filters.dkim import streamed
from livemail.filters.dkim.body import Canonicalization
from livemail.filters.dkim.results import SignatureResult

MAX_FIELD: Final = 16 * 1024
"""Octets of one signature."""

SKEW: Final = 300.0
"""Seconds another host's clock may be wrong by."""

MIN_BITS: Final = 1024

_DOMAIN: Final = re.compile(
    rb"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)
_DIGITS: Final = re.compile(rb"[0-9]{1,20}")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
_SPACE: Final = re.compile(rb"[ \t\r\n]+")
_LONG_BLANK: Final = re.compile(rb"[ \t\r\n]{200}")

_ALGORITHMS: Final = {b"rsa-sha256": b"rsa", b"ed25519-sha256": b"ed25519"}
_MANDATORY: Final = (b"v", b"a", b"b", b"bh", b"d", b"h", b"s")


class Refused(Exception):
    """A signature that cannot pass."""

    def __init__(self, result: Literal["fail", "policy", "permerror", "temperror", "neutral"], reason: str) -> None:
        super().__init__(reason)
        self.result = result
        self.reason = reason


class Signature(msgspec.Struct, frozen=True):
    """A signature that may be worth asking DNS about.

    field: name and whole field.  length: of l=, None without.  body_hash: of bh=.
    """

    field: tuple[bytes, bytes]
    tags: dict[bytes, bytes]
    domain: str
    selector: str
    identity: str
    algorithm: str
    body: Canonicalization
    body_hash: bytes
    length: int | None

    @property
    def key_name(self) -> str:
        """Where its key is published."""
        return f"{self.selector}._domainkey.{self.domain}"

    def result(self, result: str, reason: str = "") -> SignatureResult:
        """A result with what the signature says of itself."""
        return SignatureResult(
            result, reason, self.domain, self.selector, self.identity, self.algorithm, _start(self.tags.get(b"b", b""))
        )


def _start(value: bytes) -> str:
    """What tells two signatures of one domain apart.  RFC 6008."""
    return _SPACE.sub(b"", value)[:8].decode("ascii", "replace")


def parse_tags(value: bytes, what: str = "the signature") -> dict[bytes, bytes]:
    """Tags and values, white space around them taken off.  RFC 6376 §3.2.  Raises Refused."""
    if len(value) > MAX_FIELD:
        raise Refused("permerror", f"{what} has more than {MAX_FIELD} octets")
    if _LONG_BLANK.search(value):
        raise Refused("permerror", f"{what} is full of white space")
    try:
        found: dict[bytes, bytes] = parse_tag_value(value)
    except InvalidTagValueList:
        raise Refused("permerror", f"{what} is no list of tags") from None
    except IndexError:
        raise Refused("permerror", f"{what} is empty") from None
    return found


def parse_signature(field: tuple[bytes, bytes], now: float) -> Signature:
    """Parse and check what can be checked without DNS.  now: seconds since the epoch.  Raises Refused."""
    tags = parse_tags(field[1].partition(b":")[2])
    for name in _MANDATORY:
        if not tags.get(name):
            raise Refused("permerror", f"{name.decode()}= is missing")
    if tags[b"v"] != b"1":
        raise Refused("permerror", "v= is not 1")
    algorithm = tags[b"a"].lower()
    if algorithm not in _ALGORITHMS:
        raise Refused("permerror", f"a={_text(algorithm)} is not taken")
    header, _, body = tags.get(b"c", b"simple").lower().partition(b"/")
    if header not in {b"simple", b"relaxed"} or (body or b"simple") not in {b"simple", b"relaxed"}:
        raise Refused("permerror", "c= is not known")
    domain, selector = tags[b"d"].lower(), tags[b"s"].lower()
    if not _DOMAIN.fullmatch(domain) or not _DOMAIN.fullmatch(selector) or len(domain) + len(selector) > 240:
        raise Refused("permerror", "d= or s= is no domain name")
    identity = tags.get(b"i", b"@" + domain)
    if not _is_within(identity.rpartition(b"@")[2].lower(), domain) or b"@" not in identity:
        raise Refused("permerror", "i= is outside of d=")
    names = [name.lower() for name in streamed.split_names(tags[b"h"])]
    if b"from" not in names:
        raise Refused("permerror", "h= does not have from")
    if len(names) > streamed.MAX_NAMES:
        raise Refused("permerror", f"h= has more than {streamed.MAX_NAMES} names")
    _check_times(tags, now)
    queries = [each.strip().lower() for each in tags.get(b"q", b"dns/txt").split(b":")]
    if b"dns/txt" not in queries:
        raise Refused("permerror", "q= does not have dns/txt")
    return Signature(
        field=field,
        tags={**tags, b"a": algorithm, b"c": header + b"/" + (body or b"simple")},
        domain=domain.decode(),
        selector=selector.decode(),
        identity=_text(identity),
        algorithm=algorithm.decode(),
        body=cast(Canonicalization, (body or b"simple").decode()),
        body_hash=_base64(tags[b"bh"], "bh="),
        length=_number(tags[b"l"], "l=") if b"l" in tags else None,
    )


def _check_times(tags: dict[bytes, bytes], now: float) -> None:
    signed = _number(tags[b"t"], "t=") if b"t" in tags else None
    expires = _number(tags[b"x"], "x=") if b"x" in tags else None
    if signed is not None and signed > now + SKEW:
        raise Refused("permerror", "t= is in the future")
    if expires is not None and expires < now - SKEW:
        raise Refused("permerror", "the signature has expired")
    if signed is not None and expires is not None and expires < signed:
        raise Refused("permerror", "x= is before t=")


def _number(value: bytes, name: str) -> int:
    if not _DIGITS.fullmatch(value):
        raise Refused("permerror", f"{name} is no number")
    return int(value)


def _base64(value: bytes, name: str) -> bytes:
    octets = _SPACE.sub(b"", value)
    try:
        if _BASE64.fullmatch(octets):
            return base64.b64decode(octets, validate=True)
    except binascii.Error:
        pass
    raise Refused("permerror", f"{name} is not base64")


def _is_within(name: bytes, domain: bytes) -> bool:
    return name == domain or name.endswith(b"." + domain)


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")[:200]


# ------------------------------------------------------------------------------------------------ the key


def checked_key(signature: Signature, record: bytes) -> bytes:
    """Check a key record against a signature; return what dkimpy needs of it.  RFC 6376 §6.1.2.  Raises Refused."""
    if len(record) > 4096:
        raise Refused("permerror", "the key record is too long")
    tags = parse_tags(record, "the key record")
    if tags.get(b"v", b"DKIM1") != b"DKIM1":
        raise Refused("permerror", "the key record is of another version")
    if b"p" not in tags:
        raise Refused("permerror", "the key record has no key")
    if not tags[b"p"]:
        raise Refused("permerror", "the key was revoked")
    kind = tags.get(b"k", b"rsa").lower()
    if kind != _ALGORITHMS[signature.tags[b"a"]]:
        raise Refused("permerror", f"the key is for {_text(kind)}, the signature is {signature.algorithm}")
    hashes = [each.strip().lower() for each in tags.get(b"h", b"sha256").split(b":")]
    if b"sha256" not in hashes:
        raise Refused("permerror", "the key is not for SHA-256")
    services = [each.strip().lower() for each in tags.get(b"s", b"*").split(b":")]
    if b"*" not in services and b"email" not in services:
        raise Refused("permerror", "the key is not for mail")
    flags = [each.strip().lower() for each in tags.get(b"t", b"").split(b":")]
    if b"s" in flags and signature.identity.rpartition("@")[2].lower() != signature.domain:
        raise Refused("permerror", "the key does not allow i= in a subdomain")
    public = _base64(tags[b"p"], "the key")
    if kind == b"rsa":
        _check_size(public)
    elif len(public) != 32:
        raise Refused("permerror", "the key cannot be read")
    return b"k=" + kind + b"; p=" + base64.b64encode(public)


def _check_size(public: bytes) -> None:
    """dkimpy's own check comes behind a signature that verifies; a small key is to be named in any case."""
    from dkim.crypto import UnparsableKeyError, parse_public_key

    try:
        bits = parse_public_key(public)["modulus"].bit_length()
    except (UnparsableKeyError, KeyError, ValueError, IndexError, TypeError):
        raise Refused("permerror", "the key cannot be read") from None
    if bits < MIN_BITS:
        raise Refused("fail", f"the key has {bits} bits, less than {MIN_BITS}")
    if bits > 8192:
        raise Refused("permerror", f"the key has {bits} bits, too many to work with")


def checked_signature(signature: Signature, fields: streamed.Fields, record: bytes, body: tuple[bytes, int]) -> None:
    """Check body and header.  record: of `checked_key`.  body: hash and octets under the signature's canonicalisation.  Blocks.  Raises Refused."""
    found, octets = body
    if signature.length is not None and signature.length < octets:
        raise Refused("fail", f"l= leaves {octets - signature.length} octets of the body unsigned")
    if signature.length is not None and signature.length > octets:
        raise Refused("fail", "l= is more than the body has")
    if found != signature.body_hash:
        raise Refused("fail", "the body was changed")
    _base64(signature.tags[b"b"], "b=")
    try:
        verified = streamed.verifies(fields, signature.field, signature.tags, record)
    except (dkim.DKIMException, ValueError, binascii.Error):
        verified = False
    if not verified:
        raise Refused("fail", "the signature does not verify")
