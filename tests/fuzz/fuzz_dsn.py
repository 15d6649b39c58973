"""xtext, ENVID and ORCPT under any octets: only WireError; what is accepted is printable, and is written and read again as itself."""

from __future__ import annotations

import contextlib

from livemail.mail.dsn import decode_xtext, encode_xtext, escape_utf8_address, parse_envid, parse_original
from livemail.mail.errors import WireError


def fuzz_one(data: bytes) -> None:
    """One input, as each of the three."""
    with contextlib.suppress(WireError):
        decode_xtext(data)
    with contextlib.suppress(WireError):
        text = parse_envid(data)
        assert text.isprintable()
        assert len(text) <= 100
        assert parse_envid(encode_xtext(text).encode("ascii")) == text
    for prefix in (b"", b"rfc822;", b"utf-8;"):
        for smtputf8 in (False, True):
            try:
                original = parse_original(prefix + data, smtputf8=smtputf8)
            except WireError:
                continue
            assert not set(original.address) & set("\r\n\0\x1b\x7f\x85\u2028\u202e")
            if original.type == "utf-8":
                again = f"utf-8;{escape_utf8_address(original.address, ascii_only=True)}".encode("ascii")
            else:
                again = f"{original.type};{encode_xtext(original.address)}".encode("ascii")
            if len(again) <= 500:
                assert parse_original(again, smtputf8=False) == original
