"""A cursor over one command.  RFC 3501 §9.

A command arrives as text with literals in it.  The wire cuts it into fragments: ``fragments[i]`` is the text before
``literals[i]``, the last fragment is the text behind the last literal, and the markers ``{n}`` are gone.  A cursor
walks over that once, from left to right, and never goes back: parsing costs what the command is long.

Every method either consumes exactly what it names or raises WireError, whose text says what was expected; the session
answers that with a tagged BAD.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import Final

from livemail.imap.grammar.dates import parse_date, parse_date_time
from livemail.imap.sequence import SequenceSet
from livemail.mail import utf7
from livemail.mail.errors import InvalidName, WireError
from livemail.mail.flags import MAX_KEYWORD_OCTETS, system_flag
from livemail.mail.names import canonical_name

# ATOM-CHAR, ASTRING-CHAR, list-char: printable ASCII without the specials.  RFC 3501 §9.
_ATOM: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
_ASTRING: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\]+')
_LIST_MAILBOX: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){"\\]+')
_WORD: Final = re.compile(rb"[A-Za-z0-9.\-]+")
_NUMBER: Final = re.compile(rb"[0-9]{1,20}(?![0-9])")
_SEQUENCE_SET: Final = re.compile(rb"[0-9:*,]+")
_DATE_TEXT: Final = re.compile(rb"[0-9A-Za-z\-]+")
# Unrolled, so that the pattern takes each octet once whatever stands in the string.
_QUOTED: Final = re.compile(rb'"([^"\\\r\n\x00]*(?:\\["\\][^"\\\r\n\x00]*)*)"')
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)


class Cursor:
    """Where parsing stands.  utf8: quoted strings may hold UTF-8 (RFC 9755 §3)."""

    __slots__ = ("_at", "_index", "_literals", "_text", "_texts", "utf8")

    def __init__(self, fragments: Sequence[bytes], literals: Sequence[bytes] = (), *, utf8: bool = False) -> None:
        """fragments: one more than literals."""
        self._texts = fragments
        self._literals = literals
        self._index = 0
        self._text = fragments[0]
        self._at = 0
        self.utf8 = utf8

    # ------------------------------------------------------------------------------------------------- octets

    def at_end(self) -> bool:
        """Whether everything is consumed."""
        return self._at == len(self._text) and self._index == len(self._literals)

    def end(self) -> None:
        """Raise WireError unless everything is consumed."""
        if not self.at_end():
            raise WireError("Expected the end of the command")

    def peek(self) -> int:
        """Return the next octet; ``{`` before a literal; -1 at the end."""
        if self._at < len(self._text):
            return self._text[self._at]
        return 0x7B if self._index < len(self._literals) else -1

    def at_literal(self) -> bool:
        """Whether a literal is next."""
        return self._at == len(self._text) and self._index < len(self._literals)

    def take(self, octets: bytes) -> bool:
        """Consume ``octets``, compared without case, when they are next; say whether they were."""
        end = self._at + len(octets)
        found = self._text[self._at : end]
        if found == octets or found.lower() == octets.lower():
            self._at = end
            return True
        return False

    def expect(self, octets: bytes) -> None:
        """Consume ``octets``, compared without case."""
        if not self.take(octets):
            raise WireError(f"Expected {octets.decode('ascii')}")

    def space(self) -> None:
        """Consume exactly one space."""
        if self._at < len(self._text) and self._text[self._at] == 0x20:
            self._at += 1
            return
        raise WireError("Expected a space")

    def _match(self, pattern: re.Pattern[bytes], what: str) -> bytes:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise WireError(f"Expected {what}")
        self._at = match.end()
        return match[0]

    # ------------------------------------------------------------------------------------------------- words

    def atom(self) -> str:
        """An atom, case kept."""
        return self._match(_ATOM, "an atom").decode("ascii")

    def word(self) -> str:
        """Letters, digits, dots and dashes, upper-cased: FETCH's items stop before their ``[``."""
        return self._match(_WORD, "a word").decode("ascii").upper()

    def number(self, maximum: int = 0xFFFF_FFFF) -> int:
        """A number up to ``maximum``."""
        value = int(self._match(_NUMBER, "a number"))
        if value > maximum:
            raise WireError(f"Number over {maximum}")
        return value

    def number64(self) -> int:
        """A number up to 2^63-1.  RFC 7162 §7 mod-sequence-value, RFC 9051 §9 number64."""
        return self.number(0x7FFF_FFFF_FFFF_FFFF)

    # ------------------------------------------------------------------------------------------------- strings

    def astring(self) -> bytes:
        """An atom-like word or a string."""
        if self._at < len(self._text) and self._text[self._at] != 0x22:
            return self._match(_ASTRING, "an atom or a string")
        return self.string()

    def string(self) -> bytes:
        """A quoted string without its escapes, or a literal."""
        if self.at_literal():
            literal = self._literals[self._index]
            self._index += 1
            self._text = self._texts[self._index]
            self._at = 0
            return literal
        match = _QUOTED.match(self._text, self._at)
        if match is None:
            raise WireError("Expected a string")
        self._at = match.end()
        text = match[1]
        if not text.isascii():
            self._check_utf8(text)
        return _ESCAPE.sub(rb"\1", text) if b"\\" in text else text

    def _check_utf8(self, text: bytes) -> None:
        try:
            if self.utf8:
                text.decode("utf-8")
                return
        except UnicodeDecodeError:
            pass
        raise WireError("8-bit octets in a quoted string; send a literal")

    def nstring(self) -> bytes | None:
        """NIL or a string."""
        if self.peek() in {0x4E, 0x6E}:  # N n
            self.expect(b"NIL")
            return None
        return self.string()

    # ------------------------------------------------------------------------------------------------- names

    def mailbox(self) -> str:
        """A mailbox name in its canonical spelling.  Raises InvalidName too (a tagged NO)."""
        return canonical_name(self._decode(self.astring()))

    def list_pattern(self) -> str:
        """LIST's reference or pattern: decoded, not canonical; may be empty.  Raises InvalidName too."""
        if self._at < len(self._text) and self._text[self._at] != 0x22:
            return self._decode(self._match(_LIST_MAILBOX, "a mailbox pattern"))
        return self._decode(self.string())

    def _decode(self, spelling: bytes) -> str:
        if not self.utf8:
            return utf7.decode(spelling)
        try:
            return spelling.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidName("The mailbox name is not valid UTF-8") from None

    # ------------------------------------------------------------------------------------------------- flags

    def flag_list(self) -> tuple[int, tuple[str, ...]]:
        """A parenthesised list of flags, maybe empty: system bits, and keywords, each once, as first spelled."""
        self.expect(b"(")
        if self.take(b")"):
            return 0, ()
        flags = self._flags()
        self.expect(b")")
        return flags

    def flags(self) -> tuple[int, tuple[str, ...]]:
        """STORE's flags: with or without parentheses."""
        return self.flag_list() if self.peek() == 0x28 else self._flags()

    def _flags(self) -> tuple[int, tuple[str, ...]]:
        bits = 0
        keywords: dict[str, str] = {}
        while True:
            if self.take(b"\\"):
                bits |= system_flag("\\" + self.atom())
            else:
                keyword = self._match(_ATOM, "a flag").decode("ascii")
                if len(keyword) > MAX_KEYWORD_OCTETS:
                    raise WireError(f"A keyword has at most {MAX_KEYWORD_OCTETS} octets")
                keywords.setdefault(keyword.lower(), keyword)
            if not self.take(b" "):
                return bits, tuple(keywords.values())

    # ------------------------------------------------------------------------------------------------- sets and dates

    def sequence_set(self) -> SequenceSet:
        """A sequence set; ``*`` is not resolved."""
        return SequenceSet.parse(self._match(_SEQUENCE_SET, "a sequence set"))

    def date(self) -> datetime.date:
        """A date, quoted or not."""
        if self.take(b'"'):
            date = parse_date(self._match(_DATE_TEXT, "a date"))
            self.expect(b'"')
            return date
        return parse_date(self._match(_DATE_TEXT, "a date"))

    def date_time(self) -> tuple[int, int]:
        """A quoted date-time: seconds since the epoch (UTC), zone in minutes east."""
        if self.peek() != 0x22:
            raise WireError("Expected a date-time")
        return parse_date_time(self.string())
