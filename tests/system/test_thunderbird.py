"""What Thunderbird says, in its words and order: two connections, STARTTLS, a first synchronisation, reading, filing, sending."""

from __future__ import annotations

import base64
import re

from tests.system.hostile import Raw
from tests.system.mail import deliver, smtp
from tests.system.rig import Server

HEADERS = b"From To Cc Bcc Subject Date Message-ID Priority X-Priority References Newsgroups In-Reply-To Content-Type Reply-To"
SENT = b"Message-ID: <sent@localhost>\r\nSubject: sent\r\nTo: friend@elsewhere.example\r\n\r\nHello.\r\n"


class Thunderbird(Raw):
    """One of its connections."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, "imap")
        self.serial = 0
        self.ok(b"STARTTLS")
        self.tls()
        told = self.ok(b"capability")
        assert b" STARTTLS" not in told
        token = base64.b64encode(f"\0{server.facts['account']}\0{server.facts['password']}".encode())
        self.ok(b"authenticate PLAIN " + token)
        assert b"IDLE" in self.ok(b"capability")
        self.ok(b'ID ("name" "Thunderbird" "version" "140.0")')

    def ok(self, command: bytes) -> bytes:
        """Run a command that must succeed; return all of the answer."""
        self.serial += 1
        tag = b"%d" % self.serial
        got = self.answer(tag + b" " + command + b"\r\n", tag)
        assert got.splitlines()[-1].startswith(tag + b" OK"), got[-500:]
        return got


def test_thunderbirds_day(server: Server) -> None:
    with smtp(server) as client:
        client.ehlo()
        for number in range(5):
            big = b"0123456789abcdef\r\n" * (8_000 if number == 4 else 3)
            content = b"Message-ID: <%d@example.org>\r\nSubject: bird %d\r\n\r\n%b" % (number, number, big)
            assert deliver(client, "you@localhost", content)[0] == 250
    first, second = Thunderbird(server), Thunderbird(server)

    # Folders.
    assert b'(("" "/")) NIL NIL' in first.ok(b"namespace")
    assert b"INBOX" in first.ok(b'lsub "" "*"')
    listed = first.ok(b'list "" "*"')
    for use in (b"\\Sent", b"\\Trash", b"\\Drafts", b"\\Junk", b"\\Archive"):
        assert use in listed
    first.ok(b'list "" "INBOX"')

    # The first look at the inbox.
    selected = first.ok(b'select "INBOX"')
    assert b"8 EXISTS" in selected
    assert b"[PERMANENTFLAGS" in selected
    told = first.ok(b"UID fetch 1:* (FLAGS)")
    uids = [int(uid) for uid in re.findall(rb"UID (\d+)", told)]
    assert len(uids) == 8
    headers = first.ok(
        b"UID fetch %d:%d (UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (%b)])" % (uids[0], uids[-1], HEADERS)
    )
    assert headers.count(b"BODY[HEADER.FIELDS (") == 8
    assert headers.count(b"Subject: bird") == 5

    # Another connection waits in IDLE, told of what comes and of what this one does.
    second.ok(b'select "INBOX"')
    second.send(b"99 IDLE\r\n")
    assert second.line().startswith(b"+")
    with smtp(server) as client:
        client.ehlo()
        assert deliver(client, "you@localhost", b"Subject: while idle\r\n\r\nx\r\n")[0] == 250
    assert second.line() == b"* 9 EXISTS"

    # Reading: whole, and a large one in pieces.
    whole = first.ok(b"UID fetch %d (UID RFC822.SIZE BODY[])" % uids[3])
    assert b"bird 0" in whole
    assert b"\\Seen" in whole
    assert b"9 EXISTS" in first.ok(b"noop") + whole
    size = re.search(rb"RFC822.SIZE (\d+)", first.ok(b"UID fetch %d (RFC822.SIZE)" % uids[7]))
    assert size is not None
    total = 0
    for offset in range(0, int(size[1]), 65536):
        piece = first.ok(b"UID fetch %d (UID RFC822.SIZE BODY.PEEK[]<%d.65536>)" % (uids[7], offset))
        length = re.search(rb"BODY\[\]<%d> \{(\d+)\}" % offset, piece)
        assert length is not None
        total += int(length[1])
    assert total == int(size[1])
    first.ok(b"UID store %d +Flags (\\Flagged $label1 NonJunk)" % uids[4])

    # Deleting to the trash, moving, a new folder.
    assert b"[COPYUID" in first.ok(b'UID move %d "Trash"' % uids[5])
    first.ok(b'create "Trash/2026"')
    first.ok(b'subscribe "Trash/2026"')
    assert b"[COPYUID" in first.ok(b'uid copy %d "Trash/2026"' % uids[6])
    first.ok(b"uid store %d +FLAGS (\\Deleted \\Seen)" % uids[6])
    assert b"EXPUNGE" in first.ok(b"expunge")
    second.send(b"DONE\r\n")
    heard = second.answer(b"", b"99")
    assert heard.count(b"EXPUNGE") == 2
    assert b"$label1" in heard
    _send(first)
    second.ok(b"logout")


def _send(first: Thunderbird) -> None:
    """A copy of what was sent is filed, found, and the folder left."""
    first.send(b'50 append "Sent" (\\Seen) {%d}\r\n' % len(SENT))
    assert first.line().startswith(b"+ ")
    assert b"[APPENDUID" in first.answer(SENT + b"\r\n", b"50")
    assert b"1 EXISTS" in first.ok(b'select "Sent"')
    found = first.ok(b"UID SEARCH UNDELETED HEADER Message-ID sent@localhost")
    assert found.startswith(b"* SEARCH 1\r\n")
    assert b"MESSAGES 7" in first.ok(b'STATUS "INBOX" (UIDNEXT MESSAGES UNSEEN RECENT)')
    first.ok(b"close")
    first.ok(b"logout")
