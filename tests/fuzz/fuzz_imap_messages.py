"""Fuzz target: the arguments of the IMAP commands on messages.  Invariant: a value, or WireError, or MailError."""

from __future__ import annotations

import contextlib

from livemail.imap.commands import copy, expunge, fetch, search, select, store
from livemail.imap.grammar.cursor import Cursor
from livemail.mail.errors import MailError, WireError

PARSERS = (fetch.parse, store.parse, search.parse, copy.parse, expunge.parse)


def fuzz_one(data: bytes) -> None:
    texts = data.split(b"\0")
    for parse in PARSERS:
        for uid in (False, True):
            with contextlib.suppress(WireError, MailError):
                parse(
                    Cursor(texts[:1] if len(texts) == 1 else [*texts[::2], b""][: len(texts[1::2]) + 1], texts[1::2]),
                    uid,
                )
    with contextlib.suppress(WireError, MailError):
        select.parse(Cursor([data]))
