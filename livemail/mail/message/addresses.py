"""Address lists of header fields, read with tolerance, rendered for ENVELOPE.  RFC 5322 §3.4, §4.4, RFC 9051 §7.5.2.

Nearly every list is made of ``Name <local@domain>`` and ``local@domain``, and two compiled patterns take those apart at
1 µs each.  What they do not recognise (groups, comments, routes, quoted pairs, encoded garbage) goes token by token
through `_Reader` from that point on, so each octet is looked at a bounded number of times whatever the field holds.

An address that names no domain has the domain "" and not None: None is how ENVELOPE marks the beginning and the end of a
group.
"""

from __future__ import annotations

import re
from typing import Final

from livemail.mail.message.quoting import NIL, nstring, string

MailboxTriple = tuple[bytes | None, bytes | None, bytes | None]
"""Display name (raw, not decoded), local part, domain.  (None, name, None) begins a group, three None end it."""

_NAMED: Final = re.compile(
    rb'[ \t\r\n]*+(?:"([^"\\\r\n]*+)"|([^\x00-\x1f"(),:;<>@\[\]\\\x7f-\xff]*+))[ \t\r\n]*+'
    rb'<([^\x00-\x20"(),:;<>@\[\]\\\x7f-\xff]++)@([A-Za-z0-9.-]++)>[ \t\r\n]*+(,|\Z)'
)
_BARE: Final = re.compile(
    rb'[ \t\r\n]*+([^\x00-\x20"(),:;<>@\[\]\\\x7f-\xff]++)@([A-Za-z0-9.-]++)[ \t\r\n]*+(,|\Z)',
)
_TOKEN: Final = re.compile(
    rb'"(?P<quoted>[^"\\]*+(?:\\.[^"\\]*+)*+)(?:"|\\?\Z)|(?P<comment>\()|(?P<white>[ \t\r\n]++)'
    rb'|(?P<special>[<>,;:@])|(?P<word>\[[^\[\]]*+\]|[^ \t\r\n"(<>,;:@\[\]]++|[\[\]])',
    re.DOTALL,
)
_PAREN: Final = re.compile(rb"[()]|\\.", re.DOTALL)
_PAIR: Final = re.compile(rb"\\(.)", re.DOTALL)


def parse_addresses(value: bytes, limit: int = 4096) -> list[MailboxTriple]:
    """Read an address list.

    value: of the field, folded or not.  limit: entries returned at most; what follows is left out.
    """
    found: list[MailboxTriple] = []
    at, end = 0, len(value)
    while at < end and len(found) < limit:
        if match := _NAMED.match(value, at):
            quoted, plain, local, domain, _ = match.groups()
            if quoted is None:
                quoted = plain.rstrip() or None
            found.append((quoted, local, domain))
        elif match := _BARE.match(value, at):
            found.append((None, match[1], match[2]))
        else:
            return _Reader(found, limit).read(value, at)
        at = match.end()
    return found


def render_addresses(value: bytes | None, limit: int = 4096) -> bytes:
    """Render a field's addresses as a list of ENVELOPE address structures, NIL when there is none.

    value: unfolded.  Display names with 8-bit octets and encoded words go out as they are: clients decode them.
    """
    if not value:
        return NIL
    rendered: list[bytes] = []
    at, end = 0, len(value)
    # The same walk as `parse_addresses`, but what a pattern matched needs no look at its octets: no quotes, no 8-bit.
    while at < end and len(rendered) < limit:
        if match := _NAMED.match(value, at):
            quoted, plain, local, domain, _ = match.groups()
            name = string(quoted) if quoted is not None else b'"%b"' % plain.rstrip() if plain else NIL
            rendered.append(b'(%b NIL "%b" "%b")' % (name, local, domain))
        elif match := _BARE.match(value, at):
            rendered.append(b'(NIL NIL "%b" "%b")' % (match[1], match[2]))
        else:
            rest = _Reader([], limit - len(rendered)).read(value, at)
            rendered.extend([b"(%b NIL %b %b)" % tuple(map(nstring, entry)) for entry in rest])
            break
        at = match.end()
    return b"(%b)" % b"".join(rendered) if rendered else NIL


class _Reader:
    """The tolerant reader: collects words until a special character says what they were."""

    def __init__(self, found: list[MailboxTriple], limit: int) -> None:
        self._found = found
        self._limit = limit
        self._words: list[bytes] = []  # Phrase or local part so far; b" " where white space stood.
        self._angle: list[bytes] | None = None  # Tokens since "<".
        self._at = -1  # Length of _words at the first "@" outside angle brackets, -1 before it.
        self._comment: bytes | None = None
        self._in_group = False

    def read(self, value: bytes, at: int) -> list[MailboxTriple]:
        end = len(value)
        while at < end and len(self._found) < self._limit:
            match = _TOKEN.match(value, at)
            if match is None:  # An octet no rule names: it is nobody's address.
                at += 1
                continue
            at = match.end()
            kind = match.lastgroup
            if kind == "comment":
                at = self._read_comment(value, at)
            elif kind == "special":
                self._take_special(match[0])
            else:
                word = match[0]
                if kind == "quoted":
                    word = _unescape(match["quoted"])
                elif kind == "white":
                    word = b" "
                (self._words if self._angle is None else self._angle).append(word)
        if len(self._found) < self._limit:
            self._end_address()
        if self._in_group:
            self._found.append((None, None, None))
        return self._found

    def _read_comment(self, value: bytes, at: int) -> int:
        """Pass over a comment that may nest; return the offset behind it.  Unclosed, it takes all the rest."""
        start, depth = at, 1
        for match in _PAREN.finditer(value, at):
            token = match[0]
            if token == b"(":
                depth += 1
            elif token == b")":
                depth -= 1
                if depth == 0:
                    self._comment = _unescape(value[start : match.start()])
                    return match.end()
        return len(value)

    def _take_special(self, special: bytes) -> None:
        if self._angle is not None and special not in b">,;":
            self._angle.append(special)  # Routes and colons: `_end_address` sorts them out.
        elif special == b"<":
            self._angle = []
        elif special == b">":
            self._end_address()
        elif special == b",":
            if self._angle and self._angle[0] == b"@":
                self._angle.append(special)  # A list of hosts in a route.  RFC 5322 §4.4 obs-route.
            else:
                self._end_address()
        elif special == b":":
            self._begin_group()
        elif special == b";":
            self._end_address()
            if self._in_group:
                self._found.append((None, None, None))
                self._in_group = False
        else:  # "@"
            if self._at < 0:
                self._at = len(self._words)
            self._words.append(b"@")

    def _begin_group(self) -> None:
        name = _phrase(self._words)
        self._reset()
        if self._in_group:  # Groups do not nest: the name of a second one without ";" before it ends the first.
            self._found.append((None, None, None))
        self._found.append((None, name, None))
        self._in_group = True

    def _end_address(self) -> None:
        if self._angle is not None:
            tokens = [token for token in self._angle if token != b" "]
            if tokens and tokens[0] == b"@" and b":" in tokens:
                del tokens[: tokens.index(b":") + 1]
            name: bytes | None = _phrase(self._words) or self._comment
            if b"@" in tokens:
                last = len(tokens) - 1 - tokens[::-1].index(b"@")
                self._found.append((name, b"".join(tokens[:last]), b"".join(tokens[last + 1 :])))
            elif tokens or name:
                self._found.append((name, b"".join(tokens), b""))
        elif self._at >= 0:
            local = b"".join([word for word in self._words[: self._at] if word != b" "])
            domain = b"".join([word for word in self._words[self._at + 1 :] if word != b" "])
            self._found.append((self._comment, local, domain))
        elif name := _phrase(self._words):
            self._found.append((self._comment, name, b""))
        self._reset()

    def _reset(self) -> None:
        self._words = []
        self._angle = None
        self._at = -1
        self._comment = None


def _phrase(words: list[bytes]) -> bytes:
    """Join the words of a display name; runs of white space become one space."""
    return b"".join(words).strip()


def _unescape(text: bytes) -> bytes:
    """Take the backslashes of quoted pairs away.  RFC 5322 §3.2.1."""
    return _PAIR.sub(rb"\1", text) if b"\\" in text else text
