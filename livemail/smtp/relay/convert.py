"""8-bit and binary content made 7-bit for a peer that takes no other.  RFC 6152 §3, RFC 3030 §3, RFC 2045 §6.

Generators that ask for octets and give octets: they yield `Read` and are sent what was read, or yield bytes, which go out.  The
message is read three times and none of it is kept: for its structure (by the scanner that makes BODYSTRUCTURE), to see what
every part holds, to send it.  What cannot be done is known before the first octet goes out.

What becomes of what
    a leaf with 8-bit octets, NUL, bare CR or LF    quoted-printable where it is text with few of them, else base64; its
                                                    Content-Transfer-Encoding says so
    a leaf called 8bit or binary without them       stays, and is called 7bit
    multipart and message/rfc822                    stay, and are called 7bit
    8-bit octets between the parts                  "?": nobody is shown what stands there
    a message without MIME                          gets MIME-Version and a Content-Type: charset utf-8 where it is that, else
                                                    unknown-8bit (RFC 1428)

What cannot be converted, `Unconvertible`: what is inside multipart/signed or multipart/encrypted (RFC 1847 §2.1: opaque in
transit), base64 or quoted-printable that is not ASCII, types that may not be encoded (RFC 2046 §5.2), 8-bit octets in a
header, and 8-bit octets in structures that are malformed or beyond the scanner's limits.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Generator, Iterator
from typing import Final

import msgspec

from livemail.mail.message.fields import header_values
from livemail.mail.message.parameters import parse_media_type
from livemail.mail.message.scanner import Scanner
from livemail.mail.message.summary import Part, decode_parts
from livemail.smtp.relay.needs import Read

CHUNK: Final = 64 * 1024
_HEADER_OCTETS: Final = 256 * 1024
_QP_LINE: Final = 2048
"""Lines up to this length go as quoted-printable, which is encoded in whole lines."""

_BASE64_OCTETS: Final = 57 * 1024
_IDENTITY: Final = frozenset(("7bit", "8bit", "binary"))
_OPAQUE: Final = frozenset(("multipart/signed", "multipart/encrypted"))
_ENCODING_FIELD: Final = re.compile(
    rb"^content-transfer-encoding[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+\n?", re.MULTILINE | re.IGNORECASE
)
_EIGHT_BIT: Final = bytes(range(128, 256))
_QUESTIONED: Final = bytes(range(128)) + b"?" * 128


class Unconvertible(Exception):
    """The text says what stands in the way; it quotes nothing of the message."""


class _Segment(msgspec.Struct):
    """A range of the content.  part: whose header or body it is, None for what stands between parts.

    is_opaque: inside a part nobody may change.  encoding: what a leaf's body is given as, "" for as it is.
    charset: of a leaf that says none.
    """

    start: int
    end: int
    part: Part | None = None
    is_header: bool = False
    is_opaque: bool = False
    encoding: str = ""
    charset: str = ""


Giving = Generator[Read | bytes, bytes, None]


def converted(start: int, end: int, *, utf8_header: bool) -> Generator[Read, bytes, Giving]:
    """Look at the message between two offsets of the content; return the generator that gives it 7-bit.

    utf8_header: the peer takes UTF-8 in header fields.  Raises Unconvertible.
    """
    scanner = Scanner()
    for at in range(start, end, CHUNK):
        scanner.feed((yield Read(at, min(CHUNK, end - at))))
    root = decode_parts(scanner.finish().parts)
    segments = list(_segments(root, start, is_opaque=False))
    declared = ""
    for segment in segments:
        if segment.is_header:
            if segment.end - segment.start > _HEADER_OCTETS:
                raise Unconvertible("a header that is too large")
            header = yield Read(segment.start, segment.end - segment.start)
            declared = _declared(header)
            if not header.isascii() and not (utf8_header and not segment.is_opaque):
                raise Unconvertible("8-bit octets in a header")
        elif segment.part is not None:
            seen = _Seen()
            for at in range(segment.start, segment.end, CHUNK):
                seen.feed((yield Read(at, min(CHUNK, segment.end - at))))
            if seen.needs_encoding:
                _check_may_encode(segment, declared)
                segment.encoding = _encoding(segment.part, seen)
                segment.charset = seen.charset
    return _give(segments)


def _segments(part: Part, base: int, *, is_opaque: bool) -> Iterator[_Segment]:
    """Cut a part into ranges that follow each other without a gap."""
    if part.body > part.start:
        yield _Segment(base + part.start, base + part.body, part, is_header=True, is_opaque=is_opaque)
    if not part.children or part.media_type == "message/global":
        yield _Segment(base + part.body, base + part.end, part, is_opaque=is_opaque)
        return
    at = part.body
    for child in part.children:
        if child.start > at:
            yield _Segment(base + at, base + child.start)
        yield from _segments(child, base, is_opaque=is_opaque or part.media_type in _OPAQUE)
        at = child.end
    if part.end > at:
        yield _Segment(base + at, base + part.end)


class _Seen:
    """What a leaf's body holds."""

    __slots__ = ("_decoder", "_line", "_tail", "eight_bit", "has_controls", "longest", "size")

    def __init__(self) -> None:
        self.size = 0
        self.eight_bit = 0
        self.longest = 0
        self.has_controls = False  # NUL, bare CR, bare LF
        self._line = 0
        self._tail = b""
        self._decoder: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("utf-8")()

    def feed(self, chunk: bytes) -> None:
        """Take the next octets."""
        self.size += len(chunk)
        if not chunk.isascii():
            self.eight_bit += len(chunk) - len(chunk.translate(None, _EIGHT_BIT))
        if self._decoder is not None:
            try:
                self._decoder.decode(chunk)
            except UnicodeDecodeError:
                self._decoder = None
        if self._tail:
            chunk = self._tail + chunk
        self._tail = b"\r" if chunk.endswith(b"\r") else b""
        if self._tail:
            chunk = chunk[:-1]
        if not chunk:
            return
        ends = chunk.count(b"\r\n")
        if b"\0" in chunk or chunk.count(b"\n") != ends or chunk.count(b"\r") != ends:
            self.has_controls = True
        first = chunk.find(b"\n")
        if first < 0:
            self._line += len(chunk)
        else:
            self.longest = max(self.longest, self._line + first, *map(len, chunk.split(b"\n")[1:]))
            self._line = len(chunk) - chunk.rfind(b"\n") - 1
        self.longest = max(self.longest, self._line)

    @property
    def needs_encoding(self) -> bool:
        """Whether it cannot go as it is."""
        return bool(self.eight_bit or self.has_controls or self._tail)

    @property
    def charset(self) -> str:
        """What text with these octets is to be called where nothing was said."""
        return "utf-8" if self._decoder is not None and self.eight_bit else "unknown-8bit" if self.eight_bit else ""

    @property
    def is_text(self) -> bool:
        """Whether quoted-printable leaves it readable and is not much longer."""
        return not (self.has_controls or self._tail) and self.longest <= _QP_LINE and self.eight_bit * 4 <= self.size


def _declared(header: bytes) -> str:
    """The media type a header says; "" for none."""
    values = header_values(header, b"content-type")
    found = parse_media_type(values[0]) if values else None
    return f"{found[0].decode().lower()}/{found[1].decode().lower()}" if found else ""


def _check_may_encode(segment: _Segment, declared: str) -> None:
    assert segment.part is not None
    if segment.part.body == segment.part.start:
        raise Unconvertible("8-bit octets in a part without a header")  # a multipart that has no delimiter
    if segment.is_opaque:
        raise Unconvertible("8-bit octets in a signed or encrypted part")
    if segment.part.encoding not in _IDENTITY:
        raise Unconvertible("8-bit octets in a part that says it has none")
    if declared.startswith("multipart/") or (declared.startswith("message/") and declared != "message/global"):
        raise Unconvertible("8-bit octets in a part that may not be encoded")


def _encoding(part: Part, seen: _Seen) -> str:
    return "quoted-printable" if part.media_type.startswith("text/") and seen.is_text else "base64"


# ---------------------------------------------------------------------------------------------------------------- giving


def _give(segments: list[_Segment]) -> Giving:
    for position, segment in enumerate(segments):
        if segment.is_header:
            header = yield Read(segment.start, segment.end - segment.start)
            follows = segments[position + 1] if position + 1 < len(segments) else None
            yield _header(header, segment, follows, is_root=position == 0)
        elif segment.encoding == "base64":
            yield from _base64(segment)
        elif segment.encoding:
            yield from _quoted_printable(segment)
        else:
            for at in range(segment.start, segment.end, CHUNK):
                chunk = yield Read(at, min(CHUNK, segment.end - at))
                yield chunk if chunk.isascii() else chunk.translate(_QUESTIONED)


def _header(header: bytes, segment: _Segment, body: _Segment | None, *, is_root: bool) -> bytes:
    """Rewrite a header for what its body has become."""
    assert segment.part is not None
    encoding = body.encoding if body is not None and body.part is segment.part else ""
    if not encoding and segment.part.encoding not in {"8bit", "binary"} and not is_root:
        return header
    said = segment.part.encoding not in _IDENTITY
    fields = [] if said else [b"Content-Transfer-Encoding: %b\r\n" % (encoding or "7bit").encode()]
    if is_root and not header_values(header, b"mime-version"):
        fields.append(b"MIME-Version: 1.0\r\n")
    if encoding and body is not None and body.charset and not header_values(header, b"content-type"):
        fields.append(b"Content-Type: text/plain; charset=%b\r\n" % body.charset.encode())
    kept = header if said else _ENCODING_FIELD.sub(b"", header)
    if kept.endswith((b"\r\n\r\n", b"\n\n")) or kept in {b"\r\n", b"\n"}:
        blank = kept[-2:] if kept.endswith(b"\r\n") else b"\n"
        return kept[: -len(blank)] + b"".join(fields) + blank
    if kept and not kept.endswith(b"\n"):
        kept += b"\r\n"
    return kept + b"".join(fields) + b"\r\n"


def _base64(segment: _Segment) -> Giving:
    for at in range(segment.start, segment.end, _BASE64_OCTETS):
        octets = yield Read(at, min(_BASE64_OCTETS, segment.end - at))
        lines = [binascii.b2a_base64(octets[i : i + 57], newline=False) for i in range(0, len(octets), 57)]
        # The CRLF of the delimiter that follows, or the content's own, ends the last line.
        yield b"\r\n".join(lines) + (b"\r\n" if at + _BASE64_OCTETS < segment.end else b"")


def _quoted_printable(segment: _Segment) -> Giving:
    rest = b""
    for at in range(segment.start, segment.end, CHUNK):
        octets = rest + (yield Read(at, min(CHUNK, segment.end - at)))
        cut = octets.rfind(b"\n") + 1
        rest = octets[cut:]
        if cut:
            yield _encode_lines(octets[:cut])
    if rest:
        yield _encode_lines(rest)


def _encode_lines(octets: bytes) -> bytes:
    """Encode text.  The codec ends its soft line breaks as the first line of its input ends: without one, by LF alone."""
    encoded = binascii.b2a_qp(octets, quotetabs=False, istext=True, header=False)
    return encoded if b"\n" in octets else encoded.replace(b"=\n", b"=\r\n")
