"""A 200 MB message passes through SMTP, APPEND and FETCH with the process's peak less than 48 MiB above rest."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator

from tests.system.mail import imap
from tests.system.rig import Server

SIZE = 200_000_000
ALLOWED = 48 * 1024  # KiB
LINE = b"".join(b"%02x" % (number % 256) for number in range(38)) + b"\r\n"
HEAD = b"Subject: two hundred megabytes\r\nContent-Type: text/plain\r\n\r\n"


def _pieces() -> Iterator[bytes]:
    """The message in pieces of about a megabyte; no line begins with a dot."""
    yield HEAD
    piece = LINE * 13_000
    left = SIZE - len(HEAD)
    while left >= len(piece):
        yield piece
        left -= len(piece)
    yield LINE * (left // len(LINE))


def _digest() -> tuple[int, str]:
    found, size = hashlib.sha256(), 0
    for piece in _pieces():
        found.update(piece)
        size += len(piece)
    return size, found.hexdigest()


class Wire:
    """A raw connection, so that the client holds no more than a piece."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, 120)
        self.file = self.socket.makefile("rb", buffering=1 << 20)
        self.file.readline()

    def say(self, line: str) -> bytes:
        self.socket.sendall(line.encode() + b"\r\n")
        return self.answer()

    def answer(self) -> bytes:
        while True:
            line = self.file.readline()
            if line[3:4] != b"-":
                return line

    def until(self, tag: str) -> bytes:
        while True:
            line = self.file.readline()
            if not line or line.startswith(tag.encode()):
                return line


def test_a_message_of_200_mb_costs_less_than_48_mib(fresh: Server) -> None:
    fresh.start()
    imap(fresh).logout()  # rest: a login has happened, its thread and tables exist
    rest = fresh.memory("VmRSS")
    size, wanted = _digest()

    fresh.forget_peak()
    client = Wire(fresh.address("smtp"))
    assert client.say("HELO client.example").startswith(b"250")
    assert client.say("MAIL FROM:<a@example.org>").startswith(b"250")
    assert client.say("RCPT TO:<you@localhost>").startswith(b"250")
    assert client.say("DATA").startswith(b"354")
    for piece in _pieces():
        client.socket.sendall(piece)
    assert client.say(".").startswith(b"250")
    by_smtp = fresh.memory("VmHWM") - rest
    client.socket.close()

    fresh.forget_peak()
    session = Wire(fresh.address("imap"))
    session.socket.sendall(f'a LOGIN {fresh.facts["account"]} "{fresh.facts["password"]}"\r\n'.encode())
    assert session.until("a ").startswith(b"a OK")
    session.socket.sendall(b"b APPEND Archive {%d+}\r\n" % size)
    for piece in _pieces():
        session.socket.sendall(piece)
    session.socket.sendall(b"\r\n")
    assert session.until("b ").startswith(b"b OK")
    by_append = fresh.memory("VmHWM") - rest

    fresh.forget_peak()
    session.socket.sendall(b"c SELECT Archive\r\n")
    session.until("c ")
    session.socket.sendall(b"d FETCH * BODY.PEEK[]\r\n")
    line = session.file.readline()
    literal = re.search(rb"\{(\d+)\}", line)
    assert literal is not None, line
    assert int(literal[1]) == size
    found, left = hashlib.sha256(), size
    while left:
        piece = session.file.read(min(left, 1 << 20))
        assert piece
        found.update(piece)
        left -= len(piece)
    assert session.until("d ").startswith(b"d OK")
    by_fetch = fresh.memory("VmHWM") - rest
    assert found.hexdigest() == wanted
    session.socket.close()
    assert max(by_smtp, by_append, by_fetch) < ALLOWED, (by_smtp, by_append, by_fetch)
