"""Messages of real shapes, and talking to the server with the standard library's clients."""

from __future__ import annotations

import base64
import hashlib
import imaplib
import random
import re
import smtplib
from collections.abc import Iterator

from tests.system.rig import Server

TRACE = re.compile(
    rb"\A(?:(?:Return-Path|Delivered-To|Received):(?:[^\r\n]*\r\n)(?:[ \t][^\r\n]*\r\n)*)+", re.IGNORECASE
)


def without_trace(octets: bytes, sent: bytes) -> bytes:
    """Take off the trace fields that delivery put in front, by what was sent and not by guessing."""
    trace = TRACE.match(octets)
    assert trace is not None, octets[:300]
    if octets[trace.end() :] == sent:
        return sent
    # The message itself began with trace fields: the server's are those in front of the sent octets.
    front = len(octets) - len(sent)
    assert front > 0
    assert TRACE.fullmatch(octets[:front]), octets[:front]
    return octets[front:]


def shapes(seed: int) -> Iterator[bytes]:
    """An endless stream of messages; CRLF line endings, distinct by a number, none with bare CR or LF."""
    chance = random.Random(seed)
    number = 0
    makers = (plain, eight_bit, long_lines, nested, empty_body, no_header, dots, attachment, no_final_newline)
    while True:
        number += 1
        yield makers[number % len(makers)](number, chance)


def plain(number: int, chance: random.Random) -> bytes:
    text = "\r\n".join("word " * chance.randrange(1, 14) for _ in range(chance.randrange(1, 60)))
    return f"From: a@example.org\r\nSubject: plain {number}\r\n\r\n{text}\r\n".encode()


def eight_bit(number: int, chance: random.Random) -> bytes:
    octets = bytes(c for c in chance.randbytes(chance.randrange(500)) if c not in b"\r\n\0")
    return b"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= %d\r\nX-Raw: gr\xfc\xdfe\r\n\r\n%b\xc3\xa4\xff\r\n" % (number, octets)


def long_lines(number: int, chance: random.Random) -> bytes:
    return b"Subject: long %d\r\n\r\n%b\r\n%b\r\n" % (number, b"x" * 10_000, b"y" * chance.randrange(9_000, 11_000))


def nested(number: int, chance: random.Random, depth: int = 6) -> bytes:
    body = b"Content-Type: text/plain\r\n\r\nleaf %d\r\n" % number
    for level in range(depth):
        mark = b"b%d.%d" % (level, number)
        body = (
            b'Content-Type: multipart/mixed; boundary="%b"\r\n\r\npreamble\r\n--%b\r\n%b\r\n--%b\r\n'
            b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ninner body\r\n--%b--\r\nepilogue\r\n"
            % (mark, mark, body, mark, mark)
        )
    return b"Subject: nested %d\r\nMIME-Version: 1.0\r\n%b" % (number, body)


def empty_body(number: int, chance: random.Random) -> bytes:
    return b"Subject: empty %d\r\n\r\n" % number


def no_header(number: int, chance: random.Random) -> bytes:
    return b"\r\nno header at all, %d\r\n" % number


def dots(number: int, chance: random.Random) -> bytes:
    return b"Subject: dots %d\r\n\r\n.\r\n..\r\n.a\r\n...\r\n%b.\r\n.\r\n" % (number, b"z" * chance.randrange(2_000))


def attachment(number: int, chance: random.Random, size: int = 0) -> bytes:
    blob = base64.encodebytes(chance.randbytes(size or chance.randrange(20_000))).replace(b"\n", b"\r\n")
    return (
        b"Subject: attachment %d\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=XX\r\n\r\n"
        b"--XX\r\nContent-Type: text/plain\r\n\r\nsee file\r\n--XX\r\nContent-Type: application/octet-stream\r\n"
        b"Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=data.bin\r\n\r\n%b--XX--\r\n"
        % (number, blob)
    )


def no_final_newline(number: int, chance: random.Random) -> bytes:
    return b"Subject: one line body %d\r\n\r\nlast line\r\n" % number


def digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


def smtp(server: Server, service: str = "smtp") -> smtplib.SMTP:
    host, port = server.address(service)
    return smtplib.SMTP(host, port, local_hostname="client.example", timeout=60)


def imap(server: Server, name: str | None = None, password: str | None = None) -> imaplib.IMAP4:
    host, port = server.address("imap")
    client = imaplib.IMAP4(host, port, timeout=60)
    client.login(name or server.facts["account"], password or server.facts["password"])
    return client


def wire_data(client: smtplib.SMTP, octets: bytes) -> tuple[int, bytes]:
    """DATA with exactly these octets: smtplib's own method would mend line endings."""
    code, text = client.docmd("DATA")
    if code != 354:
        return code, text
    stuffed = re.sub(rb"(?m)^\.", b"..", octets)
    client.send(stuffed + (b"" if octets.endswith(b"\r\n") else b"\r\n") + b".\r\n")
    return client.getreply()


def deliver(client: smtplib.SMTP, recipient: str, octets: bytes, sender: str = "a@example.org") -> tuple[int, bytes]:
    """One whole transaction; the reply to the end of data, or the first refusal."""
    for code, text in (client.docmd(f"MAIL FROM:<{sender}> BODY=8BITMIME"), client.docmd(f"RCPT TO:<{recipient}>")):
        if code >= 300:
            client.docmd("RSET")
            return code, text
    return wire_data(client, octets)


def fetch_all(client: imaplib.IMAP4, mailbox: str = "INBOX") -> dict[int, bytes]:
    """UID → octets of every message."""
    status, _ = client.select(f'"{mailbox}"', readonly=True)
    assert status == "OK"
    status, data = client.uid("FETCH", "1:*", "(BODY.PEEK[])")
    assert status == "OK"
    found: dict[int, bytes] = {}
    for item in data:
        if isinstance(item, tuple):
            uid = re.search(rb"UID (\d+)", item[0])
            assert uid is not None, item[0]
            found[int(uid[1])] = item[1]
    return found
