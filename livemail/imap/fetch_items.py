"""What a FETCH asks for: its items, its macros, its modifiers.  RFC 3501 §6.4.5, §9 fetch-att, RFC 7162 §3.1.4.

Parsing gives an `Items`: the names of row items, and the sections of the content.  Whoever runs it sees no
grammar any more; RFC822, RFC822.HEADER and RFC822.TEXT have become the sections they mean.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.render.rows import ROW_ITEMS
from livemail.imap.render.sections import Section
from livemail.mail.errors import WireError

MAX_SECTIONS: Final = 64
MAX_PATH: Final = 100
MAX_FIELD_NAMES: Final = 256

_MACROS: Final[dict[str, tuple[str, ...]]] = {
    "ALL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"),
    "FAST": ("FLAGS", "INTERNALDATE", "RFC822.SIZE"),
    "FULL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"),
}
_OLD_NAMES: Final[dict[str, Section]] = {
    "RFC822": Section(b"RFC822", sets_seen=True),
    "RFC822.HEADER": Section(b"RFC822.HEADER", what="HEADER"),
    "RFC822.TEXT": Section(b"RFC822.TEXT", what="TEXT", sets_seen=True),
}
_SECTION_TEXTS: Final = frozenset({"", "HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT", "TEXT", "MIME"})
_PART_NUMBER: Final = re.compile(r"[1-9][0-9]{0,9}")
_FIELD_NAME: Final = re.compile(rb"[!-9;-~]{1,200}")
_ATOM_NAME: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\]+')


class Items(msgspec.Struct, frozen=True):
    """What to answer for each message.  rows: names out of `ROW_ITEMS`; sections: each label once."""

    rows: frozenset[str]
    sections: tuple[Section, ...] = ()

    @property
    def sets_seen(self) -> bool:
        """Whether a section is read that marks the message as \\Seen.  RFC 9051 §6.4.5."""
        return any(section.sets_seen for section in self.sections)


def parse_items(cursor: Cursor) -> Items:
    """Parse a macro, an item, or a parenthesised list of items.  Raises WireError."""
    if not cursor.take(b"("):
        word = cursor.word()
        if word in _MACROS:
            return Items(frozenset(_MACROS[word]))
        return _collect([_parse_item(cursor, word)])
    found = [_parse_item(cursor, cursor.word())]
    while cursor.take(b" "):
        found.append(_parse_item(cursor, cursor.word()))
        if len(found) > MAX_SECTIONS + len(ROW_ITEMS):
            raise WireError("Too many items in FETCH")
    cursor.expect(b")")
    return _collect(found)


def parse_changed_since(cursor: Cursor) -> int | None:
    """Parse FETCH's modifiers, the space before them included.  RFC 7162 §3.1.4.1.

    Returns the ModSeq, None when there are no modifiers.  Raises WireError.
    """
    if cursor.at_end():
        return None
    cursor.space()
    cursor.expect(b"(")
    cursor.expect(b"CHANGEDSINCE")
    cursor.space()
    modseq = cursor.number64()
    cursor.expect(b")")
    return modseq


def _collect(found: list[str | Section]) -> Items:
    sections: dict[tuple[bytes, int], Section] = {}
    for item in found:
        if isinstance(item, Section):
            # BODY[] and BODY.PEEK[] of the same section are one item of the response.
            known = sections.get((item.label, item.count))
            if known is None or item.sets_seen:
                sections[item.label, item.count] = item
    if len(sections) > MAX_SECTIONS:
        raise WireError(f"At most {MAX_SECTIONS} sections in one FETCH")
    return Items(frozenset(item for item in found if isinstance(item, str)), tuple(sections.values()))


def _parse_item(cursor: Cursor, word: str) -> str | Section:
    if word in {"BODY", "BODY.PEEK"} and cursor.take(b"["):
        return _parse_section(cursor, sets_seen=word == "BODY")
    if word in ROW_ITEMS:
        return word
    if word in _OLD_NAMES:
        return _OLD_NAMES[word]
    raise WireError(f"Unknown item {word[:40]} in FETCH")


def _parse_section(cursor: Cursor, *, sets_seen: bool) -> Section:
    """Parse from behind ``[``."""
    label = b"BODY["
    path: tuple[int, ...] = ()
    what = ""
    names: list[bytes] = []
    if not cursor.take(b"]"):
        word = cursor.word()
        label += word.encode()
        path, what = _parse_section_word(word)
        if what.startswith("HEADER.FIELDS"):
            names = _parse_field_names(cursor)
            label += b" (%b)" % b" ".join(map(_name_to_wire, names))
        cursor.expect(b"]")
    label += b"]"
    offset: int | None = None
    count = 0
    if cursor.take(b"<"):
        offset = cursor.number()
        cursor.expect(b".")
        count = cursor.number()
        if not count:
            raise WireError("A partial has at least one octet")
        cursor.expect(b">")
        label += b"<%d>" % offset
    return Section(label, path, what, frozenset(name.lower() for name in names), offset, count, sets_seen)


def _parse_section_word(word: str) -> tuple[tuple[int, ...], str]:
    components = word.split(".")
    if len(components) > MAX_PATH:
        raise WireError(f"A section has at most {MAX_PATH} levels")
    depth = 0
    while depth < len(components) and _PART_NUMBER.fullmatch(components[depth]):
        depth += 1
    what = ".".join(components[depth:])
    if what not in _SECTION_TEXTS or (depth < len(components) and not what) or (what == "MIME" and not depth):
        raise WireError("Not a section of a message")
    return tuple(map(int, components[:depth])), what


def _parse_field_names(cursor: Cursor) -> list[bytes]:
    cursor.space()
    cursor.expect(b"(")
    names: list[bytes] = []
    while True:
        name = cursor.astring()
        if not _FIELD_NAME.fullmatch(name):
            raise WireError("Not the name of a header field")
        names.append(name)
        if len(names) > MAX_FIELD_NAMES:
            raise WireError(f"At most {MAX_FIELD_NAMES} names of header fields")
        if not cursor.take(b" "):
            break
    cursor.expect(b")")
    return names


def _name_to_wire(name: bytes) -> bytes:
    if _ATOM_NAME.fullmatch(name):
        return name
    return b'"%b"' % name.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
