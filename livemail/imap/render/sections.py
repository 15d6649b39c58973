"""The sections of a message: what BODY[…] names, and the octets it means.  RFC 9051 §6.4.5, RFC 3501 §6.4.5.

Offsets here count from the first octet of the message as the client sees it: the delivery prefix (Return-Path,
Delivered-To) is the beginning of its header.  The part tree counts from the content's first octet, so every range out of
it is moved by the size of the prefix.

A section the message does not have is NIL; a partial that begins behind the end is the empty string
(RFC 9051 §6.4.5: "a partial fetch past the end").
"""

from __future__ import annotations

from typing import Final

import msgspec

from livemail.mail.message.fields import select_fields
from livemail.mail.message.sections import section_range
from livemail.mail.message.summary import CACHED_FIELDS, Part

MAX_HEADER_OCTETS: Final = 1024 * 1024
"""HEADER.FIELDS looks at this much of a header: a message that is one endless header must not fill the memory."""


class Section(msgspec.Struct, frozen=True):
    """One BODY[…] item, or one of the RFC822 items, which are sections under another name.

    label: the name in the response, partial's origin included.  path: part numbers, () for the message.  what: "",
    HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT or MIME.  names: lower-case, for the FIELDS kinds.
    offset, count: of the partial; offset None: the whole.  sets_seen: not a PEEK.
    """

    label: bytes
    path: tuple[int, ...] = ()
    what: str = ""
    names: frozenset[bytes] = frozenset()
    offset: int | None = None
    count: int = 0
    sets_seen: bool = False

    @property
    def is_selection(self) -> bool:
        """Whether fields are picked out of a header, instead of one range of octets."""
        return bool(self.what.startswith("HEADER.FIELDS"))

    @property
    def is_cached(self) -> bool:
        """Whether the cached fields of the message answer it."""
        return self.what == "HEADER.FIELDS" and not self.path and self.names <= CACHED_NAMES

    @property
    def needs_header_only(self) -> bool:
        """Whether the message's header answers it."""
        return not self.path and self.what.startswith("HEADER")

    def range(self, size: int, header_size: int, prefix_size: int, root: Part | None) -> tuple[int, int] | None:
        """Return (offset, end) of the octets the section is, or, for a selection, is picked from.

        size, header_size: of the message, prefix included.  root: needed for a path.  None: no such part.
        The partial is not applied yet.
        """
        if not self.path:
            if self.what == "":
                return 0, size
            return (header_size, size) if self.what == "TEXT" else (0, header_size)
        assert root is not None
        found = section_range(root, self.path, "HEADER" if self.is_selection else self.what)  # type: ignore[arg-type]
        return None if found is None else (found[0] + prefix_size, found[1] + prefix_size)

    def select(self, header: bytes) -> bytes:
        """Pick the named fields out of a header; the blank line that ends a header always follows them."""
        return select_fields(header, self.names, exclude=self.what == "HEADER.FIELDS.NOT") + b"\r\n"

    def clip(self, offset: int, end: int) -> tuple[int, int]:
        """Apply the partial to a range."""
        if self.offset is None:
            return offset, end
        start = min(offset + self.offset, end)
        return start, min(start + self.count, end)


CACHED_NAMES: Final = frozenset(CACHED_FIELDS)


def literal(label: bytes, octets: bytes) -> bytes:
    """An item whose value is a string of any octets."""
    return b"%b {%d}\r\n%b" % (label, len(octets), octets)


def cut_sections(
    sections: tuple[Section, ...],
    content: bytes,
    header_size: int,
    prefix_size: int,
    root: Part | None,
) -> list[bytes]:
    """Render every section of a message at hand, as items without separators.

    content: the whole message, prefix included; or, when every section `needs_header_only`, its header.
    """
    items: list[bytes] = []
    size = len(content)
    for section in sections:
        found = section.range(size, min(header_size, size), prefix_size, root)
        if found is None:
            items.append(section.label + b" NIL")
            continue
        offset, end = found
        if section.is_selection:
            picked = section.select(content[offset : min(end, offset + MAX_HEADER_OCTETS)])
            offset, end = section.clip(0, len(picked))
            items.append(literal(section.label, picked[offset:end]))
        else:
            offset, end = section.clip(offset, end)
            items.append(literal(section.label, content[offset:end]))
    return items
