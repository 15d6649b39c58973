"""Mangled sessions: dialogues that make sense, broken at random, sent to the running server at full speed.

Whatever arrives, the server answers by its rules: no session ends in an exception of ours (the log would hold its
traceback), none harms others, and nothing is filed that was not whole.  LIVEMAIL_TEST_SESSIONS sets how many (default
400 for each service), LIVEMAIL_TEST_SEED which.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import socket
from collections.abc import Sequence

import pytest

from tests.system.hostile import Raw, spool_empties, unharmed
from tests.system.mail import imap
from tests.system.rig import Server

COUNT = int(os.environ.get("LIVEMAIL_TEST_SESSIONS", "400"))
SEED = int(os.environ.get("LIVEMAIL_TEST_SEED", "2"))
ACCOUNT, PASSWORD = "mangled@localhost", "secret"
TOKEN = base64.b64encode(f"\0{ACCOUNT}\0{PASSWORD}".encode())

MAIL = b"Subject: fuzz\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n.one\r\n--b--\r\n"

SMTP = [
    b"EHLO client.example", b"MAIL FROM:<a@example.org> SIZE=200 BODY=8BITMIME", b"RCPT TO:<mangled@localhost>",
    b"RCPT TO:<mangled+x@localhost>", b"DATA", MAIL + b".", b"RSET", b"NOOP", b"VRFY mangled", b"HELP", b"STARTTLS",
    b"MAIL FROM:<> SMTPUTF8", b"RCPT TO:<postmaster>", b"BDAT %d\r\n%b" % (len(MAIL), MAIL[:-2]), b"BDAT 0 LAST", b"QUIT",
]  # fmt: skip
SUBMISSION = [b"EHLO x", b"AUTH PLAIN " + TOKEN, b"AUTH LOGIN", base64.b64encode(ACCOUNT.encode()), b"AUTH PLAIN", b"*", TOKEN,
              b"MAIL FROM:<mangled@localhost> AUTH=<>", b"RCPT TO:<far@elsewhere.example>", b"DATA", MAIL + b".", b"QUIT"]  # fmt: skip
LMTP = [
    b"LHLO x",
    *SMTP[1:6],
    b"MAIL FROM:<>",
    b"RCPT TO:<mangled@localhost>",
    b"RCPT TO:<none@localhost>",
    b"DATA",
    MAIL + b".",
]
IMAP = [
    b"a LOGIN mangled@localhost secret", b"b SELECT INBOX", b"c FETCH 1:* (FLAGS UID ENVELOPE BODYSTRUCTURE BODY.PEEK[1.MIME]<0.10>)",
    b"d APPEND INBOX (\\Seen) {%d+}\r\n%b" % (len(MAIL), MAIL), b"e STORE 1:2 +FLAGS.SILENT (\\Deleted $Key)", b"f UID EXPUNGE 1:5",
    b'g SEARCH OR (FROM "x" NOT SEEN) (SINCE 1-Jan-2020 LARGER 10)', b"h COPY 1:* Archive", b"i UID MOVE * Trash", b"j IDLE", b"DONE",
    b'k LIST "" "*"', b"l STATUS INBOX (MESSAGES UIDNEXT HIGHESTMODSEQ SIZE)", b"m CREATE x/y", b"n RENAME x z", b"o DELETE z/y",
    b"p ENABLE CONDSTORE", b"q FETCH 1:* (FLAGS) (CHANGEDSINCE 1)", b"r STORE 1 (UNCHANGEDSINCE 2) FLAGS ()", b"s NAMESPACE", b"t CLOSE",
    b"u AUTHENTICATE PLAIN", TOKEN, b'v ID ("name" "x")', b"w UNSELECT", b"x STARTTLS", b"y LOGOUT", b"z SUBSCRIBE x",
]  # fmt: skip
POP3 = [b"CAPA", b"USER mangled@localhost", b"PASS secret", b"STAT", b"LIST", b"UIDL 1", b"RETR 1", b"TOP 1 3", b"DELE 1", b"RSET", b"NOOP",
        b"AUTH PLAIN", TOKEN, b"STLS", b"UTF8", b"LANG en", b"LAST", b"QUIT"]  # fmt: skip
DIALOGUES = {"smtp": SMTP, "submission": SUBMISSION, "lmtp": LMTP, "imap": IMAP, "pop3": POP3}
ENDS = {"imap": b"\r\nDONE\r\nzz LOGOUT\r\n", "pop3": b"\r\nQUIT\r\n"}
END_OF_DATA = b"\r\n.\r\nQUIT\r\n"

PIECES = [
    b"\r\n", b"\n", b"\r", b"\0", b"\xff", b"\x80\x80", b" ", b"\t", b'"', b"\\", b"(", b")", b"{5}\r\n", b"{5+}\r\nabcde", b"{99999999999+}\r\n",
    b"<", b">", b"@", b":", b"*", b"%", b"4294967296", b"-1", b"0", b"~{3}\r\n", b".\r\n", b"\r\n.\r\n", b"A" * 600, b"(" * 300, b"=?x?q?", b"[", b"]",
    "ä".encode(), b"NIL", b"1:*", b",,", b"BODY[", b"\x16\x03\x01",
]  # fmt: skip


def mangled(script: Sequence[bytes], chance: random.Random) -> bytes:
    """Some of a dialogue's lines in order or not, with a few wounds."""
    lines = list(script)
    for _ in range(chance.randrange(3)):
        first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
        match chance.randrange(3):
            case 0:
                lines[first], lines[second] = lines[second], lines[first]
            case 1:
                del lines[first:second]
            case _:
                lines.insert(first, chance.choice(script))
        lines = lines or [script[0]]
    octets = bytearray(b"".join(line + b"\r\n" for line in lines))
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(octets) + 1)
        match chance.randrange(4):
            case 0:
                octets[at:at] = chance.choice(PIECES)
            case 1:
                del octets[at : at + chance.randrange(1, 30)]
            case 2:
                octets[at : at + 1] = bytes([chance.randrange(256)])
            case _:
                octets[at:at] = octets[max(0, at - chance.randrange(200)) : at]
    return bytes(octets)


def play(address: tuple[str, int], octets: bytes, chance: random.Random) -> bytes:
    """Send without waiting for anything, in a few pieces; return all that comes until the server closes."""
    got = bytearray()
    # The server may close while there is more to send, which resets the connection, and what it said last is lost.
    with contextlib.suppress(OSError), socket.create_connection(address, 20) as connection:
        for _ in range(chance.randrange(1, 4)):
            cut = chance.randrange(len(octets) + 1)
            connection.sendall(octets[:cut])
            octets = octets[cut:]
        connection.sendall(octets)
        connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(65536):
            got += chunk
    return bytes(got)


@pytest.mark.parametrize("service", DIALOGUES)
def test_mangled_sessions_end_by_the_rules(fresh: Server, service: str) -> None:
    fresh.start()
    fresh.stop()
    fresh.configure(
        auth={"failure_delay": 0.0},
        imap={"max_bad_commands": 1000},
        pop3={"max_bad_commands": 1000},
        smtp={"max_errors": 1000},
        submission={"max_errors": 1000},
        lmtp={"max_errors": 1000},
    )
    fresh.start()
    fresh.add_account(ACCOUNT, PASSWORD)
    for _ in range(3):
        session = imap(fresh, ACCOUNT, PASSWORD)
        assert session.append("INBOX", None, None, MAIL)[0] == "OK"
        session.logout()
    answered = 0
    with unharmed(fresh):
        for number in range(COUNT):
            chance = random.Random(f"{SEED} {service} {number}")
            octets = mangled(DIALOGUES[service], chance) + ENDS.get(service, END_OF_DATA)
            got = play(fresh.address(service), octets, chance)
            answered += bool(got)
            assert b"SERVERBUG" not in got, (number, octets, got)
            assert b"SYS/TEMP" not in got, (number, octets, got)
    assert answered > COUNT * 0.7
    assert spool_empties(fresh)
    log = fresh.log.read_text(errors="replace")
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
    assert " critical " not in log
    assert fresh.livemail("store", "check").returncode == 0
    raw = Raw(fresh, "imap")
    assert raw.tagged(f"t LOGIN {ACCOUNT} {PASSWORD}\r\n".encode()).startswith(b"t OK")
