"""Hostile input: raw sockets, and what must hold after each attack."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator

from tests.system.rig import Server

PEAK_GROWTH = 50 * 1024  # KiB


class Raw:
    """A connection that sends any octets and reads whatever comes back."""

    def __init__(self, server: Server, service: str, *, greeting: bool = True) -> None:
        self.server = server
        self.socket: socket.socket = socket.create_connection(server.address(service), 20)
        self.socket.settimeout(20)
        self._rest = b""
        self._has_ended = False
        if greeting:
            self.greeting = self.line()

    def send(self, octets: bytes) -> None:
        # The server may have closed on us already, which is an answer too.
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(octets)

    def line(self) -> bytes:
        """The next line without CRLF; b"" when the connection is closed."""
        while b"\n" not in self._rest:
            try:
                chunk = self.socket.recv(65536)
            except ConnectionError:
                chunk = b""
            if not chunk:
                self._has_ended = True
                rest, self._rest = self._rest, b""
                return rest
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.rstrip(b"\r")

    def reply(self) -> bytes:
        """A whole SMTP reply's last line."""
        while True:
            line = self.line()
            if line[3:4] != b"-":
                return line

    def ask(self, octets: bytes) -> bytes:
        """Send a line, return the SMTP reply's last line."""
        self.send(octets + b"\r\n")
        return self.reply()

    def tagged(self, octets: bytes, tag: bytes = b"t") -> bytes:
        """Send an IMAP command, return its tagged line, a BYE, or b"" when the connection is closed."""
        self.send(octets)
        while True:
            line = self.line()
            if self._has_ended or line.startswith((tag + b" ", b"* BYE")):
                return line

    def answer(self, octets: bytes, tag: bytes = b"t") -> bytes:
        """Send an IMAP command, return all that comes, up to and with the tagged line."""
        self.send(octets)
        got = bytearray()
        while not self._has_ended:
            line = self.line()
            got += line + b"\r\n"
            if line.startswith(tag + b" "):
                break
        return bytes(got)

    def rest(self, seconds: float = 20) -> bytes:
        """Everything until the peer closes, or b"..." up to the time-out."""
        self.socket.settimeout(seconds)
        got = [self._rest]
        self._rest = b""
        with contextlib.suppress(OSError):
            while chunk := self.socket.recv(65536):
                got.append(chunk)
        return b"".join(got)

    @property
    def is_closed(self) -> bool:
        """Whether the peer has closed; waits for it a little."""
        self.socket.settimeout(5)
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def tls(self) -> None:
        context = ssl.create_default_context(cafile=self.server.facts["ca"])
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def login(self) -> None:
        """IMAP LOGIN as the first-run account."""
        facts = self.server.facts
        answer = self.tagged(f'l LOGIN {facts["account"]} "{facts["password"]}"\r\n'.encode(), b"l")
        assert answer.startswith(b"l OK"), answer

    def close(self) -> None:
        self.socket.close()


@contextlib.contextmanager
def unharmed(server: Server) -> Iterator[None]:
    """After the attack: the process lives, its peak grew by less than 50 MB, and others are answered within a second."""
    server.forget_peak()
    before = server.memory("VmRSS")
    yield
    grown = server.memory("VmHWM") - before
    assert grown < PEAK_GROWTH, f"peak memory grew by {grown} KiB"
    for service, command, wanted in (
        ("smtp", b"NOOP\r\n", b"250"),
        ("imap", b"a NOOP\r\n", b"a OK"),
        ("pop3", b"CAPA\r\n", b"+OK"),
    ):
        other = Raw(server, service)
        began = time.monotonic()
        other.send(command)
        assert other.line().startswith(wanted)
        assert time.monotonic() - began < 1
        other.close()


def spool_empties(server: Server, seconds: float = 10) -> bool:
    """Whether no spool file is left once the server has noticed that the client is gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not list(server.data.rglob("spool/*")):
            return True
        time.sleep(0.05)
    return False
