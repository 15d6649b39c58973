"""BODYSTRUCTURE, part by part, and BODY out of it.  RFC 9051 §7.5.2, §9 body.

A part's wire text is made in two steps: when its header has been read, everything before and behind the
counts is rendered (`PartHeader`); when its end is known, the counts are put between.  So a part under way keeps no header.

What is shown where a message says nothing, or something that cannot be:
    no Content-Type                      text/plain; charset=us-ascii (RFC 2045 §5.2), in multipart/digest message/rfc822
    a Content-Type without type/subtype  the same
    a multipart without any part         one text/plain part that is all of its body, so that its text is seen
    message/rfc822 in base64 or so, and what lies deeper or behind more parts than the limits say
                                         application/octet-stream: a client can save it, and nothing untrue is said of
                                         its inside
"""

from __future__ import annotations

import itertools
import re
from typing import Final

import msgspec

from livemail.mail.message.fields import unfold
from livemail.mail.message.parameters import (
    Parameters,
    parse_disposition,
    parse_media_type,
    render_parameters,
    strip_comments,
)
from livemail.mail.message.quoting import NIL, string

STRUCTURE_FIELDS: Final = frozenset(
    b"content-type content-transfer-encoding content-id content-description content-disposition content-language"
    b" content-location content-md5".split(),
)
"""Lower-case names of the fields BODYSTRUCTURE is made of."""

_DEFAULT: Final[tuple[bytes, bytes, Parameters]] = (b"text", b"plain", [(b"charset", b"us-ascii")])
_DIGEST_DEFAULT: Final[tuple[bytes, bytes, Parameters]] = (b"message", b"rfc822", [])
_IDENTITY: Final = frozenset((b"7bit", b"8bit", b"binary"))
_MAX_BOUNDARY_OCTETS: Final = 256
"""RFC 2046 §5.1.1 allows 70; some senders use more."""

_EMBEDDED: Final = frozenset((b"message/rfc822", b"message/global"))
EMBEDDED: Final = frozenset(name.decode() for name in _EMBEDDED)
"""Media types whose body is a message, shown with its envelope and structure.  RFC 9051 §9 body-type-msg."""

_LANGUAGE: Final = re.compile(rb"[A-Za-z0-9-]++")


class PartHeader(msgspec.Struct, frozen=True):
    """What a part's header says, rendered.

    media_type, encoding, charset: lower-case.  boundary: of a multipart that has a usable one, else b"".
    head: from the opening parenthesis to before the octet count (for a multipart: subtype and parameters, which follow
    its parts).  tail: extension data with the closing parenthesis.
    """

    media_type: str
    encoding: str
    charset: str
    boundary: bytes
    head: bytes
    tail: bytes


def read_part_header(
    fields: dict[bytes, bytes], limit: int, *, digest: bool = False, opaque: bool = False
) -> PartHeader:
    """Render what a part's fields say.

    fields: raw value of the first field of each name in `STRUCTURE_FIELDS`.  limit: parameters shown per field.
    digest: the part is in a multipart/digest.  opaque: nothing may be said about its inside.
    """
    get = fields.get
    raw = get(b"content-type")
    parsed = parse_media_type(unfold(raw), limit) if raw is not None else None
    if parsed is None:
        parsed = _DIGEST_DEFAULT if digest else _DEFAULT
    kind, subtype, parameters = parsed
    encoding = _encoding(get(b"content-transfer-encoding"))
    folded = kind.lower()
    media_type = b"%b/%b" % (folded, subtype.lower())
    boundary = b""
    if folded == b"multipart":
        boundary = _parameter(parameters, b"boundary")[: _MAX_BOUNDARY_OCTETS + 1].rstrip(b" \t")
        if len(boundary) > _MAX_BOUNDARY_OCTETS or b"\n" in boundary or b"\r" in boundary:
            boundary = b""
    if (opaque and folded in {b"multipart", b"message"}) or (
        media_type in _EMBEDDED and encoding.lower() not in _IDENTITY
    ):
        kind, subtype, media_type, boundary, folded = (
            b"application",
            b"octet-stream",
            b"application/octet-stream",
            b"",
            b"",
        )
    charset = _parameter(parameters, b"charset").lower()
    if folded == b"multipart":
        head = b" %b %b" % (string(subtype), render_parameters(parameters))
        tail = _extension(fields, has_md5=False)
    else:
        head = b"(%b %b %b %b %b %b " % (
            string(kind),
            string(subtype),
            render_parameters(parameters),
            _text(get(b"content-id")),
            _text(get(b"content-description")),
            string(encoding),
        )
        tail = _extension(fields, has_md5=True)
    return PartHeader(
        media_type.decode("ascii"), encoding.lower().decode("latin-1"), charset.decode("latin-1"), boundary, head, tail
    )


def _encoding(value: bytes | None) -> bytes:
    if value is None:
        return b"7bit"
    value = unfold(value)
    if b"(" in value:
        value = strip_comments(value).strip()
    return value or b"7bit"


def _parameter(parameters: Parameters, wanted: bytes) -> bytes:
    for name, value in parameters:
        if name.lower() == wanted:
            return value
    return b""


def _text(value: bytes | None) -> bytes:
    return NIL if value is None else string(unfold(value))


def _extension(fields: dict[bytes, bytes], *, has_md5: bool) -> bytes:
    """Render MD5 (which a multipart has not), disposition, language and location with the closing parenthesis."""
    get = fields.get
    md5, location = get(b"content-md5"), get(b"content-location")
    disposition, language = get(b"content-disposition"), get(b"content-language")
    if md5 is None and location is None and disposition is None and language is None:
        return b" NIL NIL NIL NIL)" if has_md5 else b" NIL NIL NIL)"
    shown, tags = NIL, NIL
    if disposition is not None and (parsed := parse_disposition(unfold(disposition))):
        shown = b"(%b %b)" % (string(parsed[0]), render_parameters(parsed[1]))
    if language is not None and (words := _LANGUAGE.findall(strip_comments(unfold(language)))):
        tags = string(words[0]) if len(words) == 1 else b"(%b)" % b" ".join([string(word) for word in words])
    return b"%b %b %b %b)" % (b" " + _text(md5) if has_md5 else b"", shown, tags, _text(location))


# ------------------------------------------------------------------------------------------------------ whole parts


def render_leaf(header: PartHeader, size: int, lines: int) -> bytes:
    """Render a part without parts.  size: octets of its body; lines: shown for text only."""
    if header.media_type.startswith("text/"):
        return b"%b%d %d%b" % (header.head, size, lines, header.tail)
    return b"%b%d%b" % (header.head, size, header.tail)


def render_multipart(header: PartHeader, children: list[bytes]) -> bytes:
    """Render a multipart; children: rendered parts, at least one."""
    return b"(%b%b%b" % (b"".join(children), header.head, header.tail)


def render_message(header: PartHeader, size: int, lines: int, envelope: bytes, structure: bytes) -> bytes:
    """Render a message/rfc822 with the envelope and structure of the message in it."""
    return b"%b%d %b %b %d%b" % (header.head, size, envelope, structure, lines, header.tail)


SUBSTITUTE: Final = read_part_header({}, 0)
"""The header of the one text part shown for a multipart that has none."""


# ------------------------------------------------------------------------------------------------------------- BODY

_TOKEN: Final = re.compile(rb' ?(?:(\()|(\))|("[^"\\]*+(?:\\.[^"\\]*+)*+")|\{(\d+)\}\r\n|([^ ()"{]++))', re.DOTALL)
_BASIC_ITEMS: Final = 7
"""Type, subtype, parameters, id, description, encoding, octets."""
_MESSAGE_STRUCTURE: Final = 8
"""Where a message part has the structure of the message in it."""


class _Item:
    """One item of a parenthesised value: where its wire octets are, and what is in it if it is a list."""

    __slots__ = ("end", "items", "start")

    def __init__(self, start: int, end: int, items: list[_Item] | None) -> None:
        self.start = start
        self.end = end
        self.items = items


def basic_body(structure: bytes) -> bytes:
    """Return the value of BODY, which is BODYSTRUCTURE without extension data.  RFC 9051 §7.5.2.

    structure: as rendered here; anything else raises ValueError.
    """
    return _basic(structure, _parse(structure))


def _parse(wire: bytes) -> _Item:
    root: list[_Item] = []
    stack = [_Item(0, len(wire), root)]
    items = root
    at = 0
    while at < len(wire):
        match = _TOKEN.match(wire, at)
        if match is None:
            raise ValueError("not a body structure")
        at = match.end()
        opening, closing, literal = match[1], match[2], match[4]
        if opening:
            opened = _Item(at - 1, at, [])
            items.append(opened)
            stack.append(opened)
            items = opened.items = []
        elif closing:
            stack.pop().end = at
            if not stack or not items:
                raise ValueError("not a body structure")
            items = stack[-1].items or root
        else:
            start = match.start() + (wire[match.start()] == 0x20)
            if literal:
                at += int(literal)
            items.append(_Item(start, at, None))
    if len(stack) != 1 or len(root) != 1 or root[0].items is None:
        raise ValueError("not a body structure")
    return root[0]


def _basic(wire: bytes, body: _Item) -> bytes:
    items = body.items or []
    parts = list(itertools.takewhile(lambda item: item.items is not None, items))
    if parts:
        inside = b"".join([_basic(wire, part) for part in parts])
        subtype = items[len(parts)] if len(parts) < len(items) else items[-1]
        return b"(%b %b)" % (inside, wire[subtype.start : subtype.end])
    head = [wire[item.start : item.end] for item in items[: _BASIC_ITEMS + 3]]
    kind, subtype_name = head[0].lower(), head[1].lower() if len(head) > 1 else b""
    if kind == b'"message"' and subtype_name in {b'"rfc822"', b'"global"'} and len(head) == _BASIC_ITEMS + 3:
        head[_MESSAGE_STRUCTURE] = _basic(wire, items[_MESSAGE_STRUCTURE])
        return b"(%b)" % b" ".join(head)
    return b"(%b)" % b" ".join(head[: _BASIC_ITEMS + (kind == b'"text"')])
