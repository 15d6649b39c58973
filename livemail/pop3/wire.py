"""Octets to command lines, messages to dot-stuffed octets.  RFC 1939 §3.

In
    A line ends with CRLF.  # Lenient: LF alone ends it too; nothing stands between the lines that could be smuggled.  A
    line over its limit is a fatal error, raised as soon as the limit is passed, so that no more than that is kept.

Out
    A dot at the beginning of a line is doubled and the end is CRLF "." CRLF, whatever the content and wherever its chunks are
    cut.  Content is sent octet for octet.  A line begins behind CRLF for a strict client and behind any LF for a lenient one
    (Python's poplib, most of the old ones).  Were a dot behind a bare LF left alone, "LF . CRLF" in a message would
    end the answer for the lenient client, and the rest of the message would be read as our replies.  So every dot behind an LF is
    doubled; a strict client sees one dot too many, in messages with bare LF only, which are refused at the SMTP edge.
"""

from __future__ import annotations

import re
from typing import Final

from livemail.mail.errors import WireError

_REFUSED: Final = re.compile(rb"[\x00\r]")


class Wire:
    """What one client sends, as lines.

    takes_long_lines: set during a SASL exchange; the AUTH command may always be long (an initial response, RFC 5034 §4).
    """

    def __init__(self, line_limit: int = 512, sasl_limit: int = 8192) -> None:
        self.takes_long_lines = False
        self._line_limit = line_limit
        self._sasl_limit = sasl_limit
        self._buffer = b""
        self._at = 0
        self._later: list[bytes] = []
        self._later_size = 0
        self._is_dead = False

    @property
    def pending(self) -> int:
        """Octets fed and not yet taken."""
        return len(self._buffer) - self._at + self._later_size

    def feed(self, octets: bytes) -> None:
        """Take octets as they arrive."""
        if not self._is_dead:
            self._later.append(octets)
            self._later_size += len(octets)

    def line(self) -> bytes | None:
        """Take the next line, without its end; None when it is not complete.

        Raises WireError: fatal when the line is too long; not fatal for NUL or CR inside it, the line is taken then.
        """
        if self._later:
            self._buffer = b"".join((self._buffer[self._at :], *self._later))
            self._at = 0
            self._later.clear()
            self._later_size = 0
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\n", at)
        length = (end + 1 if end >= 0 else len(buffer)) - at
        if length > self._line_limit and length > self._limit(buffer[at : at + 5]):
            self._is_dead = True
            self._buffer, self._at = b"", 0
            raise WireError("Line too long", fatal=True)
        if end < 0:
            return None
        self._at = end + 1
        line = buffer[at:end]
        if line.endswith(b"\r"):
            line = line[:-1]
        if _REFUSED.search(line):
            raise WireError("NUL or CR inside a line")
        return line

    def _limit(self, first: bytes) -> int:
        if self.takes_long_lines or first.upper() == b"AUTH ":
            return self._sasl_limit
        return self._line_limit


class Stuffing:
    """Dot-stuffs one message, chunk by chunk; see the head of the module."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\r\n"  # what was sent last: the status line's CRLF

    def stuff(self, chunk: bytes) -> bytes:
        """Return a chunk as it is sent."""
        if not chunk:
            return chunk
        stuffed = chunk.replace(b"\n.", b"\n..")
        if chunk.startswith(b".") and self._tail.endswith(b"\n"):
            stuffed = b"." + stuffed
        self._tail = (self._tail + chunk[-2:])[-2:]
        return stuffed

    def end(self) -> bytes:
        """Return the end: CRLF first when the content does not end with it."""
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"
