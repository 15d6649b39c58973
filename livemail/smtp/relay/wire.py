"""The client's octets: reply lines in, command lines and content out.  RFC 5321 §4.2, §4.5.2, §4.5.3.1.

Sans-I/O.  `Replies.feed` takes octets as they arrive, `Replies.next` takes whole replies out.  `Content` makes of stored octets,
in chunks of any size, what may stand on the wire.

What a reply is
    Strict: lines end with CRLF; a bare LF, a bare CR or a NUL is a `ReplyError`, since whoever lets them through decides
    differently where a reply ends.  Every line has a code from 200 to 599, the same in all lines of one reply, and a
    space, a hyphen or nothing behind it.  A line longer than `LINE_OCTETS` and a reply of more than `LINES` lines are errors as
    soon as they are passed.  After an error nothing is given out any more: what a reply answers is not known.
    Lenient: other control characters and 8-bit octets are let in and made harmless by `printable`.

What content is
    Lines end with CRLF and nothing else.  A stored message may hold bare CR or LF (they come in by BDAT); each of them becomes CRLF,
    then lines that begin with a dot are stuffed.  So whatever a next hop takes for a line end, it finds the dots of
    the content doubled there, and CRLF.CRLF only at the end (CVE-2023-51764 and its kin).  BDAT content is normalised
    too: a next hop may itself pass it on by DATA, and RFC 3030 §3 has bare CR and LF only in what is declared BINARYMIME.
"""

from __future__ import annotations

import re
from typing import Final

LINE_OCTETS: Final = 2048
"""A reply line with CRLF: RFC 5321 §4.5.3.1.5 has 512, hosts that quote our addresses and their policies exceed it."""

LINES: Final = 128
"""Lines of one reply; the longest, to EHLO, have some 30."""

MAX_TEXT: Final = 512
"""Characters of a reply's text that are kept."""

_ONE_LINE: Final = re.compile(rb"([2-5][0-9]{2}) ([^\r\n\0]*)\r\n")
"""A reply as nearly all are; what is anything else is looked at closely."""

_CODES: Final = {b"%d" % code: code for code in range(200, 600)}
_ENHANCED: Final = re.compile(rb"([245])\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})(?: +|\Z)")
_UNPRINTABLE: Final = re.compile(r"[^ -~\u00a0-\u024f\u0370-\u1fff\u2c00-\ud7ff\uf900-\ufaff\uff00-\uffef]")
_SPECIAL: Final = re.compile(r"[\u00ad\u061c\u115f\u1160\u1680\u17b4\u17b5\u180e\u3164\ufeff\uffa0]")


class ReplyError(Exception):
    """What the peer sends is not a reply; the text says why, without quoting it."""


class Said:
    """One reply.  code: 200 to 599.  texts: what stands behind the code on each line, as it came."""

    __slots__ = ("code", "texts")

    def __init__(self, code: int, texts: list[bytes]) -> None:
        self.code = code
        self.texts = texts

    def __repr__(self) -> str:
        return f"Said({self.code}, {self.texts!r})"

    @property
    def parts(self) -> tuple[str, str]:
        """`enhanced` and `text`; for one line in one go."""
        if len(self.texts) > 1:
            return self.enhanced, self.text
        line = self.texts[0]
        match = _ENHANCED.match(line)
        if match is None or line[0] - 48 != self.code // 100:
            return "", printable(line.strip(b" "))
        at = match.end()
        return line[:at].rstrip().decode("ascii"), printable(line[at:].strip(b" "))

    @property
    def enhanced(self) -> str:
        """The enhanced status code of the first line, "" when there is none that fits the reply code.  RFC 2034 §4."""
        match = _ENHANCED.match(self.texts[0])
        if match is None or int(match[1]) != self.code // 100:
            return ""
        return match[0].rstrip().decode("ascii")

    @property
    def text(self) -> str:
        """All lines joined with one space, enhanced codes left out, printable, at most `MAX_TEXT` characters."""
        enhanced = self.enhanced.encode()
        kept = []
        for line in self.texts:
            match = _ENHANCED.match(line) if enhanced else None
            kept.append(line[match.end() :] if match and match[0].rstrip() == enhanced else line)
        return printable(b" ".join(line.strip(b" ") for line in kept if line.strip(b" ")))


def printable(octets: bytes) -> str:
    """Make text of what a peer said: nothing in it can end a line, move a cursor or turn the direction of writing."""
    text = octets[: 4 * MAX_TEXT].decode("utf-8", "replace")
    if not (text.isascii() and text.isprintable()):
        text = _SPECIAL.sub("?", _UNPRINTABLE.sub("?", text))
    return text[:MAX_TEXT]


class Replies:
    """One direction of one connection: what the server says."""

    __slots__ = ("_at", "_buffer", "_code", "_is_dead", "_texts")

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        self._code = 0  # of the reply whose first lines are here
        self._texts: list[bytes] = []
        self._is_dead = False

    @property
    def pending(self) -> bool:
        """Whether octets are here that belong to no reply given out."""
        return self._at < len(self._buffer) or bool(self._texts)

    @property
    def size(self) -> int:
        """Octets that are kept, those of an unfinished reply's lines aside."""
        return len(self._buffer) - self._at

    def feed(self, octets: bytes) -> None:
        """Take octets as they arrive."""
        if self._is_dead:
            return
        self._buffer = octets if self._at == len(self._buffer) else self._buffer[self._at :] + octets
        self._at = 0

    def next(self) -> Said | None:
        """Take the next whole reply; None when it is not complete.  Raises ReplyError, and again whenever it is asked after that."""
        if self._is_dead:
            raise ReplyError("not a reply")
        if not self._texts:
            match = _ONE_LINE.match(self._buffer, self._at, self._at + LINE_OCTETS)
            if match is not None:
                self._at = match.end()
                return Said(int(match[1]), [match[2]])
        try:
            return self._next()
        except ReplyError:
            self._is_dead = True
            self._buffer, self._at, self._texts = b"", 0, []
            raise

    def _next(self) -> Said | None:
        buffer = self._buffer
        while True:
            at = self._at
            end = buffer.find(b"\n", at)
            if (end + 1 if end >= 0 else len(buffer)) - at > LINE_OCTETS:
                _check_beginning(buffer[at : at + 4])
                raise ReplyError("a reply line that is too long")
            if end < 0:
                _check_beginning(buffer[at : at + 4])
                return None
            self._at = end + 1
            code = _CODES.get(buffer[at : at + 3])
            separator = buffer[at + 3 : at + 4]
            if code is None or separator not in b" -\r":
                raise ReplyError("a line that is not a reply")
            text = buffer[at + 4 : end - 1]
            if buffer[end - 1] != 13 or b"\r" in text or b"\0" in text:
                raise ReplyError("a reply line with a bare CR, bare LF or NUL")
            if self._texts:
                if code != self._code:
                    raise ReplyError("a reply whose lines have different codes")
                if len(self._texts) == LINES:
                    raise ReplyError("a reply of too many lines")
                self._texts.append(text)
                if separator == b"-":
                    continue
                texts, self._texts = self._texts, []
                return Said(code, texts)
            if separator != b"-":
                return Said(code, [text])
            self._code = code
            self._texts.append(text)


def _check_beginning(octets: bytes) -> None:
    """Find out at once that what came is no reply, not when its line ends or the time is over."""
    if len(octets) == 4 and (octets[:3] not in _CODES or octets[3:] not in b" -\r"):
        raise ReplyError("a line that is not a reply")


# ------------------------------------------------------------------------------------------------------------- commands


class Unspeakable(Exception):
    """A command would hold octets that no command may have."""


def command(text: str) -> bytes:
    """Render a command line.  Raises Unspeakable for control characters: nothing we were told can become a second command."""
    if not text.isprintable():
        raise Unspeakable(text)
    return text.encode("utf-8") + b"\r\n"


# -------------------------------------------------------------------------------------------------------------- content


class Content:
    """One message on its way out.  stuffs: it goes by DATA, so dots are stuffed and the end is marked."""

    __slots__ = ("_at_line_start", "_held", "_stuffs")

    def __init__(self, *, stuffs: bool) -> None:
        self._stuffs = stuffs
        self._at_line_start = True
        self._held = b""  # a CR whose LF may be the next chunk's first octet

    def feed(self, chunk: bytes) -> bytes:
        """Return what the next octets of the message are on the wire."""
        if self._held:
            chunk = self._held + chunk
            self._held = b""
        if chunk.endswith(b"\r"):
            self._held = b"\r"
            chunk = chunk[:-1]
        if not chunk:
            return b""
        return self._lines(chunk)

    def end(self) -> bytes:
        """No octets follow: return what is still to be sent.  A last line without an end gets one."""
        rest = b""
        if self._held:
            self._held = b""
            rest = self._lines(b"\r")
        if not self._at_line_start:
            rest += b"\r\n"
        self._at_line_start = True
        return rest + b".\r\n" if self._stuffs else rest

    def _lines(self, chunk: bytes) -> bytes:
        whole = chunk.count(b"\r\n")
        if chunk.count(b"\n") != whole or chunk.count(b"\r") != whole:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        starts = self._at_line_start
        self._at_line_start = chunk.endswith(b"\r\n")
        if self._stuffs:
            if b"\r\n." in chunk:
                chunk = chunk.replace(b"\r\n.", b"\r\n..")
            if starts and chunk.startswith(b"."):
                chunk = b"." + chunk
        return chunk
