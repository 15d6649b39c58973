"""The arguments of commands on messages: whatever comes, a value or a refusal."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.fuzz_imap_messages import fuzz_one

PIECES = [b" ", b" ", b" ", b"1:*", b"1", b"0", b"*", b",", b"(", b")", b"[", b"]", b"<", b">", b".", b"BODY", b"BODY.PEEK[", b"HEADER",
          b"HEADER.FIELDS", b"MIME", b"TEXT", b"FLAGS", b"UID", b"ALL", b"RFC822", b"+FLAGS", b"-FLAGS.SILENT", b"\\Seen", b"\\",
          b"(UNCHANGEDSINCE", b"(CHANGEDSINCE", b"99999999999999999999", b'"', b"INBOX", b"&", b"\xff", b"{", b"\0abc\0", b"\r\n", b"NOT",
          b"OR", b"SUBJECT", b"CHARSET", b"x" * 300]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_any_pieces(seed):
    chance = random.Random(seed)
    for _ in range(2_000):
        fuzz_one(b"".join(chance.choices(PIECES, k=chance.randrange(1, 14))))


@pytest.mark.parametrize("seed", range(2))
def test_valid_arguments_with_one_octet_changed(seed):
    chance = random.Random(seed)
    good = [
        b' 1:2,5:* (FLAGS UID BODY.PEEK[1.2.HEADER.FIELDS (From "To")]<0.10> RFC822.SIZE) (CHANGEDSINCE 5)',
        b" 1 (UNCHANGEDSINCE 7) +FLAGS.SILENT (\\Seen work)",
        b' CHARSET UTF-8 OR (SUBJECT "a" NOT 1:4) (SINCE 1-Jan-2024 MODSEQ "/flags/\\\\Seen" all 7)',
        b' 4:7 "Archive/2024"',
    ]  # fmt: skip
    for _ in range(3_000):
        text = bytearray(chance.choice(good))
        at = chance.randrange(len(text))
        text[at : at + chance.randrange(3)] = bytes([chance.randrange(256)])
        fuzz_one(bytes(text))
