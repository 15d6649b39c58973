"""SMTP's octets: command lines, DATA content, BDAT chunks.  RFC 5321 §2.3.8, §4.5.2, RFC 3030 §2.

Sans-I/O: `feed` takes octets as they arrive, `line` and `chunk` take events out.  Which of the two to ask is the session's
knowledge: after DATA it calls `begin_data`, after BDAT `begin_bdat`, and the wire answers chunks until the end.

What ends what
    A command ends with CRLF.  A line that ends with a bare LF, or holds a bare CR, NUL or another control character, is a
    WireError: it is taken out whole and never run.  A line over the limit is a fatal one, raised as soon as the limit is
    passed, so that nothing beyond it is ever kept.
    Content ends at CRLF "." CRLF and at nothing else, whatever mixture of CR, LF and NUL stands around the dot and wherever the
    transport cuts.  Bare CR and LF are passed on as they are; the session refuses them from the summary of the whole
    content, so that a refusal never changes where the content ends (CVE-2023-51764 and its kin).

How the content goes through at the speed of the memory
    Content is dealt with a transport's read (64 KiB) at a time by three C calls: find the end, undo the dot-stuffing by
    one replace, keep back what might be the beginning of CRLF.CRLF (at most 4 octets).  A virtual CRLF stands before
    the first octet, so that the first line needs no case of its own.  A loop over lines costs 1.1 microseconds a line.
"""

from __future__ import annotations

import re
from typing import Final

from livemail.mail.errors import WireError

LINE_OCTETS: Final = 2048
"""A command line with CRLF: RFC 5321 §4.5.3.1.4 asks for 512, extensions add to it (RFC 6531 §3.4, RFC 3461 §4.5)."""

AUTH_OCTETS: Final = 12288
"""A line of a SASL exchange.  RFC 4954 §4."""

_END: Final = b"\r\n.\r\n"
_DOT: Final = b"\r\n."
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_COMMAND, _DATA, _BDAT, _DEAD = range(4)


class Wire:
    """One direction of one connection: what the client sends.

    takes_long_lines: set during a SASL exchange; the AUTH command itself may always be long.
    """

    def __init__(self, line_octets: int = LINE_OCTETS, auth_octets: int = AUTH_OCTETS) -> None:
        self.takes_long_lines = False
        self._line_octets = line_octets
        self._auth_octets = auth_octets
        self._buffer = b""
        self._at = 0
        self._later: list[bytes] = []  # fed while nothing was asked for; joined once
        self._later_octets = 0
        self._mode = _COMMAND
        self._virtual = 0  # octets at the front of the content that were never sent
        self._left = 0

    @property
    def pending(self) -> int:
        """Octets fed and not yet taken.  Asked for at every read, so it is never counted anew."""
        return len(self._buffer) - self._at + self._later_octets - self._virtual

    def feed(self, octets: bytes) -> None:
        """Take octets as they arrive."""
        if self._mode == _DEAD:
            return
        if self._at >= len(self._buffer) and not self._later:
            self._buffer = octets
            self._at = 0
        else:
            self._later.append(octets)
            self._later_octets += len(octets)

    def _gather(self) -> None:
        self._buffer = b"".join((self._buffer[self._at :], *self._later))
        self._at = 0
        self._later.clear()
        self._later_octets = 0

    # ---------------------------------------------------------------------------------------------- commands

    def line(self) -> bytes | None:
        """Take the next command line, without CRLF; None when it is not complete.

        Raises WireError (500 5.5.2); a fatal one when the line is too long: nothing is given out after it.
        """
        if self._later:
            self._gather()
        buffer, at = self._buffer, self._at
        if at == len(buffer):
            return None
        end = buffer.find(b"\n", at)
        length = (end + 1 if end >= 0 else len(buffer)) - at
        if length > self._line_octets and length > self._limit(buffer[at : at + 5]):
            self._mode = _DEAD
            self._buffer, self._at = b"", 0
            raise WireError("Line too long", fatal=True)
        if end < 0:
            return None
        self._at = end + 1
        if end == at or buffer[end - 1] != 13:
            raise WireError("Lines end with CRLF, not with LF alone")
        line = buffer[at : end - 1]
        # isprintable sees most lines through without the search; it is false for control characters and for 8-bit.
        if not (line.isascii() and line.decode("ascii").isprintable()) and _CONTROLS.search(line):
            raise WireError("Control character in a command")
        return line

    def _limit(self, first: bytes) -> int:
        if self.takes_long_lines or first.upper() == b"AUTH ":
            return self._auth_octets
        return self._line_octets

    # ---------------------------------------------------------------------------------------------- content

    def begin_data(self) -> None:
        """354 is on its way: what follows is content up to CRLF.CRLF."""
        self._buffer = b"".join((b"\r\n", self._buffer[self._at :], *self._later))
        self._at = 0
        self._later.clear()
        self._later_octets = 0
        self._virtual = 2
        self._mode = _DATA

    def begin_bdat(self, size: int) -> None:
        """What follows is exactly ``size`` octets of content; after them commands."""
        self._left = size
        self._mode = _BDAT

    def chunk(self) -> tuple[bytes, bool] | None:
        """Take the next octets of content, unstuffed, and whether they are the last; None when more must arrive.

        The octets may be empty.  After the last ones the wire is in command mode again.
        """
        if self._later:
            self._gather()
        return self._data_chunk() if self._mode == _DATA else self._bdat_chunk()

    def _data_chunk(self) -> tuple[bytes, bool] | None:
        buffer = self._buffer
        if len(buffer) <= self._virtual:
            return None
        # In most content the first line that begins with a dot is the last: then there is nothing to unstuff either, and
        # one search tells both.
        dot = buffer.find(_DOT)
        end = dot if dot < 0 or buffer.startswith(_END, dot) else buffer.find(_END, dot + 1)
        if end >= 0:
            octets = buffer[: end + 2]
            self._at = end + 5
            self._mode = _COMMAND
        else:
            keep = _unfinished(buffer)
            octets = buffer[:-keep] if keep else buffer
            if len(octets) <= self._virtual:
                return None
            self._buffer, self._at = buffer[len(octets) :], 0
        if dot != end:
            # No CRLF of a "CRLF." is cut: a CRLF at the end of the buffer was kept back.
            octets = octets.replace(_DOT, b"\r\n")
        if self._virtual:
            octets = octets[self._virtual :]
            self._virtual = 0
        return octets, end >= 0

    def _bdat_chunk(self) -> tuple[bytes, bool] | None:
        available = len(self._buffer) - self._at
        if available < self._left:
            if not available:
                return None
            octets = self._buffer[self._at :]
            self._buffer, self._at = b"", 0
            self._left -= available
            return octets, False
        octets = self._buffer[self._at : self._at + self._left]
        self._at += self._left
        self._mode = _COMMAND
        return octets, True


def _unfinished(buffer: bytes) -> int:
    """How many octets at the end may begin CRLF.CRLF: 0 to 4."""
    tail = buffer[-4:]
    for length in range(len(tail), 0, -1):
        if _END.startswith(tail[-length:]):
            return length
    return 0
