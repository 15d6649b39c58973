"""One streaming pass over a message: from octets in chunks of any size to a `Summary`.  RFC 2045, 2046, 9051 §7.5.2.

What is kept
    Octets that no decision can need any more are let go at once.  What stays is a tail shorter than the longest delimiter
    line; while a header is read, that header, up to `Limits.header_octets`; and a few hundred octets for every part
    recorded.  A body of 200 MB passes through in batches.

How it goes through
    Octets are collected into batches of 64 KiB or more, and each batch is searched, not read: `bytes.find` for the
    delimiters that can occur, one pattern for the end of a header, `bytes.count` for lines.  So there is one path: a
    small message is a single batch, examined by `finish`, and a message fed octet by octet costs what it costs whole.
    State is a stack of open parts, all offsets absolute.  A decision is made only when every octet it depends on
    is there, so the result does not depend on how the message was cut.

Delimiters (RFC 2046 §5.1.1)
    ``--boundary`` or ``--boundary--`` at the beginning of a line, then nothing but white space to its end.  The line end
    before it belongs to it.  The delimiter of any open multipart ends everything inside it, header or body.
    Strict: the grammar lets anything follow the boundary; comparing whole lines keeps ``--a`` from matching a
    delimiter line of an inner ``ab``, as readers of mail do.
    Of two open multiparts with equal boundaries the outer owns the delimiters: a part that contains itself stays flat.

Limits
    Deeper than `Limits.depth`, a multipart or message is one opaque part (`livemail.mail.message.structure`).
    Behind `Limits.parts` recorded parts, or once `Limits.total_header_octets` were examined, open multiparts take no more
    parts: what follows counts towards sizes and is not shown.  No input is refused and nothing here raises.

Speed
    A two-part message of 3.5 KB with 16 fields takes 65 µs, one of 4 KB without parts and with 6 fields 19 µs, a large
    body 2 ms per MB.  What made it so: fields come out of one `findall`; a part under way is rendered once, and the headers of text parts, which are
    alike in most mail, are remembered rendered, as addresses and dates are; line ends, longest line and bare CR or LF
    come out of one split a batch.  A third of a large body's time is that split: it is what an exact longest line costs.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import msgspec

from livemail.mail.message.dates import parse_date
from livemail.mail.message.envelope import ENVELOPE_FIELDS, render_envelope
from livemail.mail.message.fields import parse_fields, unfold
from livemail.mail.message.structure import (
    EMBEDDED,
    STRUCTURE_FIELDS,
    SUBSTITUTE,
    PartHeader,
    read_part_header,
    render_leaf,
    render_message,
    render_multipart,
)
from livemail.mail.message.summary import CACHED_FIELDS, MAX_CACHED_OCTETS, Part, Summary, encode_parts
from livemail.mail.message.tally import Tally

_BATCH_OCTETS: Final = 64 * 1024
_SLICE_OCTETS: Final = 256 * 1024
_MAX_REFERENCES: Final = 20
_MAX_MISSES: Final = 64
_MAX_REMEMBERED_OCTETS: Final = 160
_MARGIN: Final = 3
"""Octets kept before a possible delimiter: its line end, and the last octet of the body before that."""

_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_REST_OF_DELIMITER: Final = re.compile(rb"(--)?[ \t]{0,1000}+(\r?\n)?")
MESSAGE_ID: Final = re.compile(rb"<[^<>\s]++>")

_ROOT_FIELDS: Final = ENVELOPE_FIELDS | STRUCTURE_FIELDS | {b"references"}
_EMBEDDED_FIELDS: Final = ENVELOPE_FIELDS | STRUCTURE_FIELDS


class Limits(msgspec.Struct, frozen=True):
    """How much of a message is looked into.

    depth: parts inside parts.  parts: recorded in all.  header_octets: examined per header; total_header_octets: in all.
    addresses: shown per field.  parameters: shown per field.
    """

    depth: int = 64
    parts: int = 1000
    header_octets: int = 256 * 1024
    total_header_octets: int = 1024 * 1024
    addresses: int = 4096
    parameters: int = 1000


_DEFAULT_LIMITS: Final = Limits()


class _Open:
    """A part whose end is not known yet."""

    __slots__ = (
        "_pattern", "body", "children", "envelope", "header", "hit", "is_digest", "is_found", "is_message", "is_multipart",
        "line_end", "lines_before", "misses", "needle", "start", "structures", "terminates",
    )  # fmt: skip

    def __init__(self, header: PartHeader, start: int, body: int, lines_before: int) -> None:
        self.header = header
        self.start = start
        self.body = body
        self.lines_before = lines_before
        self.children: list[Part] = []
        self.structures: list[bytes] = []
        self.envelope = b""  # Of the message in this part.
        media_type = header.media_type
        self.is_multipart = media_type.startswith("multipart/")
        self.is_message = media_type in EMBEDDED
        self.is_digest = media_type == "multipart/digest"
        # The next delimiter line of this multipart: found at ``hit``, or not before ``hit`` (offset of its line feed).
        self.needle = b"\n--" + header.boundary if header.boundary else b""
        self.hit = body - 1
        self.is_found = False
        self.line_end = 0
        self.terminates = False
        # Lines that only begin like a delimiter; after a number of them a pattern, which is dear to compile, looks
        # further than the boundary and passes over those several times as fast.
        self.misses = 0
        self._pattern: re.Pattern[bytes] | None = None

    def pattern_find(self, data: bytes, at: int) -> int:
        """Return the index of the next line that is a delimiter, or cut off may become one; -1 if there is none."""
        if self._pattern is None:
            self._pattern = re.compile(re.escape(self.needle) + rb"(?:--)?[ \t]{0,1000}+(?:\r?\n|\r?\Z|-\Z)")
        match = self._pattern.search(data, at)
        return -1 if match is None else match.start()


class Scanner:
    """Takes a message's octets once, in order, and says what they are."""

    def __init__(self, limits: Limits = _DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._waiting: bytes | bytearray = b""
        self._tally = Tally()
        self._data = b""  # The octets from ``_base`` on that may still matter.
        self._base = 0
        self._lines = 0  # Line feeds before ``_counted``.
        self._counted = 0
        self._stack: list[_Open] = []
        self._active: list[_Open] = []  # Multiparts of the stack whose delimiters can still occur.
        self._parts = 0
        self._header_octets = limits.total_header_octets
        # The part whose header is being read: where it starts, how far it was searched, what was kept of it.
        self._in_header = True
        self._start = 0
        self._searched = 0
        self._examined: bytes | None = None
        self._at = 0  # In a body: where the search for delimiters goes on.
        self._root: dict[bytes, bytes] = {}
        self._shape = b""  # The root's fields that its structure is made of.
        self._cached: bytes | None = None
        self._received = 0
        self._header_size = 0
        self._envelope = b""
        self._structure = b""
        self._part: Part | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next octets; chunks may be of any size and end anywhere."""
        waiting = self._waiting
        if len(waiting) + len(chunk) < _BATCH_OCTETS:
            # Most messages are one chunk: it is kept as it is, and copied only when more follow.
            if not waiting:
                self._waiting = bytes(chunk)
                return
            if waiting.__class__ is not bytearray:
                waiting = self._waiting = bytearray(waiting)
            waiting += chunk
            return
        if waiting:
            chunk = bytes(waiting) + chunk
            self._waiting = b""
        for offset in range(0, len(chunk), _SLICE_OCTETS):
            self._take(chunk[offset : offset + _SLICE_OCTETS])

    def finish(self) -> Summary:
        """No octets follow: return what was found.  Call it once."""
        self._take(bytes(self._waiting), final=True)
        self._waiting = b""
        tally, root = self._tally, self._root
        message_id = MESSAGE_ID.search(root.get(b"message-id", b""))
        date = root.get(b"date")
        sent = parse_date(unfold(date)) if date is not None else None
        assert self._part is not None  # The last batch closed the root.
        return Summary(
            size=tally.size,
            header_size=self._header_size,
            envelope=self._envelope,
            structure=self._structure,
            parts=encode_parts(self._part),
            fields=self._cached,
            message_id=message_id[0] if message_id else b"",
            references=_references(root),
            sent=sent[0] if sent else None,
            has_bare_newline=tally.has_bare_newline,
            has_nul=tally.has_nul,
            has_8bit=tally.has_8bit,
            longest_line=tally.longest_line,
            received_count=self._received,
        )

    # --------------------------------------------------------------------------------------------------- batches

    def _take(self, batch: bytes, *, final: bool = False) -> None:
        self._tally.add(batch, final=final)
        self._data = self._data + batch if self._data else batch
        while self._scan_header(final) if self._in_header else self._scan_body(final):
            pass
        if not final:
            self._let_go()

    def _let_go(self) -> None:
        """Forget the octets that nothing can need any more, counting their lines."""
        keep = self._base + len(self._data)
        if self._in_header:
            keep = self._start if self._examined is None else self._searched
        for multipart in self._active:
            keep = min(keep, multipart.hit)
        keep = max(self._base, keep - _MARGIN)
        self._lines_to(keep)
        self._data = self._data[keep - self._base :]
        self._base = keep

    def _lines_to(self, offset: int) -> int:
        """Return the number of line feeds before an offset; offsets must not go back (those that do count for nothing)."""
        counted = self._counted
        if offset == self._tally.size:  # All that came: counted already.
            self._lines, self._counted = self._tally.line_feeds, offset
        elif offset > counted:
            base = self._base
            self._lines += self._data.count(b"\n", counted - base, offset - base)
            self._counted = offset
        return self._lines

    # --------------------------------------------------------------------------------------------------- headers

    def _scan_header(self, final: bool) -> bool:
        """Read the header at ``_start`` if its end is there; return whether there is more to do."""
        data, base, start = self._data, self._base, self._start
        blank_start, body = -1, -1
        if start == 0 and data.startswith((b"\r\n", b"\n")) and base == 0:
            blank_start, body = 0, data.index(b"\n") + 1
        else:
            # From one octet before: an empty header is a blank line directly behind the line before the part.
            match = _BLANK_LINE.search(data, max(0, max(start, self._searched) - 1 - base))
            if match is not None:
                blank_start, body = match.start(), match.end()
        if self._active:
            delimiter, at = self._next_delimiter(max(0, start - 1 - base), final)
            if at >= 0 and (body < 0 or at < blank_start):
                if delimiter is None:
                    return self._wait_in_header()
                # An enclosing multipart goes on in the middle of the header; its delimiter is met again as a body's end.
                end = at - 1 if at > 0 and data[at - 1] == 0x0D else at
                self._open(at + 1, max(start, base + end))
                return True
        if body < 0:
            if not final:
                return self._wait_in_header()
            body = len(data)
        self._open(body, base + body)
        return True

    def _wait_in_header(self) -> bool:
        data, base = self._data, self._base
        at = self._start - base
        if self._examined is None and len(data) - at > self._limits.header_octets:
            self._examined = data[at : at + self._limits.header_octets]
        self._searched = max(self._start, base + len(data) - _MARGIN)
        return False

    def _open(self, header_end: int, body: int) -> None:
        """Begin the part whose header was found.  header_end: index in the batch; body: offset in the message."""
        limits, stack = self._limits, self._stack
        header = self._examined
        self._examined = None
        if header is None:
            header = self._data[self._start - self._base : header_end] if header_end + self._base > self._start else b""
        is_whole = len(header) < limits.header_octets
        if not is_whole:
            header = header[: limits.header_octets]
            header = header[: header.rfind(b"\n") + 1]
        self._header_octets -= len(header)
        parent = stack[-1] if stack else None
        fields: dict[bytes, bytes] | None = None
        if parent is None:
            self._header_size = body
            fields = self._read_root(header, is_whole)
            self._envelope = render_envelope(fields, limits.addresses)
            fields, header = None, self._shape
        elif parent.is_message:
            fields = _first_fields(header, _EMBEDDED_FIELDS)
            parent.envelope = render_envelope(fields, limits.addresses)
        is_digest = parent is not None and parent.is_digest
        is_opaque = len(stack) >= limits.depth or self._is_full()
        if fields is not None:
            part_header = read_part_header(fields, limits.parameters, digest=is_digest, opaque=is_opaque)
        elif len(header) <= _MAX_REMEMBERED_OCTETS:
            part_header = _remembered_part_header(header, limits.parameters, is_digest, is_opaque)
        else:
            part_header = _part_header(header, limits.parameters, is_digest, is_opaque)
        opened = _Open(part_header, self._start, body, self._lines_to(body))
        self._parts += 1
        stack.append(opened)
        self._in_header = opened.is_message
        if opened.is_message:
            self._start = self._searched = body
            return
        self._at = body - 1
        if opened.needle and all(outer.needle != opened.needle for outer in self._active):
            self._active.append(opened)

    def _is_full(self) -> bool:
        return self._parts >= self._limits.parts or self._header_octets <= 0

    def _read_root(self, header: bytes, is_whole: bool) -> dict[bytes, bytes]:
        """Read the message's own header in one go: fields to keep, fields to cache, Received fields to count."""
        fields: dict[bytes, bytes] = {}
        cached: list[bytes] = []
        shape: list[bytes] = []
        received = 0
        for field, name, value in parse_fields(header):
            key = name.lower()
            if key in CACHED_FIELDS:
                cached.append(field)
            if key in _ROOT_FIELDS:
                if key not in fields:
                    fields[key] = value
                    if key in STRUCTURE_FIELDS:
                        shape.append(field)
            elif key == b"received":
                # Each host puts its own on top, so those of a loop are within the part examined.  RFC 5321 §6.3.
                received += 1
        self._received = received
        self._root = fields
        self._shape = b"".join(shape)
        if is_whole:
            kept = b"".join(cached)
            if kept and not kept.endswith(b"\n"):
                kept += b"\r\n"
            self._cached = kept if len(kept) <= MAX_CACHED_OCTETS else None
        return fields

    # ---------------------------------------------------------------------------------------------------- bodies

    def _scan_body(self, final: bool) -> bool:
        """Go to the next delimiter if it is there; return whether there is more to do."""
        base = self._base
        if self._active:
            delimiter, at = self._next_delimiter(max(0, self._at - base), final)
            if delimiter is not None:
                end = base + at
                if at > 0 and self._data[at - 1] == 0x0D:
                    end -= 1
                self._close_down_to(delimiter, end)
                if delimiter.terminates or self._is_full():
                    self._active.pop()
                    self._at = delimiter.line_end - 1
                else:
                    self._in_header = True
                    self._start = self._searched = delimiter.line_end
                return True
        if final:
            self._close_down_to(None, base + len(self._data))
        return False

    def _next_delimiter(self, at: int, final: bool) -> tuple[_Open | None, int]:
        """Find the first delimiter line whose line feed before it is at or behind index ``at``.

        Returns the multipart and the index of that line feed; (None, index) when more octets must come to tell
        whether a delimiter is there; (None, -1) when there is none in this batch.
        """
        data, base = self._data, self._base
        first: _Open | None = None
        first_at = -1
        for multipart in self._active:
            hit = multipart.hit - base
            if not multipart.is_found or hit < at:
                hit = self._find_delimiter(multipart, max(at, hit), final)
                if not multipart.is_found and hit >= len(data):
                    continue
            if first_at < 0 or hit < first_at:
                first_at = hit
                first = multipart if multipart.is_found else None
        return first, first_at

    def _find_delimiter(self, multipart: _Open, at: int, final: bool) -> int:
        """Search one multipart's next delimiter line from index ``at``; note it in the multipart.

        Returns its index; with ``is_found`` false, the index of one that is not complete, or the batch's length.
        """
        data, base, needle = self._data, self._base, multipart.needle
        size = len(data)
        while (
            hit := multipart.pattern_find(data, at) if multipart.misses > _MAX_MISSES else data.find(needle, at)
        ) >= 0:
            behind = hit + len(needle)
            rest = _REST_OF_DELIMITER.match(data, behind)
            assert rest is not None  # The pattern matches the empty string.
            end = rest.end()
            is_cut = end >= size - 1 and (end == size or data[end] == 0x0D or (data[end] == 0x2D and end == behind))
            if rest[2] or (is_cut and final and (end == size or data[end] == 0x0D)):
                multipart.is_found = True
                multipart.hit = base + hit
                multipart.line_end = base + (end if rest[2] else size)
                multipart.terminates = rest[1] is not None
                return hit
            if is_cut and not final:
                multipart.is_found = False
                multipart.hit = base + hit
                return hit
            at = hit + 1
            multipart.misses += 1
        multipart.is_found = False
        multipart.hit = base + max(at, size - len(needle) + 1)
        return size

    # --------------------------------------------------------------------------------------------------- closing

    def _close_down_to(self, remaining: _Open | None, end: int) -> None:
        """Close every part inside ``remaining`` (None: all of them) at an offset."""
        stack, active = self._stack, self._active
        while stack and stack[-1] is not remaining:
            part = stack.pop()
            if active and active[-1] is part:
                active.pop()
            # The line feed before a delimiter can be that of the blank line behind the header.
            end = max(end, part.body)
            self._close(part, end)

    def _close(self, part: _Open, end: int) -> None:
        size = end - part.body
        lines = self._lines_to(end) - part.lines_before
        if size and self._data[end - 1 - self._base] != 0x0A:
            lines += 1
        header = part.header
        if part.is_multipart:
            if not part.children:
                part.children.append(Part(part.body, part.body, end, lines, "text/plain", "7bit", "us-ascii"))
                part.structures.append(render_leaf(SUBSTITUTE, size, lines))
            structure = render_multipart(header, part.structures)
        elif part.is_message:
            structure = render_message(header, size, lines, part.envelope, part.structures[0])
        else:
            structure = render_leaf(header, size, lines)
        closed = Part(
            part.start, part.body, end, lines, header.media_type, header.encoding, header.charset, tuple(part.children)
        )
        if self._stack:
            parent = self._stack[-1]
            parent.children.append(closed)
            parent.structures.append(structure)
        else:
            self._part = closed
            self._structure = structure


def scan(content: bytes, limits: Limits = _DEFAULT_LIMITS) -> Summary:
    """Return the Summary of a message that is at hand as a whole."""
    scanner = Scanner(limits)
    scanner.feed(content)
    return scanner.finish()


def _first_fields(header: bytes, names: frozenset[bytes]) -> dict[bytes, bytes]:
    """Return the raw value of the first field of each of the names."""
    fields: dict[bytes, bytes] = {}
    for _, name, value in parse_fields(header):
        key = name.lower()
        if key in names and key not in fields:
            fields[key] = value
    return fields


def _part_header(header: bytes, limit: int, is_digest: bool, is_opaque: bool) -> PartHeader:
    return read_part_header(_first_fields(header, STRUCTURE_FIELDS), limit, digest=is_digest, opaque=is_opaque)


# Most text parts of all mail have one of a few dozen headers; to look one up costs a tenth of reading it.
_remembered_part_header = lru_cache(maxsize=512)(_part_header)


def _references(root: dict[bytes, bytes]) -> tuple[bytes, ...]:
    """Return the Message-IDs a message points to: References, then In-Reply-To, each once.  RFC 5322 §3.6.4."""
    answered = root.get(b"in-reply-to")
    earlier = root.get(b"references")
    if answered is None and earlier is None:
        return ()
    ids = dict.fromkeys(MESSAGE_ID.findall(earlier or b""))
    ids.update(dict.fromkeys(MESSAGE_ID.findall(answered or b"")))
    return tuple(ids)[-_MAX_REFERENCES:]
