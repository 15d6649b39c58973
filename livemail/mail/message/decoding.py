"""Octets to text: encoded words, transfer encodings, character sets.  RFC 2045 §6, RFC 2047.

For search and display only: nothing here fails, and nothing that was stored is changed.  An unknown character set is read
as UTF-8 where it is UTF-8, else as ISO 8859-1, so that the ASCII in it is found.

`TextDecoder` works on windows of any size: it keeps at most one unfinished unit (four base64 characters, one
``=XX``, one multi-octet character), so the size of a part does not matter.
"""

from __future__ import annotations

import binascii
import codecs
import re
from functools import lru_cache
from typing import Final

_ENCODED_WORD: Final = re.compile(rb"=\?([!-<>@-~]{1,60}+)\?([BbQq])\?([ ->@-~]*+)\?=")
_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/]++")
_MAX_PENDING: Final = 1000
_REFUSED_CODECS: Final = frozenset(
    ("utf-7", "utf_7", "idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined")
)
"""Codecs that are no character sets, or whose cost is not linear."""


@lru_cache(maxsize=256)
def _codec(charset: str) -> str | None:
    """Return the codec's name for a character set, None when there is none to be used."""
    name = charset.partition("*")[0].strip().lower()  # RFC 2231 §5: a language may follow.
    if not name or len(name) > 40 or not name.isascii() or name in _REFUSED_CODECS:
        return None
    try:
        b"a".decode(name, "replace")  # Raises for rot13, zlib, hex, …, which are no character sets.
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        return None
    # ASCII with 8-bit octets in it is UTF-8 or a Windows code page in practice.
    return None if codec.name in _REFUSED_CODECS or codec.name == "ascii" else codec.name


def decode_octets(raw: bytes, charset: str = "") -> str:
    """Decode octets of a character set; what does not decode is replaced."""
    if raw.isascii() and not charset.lower().startswith(("utf-16", "utf-32", "iso-2022", "hz")):
        return raw.decode("ascii")
    codec = _codec(charset)
    if codec is None:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")
    try:
        return raw.decode(codec, "replace")
    except (UnicodeError, ValueError):
        return raw.decode("latin-1")


def decode_words(value: bytes) -> str:
    """Decode an unfolded header value.  RFC 2047, RFC 6532.

    White space between encoded words goes away (§6.2); neighbours of one character set and encoding are decoded
    together, because senders split characters over words.  What is not a well-formed encoded word stays as it is.
    """
    if b"=?" not in value:
        return decode_octets(value)
    out: list[str] = []
    run: list[bytes] = []
    run_charset = ""
    at = 0
    for match in _ENCODED_WORD.finditer(value):
        charset, encoding, text = match.groups()
        name = charset.decode("ascii").lower()
        between = value[at : match.start()]
        is_apart = not run or bool(between.strip(b" \t\r\n"))
        if run and (is_apart or name != run_charset):
            out.append(decode_octets(b"".join(run), run_charset))
            run = []
        if is_apart:
            out.append(decode_octets(between))
        run_charset = name
        run.append(_decode_base64(text) if encoding in b"Bb" else binascii.a2b_qp(text, header=True))
        at = match.end()
    if run:
        out.append(decode_octets(b"".join(run), run_charset))
    out.append(decode_octets(value[at:]))
    return "".join(out)


def _decode_base64(text: bytes) -> bytes:
    """Decode what is there of base64, without regard to padding and foreign octets."""
    text = _NOT_BASE64.sub(b"", text)
    if len(text) % 4 == 1:
        text = text[:-1]
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4))


def decode_text(raw: bytes, encoding: str, charset: str) -> str:
    """Decode a whole text part.  encoding, charset: as in `Part`."""
    decoder = TextDecoder(encoding, charset)
    return decoder.feed(raw) + decoder.finish()


class TextDecoder:
    """Decodes a text part window by window."""

    def __init__(self, encoding: str, charset: str) -> None:
        """encoding, charset: as in `Part`; an encoding that is not known counts as 8bit."""
        self._encoding = encoding
        self._pending = b""
        codec = _codec(charset)
        # Lenient: without a usable character set each octet that is not part of UTF-8 is ISO 8859-1.
        self._characters = codecs.getincrementaldecoder(codec or "utf-8")("replace" if codec else "livemail_latin1")

    def feed(self, raw: bytes) -> str:
        """Return the text of the next octets, as far as it is certain."""
        return self._text(self._transfer(raw), final=False)

    def finish(self) -> str:
        """Return the text of what was waiting for more."""
        rest, self._pending = self._pending, b""
        if self._encoding == "base64":
            rest = _decode_base64(rest)
        elif self._encoding == "quoted-printable":
            rest = binascii.a2b_qp(rest)
        return self._text(rest, final=True)

    def _text(self, octets: bytes, *, final: bool) -> str:
        try:
            return self._characters.decode(octets, final)
        except (UnicodeError, ValueError):
            self._characters.reset()
            return octets.decode("latin-1")

    def _transfer(self, raw: bytes) -> bytes:
        if self._encoding == "base64":
            text = self._pending + _NOT_BASE64.sub(b"", raw)
            whole = len(text) - len(text) % 4
            self._pending = text[whole:]
            return binascii.a2b_base64(text[:whole])
        if self._encoding == "quoted-printable":
            text = self._pending + raw
            # A line end decides what "=" and the spaces before it mean, so only whole lines are decoded, or, of a line
            # without end, all but what may be unfinished.
            cut = text.rfind(b"\n") + 1
            if len(text) - cut > _MAX_PENDING:
                cut = len(text) - 2 if b"=" in text[-2:] else len(text)
            self._pending = text[cut:]
            return binascii.a2b_qp(text[:cut])
        return raw


def _as_latin1(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return error.object[error.start : error.end].decode("latin-1"), error.end
    raise error


codecs.register_error("livemail_latin1", _as_latin1)
