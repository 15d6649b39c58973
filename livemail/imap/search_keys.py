"""SEARCH's keys, from the wire to a program.  RFC 3501 §6.4.4, §9 search-key, RFC 7162 §3.1.5.

A program is parsed without knowing the mailbox; its sequence sets and UID sets stand in it as `Numbered` until `resolve`
turns them into UIDs with the view of the moment the command runs.  Depth and number of keys are limited, because the
program is walked by recursion, here and by whoever evaluates it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, cast

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.sequence import SequenceSet
from livemail.imap.view import View
from livemail.mail.errors import MailError, WireError
from livemail.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from livemail.mail.search import (
    AllOf,
    AnyOf,
    DateIs,
    Everything,
    HasFlag,
    HasKeyword,
    HeaderContains,
    IsRecent,
    ModSeqAtLeast,
    Not,
    SearchKey,
    SizeIs,
    TextContains,
    UIDs,
)

MAX_DEPTH: Final = 100
MAX_KEYS: Final = 2000
CHARSETS: Final = ("US-ASCII", "UTF-8")


class Numbered(msgspec.Struct, frozen=True):
    """A sequence set, or with ``uid`` a set of UIDs, not resolved yet."""

    messages: SequenceSet
    uid: bool


class Program(msgspec.Struct, frozen=True):
    """What to look for.  key: with `Numbered` in it.  has_modseq: a MODSEQ key occurs (RFC 7162 §3.1.5)."""

    key: Any
    has_modseq: bool = False

    def resolve(self, view: View) -> SearchKey:
        """Return the program with UIDs in place of numbers; numbers no message has are ignored."""
        return _resolve(self.key, view)


def parse_program(cursor: Cursor) -> Program:
    """Parse CHARSET and all keys up to the end.  Raises WireError, MailError (BADCHARSET)."""
    if cursor.take(b"CHARSET "):
        charset = cursor.astring().upper()
        if charset.decode("ascii", "replace") not in CHARSETS:
            raise MailError("Character set not known", condition=f"BADCHARSET ({' '.join(CHARSETS)})")
        cursor.space()
    parser = _Parser(cursor)
    keys = [parser.key(0)]
    while not cursor.at_end():
        cursor.space()
        keys.append(parser.key(0))
    return Program(_all_of(keys), parser.has_modseq)


def _all_of(keys: list[Any]) -> Any:
    return keys[0] if len(keys) == 1 else AllOf(tuple(keys))


def _resolve(key: Any, view: View) -> SearchKey:
    if isinstance(key, Numbered):
        return UIDs(view.uid_set(key.messages, uid=key.uid, strict=False))
    if isinstance(key, Not):
        return Not(_resolve(key.key, view))
    if isinstance(key, AllOf):
        return AllOf(tuple(_resolve(each, view) for each in key.keys))
    if isinstance(key, AnyOf):
        return AnyOf(tuple(_resolve(each, view) for each in key.keys))
    return cast("SearchKey", key)


_WORDS: Final[dict[str, SearchKey]] = {
    "ALL": Everything(),
    "ANSWERED": HasFlag(ANSWERED),
    "DELETED": HasFlag(DELETED),
    "DRAFT": HasFlag(DRAFT),
    "FLAGGED": HasFlag(FLAGGED),
    "SEEN": HasFlag(SEEN),
    "UNANSWERED": Not(HasFlag(ANSWERED)),
    "UNDELETED": Not(HasFlag(DELETED)),
    "UNDRAFT": Not(HasFlag(DRAFT)),
    "UNFLAGGED": Not(HasFlag(FLAGGED)),
    "UNSEEN": Not(HasFlag(SEEN)),
    "RECENT": IsRecent(),
    "OLD": Not(IsRecent()),
    "NEW": AllOf((IsRecent(), Not(HasFlag(SEEN)))),
}
_DATES: Final[dict[str, tuple[Literal["internal", "sent"], Literal["before", "on", "since"]]]] = {
    "BEFORE": ("internal", "before"),
    "ON": ("internal", "on"),
    "SINCE": ("internal", "since"),
    "SENTBEFORE": ("sent", "before"),
    "SENTON": ("sent", "on"),
    "SENTSINCE": ("sent", "since"),
}
_FIELDS: Final = frozenset({"BCC", "CC", "FROM", "SUBJECT", "TO"})


class _Parser:
    """Recursive descent with a floor."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.has_modseq = False
        self._keys = 0
        self._with_argument: dict[str, Callable[[int], Any]] = {
            "BODY": lambda _: TextContains("body", self._text()),
            "TEXT": lambda _: TextContains("text", self._text()),
            "HEADER": lambda _: self._header(),
            "KEYWORD": lambda _: HasKeyword(cursor.atom()),
            "UNKEYWORD": lambda _: Not(HasKeyword(cursor.atom())),
            "LARGER": lambda _: SizeIs("larger", cursor.number()),
            "SMALLER": lambda _: SizeIs("smaller", cursor.number()),
            "MODSEQ": lambda _: self._modseq(),
            "UID": lambda _: Numbered(cursor.sequence_set(), uid=True),
            "NOT": lambda depth: Not(self.key(depth)),
            "OR": self._or,
        }

    def key(self, depth: int) -> Any:
        """Parse one key.  depth: keys around it."""
        cursor = self.cursor
        self._keys += 1
        if depth >= MAX_DEPTH or self._keys > MAX_KEYS:
            raise WireError("The search has too many keys")
        following = cursor.peek()
        if cursor.take(b"("):
            keys = [self.key(depth + 1)]
            while cursor.take(b" "):
                keys.append(self.key(depth + 1))
            cursor.expect(b")")
            return _all_of(keys)
        if following == 0x2A or 0x30 <= following <= 0x39:  # * or a digit
            return Numbered(cursor.sequence_set(), uid=False)
        word = cursor.word()
        if word in _WORDS:
            return _WORDS[word]
        if word in _FIELDS:
            cursor.space()
            return HeaderContains(word.lower(), self._text())
        if word in _DATES:
            cursor.space()
            field, relation = _DATES[word]
            return DateIs(field, relation, cursor.date())
        parse = self._with_argument.get(word)
        if parse is None:
            raise WireError(f"Unknown search key {word[:40]}")
        cursor.space()
        return parse(depth + 1)

    def _or(self, depth: int) -> Any:
        one = self.key(depth)
        self.cursor.space()
        return AnyOf((one, self.key(depth)))

    def _text(self) -> str:
        try:
            # Lenient: 8-bit text in a literal without CHARSET can only be meant as UTF-8 (RFC 9051 §6.4.4).
            return self.cursor.astring().decode("utf-8")
        except UnicodeDecodeError:
            raise WireError("The text to search for is not UTF-8") from None

    def _header(self) -> HeaderContains:
        name = self._text().lower()
        self.cursor.space()
        return HeaderContains(name, self._text())

    def _modseq(self) -> ModSeqAtLeast:
        """``MODSEQ [entry-name entry-type] n``; per-entry ModSeqs are not kept, so the entry does not matter."""
        cursor = self.cursor
        if cursor.peek() == 0x22:
            cursor.string()
            cursor.space()
            if cursor.word() not in {"PRIV", "SHARED", "ALL"}:
                raise WireError("Expected priv, shared or all")
            cursor.space()
        self.has_modseq = True
        return ModSeqAtLeast(cursor.number64())
