"""dkimpy over a header, with the body's hash brought from elsewhere.

dkimpy takes a message whole and hashes its body itself.  Signing, the hash and the time are put in where it has its own; verifying, the
body is compared here and dkimpy is asked about the header alone.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import dkim

from livemail.filters.dkim.keys import Key

Fields = Sequence[tuple[bytes, bytes]]
"""Name, and the whole field with its CRLF."""

MAX_NAMES: Final = 200
"""Names in h=.  Each is looked for in the header."""

_SPACE: Final = re.compile(rb"[ \t\r\n]+")


class _Streamed(dkim.DKIM):  # type: ignore[misc]  # dkimpy has no types
    """A message of which only the header is here."""

    body_hash = b""
    signed_at = 0

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        self.headers = [[name, raw.partition(b":")[2]] for name, raw in fields]
        self.body = b""

    def gen_header(self, fields: list[tuple[bytes, bytes]], *arguments: Any, **more: Any) -> bytes:
        own = {b"bh": base64.b64encode(self.body_hash), b"t": b"%d" % self.signed_at}
        fields[:] = [(name, own.get(name, value)) for name, value in fields]
        header: bytes = super().gen_header(fields, *arguments, **more)
        return header


def sign(fields: Fields, body_hash: bytes, key: Key, names: Sequence[bytes], now: float) -> bytes:
    """Return the value of a DKIM-Signature, folded, without its last CRLF.  RFC 6376 §5.  Blocks for milliseconds.

    names: lower-case, of the fields to sign; one more often than it occurs cannot be added later.  body_hash: of the body
    under relaxed canonicalisation.  now: seconds since the epoch.
    """
    signer = _Streamed(relevant(fields, names))
    signer.body_hash, signer.signed_at = body_hash, int(now)
    # dkimpy refuses what RFC 6376 §5.4.1 advises against; what we sign is chosen by the caller.
    header: bytes = signer.sign(
        key.selector.encode(),
        key.domain.encode(),
        key.material,
        signature_algorithm=f"{key.algorithm}-sha256".encode(),
        canonicalize=(b"relaxed", b"relaxed"),
        include_headers=list(names),
    )
    return header.partition(b":")[2].strip(b" \r\n")


def verifies(fields: Fields, signature: tuple[bytes, bytes], tags: dict[bytes, bytes], record: bytes) -> bool:
    """Whether the header's signature is right; the body is the caller's.  RFC 6376 §6.1.3.  Blocks for milliseconds.

    signature: name and whole field.  tags: as parsed.  record: the key's TXT record.  Raises dkim.DKIMException, and ValueError
    for what is not base64.
    """
    names = [name.lower() for name in split_names(tags[b"h"])]
    verifier = _Streamed(relevant(fields, names))
    rest = {name: value for name, value in tags.items() if name != b"bh"}
    field = [signature[0], signature[1].partition(b":")[2]]
    return bool(verifier.verify_sig(rest, names, field, lambda *_, **_options: record))


def split_names(value: bytes) -> list[bytes]:
    """The names of an h= tag, in its order."""
    return [name.strip() for name in _SPACE.sub(b" ", value).split(b":")]


def relevant(fields: Fields, names: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The fields that a signature over ``names`` can mean: of each name the last so many, from the bottom.  RFC 6376 §5.4.2.

    dkimpy looks through all fields for each name: of a large header that would take quadratic time.
    """
    wanted = Counter(name.lower() for name in names)
    wanted[b"from"] += 1  # dkimpy looks for one more, so that a second From is never overlooked
    chosen: list[tuple[bytes, bytes]] = []
    for name, raw in reversed(fields):
        key = name.lower().rstrip()
        if wanted[key] > 0:
            wanted[key] -= 1
            chosen.append((name, raw))
    chosen.reverse()
    return chosen
