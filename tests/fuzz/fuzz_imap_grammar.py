"""Fuzz target: what parses a command's arguments raises WireError and MailError and nothing else."""

from __future__ import annotations

from contextlib import suppress

from livemail.imap.commands import TABLE
from livemail.imap.grammar.cursor import Cursor
from livemail.imap.listing import Pattern
from livemail.mail import utf7
from livemail.mail.errors import MailError, WireError

WORDS = sorted(TABLE)


def fuzz_one(data: bytes) -> None:
    """The first octet chooses the command; ``\\xff`` stands for a literal of what lies between it and the next."""
    if not data:
        return
    entry = TABLE[WORDS[data[0] % len(WORDS)]]
    pieces = data[1:].split(b"\xff")
    fragments, literals = pieces[::2], pieces[1::2]
    if len(fragments) == len(literals):
        fragments.append(b"")
    for is_uid in {False, entry.rule.uid}:
        with suppress(WireError, MailError):
            cursor = Cursor(fragments, literals)
            if entry.rule.uid:
                entry.parse(cursor, is_uid)
            else:
                entry.parse(cursor)
    with suppress(MailError):
        assert utf7.encode(utf7.decode(data[1:])) == data[1:]
    with suppress(MailError):
        Pattern(data[1:].decode("latin-1")).matches("INBOX/a")
