"""SASL messages from anybody: a result or WireError."""

from __future__ import annotations

import contextlib

from livemail.auth.sasl import parse_login_name, parse_login_password, parse_plain
from livemail.mail.errors import WireError


def fuzz_one(data: bytes) -> None:
    with contextlib.suppress(WireError):
        authzid, authcid, password = parse_plain(data)
        assert b"\0".join(part.encode() for part in (authzid, authcid, password)) == data
        assert authcid
        assert password
    for parse in (parse_login_name, parse_login_password):
        with contextlib.suppress(WireError):
            assert parse(data).encode() == data
