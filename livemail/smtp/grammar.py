"""Arguments of SMTP commands: paths, parameters, xtext.  RFC 5321 §4.1.2, §4.1.3, RFC 6531 §3.3, RFC 3461 §4, §5.

Every function takes bytes from one line (at most 2048 octets) and is linear in it.  What MAIL and RCPT say is said again
and again; the values are immutable, and remembered.  The usual path, two dot-atoms and
an ``@``, is recognised by deleting the allowed octets and finding nothing left: no loop over octets runs in Python.

    parse_mail   FROM:<reverse-path> [parameters]   → ReversePath
    parse_rcpt   TO:<forward-path> [parameters]     → Recipient
    parse_helo   domain or address literal          → str
    parse_bdat   size [LAST]                        → (size, is_last)
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from functools import lru_cache
from typing import Final

from livemail.mail.address import MAX_DOMAIN_OCTETS, MAX_LOCAL_PART_OCTETS, MAX_PATH_OCTETS, Address, Path
from livemail.mail.dsn import decode_xtext, parse_envid, parse_original
from livemail.mail.envelope import BodyType, Recipient, ReversePath
from livemail.mail.errors import WireError

_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGITS: Final = b"0123456789"
_DOT_ATEXT: Final = _LETTERS + _DIGITS + b"!#$%&'*+-/=?^_`{|}~."
# Lenient: "_" is not in RFC 5321's sub-domain, but hosts with it send and receive mail.
_DOMAIN: Final = _LETTERS + _DIGITS + b"-_."
_HELO: Final = _DOMAIN + b"[]:"
_ATEXT_TEXT: Final = frozenset(_DOT_ATEXT.decode())

_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~\x80-\U0010ffff]|\\[ -~])*)"@(.*)', re.DOTALL)
_UNQUOTE: Final = re.compile(r"\\(.)")
_KEYWORD: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9-]{0,63}")

_NOTIFY: Final = frozenset({"SUCCESS", "FAILURE", "DELAY"})
_BODIES: Final[dict[bytes, BodyType]] = {b"7BIT": "7BIT", b"8BITMIME": "8BITMIME"}
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _bad(text: str, enhanced: str = "5.5.4", code: int = 501) -> WireError:
    return WireError(text, code=code, enhanced=enhanced)


# ------------------------------------------------------------------------------------------------------- commands


@lru_cache(maxsize=1024)
def parse_mail(argument: bytes, *, dsn: bool = False) -> ReversePath:
    """Parse MAIL's argument.  RFC 5321 §4.1.1.2, 1870 §3, 6152 §2, 6531 §3.4, 4954 §5, 3461 §4.3, §4.4.

    Raises WireError: 501 for syntax, 553 5.6.7 for non-ASCII without SMTPUTF8, 555 5.5.4 for an unknown parameter.
    """
    raw, rest = _split(argument, b"FROM:")
    if not rest:
        return ReversePath(parse_path(raw, "5.1.7"))
    size, body, smtputf8, ret, envid, auth = 0, _BODIES[b"7BIT"], False, "", "", ""
    for keyword, value in _parameters(rest):
        if keyword == b"SIZE":
            if not value or not value.isdigit() or len(value) > 20:
                raise _bad("SIZE takes a number of octets")
            size = int(value)
        elif keyword == b"BODY":
            if value is None or value.upper() not in _BODIES:
                raise _bad("BODY takes 7BIT or 8BITMIME")
            body = _BODIES[value.upper()]
        elif keyword == b"SMTPUTF8":
            if value is not None:
                raise _bad("SMTPUTF8 takes no value")
            smtputf8 = True
        elif keyword == b"AUTH":
            auth = decode_xtext(value or b"")
        elif keyword == b"RET" and dsn:
            ret = (value or b"").upper().decode("ascii", "replace")
            if ret not in {"FULL", "HDRS"}:
                raise _bad("RET takes FULL or HDRS")
        elif keyword == b"ENVID" and dsn:
            envid = parse_envid(value or b"")
        else:
            raise _unknown(keyword)
    path = parse_path(raw, "5.1.7", smtputf8=smtputf8)
    return ReversePath(path, size=size, body=body, smtputf8=smtputf8, ret=ret, envid=envid, auth=auth)


@lru_cache(maxsize=1024)
def parse_rcpt(argument: bytes, *, smtputf8: bool = False, dsn: bool = False) -> Recipient:
    """Parse RCPT's argument.  RFC 5321 §4.1.1.3, RFC 3461 §4.1, §4.2.

    smtputf8: MAIL said so.  ``<postmaster>`` needs no domain.  Raises as `parse_mail`.
    """
    raw, rest = _split(argument, b"TO:")
    path = parse_path(raw, "5.1.3", smtputf8=smtputf8)
    if path.is_null:
        raise _bad("A recipient has an address", "5.1.3")
    if not rest:
        return Recipient(path)
    notify: frozenset[str] = frozenset()
    original = ""
    for keyword, value in _parameters(rest):
        if keyword == b"NOTIFY" and dsn:
            words = (value or b"").upper().decode("ascii", "replace").split(",")
            notify = frozenset(words)
            if len(notify) != len(words) or not (notify == {"NEVER"} or notify <= _NOTIFY):
                raise _bad("NOTIFY takes NEVER, or a list of SUCCESS, FAILURE and DELAY")
        elif keyword == b"ORCPT" and dsn:
            parse_original(value or b"", smtputf8=smtputf8)
            original = (value or b"").decode("utf-8")
        else:
            raise _unknown(keyword)
    return Recipient(path, notify, original)


def parse_helo(argument: bytes) -> str:
    """Parse the argument of EHLO, HELO and LHLO: safe to stand in a header field and in a log.  RFC 5321 §4.1.1.1.

    Lenient: any name of letters, digits, ``-``, ``_``, ``.``, and anything like it in brackets; clients put there what
    their machine is called.  Raises WireError (501 5.5.4).
    """
    name = argument.strip(b" ")
    if not name or len(name) > MAX_DOMAIN_OCTETS or name.translate(None, _HELO):
        raise _bad("Say a domain name or an address literal")
    return name.decode("ascii")


def parse_bdat(argument: bytes) -> tuple[int, bool]:
    """Parse BDAT's argument: octets, and whether it is the last chunk.  RFC 3030 §2.

    Raises a fatal WireError (501 5.5.4): how many octets follow is not known, so nothing after them can be understood.
    """
    words = argument.split()
    is_last = len(words) == 2 and words[1].upper() == b"LAST"
    if not words or len(words) > 1 + is_last or not words[0].isdigit() or len(words[0]) > 20:
        raise WireError("BDAT takes a number of octets, then LAST or nothing", code=501, enhanced="5.5.4", fatal=True)
    return int(words[0]), is_last


def _split(argument: bytes, keyword: bytes) -> tuple[bytes, bytes]:
    """Cut ``FROM:<path> parameters`` into the path with its brackets and the parameters."""
    if argument[: len(keyword)].upper() != keyword:
        raise _bad(f"Expected {keyword.decode()}<address>")
    # Lenient: a space after the colon is as common as it is wrong.
    raw = argument[len(keyword) :].strip(b" ")
    end = raw.find(b">")
    if b'"' in raw and end >= 0:
        end = _end_of_quoted(raw)
    if not raw.startswith(b"<") or end < 0:
        raise _bad("An address stands in angle brackets")
    rest = raw[end + 1 :]
    if rest and not rest.startswith(b" "):
        raise _bad("A space stands between address and parameters")
    return raw[: end + 1], rest


def _end_of_quoted(raw: bytes) -> int:
    """Find the ``>`` that is not inside a quoted local part; -1 when there is none."""
    is_quoted = is_escaped = False
    for at, octet in enumerate(raw):
        if is_escaped:
            is_escaped = False
        elif octet == 0x5C and is_quoted:
            is_escaped = True
        elif octet == 0x22:
            is_quoted = not is_quoted
        elif octet == 0x3E and not is_quoted:
            return at
    return -1


def _parameters(rest: bytes) -> list[tuple[bytes, bytes | None]]:
    """Split esmtp-parameters, keywords upper-case, each at most once.  RFC 5321 §4.1.2."""
    found: dict[bytes, bytes | None] = {}
    for word in rest.split():
        keyword, equals, value = word.partition(b"=")
        if not _KEYWORD.fullmatch(keyword) or (equals and (not value or b"=" in value)):
            raise _bad("Malformed parameter")
        keyword = keyword.upper()
        if keyword in found:
            raise _bad(f"Parameter {keyword.decode()} given twice")
        found[keyword] = value if equals else None
    return list(found.items())


def _unknown(keyword: bytes) -> WireError:
    return _bad(f"Parameter {keyword.decode('ascii')} is not known here", code=555)


# ------------------------------------------------------------------------------------------------------- paths


@lru_cache(maxsize=4096)
def parse_path(raw: bytes, enhanced: str, *, smtputf8: bool = False) -> Path:
    """Parse a reverse-path or forward-path with its angle brackets.  RFC 5321 §4.1.2, §4.5.3.1, RFC 6531 §3.3.

    enhanced: 5.1.7 for reverse-paths, 5.1.3 for forward-paths.  A source route is read over (§3.6.1, appendix C).
    Returns `Path.null` for ``<>``.  Raises WireError: 501 with ``enhanced``; 553 5.6.7 for non-ASCII without SMTPUTF8;
    550 5.7.1 for an address with two ``@``, which only somebody in search of a relay writes.

    Remembered, because the same addresses come again and again: 0.3 microseconds instead of 4.
    """
    if len(raw) > MAX_PATH_OCTETS + 256:  # room for a source route: what counts is what stays
        raise _bad("Address too long", enhanced)
    inner = raw[1:-1]
    if inner.startswith(b"@"):
        route, colon, inner = inner.partition(b":")
        if not colon or any(not hop.startswith(b"@") or not _is_domain(hop[1:]) for hop in route.split(b",")):
            raise _bad("Malformed source route", enhanced)
    elif not inner:
        return Path.null
    if len(inner) > MAX_PATH_OCTETS - 2:
        raise _bad("Address too long", enhanced)
    local, at, domain = inner.rpartition(b"@")
    if (
        at
        and not local.translate(None, _DOT_ATEXT)
        and _is_domain(domain)
        and _is_dotted(local)
        and len(local) <= MAX_LOCAL_PART_OCTETS
    ):
        return Path(Address(local.decode("ascii"), domain.decode("ascii").lower()))
    if inner.lower() == b"postmaster":
        return Path(Address(inner.decode("ascii"), ""))
    return Path(_parse_unusual(inner, enhanced, smtputf8=smtputf8))


def _parse_unusual(inner: bytes, enhanced: str, *, smtputf8: bool) -> Address:
    """Parse what is quoted, literal, international or wrong."""
    if not inner.isascii() and not smtputf8:
        raise _bad("A non-ASCII address needs SMTPUTF8", "5.6.7", 553)
    try:
        text = inner.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("Not UTF-8", enhanced) from None
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        if any(unicodedata.category(character) in _UNSEEN for character in text):
            raise _bad("Invisible character in an address", enhanced)
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        local, domain = _UNQUOTE.sub(r"\1", quoted[1]), quoted[2]
    else:
        local, at, domain = text.rpartition("@")
        if not at:
            raise _bad("An address has a local part, @ and a domain", enhanced)
        if "@" in local:
            raise _bad("Relay access denied", "5.7.1", 550)
        if any(c not in _ATEXT_TEXT and c.isascii() for c in local) or not _is_dotted(local.encode()):
            raise _bad("Malformed local part", enhanced)
    if not local or len(local.encode()) > MAX_LOCAL_PART_OCTETS:
        raise _bad(f"A local part has 1 to {MAX_LOCAL_PART_OCTETS} octets", enhanced)
    if domain.startswith("["):
        return Address(local, _address_literal(domain, enhanced))
    if not (_is_domain(domain.encode("ascii")) if domain.isascii() else _is_international(domain)):
        raise _bad("Malformed domain", enhanced)
    return Address(local, domain.lower())


def _is_dotted(local: bytes) -> bool:
    """Whether a string of atext and dots is a Dot-string."""
    return bool(local) and local[0] != 0x2E and local[-1] != 0x2E and b".." not in local


def _is_domain(domain: bytes) -> bool:
    if not domain or domain.translate(None, _DOMAIN) or len(domain) > MAX_DOMAIN_OCTETS:
        return False
    if len(domain) > 63 and any(len(label) > 63 for label in domain.split(b".")):
        return False
    edges = b"." + domain + b"."
    return not (b".." in edges or b".-" in edges or b"-." in edges)


def _is_international(domain: str) -> bool:
    """Whether a domain with U-labels looks like one: letters, marks, digits and hyphens.  RFC 6531 §3.3, RFC 5890."""
    if len(domain.encode()) > MAX_DOMAIN_OCTETS:
        return False
    return all(
        label and label[0] != "-" and label[-1] != "-" and len(label) <= 63
        and all(c in "-_" or c.isalnum() or unicodedata.category(c)[0] == "M" for c in label)
        for label in domain.split(".")
    )  # fmt: skip


def _address_literal(domain: str, enhanced: str) -> str:
    """Check ``[192.0.2.1]`` and ``[IPv6:2001:db8::1]``; return it lower-case.  RFC 5321 §4.1.3."""
    inner = domain[1:-1].lower() if domain.endswith("]") else ""
    try:
        if inner.startswith("ipv6:"):
            ipaddress.IPv6Address(inner[5:])
        else:
            ipaddress.IPv4Address(inner)
    except ValueError:
        raise _bad("Malformed address literal", enhanced) from None
    return domain.lower()
