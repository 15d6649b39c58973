"""The IMAP fuzz targets, driven by seeded chance from what commands look like."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.fuzz import fuzz_imap_grammar, fuzz_imap_session, fuzz_imap_wire

COMMANDS = [
    b"a NOOP\r\n",
    b"a CAPABILITY\r\n",
    b"a LOGIN alice@example.org secret\r\n",
    b'a LOGIN {17+}\r\nalice@example.org "secret"\r\n',
    b"a AUTHENTICATE PLAIN AGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==\r\n",
    b"a AUTHENTICATE LOGIN\r\n*\r\n",
    b"a STARTTLS\r\n",
    b'a ID ("name" "x" "v" NIL)\r\n',
    b"a ENABLE CONDSTORE\r\n",
    b"a SELECT INBOX\r\n",
    b"a EXAMINE inbox\r\n",
    b"a CREATE a/b/c\r\n",
    b'a CREATE "caf&AOk-"\r\n',
    b"a DELETE a/b\r\n",
    b"a RENAME INBOX old\r\n",
    b"a SUBSCRIBE x\r\n",
    b'a LIST "" "*"\r\n',
    b'a LSUB "" %\r\n',
    b"a NAMESPACE\r\n",
    b"a STATUS INBOX (MESSAGES RECENT SIZE)\r\n",
    b"a APPEND INBOX (\\Seen x) {5+}\r\nhello\r\n",
    b'a APPEND {5}\r\nINBOX " 1-Feb-2020 00:00:00 +0000" {5}\r\nhello\r\n',
    b"a APPEND INBOX {2000+}\r\n" + b"x" * 2000 + b"\r\n",
    b"a IDLE\r\nDONE\r\n",
    b"a CHECK\r\n",
    b"a CLOSE\r\n",
    b"a UNSELECT\r\n",
    b"a EXPUNGE\r\n",
    b"a UID EXPUNGE 1:*\r\n",
    b"a FETCH 1:* (FLAGS UID ENVELOPE BODYSTRUCTURE)\r\n",
    b"a FETCH 1 BODY.PEEK[HEADER.FIELDS (From To)]<0.10>\r\n",
    b"a FETCH 1,2:* (BODY[1.MIME] RFC822.SIZE) (CHANGEDSINCE 1)\r\n",
    b"a STORE 1 +FLAGS.SILENT (\\Deleted $x)\r\n",
    b"a STORE 1 (UNCHANGEDSINCE 5) FLAGS ()\r\n",
    b"a UID STORE 1:* -FLAGS \\Seen\r\n",
    b'a SEARCH OR FROM "a" NOT (SEEN SINCE 1-Feb-2020)\r\n',
    b"a UID SEARCH CHARSET UTF-8 TEXT {2+}\r\n\xc3\xa9 1:*\r\n",
    b"a SEARCH MODSEQ 1\r\n",
    b"a COPY 1 Sent\r\n",
    b"a UID MOVE 1:* nowhere\r\n",
    b"a LOGOUT\r\n",
]
TOKENS = [
    *(b"(", b")", b'"', b"\\", b"{", b"}", b"+}", b"{5+}\r\n", b"{99999999999+}\r\n", b"{-1}\r\n", b"*", b"%", b"\r\n"),
    *(b"\r", b"\n", b"\0", b"\xff", b" ", b"  ", b"NIL", b"1:*", b"4294967296", b"&AOk-", b"&", b"[", b"]", b"<", b">"),
]


def mutated(chance: random.Random) -> bytes:
    data = bytearray(b"".join(chance.choice(COMMANDS) for _ in range(chance.randint(1, 4))))
    for _ in range(chance.randint(0, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[at : at + chance.randint(1, 5)] = b""
            case 1:
                data[at:at] = chance.choice(TOKENS)
            case 2:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case _:
                data[at : at + chance.randint(0, 5)] = chance.choice(TOKENS) * chance.randint(1, 20)
    return bytes([chance.randrange(256)]) + bytes(data)


@pytest.mark.parametrize(
    ("target", "rounds"),
    [
        (fuzz_imap_wire.fuzz_one, 6000),
        (fuzz_imap_session.fuzz_one, 3000),
    ],
    ids=["wire", "session"],
)
def test_mangled_dialogues(target: Callable[[bytes], None], rounds: int) -> None:
    chance = random.Random(9051)
    for _ in range(rounds):
        target(mutated(chance))


def test_mangled_arguments() -> None:
    chance = random.Random(3501)
    for _ in range(20_000):
        whole = mutated(chance)[1:]
        line = whole.partition(b"\r\n")[0].partition(b" ")[2]
        word, _, arguments = line.partition(b" ")
        name = word.decode("latin-1").upper()
        index = fuzz_imap_grammar.WORDS.index(name) if name in fuzz_imap_grammar.WORDS else chance.randrange(256)
        fuzz_imap_grammar.fuzz_one(bytes([index]) + b" " + arguments)


def test_arguments_of_pure_chance() -> None:
    chance = random.Random(2177)
    for _ in range(10_000):
        pieces = [chance.choice(TOKENS) for _ in range(chance.randint(0, 12))]
        fuzz_imap_grammar.fuzz_one(bytes([chance.randrange(256)]) + b"".join(pieces))
