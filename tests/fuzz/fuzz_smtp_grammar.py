"""SMTP's argument parsers under any octets: only WireError; what is accepted is written and read again as itself."""

from __future__ import annotations

import contextlib

from livemail.mail.errors import WireError
from livemail.smtp.authentication import decode
from livemail.smtp.grammar import decode_xtext, parse_bdat, parse_helo, parse_mail, parse_path, parse_rcpt


def fuzz_one(data: bytes) -> None:
    """One input, with FROM: or TO: put before it, so that it gets anywhere."""
    for parse in (parse_helo, parse_bdat, decode_xtext, decode):
        with contextlib.suppress(WireError):
            parse(data)
    for utf8 in (False, True):
        try:
            path = parse_rcpt(b"TO:" + data, smtputf8=utf8, dsn=True).path
        except WireError:
            continue
        again = str(path).encode()
        assert b"\r" not in again
        assert b"\n" not in again
        assert parse_path(again, "5.1.3", smtputf8=utf8) == path
    with contextlib.suppress(WireError):
        parse_mail(b"FROM:" + data, dsn=True)
