"""An IMAP client that costs almost nothing: it sends a line and counts octets until the tag comes back."""

from __future__ import annotations

import re
import socket
from types import TracebackType
from typing import Self


class IMAP:
    """One logged-in connection."""

    def __init__(self, address: tuple[str, int], user: str, password: str) -> None:
        self.socket = socket.create_connection(address, 120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self._serial = 0
        while b"\r\n" not in self._rest:
            self._rest += self.socket.recv(4096)
        self._rest = b""
        self.command(f'LOGIN "{user}" "{password}"')

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, line: bytes) -> bytes:
        """Send one command; return its tag."""
        self._serial += 1
        tag = b"t%d" % self._serial
        self.socket.sendall(tag + b" " + line + b"\r\n")
        return tag

    def wait(self, tag: bytes) -> bytes:
        """Everything up to and including the tagged line."""
        pieces: list[bytes] = [self._rest]
        self._rest = b""
        tail = pieces[0][-200:]
        needle = b"\r\n" + tag + b" "
        while True:
            # The tagged line may be the only line, so it is looked for behind a CRLF put in front of everything.
            looked = b"\r\n" + tail if len(pieces) <= 2 else tail
            at = looked.find(needle)
            if at >= 0 and looked.find(b"\r\n", at + 2) >= 0:
                break
            chunk = self.socket.recv(1 << 20)
            if not chunk:
                raise ConnectionError(f"closed during {tag!r}: {b''.join(pieces)[-200:]!r}")
            pieces.append(chunk)
            tail = tail[-400:] + chunk
        answer = b"".join(pieces)
        at = (b"\r\n" + answer).rfind(needle)
        if not answer[at:].startswith(tag + b" OK"):
            raise ConnectionError(f"refused: {answer[at:][:200]!r}")
        return answer

    def command(self, line: str) -> bytes:
        """Send and wait."""
        return self.wait(self.send(line.encode()))

    def status(self, mailbox: str) -> int:
        """MESSAGES of a mailbox."""
        answer = self.command(f"STATUS {mailbox} (MESSAGES)")
        found = re.search(rb"MESSAGES (\d+)", answer)
        if not found:
            raise ConnectionError(f"no MESSAGES in {answer!r}")
        return int(found[1])

    def append(self, mailbox: str, messages: list[bytes], window: int = 50) -> None:
        """APPEND with non-synchronising literals, ``window`` commands ahead of their answers."""
        waiting: list[bytes] = []
        for message in messages:
            self._serial += 1
            tag = b"t%d" % self._serial
            head = b"%b APPEND %b {%d+}\r\n" % (tag, mailbox.encode(), len(message))
            self.socket.sendall(head + message + b"\r\n")
            waiting.append(tag)
            if len(waiting) == window:
                self.wait(waiting[-1])
                waiting.clear()
        if waiting:
            self.wait(waiting[-1])
