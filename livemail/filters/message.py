"""A message as filters see it, and the edits they make to it.

Bytes first: header values come as the octets that were sent, `text` decodes on demand.  Nothing reads the whole message unless it is
asked for; `chunks` streams it.  A header value that holds CR, LF or NUL is refused when it is set, so that no edit can
make a header line that its author did not write.
"""

from __future__ import annotations

import binascii
import quopri
import re
from collections.abc import Awaitable, Callable, Iterator
from email.errors import HeaderParseError
from email.header import Header, decode_header, make_header
from email.message import Message as StandardMessage
from email.parser import BytesHeaderParser
from pathlib import PurePosixPath
from typing import Final

from livemail.filters.edits import Edits
from livemail.interfaces.filter import HeaderEdit
from livemail.interfaces.storage import IContentSink
from livemail.mail.content import CHUNK_OCTETS, Content, chunks
from livemail.mail.message.addresses import parse_addresses
from livemail.mail.message.summary import Part, Summary, decode_parts

MAX_HEADER_OCTETS: Final = 1024 * 1024
"""Header octets a view parses; fields beyond stay in the message and are not seen."""

_NEWLINE: Final = re.compile(rb"\r\n|\r|\n")
_FOLDED: Final = re.compile(rb"\r\n[ \t]+(?=[^ \t\r\n])")

Field = tuple[bytes, bytes]
"""Name as written, and the whole field with name, folding and CRLF."""


class Message:
    """The message as the filters before left it; the filter's own edits show to those behind it, not to itself."""

    __slots__ = ("_edits", "_fields", "content")

    def __init__(self, content: Content, edits: Edits | None = None, fields: list[Field] | None = None) -> None:
        """fields: those of the content, where somebody parsed them before."""
        self.content = content
        self._fields = fields
        self._edits = edits if edits is not None else Edits()

    @property
    def size(self) -> int:
        """Octets."""
        return self.content.size

    @property
    def summary(self) -> Summary:
        """What the one pass over the octets found."""
        return self.content.summary

    # ------------------------------------------------------------------------------------------ reading

    @property
    def edits(self) -> Edits:
        """What was changed so far."""
        return self._edits

    @property
    def parsed_fields(self) -> list[Field] | None:
        """The fields when somebody has asked for them."""
        return self._fields

    @property
    def fields(self) -> list[Field]:
        """All header fields in order."""
        if self._fields is None:
            length = min(self.content.outline.header_size, MAX_HEADER_OCTETS)
            self._fields = _split(self.content.read(0, length))
        return self._fields

    def values(self, name: bytes | str) -> list[bytes]:
        """Return the unfolded values of all fields of a name, in order."""
        wanted = _name(name).lower()
        return [_value(raw) for found, raw in self.fields if found.lower() == wanted]

    def text(self, name: bytes | str) -> str:
        """Return the first field of a name decoded (RFC 2047), "" when there is none."""
        values = self.values(name)
        if not values:
            return ""
        raw = values[0].decode("utf-8", "surrogateescape")
        try:
            decoded = str(make_header(decode_header(raw)))
            # Octets that are no UTF-8 must not leave as half characters that cannot be written again.
            return decoded.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        except (LookupError, ValueError, binascii.Error, HeaderParseError):
            return values[0].decode("utf-8", "replace")

    def addresses(self, name: bytes | str, limit: int = 1000) -> list[str]:
        """Return the addresses in all fields of a name, ``local@domain`` as written, at most ``limit``; those that are none are left out."""
        found: list[str] = []
        for value in self.values(name):
            for _, local, domain in parse_addresses(value, limit):
                if local and domain:
                    found.append(f"{local.decode('utf-8', 'replace')}@{domain.decode('utf-8', 'replace')}")
        return found[:limit]

    def chunks(self, size: int = CHUNK_OCTETS) -> Iterator[bytes]:
        """Yield all octets, header included."""
        return chunks(self.content, size)

    def parts(self) -> Iterator[MessagePart]:
        """Yield the leaves of the MIME tree, in order."""
        stack = [decode_parts(self.summary.parts)]
        while stack:
            part = stack.pop()
            if part.children:
                stack.extend(reversed(part.children))
            else:
                yield MessagePart(self.content, part)

    # ------------------------------------------------------------------------------------------ edits

    def add_header(self, name: str, value: str | bytes) -> None:
        """Append a field to the header."""
        self._edits.header(HeaderEdit("add", _name(name), _checked(name, value)))

    def insert_header(self, name: str, value: str | bytes, index: int = 0) -> None:
        """Insert a field before the one at position ``index`` (0-based)."""
        self._edits.header(HeaderEdit("insert", _name(name), _checked(name, value), index))

    def change_header(self, name: str, value: str | bytes, index: int = 0) -> None:
        """Replace the value of the field's occurrence ``index`` (0-based); add it when there is none."""
        self._edits.header(HeaderEdit("change", _name(name), _checked(name, value), index))

    def remove_header(self, name: str, index: int = 0) -> None:
        """Remove the field's occurrence ``index`` (0-based), when there is one."""
        self._edits.header(HeaderEdit("remove", _name(name), b"", index))

    def replace_body(self, body: bytes) -> None:
        """Replace everything behind the blank line; a line ending that is not CRLF becomes one."""
        if not isinstance(body, bytes):
            raise TypeError(f"a body is bytes, not {type(body).__name__}")
        if body.count(b"\n") != body.count(b"\r\n") or body.count(b"\r") != body.count(b"\r\n"):
            body = _NEWLINE.sub(b"\r\n", body)
        self._edits.replace_body(body)

    async def write_edited(self, sink: IContentSink, breathe: Callable[[int], Awaitable[None]]) -> None:
        """Write the message with its edits, in the order they were made.  Raises as the sink does.

        breathe: awaited behind each chunk, with its octets.
        """
        header_size = self.content.outline.header_size
        beyond = max(0, header_size - MAX_HEADER_OCTETS)
        fields = list(self.fields)
        body = self._edits.body
        for edit in self._edits.headers:
            _apply(fields, edit)
        sink.write(b"".join(raw for _, raw in fields))
        if beyond == 0:
            sink.write(b"\r\n")
        at, end = header_size - beyond, self.size if body is None else header_size
        while at < end:
            octets = self.content.read(at, min(CHUNK_OCTETS, end - at))
            if not octets:
                raise OSError("the content ends early")
            sink.write(octets)
            at += len(octets)
            await breathe(len(octets))
        if body is not None:
            for at in range(0, len(body), CHUNK_OCTETS):
                sink.write(body[at : at + CHUNK_OCTETS])
                await breathe(CHUNK_OCTETS)


class MessagePart:
    """One leaf of the MIME tree."""

    def __init__(self, content: Content, part: Part) -> None:
        self._content = content
        self.part = part
        self._header: StandardMessage | None = None

    @property
    def media_type(self) -> str:
        """``type/subtype``, lower-case."""
        return self.part.media_type

    @property
    def header(self) -> StandardMessage:
        """The part's header."""
        if self._header is None:
            length = min(self.part.body - self.part.start, 64 * 1024)
            self._header = BytesHeaderParser().parsebytes(self._content.read(self.part.start, length))
        return self._header

    @property
    def filename(self) -> str:
        """The name its sender gave it (RFC 2183 §2.3, RFC 2231), "" when none."""
        return self.header.get_filename("")

    @property
    def extension(self) -> str:
        """Of the file name, lower-case with its dot, "" when none."""
        return PurePosixPath(self.filename.strip()).suffix.lower()

    def read(self) -> bytes:
        """Return the body as sent."""
        return self._content.read(self.part.body, self.part.end - self.part.body)

    @property
    def size(self) -> int:
        """Octets of the body as sent."""
        return self.part.end - self.part.body

    def decoded(self, limit: int | None = None) -> bytes:
        """Return the body without its transfer encoding, at most ``limit`` octets of it; as sent where that is malformed."""
        if limit is None:
            octets = self.read()
        else:
            # Of base64 a third is lost, of quoted-printable two thirds, and some lines are white space.
            octets = self._content.read(self.part.body, min(self.size, 4 * limit + 1024))
        try:
            if self.part.encoding == "base64":
                if len(octets) < self.size:
                    octets = b"".join(octets.split())
                    octets = octets[: len(octets) // 4 * 4]
                octets = binascii.a2b_base64(octets)
            elif self.part.encoding == "quoted-printable":
                octets = quopri.decodestring(octets)
        except binascii.Error:
            pass
        return octets if limit is None else octets[:limit]


def _split(header: bytes) -> list[Field]:
    """Split header octets into fields; the blank line is left out.  Linear."""
    fields: list[Field] = []
    lines: list[bytes] = []

    def finish() -> None:
        if lines:
            fields.append((lines[0].partition(b":")[0].rstrip(b" \t\r\n"), b"".join(lines)))
            lines.clear()

    for line in _lines(header):
        if line in {b"\r\n", b"\n"}:
            break
        if line[:1] not in {b" ", b"\t"}:
            finish()
        lines.append(line)
    finish()
    return fields


def _lines(octets: bytes) -> Iterator[bytes]:
    """Yield lines that end with LF; a bare CR ends none."""
    start = 0
    while start < len(octets):
        end = octets.find(b"\n", start) + 1 or len(octets)
        yield octets[start:end]
        start = end


def _value(raw: bytes) -> bytes:
    return raw.partition(b":")[2].replace(b"\r", b"").replace(b"\n", b"").strip(b" \t")


def _name(name: bytes | str) -> bytes:
    octets = name.encode("ascii") if isinstance(name, str) else name
    if not octets or any(octet <= 32 or octet >= 127 or octet == 0x3A for octet in octets):
        raise ValueError(f"not a header field name: {name!r}")
    return octets


def _checked(name: str, value: str | bytes) -> bytes:
    """Return a value as octets, folded where it was text.  RFC 5322 §2.2.

    Octets may be folded already (CRLF, space or tab, something printable).  Raises ValueError for CR, LF and NUL otherwise.
    """
    bare = _FOLDED.sub(b" ", value) if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    if b"\r" in bare or b"\n" in bare or b"\0" in bare:
        raise ValueError(f"a value of {name} cannot hold CR, LF or NUL")
    if isinstance(value, bytes):
        return value
    charset = "us-ascii" if value.isascii() else "utf-8"
    return Header(value, charset, header_name=name).encode(linesep="\r\n").encode("ascii")


def _apply(fields: list[Field], edit: HeaderEdit) -> None:
    field = (edit.name, edit.name + b": " + edit.value + b"\r\n")
    if edit.action == "add":
        fields.append(field)
        return
    if edit.action == "insert":
        fields.insert(edit.index, field)
        return
    wanted = edit.name.lower()
    occurrences = [at for at, (name, _) in enumerate(fields) if name.lower() == wanted]
    if edit.index < len(occurrences):
        if edit.action == "remove":
            del fields[occurrences[edit.index]]
        else:
            fields[occurrences[edit.index]] = field
    elif edit.action == "change":
        fields.append(field)
