"""A message of 200 MB goes in and out by every door; the peak of all processes stays less than 48 MiB above rest.

Clear text and TLS: what a peer does not read must wait on our disk, not in the transport's buffer.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import socket
import ssl
import time
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


@functools.cache
def _digest() -> tuple[int, str]:
    found, size = hashlib.sha256(), 0
    for piece in _pieces():
        found.update(piece)
        size += len(piece)
    return size, found.hexdigest()


class Wire:
    """A raw connection, so that the client holds no more than a piece."""

    def __init__(self, server: Server, service: str) -> None:
        self.socket: socket.socket = socket.create_connection(server.address(service), 120)
        if service.endswith("s"):
            context = ssl.create_default_context(cafile=server.facts["ca"])
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
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

    def send_message(self) -> None:
        for piece in _pieces():
            self.socket.sendall(piece)

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def _by_data(server: Server, service: str) -> None:
    client = Wire(server, service)
    assert client.say("LHLO client.example" if service == "lmtp" else "EHLO client.example").startswith(b"250")
    if service == "submissions":
        token = base64.b64encode(f"\0{server.facts['account']}\0{server.facts['password']}".encode()).decode()
        assert client.say(f"AUTH PLAIN {token}").startswith(b"235")
    assert client.say("MAIL FROM:<you@localhost>").startswith(b"250")
    assert client.say("RCPT TO:<you@localhost>").startswith(b"250")
    assert client.say("DATA").startswith(b"354")
    client.send_message()
    assert client.say(".").startswith(b"250")
    client.close()


def _by_bdat(server: Server, service: str) -> None:
    client = Wire(server, service)
    assert client.say("EHLO client.example").startswith(b"250")
    assert client.say("MAIL FROM:<you@localhost>").startswith(b"250")
    assert client.say("RCPT TO:<you@localhost>").startswith(b"250")
    client.socket.sendall(b"BDAT %d LAST\r\n" % _digest()[0])
    client.send_message()
    assert client.answer().startswith(b"250")
    client.close()


def _login(server: Server, service: str) -> Wire:
    session = Wire(server, service)
    session.socket.sendall(f'a LOGIN {server.facts["account"]} "{server.facts["password"]}"\r\n'.encode())
    assert session.until("a ").startswith(b"a OK")
    return session


def _by_append(server: Server, service: str) -> None:
    session = _login(server, service)
    session.socket.sendall(b"b APPEND Archive {%d+}\r\n" % _digest()[0])
    session.send_message()
    session.socket.sendall(b"\r\n")
    assert session.until("b ").startswith(b"b OK")
    session.close()


def _by_fetch(server: Server, service: str) -> None:
    session = _login(server, service)
    session.socket.sendall(b"c SELECT Archive\r\n")
    session.until("c ")
    session.socket.sendall(b"d FETCH * BODY.PEEK[]\r\n")
    line = session.file.readline()
    literal = re.search(rb"\{(\d+)\}", line)
    assert literal is not None, line
    size, wanted = _digest()
    assert int(literal[1]) == size
    time.sleep(1)  # the server may not use the time in which we do not read to fill its memory
    found, left = hashlib.sha256(), size
    while left:
        piece = session.file.read(min(left, 1 << 20))
        assert piece
        found.update(piece)
        left -= len(piece)
    assert session.until("d ").startswith(b"d OK")
    assert found.hexdigest() == wanted
    session.close()


def _by_retr(server: Server, service: str) -> None:
    session = Wire(server, service)
    assert session.say(f"USER {server.facts['account']}").startswith(b"+OK")
    assert session.say(f"PASS {server.facts['password']}").startswith(b"+OK")
    count = int(session.say("STAT").split()[1])
    assert session.say(f"RETR {count}").startswith(b"+OK")
    time.sleep(1)
    while session.file.readline().strip():
        pass  # our header
    found = hashlib.sha256(HEAD)
    while (line := session.file.readline()) != b".\r\n":
        assert line
        found.update(line)
    assert found.hexdigest() == _digest()[1]
    session.close()


WAYS = {
    "DATA": (_by_data, "smtp"),
    "DATA in TLS": (_by_data, "submissions"),
    "LMTP": (_by_data, "lmtp"),
    "BDAT": (_by_bdat, "smtp"),
    "APPEND": (_by_append, "imap"),
    "APPEND in TLS": (_by_append, "imaps"),
    "FETCH": (_by_fetch, "imap"),
    "FETCH in TLS": (_by_fetch, "imaps"),
    "RETR": (_by_retr, "pop3"),
    "RETR in TLS": (_by_retr, "pop3s"),
}


def test_a_message_of_200_mb_costs_less_than_48_mib_by_every_door(fresh: Server) -> None:
    fresh.start()
    imap(fresh).logout()  # rest: a login has happened, its thread and tables exist
    rest = fresh.memory("VmRSS")
    grown: dict[str, int] = {}
    for name, (way, service) in WAYS.items():
        fresh.forget_peak()
        way(fresh, service)
        grown[name] = fresh.memory("VmHWM") - rest
    print("KiB above", rest, grown)  # noqa: T201 - the figures, with -s
    assert max(grown.values()) < ALLOWED, grown
