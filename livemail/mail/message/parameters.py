"""Structured field values with parameters: Content-Type, Content-Disposition.  RFC 2045 §5.1, RFC 2183 §2, RFC 2231.

A server that makes BODYSTRUCTURE joins the pieces of a continued parameter (RFC 2231 §6) and leaves its
character set to the client: ``filename*0*=utf-8''a%20; filename*1=b`` becomes ``filename*`` with ``utf-8''a%20b``.
Pieces are collected in a dictionary by name and number, so that 50,000 of them cost 50,000 steps; a number that is
missing ends the parameter there, as RFC 2231 §3 has it.
"""

from __future__ import annotations

import re
from typing import Final

from livemail.mail.message.quoting import NIL, string

Parameters = list[tuple[bytes, bytes]]
"""Names as written, values without quotes; the first of equal names, joined ones last."""

_TYPE: Final = re.compile(rb"\s*+([!#$%&'*+.^_`|~0-9A-Za-z-]++)\s*+/\s*+([!#$%&'*+.^_`|~0-9A-Za-z-]++)")
_WORD: Final = re.compile(rb"\s*+([!#$%&'*+.^_`|~0-9A-Za-z-]++)")
# Lenient: an unquoted value runs to the next semicolon, because file names with spaces and 8-bit octets come unquoted.
_PARAMETER: Final = re.compile(
    rb';\s*+([^\s=;"()<>@,:\\\[\]]++)\s*+=\s*+(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:"|\\?\Z)|([^;"]*+))', re.DOTALL
)
_SECTION: Final = re.compile(rb"([^*]++)\*(?:(\d{1,6})(\*)?)?\Z")
_PAIR: Final = re.compile(rb"\\(.)", re.DOTALL)
_COMMENT_TOKEN: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[()]|\\.|[^"()\\]++|\\', re.DOTALL)
_NOT_ATTRIBUTE_CHAR: Final = re.compile(rb"[^!#$&+.^_`|~0-9A-Za-z-]")


def parse_media_type(value: bytes, limit: int = 1000) -> tuple[bytes, bytes, Parameters] | None:
    """Read a Content-Type.  value: unfolded.  Returns type and subtype as written; None when there is no type in it."""
    if b"(" in value:
        value = strip_comments(value)
    match = _TYPE.match(value)
    if match is None:
        return None
    return match[1], match[2], _parameters(value, match.end(), limit)


def parse_disposition(value: bytes, limit: int = 1000) -> tuple[bytes, Parameters] | None:
    """Read a Content-Disposition.  value: unfolded.  None when there is nothing in it."""
    if b"(" in value:
        value = strip_comments(value)
    match = _WORD.match(value)
    if match is None:
        return None
    return match[1], _parameters(value, match.end(), limit)


def render_parameters(parameters: Parameters) -> bytes:
    """Render as body-fld-param: a list of names and values, NIL when empty.  RFC 9051 §9."""
    if not parameters:
        return NIL
    return b"(%b)" % b" ".join([b"%b %b" % (string(name), string(value)) for name, value in parameters])


def strip_comments(value: bytes) -> bytes:
    """Return a structured value without its comments.  RFC 5322 §3.2.2.  An unclosed comment takes all the rest."""
    kept: list[bytes] = []
    depth = 0
    for match in _COMMENT_TOKEN.finditer(value):
        token = match[0]
        if token == b"(":
            depth += 1
        elif token == b")":
            depth = max(0, depth - 1)
        elif depth == 0:
            kept.append(token)
        elif token[0] == 0x22 and len(token) > 1:
            # Inside a comment a quotation mark means nothing; parentheses behind it count.
            depth = max(0, depth + token.count(b"(") - token.count(b")"))
    return b"".join(kept)


def _parameters(value: bytes, at: int, limit: int) -> Parameters:
    matches = _PARAMETER.findall(value, at)
    if not matches:
        return []
    found: dict[bytes, tuple[bytes, bytes]] = {}
    continued: dict[bytes, tuple[bytes, dict[int, tuple[bytes, bool]]]] = {}
    for name, quoted, plain in matches:
        text = quoted or plain.rstrip()
        if b"\\" in quoted:
            text = _PAIR.sub(rb"\1", quoted)
        folded = name.lower()
        if b"*" in name and (section := _SECTION.match(name)) and section[2] is not None:
            pieces = continued.setdefault(section[1].lower(), (section[1], {}))[1]
            pieces.setdefault(int(section[2]), (text, section[3] is not None))
        elif folded not in found:
            if len(found) >= limit:
                break
            found[folded] = (name, text)
    for name, pieces in continued.values():
        if 0 in pieces and len(found) < limit:
            joined = _join(name, pieces)
            found.setdefault(joined[0].lower(), joined)
    return list(found.values())


def _join(name: bytes, pieces: dict[int, tuple[bytes, bool]]) -> tuple[bytes, bytes]:
    """Join the pieces of a continued parameter.  RFC 2231 §3, §4.1."""
    run: list[tuple[bytes, bool]] = []
    while (piece := pieces.get(len(run))) is not None:
        run.append(piece)
    if not any(extended for _, extended in run):
        return name, b"".join([text for text, _ in run])
    encoded = [text if extended else _NOT_ATTRIBUTE_CHAR.sub(_percent, text) for text, extended in run]
    if not run[0][1]:  # No character set was announced: the first piece must be extended to name one.
        encoded.insert(0, b"''")
    return name + b"*", b"".join(encoded)


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]
