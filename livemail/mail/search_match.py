"""Does a message match a search program?  RFC 9051 §6.4.4.

A program is compiled once and then asked about message after message, with as little of the message as decides it. Keys
have cost classes (`Needs`): the fixed row; the header fields kept in the cache; the whole header; the content. A
`Matcher` answers in three values: True, False, or None for "not with what you gave me", so ``SMALLER 5000 BODY x``
opens no large message, whatever the order of the keys::

    verdict = matcher.by_row(row, keywords)
    if verdict is None:
        verdict = matcher.by_header(row, keywords, header)
    if verdict is None:
        verdict = await matcher.by_content(row, keywords, header, reader, decode_parts(parts), prefix_size)

Text is compared after decoding (transfer encoding, character set, encoded words) and `str.casefold`; needles are found
with `in`, which is linear.  Content is read in windows of 256 KiB, so that memory does not grow with the message; all
texts of a program are looked for in one pass, which ends when every one is found.

Rows are those of `livemail.interfaces.storage`; the layout is repeated here because values import no interfaces.
"""

from __future__ import annotations

import datetime
import enum
import re
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from livemail.mail import search
from livemail.mail.message.dates import parse_date
from livemail.mail.message.decoding import TextDecoder, decode_octets, decode_words
from livemail.mail.message.fields import unfold
from livemail.mail.message.summary import CACHED_FIELDS, Part

UID_, FLAGS, KEYWORDS, MODSEQ, DATE, ZONE, SIZE = range(7)
"""Columns of a row, as in `livemail.interfaces.storage.Row`."""

_WINDOW_OCTETS: Final = 256 * 1024
_HEADER_OCTETS: Final = 256 * 1024
"""Of the header of a part or of a message in the message, this much is searched."""

Row = Sequence[int]


class Needs(enum.IntEnum):
    """What a program can need at most.  FIELDS: the cached header fields are enough, where they were cached."""

    ROW = 0
    FIELDS = 1
    HEADER = 2
    CONTENT = 3


class Octets(Protocol):
    """Where content is read from; `livemail.interfaces.storage.IContentReader` is one."""

    async def read(self, offset: int, length: int) -> bytes:
        """Return the octets [offset, offset+length), fewer at the end."""


class InMemory:
    """Octets at hand, in the form of a reader; reading never suspends."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def read(self, offset: int, length: int) -> bytes:
        """Return the octets [offset, offset+length), fewer at the end."""
        return self._content[offset : offset + length]


class _View:
    """What is known of the message asked about."""

    __slots__ = ("contains", "header", "is_recent", "keywords", "lowered", "row")

    def __init__(self, row: Row, keywords: tuple[str, ...], is_recent: bool) -> None:
        self.row = row
        self.keywords = keywords
        self.is_recent = is_recent
        self.header: bytes | None = None
        self.lowered = b""
        self.contains: dict[search.TextContains, bool] | None = None


_Test = Callable[[_View], bool | None]


class Matcher:
    """A compiled search program; made by `compile_search`, holds nothing about any message."""

    def __init__(self, test: _Test, needs: Needs, texts: tuple[search.TextContains, ...]) -> None:
        self._test = test
        self._texts = texts
        self.needs = needs

    def by_row(self, row: Row, keywords: tuple[str, ...], *, is_recent: bool = False) -> bool | None:
        """Decide from the row alone.

        keywords: names of the keyword bits of the mailbox, bit 0 first.  Returns None when the header is needed.
        """
        return self._test(_View(row, keywords, is_recent))

    def by_header(self, row: Row, keywords: tuple[str, ...], header: bytes, *, is_recent: bool = False) -> bool | None:
        """Decide from row and header; None when the content is needed.

        header: delivery prefix, if any, and then the cached fields (allowed when `needs` is FIELDS) or the whole
        header; a blank line at its end does no harm.
        """
        view = _View(row, keywords, is_recent)
        view.header, view.lowered = header, b"\n" + header.lower()
        return self._test(view)

    async def by_content(
        self,
        row: Row,
        keywords: tuple[str, ...],
        header: bytes,
        source: Octets,
        root: Part,
        prefix_size: int = 0,
        *,
        is_recent: bool = False,
    ) -> bool:
        """Decide from everything.

        header: prefix and whole header.  source: reads the message, prefix included.  root: its parts; their offsets
        count behind the prefix.  Raises what ``source.read`` raises.
        """
        view = _View(row, keywords, is_recent)
        view.header, view.lowered = header, b"\n" + header.lower()
        texts = _Texts(self._texts)
        texts.take_header(header)
        await texts.read_parts(source, root, prefix_size)
        view.contains = texts.found
        verdict = self._test(view)
        assert verdict is not None  # Everything was given.
        return verdict


def compile_search(key: search.SearchKey) -> Matcher:
    """Compile a search program."""
    compiler = _Compiler()
    test = compiler.compile(key)
    return Matcher(test, compiler.needs, tuple(dict.fromkeys(compiler.texts)))


# ------------------------------------------------------------------------------------------------------- compiling


class _Compiler:
    def __init__(self) -> None:
        self.needs = Needs.ROW
        self.texts: list[search.TextContains] = []

    def compile(self, key: search.SearchKey) -> _Test:
        match key:
            case search.Not():
                return _negation(self.compile(key.key))
            case search.AllOf():
                return _conjunction([self.compile(inner) for inner in key.keys])
            case search.AnyOf():
                return _disjunction([self.compile(inner) for inner in key.keys])
            case search.HeaderContains():
                name = key.name.lower().encode("ascii", "replace")
                self._need(Needs.FIELDS if name in CACHED_FIELDS else Needs.HEADER)
                return _header_test(name, key.text)
            case search.DateIs(field="sent"):
                self._need(Needs.FIELDS)
                return _sent_test(key)
            case search.TextContains():
                self._need(Needs.CONTENT)
                self.texts.append(key)
                return lambda view: None if view.contains is None else view.contains[key]
        return _row_test(key)

    def _need(self, needs: Needs) -> None:
        self.needs = max(self.needs, needs)


def _row_test(key: search.SearchKey) -> _Test:
    match key:
        case search.UIDs(uids=uids):
            return lambda view: view.row[UID_] in uids
        case search.HasFlag(flag=flag):
            return lambda view: view.row[FLAGS] & flag != 0
        case search.HasKeyword(keyword=keyword):
            return _keyword_test(keyword)
        case search.IsRecent():
            return lambda view: view.is_recent
        case search.SizeIs(relation="larger", size=size):
            return lambda view: view.row[SIZE] > size
        case search.SizeIs(size=size):
            return lambda view: view.row[SIZE] < size
        case search.DateIs():
            compare, days = _DATE_RELATIONS[key.relation], _days(key.date)
            # The date as the internal date is shown: in the zone in which it was given.
            return lambda view: compare((view.row[DATE] + 60 * view.row[ZONE]) // 86_400, days)
        case search.ModSeqAtLeast(modseq=modseq):
            return lambda view: view.row[MODSEQ] >= modseq
    return lambda _: True  # Everything()


def _keyword_test(keyword: str) -> _Test:
    folded = keyword.lower()
    masks: dict[tuple[str, ...], int] = {}  # Batches of one mailbox share one tuple of names.

    def test(view: _View) -> bool:
        mask = masks.get(view.keywords)
        if mask is None:
            masks.clear()
            mask = sum(1 << bit for bit, name in enumerate(view.keywords) if name.lower() == folded)
            masks[view.keywords] = mask
        return view.row[KEYWORDS] & mask != 0

    return test


_DATE_RELATIONS: Final[dict[str, Callable[[int, int], bool]]] = {
    "before": int.__lt__,
    "on": int.__eq__,
    "since": int.__ge__,
}


def _days(date: datetime.date) -> int:
    return date.toordinal() - datetime.date(1970, 1, 1).toordinal()


def _negation(test: _Test) -> _Test:
    def negation(view: _View) -> bool | None:
        verdict = test(view)
        return None if verdict is None else not verdict

    return negation


def _conjunction(tests: list[_Test]) -> _Test:
    if len(tests) == 1:
        return tests[0]

    def conjunction(view: _View) -> bool | None:
        verdict: bool | None = True
        for test in tests:
            one = test(view)
            if one is False:
                return False
            if one is None:
                verdict = None
        return verdict

    return conjunction


def _disjunction(tests: list[_Test]) -> _Test:
    def disjunction(view: _View) -> bool | None:
        verdict: bool | None = False
        for test in tests:
            one = test(view)
            if one:
                return True
            if one is None:
                verdict = None
        return verdict

    return disjunction


# --------------------------------------------------------------------------------------------------------- headers

_COLON: Final = re.compile(rb"[ \t]*+:")
_VALUE: Final = re.compile(rb"[^\n]*+(?:\n[ \t][^\n]*+)*+")


def _header_test(name: bytes, text: str) -> _Test:
    needle = text.casefold()
    # An ASCII needle in an ASCII value: compared in octets, without decoding, four times as fast.
    octets = needle.encode("ascii") if needle.isascii() else None

    def test(view: _View) -> bool | None:
        if view.header is None:
            return None
        for start, end in _spans(view.lowered, name):
            if not needle:
                return True
            value = unfold(view.header[start - 1 : end - 1])  # ``lowered`` has one octet more in front.
            if octets is not None and b"=?" not in value and value.isascii():
                if octets in value.lower():
                    return True
            elif needle in decode_words(value).casefold():
                return True
        return False

    return test


def _spans(lowered: bytes, name: bytes) -> list[tuple[int, int]]:
    """Return where the values of a field are; bytes.find finds what a case-blind pattern takes ten times as long for.

    lowered: a lower-case header with a line feed in front.
    """
    spans: list[tuple[int, int]] = []
    wanted = b"\n" + name
    at = lowered.find(wanted)
    while at >= 0:
        colon = _COLON.match(lowered, at + len(wanted))
        if colon is not None:
            value = _VALUE.match(lowered, colon.end())
            assert value is not None  # The pattern matches the empty string.
            spans.append(value.span())
            at = value.end() - 1
        at = lowered.find(wanted, at + 1)
    return spans


def _sent_test(key: search.DateIs) -> _Test:
    compare, days = _DATE_RELATIONS[key.relation], _days(key.date)

    def test(view: _View) -> bool | None:
        if view.header is None:
            return None
        for start, end in _spans(view.lowered, b"date"):
            written = parse_date(unfold(view.header[start - 1 : end - 1]))
            return written is not None and compare((written[0] + 60 * written[1]) // 86_400, days)
        return False

    return test


# --------------------------------------------------------------------------------------------------------- content


class _Texts:
    """The texts of a program that a message's content is searched for, and which of them were found."""

    def __init__(self, keys: tuple[search.TextContains, ...]) -> None:
        self.found = {key: not key.text for key in keys}
        self._needles = {key: key.text.casefold() for key in keys}
        self._longest = max((len(needle) for needle in self._needles.values()), default=0)

    def take_header(self, header: bytes) -> None:
        """Search the message's own header, which TEXT looks at and BODY does not."""
        open_keys = [key for key in self._open() if key.where == "text"]
        if open_keys:
            self._look(_header_text(header), open_keys)

    async def read_parts(self, source: Octets, root: Part, prefix_size: int) -> None:
        """Search the bodies of text parts, and the headers of parts and of messages in the message."""
        pending = [(root, False)]
        while pending and self._open():
            part, has_header = pending.pop()
            if has_header and part.body > part.start:
                size = min(part.body - part.start, _HEADER_OCTETS)
                self._look(_header_text(await source.read(prefix_size + part.start, size)), self._open())
            if part.children:
                pending.extend([(child, True) for child in reversed(part.children)])
            elif part.media_type.startswith(("text/", "message/")):
                await self._read_body(source, part, prefix_size)

    async def _read_body(self, source: Octets, part: Part, prefix_size: int) -> None:
        decoder = TextDecoder(part.encoding, part.charset)
        tail = ""
        offset = part.body
        while offset < part.end and (keys := self._open()):
            raw = await source.read(prefix_size + offset, min(_WINDOW_OCTETS, part.end - offset))
            if not raw:
                break
            offset += len(raw)
            text = decoder.feed(raw)
            if offset >= part.end:
                text += decoder.finish()
            tail += text.casefold()
            self._look(tail, keys)
            tail = tail[-self._longest :]

    def _open(self) -> list[search.TextContains]:
        return [key for key, is_found in self.found.items() if not is_found]

    def _look(self, folded: str, keys: list[search.TextContains]) -> None:
        for key in keys:
            if self._needles[key] in folded:
                self.found[key] = True


def _header_text(header: bytes) -> str:
    """Return a header as it is searched: unfolded, decoded, casefolded."""
    unfolded = re.sub(rb"\r?\n(?=[ \t])", b"", header)
    return (decode_words(unfolded) if b"=?" in unfolded else decode_octets(unfolded)).casefold()
