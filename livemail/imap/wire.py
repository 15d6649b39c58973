"""Octets to commands.  RFC 3501 §2.2, §4.3, RFC 7888.

A command is lines with literals between them: a line that ends in ``{n}`` or ``{n+}`` is followed by n octets that are
not looked at, and then by the rest of the command.  With ``{n}`` the client waits for our "+", with ``{n+}`` it does
not, and that decides what refusing costs: a literal that was not asked for is on its way whatever we answer.

    line ──ends a command──▶ Command                       (or Malformed: one answer, whatever was wrong)
      │ {n}, {n+} within the limit ──▶ [Continue] collect n octets ──▶ next line
      │ the message of an APPEND   ──▶ Announced ── accept() ──▶ Chunk… ──▶ next line
      │                                           └ refuse() ──▶ as below
      └ refused: {n} ends the command; {n+} is skipped with the rest of its command, or the connection ends

Invariants
    Nothing is kept beyond the limits: a line grows to ``limits.line``, the literals of a command together to
    ``limits.literals``, and an APPEND's message is never kept, it leaves in chunks.
    Octets of a refused literal are never read as a command.  Where they cannot be counted (``{x+}``) or are too many to
    skip, the answer is fatal and no event follows it.
    A command ends at CRLF and nowhere else.  A bare LF is fatal: whether the peer thinks that a new command begins there
    is a question that has cost others a smuggled command.
    The events do not depend on how the octets were cut when they were fed.
"""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Octets.  line: the text of one command.  literals: its literals together.  skip: what is read past at most when a
    non-synchronising literal is refused; 0 ends the connection instead.  streams: whether APPEND is let in.
    """

    line: int
    literals: int
    skip: int = 0
    streams: bool = False


class Command(msgspec.Struct, frozen=True):
    """A whole command.  name: as written.  fragments: the first begins behind the name; one more than literals.

    streamed: the last literal was announced and left in chunks; b"" stands for it.
    """

    tag: bytes
    name: bytes
    fragments: tuple[bytes, ...]
    literals: tuple[bytes, ...]
    streamed: bool = False


class Announced(msgspec.Struct, frozen=True):
    """The message of an APPEND follows.  The wire rests until `Wire.accept` or `Wire.refuse`.

    fragments and literals: what came before it; as many fragments as literals and one more.
    """

    tag: bytes
    fragments: tuple[bytes, ...]
    literals: tuple[bytes, ...]
    size: int
    is_synchronising: bool


class Chunk(msgspec.Struct, frozen=True):
    """The next octets of the accepted message."""

    octets: bytes


class Continue(msgspec.Struct, frozen=True):
    """A synchronising literal is let in: say so."""


class Line(msgspec.Struct, frozen=True):
    """A line of a dialogue, without its CRLF."""

    line: bytes


class Malformed(msgspec.Struct, frozen=True):
    """Not a command.  tag: ``*`` where none could be read.  fatal: no event follows."""

    tag: bytes
    text: str
    fatal: bool = False


Event = Command | Announced | Chunk | Continue | Line | Malformed

# tag: ASTRING-CHAR without "+".  RFC 3501 §9.
_TAG: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]{1,128}(?= |\Z)')
_NAME: Final = re.compile(rb" ([A-Za-z0-9.\-]{1,64})(?= |\Z)")
_SIZE: Final = re.compile(rb"([0-9]{1,20})(\+?)")
_HTTP: Final = re.compile(rb"[A-Z]{3,10} \S+ HTTP/[0-9]")

_NOT_HTTP: Final = "This is an IMAP server"
_CONTINUE: Final = Continue()


class _At(enum.Enum):
    """What the next octets are."""

    LINE = enum.auto()
    LITERAL = enum.auto()
    ANNOUNCED = enum.auto()
    STREAM = enum.auto()
    SKIP = enum.auto()
    SKIPPED = enum.auto()
    DIALOGUE = enum.auto()
    NOWHERE = enum.auto()


class Wire:
    """One connection's input."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._buffer = bytearray()
        self._scanned = 0
        self._at = _At.LINE
        self._left = 0
        self._skipped = 0
        self._line_limit = 0
        self._is_synchronising = False
        self._begin()

    def _begin(self) -> None:
        """Forget the command; the next line begins one."""
        self._tag = b""
        self._name = b""
        self._fragments: list[bytes] = []
        self._literals: list[bytes] = []
        self._text_size = 0
        self._literal_size = 0
        self._fault = ""
        self._streamed = False
        self._at = _At.LINE

    # ------------------------------------------------------------------------------------------------ the session's side

    @property
    def pending(self) -> int:
        """Octets fed and not yet taken."""
        return len(self._buffer)

    def feed(self, octets: bytes) -> None:
        """Take octets as they arrive."""
        if self._at is not _At.NOWHERE:
            self._buffer += octets

    def expect_lines(self, limit: int) -> None:
        """A dialogue begins: every line of at most ``limit`` octets is a `Line`.  Between commands only."""
        self._line_limit = limit
        self._at = _At.DIALOGUE

    def expect_commands(self) -> None:
        """The dialogue is over."""
        if self._at is not _At.NOWHERE:
            self._begin()

    def accept(self) -> None:
        """Let the announced message in."""
        self._at = _At.STREAM

    def refuse(self) -> bool:
        """Keep the announced message out; False when the connection cannot go on (more than `Limits.skip`)."""
        if self._is_synchronising:
            self._begin()
            return True
        return self._skip()

    def next_event(self) -> Event | None:
        """Return the next event; None when more octets are needed, or an answer to `Announced`."""
        while True:
            at = self._at
            if at is _At.LINE or at is _At.DIALOGUE or at is _At.SKIPPED:
                event = self._take_line()
            elif at is _At.STREAM:
                event = self._take_chunk()
            elif at is _At.LITERAL:
                if len(self._buffer) < self._left:
                    return None
                self._take_literal()
                continue
            elif at is _At.SKIP:
                taken = min(self._left, len(self._buffer))
                del self._buffer[:taken]
                self._left -= taken
                if self._left:
                    return None
                self._at = _At.SKIPPED
                continue
            else:
                return None
            if event is None and self._at is at:
                return None
            if event is not None:
                return event

    # ------------------------------------------------------------------------------------------------ octets

    def _take_line(self) -> Event | None:
        """Cut the next line; None without a change of state: it is not there yet."""
        buffer = self._buffer
        limit = (self._line_limit if self._at is _At.DIALOGUE else self.limits.line) - self._text_size
        end = buffer.find(b"\n", self._scanned, limit + 2)
        if end < 0:
            # The last octet is looked at again only for its being CR.
            self._scanned = len(buffer)
            return self._die("Line too long") if len(buffer) >= limit + 2 else None
        if end == 0 or buffer[end - 1] != 0x0D:
            return self._die("Lines end with CRLF")
        line = bytes(buffer[: end - 1])
        del buffer[: end + 1]
        self._scanned = 0
        if self._at is _At.DIALOGUE:
            return Line(line)
        if self._at is _At.SKIPPED:
            return self._line_after_skip(line)
        return self._line(line)

    def _take_literal(self) -> None:
        literal = bytes(self._buffer[: self._left])
        del self._buffer[: self._left]
        if b"\0" in literal:
            self._fault = "NUL in a literal"
        self._literals.append(literal)
        self._at = _At.LINE

    def _take_chunk(self) -> Event | None:
        if not self._left:
            self._literals.append(b"")
            self._streamed = True
            self._at = _At.LINE
            return None
        if not self._buffer:
            return None
        if len(self._buffer) <= self._left:
            octets = bytes(self._buffer)
            self._buffer.clear()
        else:
            octets = bytes(self._buffer[: self._left])
            del self._buffer[: self._left]
        self._left -= len(octets)
        return Chunk(octets)

    def _die(self, text: str) -> Malformed:
        tag = self._tag or b"*"
        self._at = _At.NOWHERE
        self._buffer.clear()
        return Malformed(tag, text, fatal=True)

    # ------------------------------------------------------------------------------------------------ lines

    def _line(self, line: bytes) -> Event | None:
        """Deal with one line of a command: its first, or one behind a literal."""
        fragment = line
        if not self._fragments:
            fragment = self._head(line)
        self._text_size += len(line) + 2
        if not line.isascii() or b"\0" in line or b"\r" in line:
            self._fault = self._fault or "NUL, CR or 8-bit octets in a command; send them in a literal"
        if not fragment.endswith(b"}") or (opening := fragment.rfind(b"{")) < 0:
            if self._fault:
                return self._reject(self._fault)
            self._fragments.append(fragment)
            command = Command(self._tag, self._name, tuple(self._fragments), tuple(self._literals), self._streamed)
            self._begin()
            return command
        marker = fragment[opening + 1 : -1]
        self._fragments.append(fragment[:opening])
        match = _SIZE.fullmatch(marker)
        if match is None:
            return self._die("Not the size of a literal") if marker.endswith(b"+") else self._reject("Not a literal")
        return self._literal(int(match[1]), not match[2])

    def _head(self, line: bytes) -> bytes:
        """Read tag and name; return what stands behind them."""
        tag = _TAG.match(line)
        if tag is None:
            self._fault = "Expected a tag"
            return line
        self._tag = tag[0]
        name = _NAME.match(line, tag.end())
        if name is None:
            self._fault = _NOT_HTTP if _HTTP.match(line) else "Expected a command"
            return line
        self._name = name[1].upper()
        return line[name.end() :]

    def _literal(self, size: int, is_synchronising: bool) -> Event | None:
        """A literal of ``size`` octets was announced."""
        self._left = size
        self._is_synchronising = is_synchronising
        fault = self._fault
        if not fault and self._name == b"APPEND" and self.limits.streams and not self._streamed:
            # The mailbox name may be a literal too: then nothing but the space stands before it.
            if self._literals or self._fragments[0].strip():
                self._at = _At.ANNOUNCED
                return Announced(self._tag, tuple(self._fragments), tuple(self._literals), size, is_synchronising)
        elif not fault and self._streamed:
            fault = "Only one message at a time"
        self._literal_size += size
        if not fault and self._literal_size > self.limits.literals:
            fault = "Literal too large"
        if fault:
            return self._reject(fault, has_literal=not is_synchronising)
        self._at = _At.LITERAL
        return _CONTINUE if is_synchronising else None

    def _reject(self, text: str, *, has_literal: bool = False) -> Malformed:
        """Answer a bad command once.  has_literal: ``_left`` octets of it, and its rest, are still to come."""
        if not has_literal:
            if text == _NOT_HTTP:
                return self._die(text)
            malformed = Malformed(self._tag or b"*", text)
            self._begin()
            return malformed
        tag = self._tag or b"*"
        return Malformed(tag, text) if self._skip() else Malformed(tag, text, fatal=True)

    def _skip(self) -> bool:
        """Read past ``_left`` octets and the rest of the command; False, and nothing more is read, where too many."""
        self._skipped = self._left
        if self._skipped > self.limits.skip:
            self._die("")
            return False
        left = self._left
        self._begin()
        self._left = left
        self._at = _At.SKIP
        return True

    def _line_after_skip(self, line: bytes) -> Event | None:
        """The rest of a refused command: it may hold further literals that nobody asked for."""
        opening = line.rfind(b"{") if line.endswith(b"+}") else -1
        if opening < 0:
            self._begin()
            return None
        match = _SIZE.fullmatch(line[opening + 1 : -1])
        if match is None:
            return self._die("Not the size of a literal")
        self._left = int(match[1])
        self._skipped += self._left
        if self._skipped > self.limits.skip:
            return self._die("Literal too large")
        self._at = _At.SKIP
        return None
