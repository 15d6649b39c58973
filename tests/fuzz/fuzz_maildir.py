"""Fuzz target: what other programs leave in a Maildir is read or left out, and nothing but ValueError says so."""

from __future__ import annotations

import contextlib

from livemail.mail.ids import MAX_UID
from livemail.storage.maildir.keywords import parse_keywords
from livemail.storage.maildir.names import folder_name, mailbox_name, read_letters, split_name, write_letters
from livemail.storage.maildir.uidlist import parse_uidlist, render_uidlist


def fuzz_one(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        read = parse_uidlist(data.splitlines(keepends=True))
        assert 0 < read.uid_validity <= MAX_UID
        assert all(0 < uid < read.uid_next for uid in read.uids.values())
        files = sorted((uid, base, 1) for base, uid in read.uids.items())
        again = parse_uidlist(render_uidlist(read.uid_validity, read.uid_next, files))
        assert again.uid_validity == read.uid_validity
    text = data.decode("utf-8", "surrogateescape")
    assert all("a" <= letter <= "z" for letter in parse_keywords(text))
    name = mailbox_name(text)
    assert name is None or folder_name(name) == text
    base, letters = split_name(text)
    assert text.startswith(base)
    flags, keywords = read_letters(letters)
    assert read_letters(write_letters(flags, keywords, letters)) == (flags, keywords)
