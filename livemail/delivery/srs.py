"""SRS, the sender rewriting scheme: a forwarder takes over the reverse-path, so that SPF (RFC 7208) holds and bounces find back.

    alice@a.example, forwarded by us         SRS0=hhhhhh=tt=a.example=alice@us.example
    forwarded again by the next forwarder    SRS1=hhhhhh=us.example==hhhhhh=tt=a.example=alice@next.example

A bounce to an SRS0 address of ours goes to alice; one to an SRS1 address of ours goes to the first forwarder's SRS0 address,
however many forwarders there were: the address does not grow with each.  h is 30 bits of an HMAC-SHA256 over what follows
it, in base 32, because local parts lose their case on the way; tt counts days modulo 1024 in base 32.  Without a key of ours
nobody can make an address that we send mail on from; one that has been seen is good for `MAX_AGE_DAYS` and for bounces alone.

Reverse-paths stay as they are when they are null, ours, or would be longer than a local part may be (RFC 5321 §4.5.3.1.1):
rather no SPF than no way back.

Keys: one a line in a file, the first signs, all are accepted.  To rotate, put a new line first; remove the old one
when its addresses are too old to count.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Final

from livemail.interfaces.runtime import Now
from livemail.mail.address import MAX_LOCAL_PART_OCTETS, Address, Path
from livemail.mail.errors import MailError

MAX_AGE_DAYS: Final = 21
HASH_CHARACTERS: Final = 6
KEY_OCTETS: Final = 32

_DAY: Final = 86400
_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_SRS: Final = re.compile(r"srs([01])[=+-](.+)", re.IGNORECASE | re.DOTALL | re.ASCII)
_FIRST: Final = re.compile(r"srs0[=+-].+", re.IGNORECASE | re.DOTALL | re.ASCII)
_AGAIN: Final = re.compile(r"srs1[=+-][^=]*=([^=]+=[=+-].+)", re.IGNORECASE | re.DOTALL | re.ASCII)


class NotRewritten(MailError):
    """An address in SRS's form that is not one of ours."""

    code, enhanced, default_text = 550, "5.1.1", "No such recipient here"


class BouncesOnly(MailError):
    """A rewritten address takes what has no sender."""

    code, enhanced, default_text = 550, "5.7.1", "This address takes bounces only"


def is_rewritten(address: Address) -> bool:
    """Whether an address has the form of a rewritten one; whether it is one, `Rewriter.back` says."""
    return _SRS.match(address.local_part) is not None


class Rewriter:
    """Rewrites reverse-paths to a domain of ours and back."""

    def __init__(self, keys: Sequence[bytes], domain: str, now: Now) -> None:
        """keys: the first signs, all are accepted; at least one.  domain: local."""
        if not keys:
            raise ValueError("SRS needs a key")
        self._keys = tuple(keys)
        self._domain = domain
        self._now = now

    def forward(self, path: Path) -> Path:
        """Return the reverse-path under which we send on what came with ``path``, which is neither null nor ours."""
        address = path.address
        if address is None:
            return path
        if _FIRST.fullmatch(address.local_part):
            local = self._again(f"{address.domain}={address.local_part[4:]}")
        elif found := _AGAIN.fullmatch(address.local_part):
            # The first forwarder stays, the one between us is left out, its signature is replaced by ours.
            local = self._again(found[1])
        else:
            local = self._first(address)
        if len(local.encode()) > MAX_LOCAL_PART_OCTETS:
            return path
        return Path(Address(local, self._domain))

    def back(self, address: Address) -> Address:
        """Return where a bounce to a rewritten address goes.  Raises NotRewritten."""
        found = _SRS.fullmatch(address.local_part)
        if found is None:
            raise NotRewritten
        kind, rest = found.groups()
        signature, _, signed = rest.partition("=")
        if not any(hmac.compare_digest(_fold(signature), _sign(key, signed)) for key in self._keys):
            raise NotRewritten(reason="SRS: not signed by us")
        if kind == "1":
            # ``host==…``: the first forwarder, then its own address behind "SRS0" with its separator.
            host, separator, tail = signed.partition("=")
            if not host or not separator or tail[:1] not in {"=", "+", "-"}:
                raise NotRewritten(reason="SRS1: malformed")
            return Address(f"SRS0{tail}", host.lower())
        stamp, _, rest = signed.partition("=")
        domain, separator, local = rest.partition("=")
        if not domain or not separator or not local:
            raise NotRewritten(reason="SRS0: malformed")
        if not self._is_recent(stamp):
            raise NotRewritten("This return address has expired", reason="SRS0: too old")
        return Address(local, domain.lower())

    def _first(self, address: Address) -> str:
        signed = f"{_stamp(self._now())}={address.domain}={address.local_part}"
        return f"SRS0={_sign(self._keys[0], signed).decode()}={signed}"

    def _again(self, signed: str) -> str:
        return f"SRS1={_sign(self._keys[0], signed).decode()}={signed}"

    def _is_recent(self, stamp: str) -> bool:
        day = _read_stamp(stamp)
        today = int(self._now() // _DAY) % 1024
        # A clock that is a day behind makes tomorrow's stamps.
        return day is not None and (today - day + 1) % 1024 <= MAX_AGE_DAYS + 1


def _fold(signature: str) -> bytes:
    return signature.lower().encode()


def _sign(key: bytes, signed: str) -> bytes:
    """Sign without regard to case, which other hosts do not keep."""
    digest = hmac.new(key, signed.lower().encode(), hashlib.sha256).digest()
    return base64.b32encode(digest)[:HASH_CHARACTERS].lower()


def _stamp(now: float) -> str:
    day = int(now // _DAY) % 1024
    return _BASE32[day >> 5] + _BASE32[day & 31]


def _read_stamp(stamp: str) -> int | None:
    if len(stamp) != 2:
        return None
    high, low = (_BASE32.find(character) for character in stamp.lower())
    return high << 5 | low if high >= 0 and low >= 0 else None


def load_keys(path: FilePath) -> list[bytes]:
    """Read the keys, and make the file with a new one when it does not exist (mode 0600).

    Raises ValueError, whose text names the file, the line and what to do, and never a key; OSError.
    """
    try:
        text = path.read_text("ascii")
    except FileNotFoundError:
        text = secrets.token_hex(KEY_OCTETS) + "\n"
        # Written aside and renamed: a crash leaves no half a key.
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            aside.rename(path)
        finally:
            aside.unlink(missing_ok=True)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a file of keys; restore it, or remove it to have a new key made") from None
    keys = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            key = bytes.fromhex(line.strip())
        except ValueError:
            key = b""
        if len(key) < 16:
            raise ValueError(
                f"{path}, line {number}: a key is 32 to 128 hexadecimal digits; correct the line, or remove it"
            )
        keys.append(key)
    if not keys:
        raise ValueError(f"{path} holds no key; restore it, or remove it to have a new key made")
    return keys
