"""mbox files: mboxrd, mboxo and mboxcl2, told apart; plain, compressed, or many in a zip or tar archive.

    mboxo     a line of the body that begins with "From " has a ">" before it
    mboxrd    so has every line of ">"s and "From ", so that taking one away gives what was written
    mboxcl2   nothing is quoted: Content-Length says how many octets the body has

Told apart by the first messages: Content-Length in all of them, and each led to the next "From " line: mboxcl2.  Otherwise
one ">" is taken away: from ">From " in an mboxo file, from ">>From " too in an mboxrd file.  A file in which ">>From " stands is taken
for mboxrd.  ``--variant`` says it where that guess is wrong.

A message's id is the digest of its octets and how many equal ones came before it in the file, so that an import goes on
although the file has grown, or was compacted, in between.
"""

from __future__ import annotations

import calendar
import re
import time
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from typing import IO, Final, Literal

from livemail.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from livemail.storage.transfer.source import CHUNK_OCTETS, SourceMessage, short_id

Variant = Literal["auto", "mboxo", "mboxrd", "mboxcl2"]

SAMPLE_OCTETS: Final = 4 * 1024 * 1024
MAX_HEADER_OCTETS: Final = 1024 * 1024

_FROM: Final = b"From "
_QUOTED: Final = re.compile(rb"^>+From ")
_TWICE_QUOTED: Final = re.compile(rb"^>>+From ", re.MULTILINE)
_LENGTH: Final = re.compile(rb"^content-length:[ \t]*(\d{1,15})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_DATE: Final = re.compile(
    rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[ ,]+(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +(\d{1,2}) (\d\d):(\d\d)(?::(\d\d))?"
    rb"(?: (?:[A-Z]{3,5}|[+-]\d{4}))* (\d{4})"
)
_MONTHS: Final = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def looks_like_mbox(head: bytes) -> bool:
    """Whether a file that begins so is an mbox."""
    return head.startswith(_FROM) or not head


def tell_variant(sample: bytes) -> Variant:
    """Say which kind the beginning of a file is of."""
    at, seen = 0, 0
    while seen < 20 and sample.startswith(_FROM, at):
        header_end, body = _header_end(sample, at)
        if header_end < 0:
            break
        length = _LENGTH.search(sample, at, header_end)
        if length is None:
            break
        end = body + int(length[1])
        if end > len(sample):
            seen += 1  # Beyond the sample: nothing speaks against it.
            break
        rest = sample[end : end + 4].replace(b"\r\n", b"\n")
        # One blank line, or none, stands between two messages.
        following = end + (
            len(sample[end : end + 2]) if rest[:1] == b"\n" and sample[end : end + 1] == b"\r" else rest[:1] == b"\n"
        )
        if following < len(sample) and not sample.startswith(_FROM, following):
            seen = 0
            break
        seen += 1
        at = following
    if seen:
        return "mboxcl2"
    return "mboxrd" if _TWICE_QUOTED.search(sample) else "mboxo"


def _header_end(sample: bytes, at: int) -> tuple[int, int]:
    """Return where a message's header ends and its body begins; -1 when it does not end."""
    ends = [(found, found + len(blank)) for blank in (b"\n\n", b"\r\n\r\n") if (found := sample.find(blank, at)) >= 0]
    return min(ends) if ends else (-1, -1)


class MboxReader:
    """Reads one mbox, forwards, once."""

    def __init__(self, stream: IO[bytes], where: str, variant: Variant) -> None:
        """variant: not "auto"."""
        self._stream = stream
        self._where = where
        self._variant = variant
        self._line = stream.readline()
        self._number = 0
        self._seen: Counter[bytes] = Counter()

    def __iter__(self) -> Iterator[SourceMessage]:
        while self._line and not self._line.startswith(_FROM):
            self._line = self._stream.readline(CHUNK_OCTETS)  # what precedes the first message is nobody's
        while self._line:
            message = self._message()
            yield message
            if not message.id:  # who did not want it has not read it
                for _ in message.chunks():
                    pass

    def _message(self) -> SourceMessage:
        self._number += 1
        separator = self._line
        header = self._read_header()
        message = SourceMessage(f"{self._where}, message {self._number}", lambda: iter(()))

        def chunks() -> Iterator[bytes]:
            digest = blake2b(digest_size=16)
            for chunk in self._content(header):
                digest.update(chunk)
                yield chunk
            octets = digest.digest()
            self._seen[octets] += 1
            message.id = short_id(octets, b"%d" % self._seen[octets])

        message.chunks = chunks
        message.date = parse_separator(separator)
        message.flags, message.keywords, message.mailbox = read_status(header)
        return message

    def _read_header(self) -> bytes:
        lines: list[bytes] = []
        octets = 0
        while octets < MAX_HEADER_OCTETS:
            line = self._stream.readline(CHUNK_OCTETS)
            octets += len(line)
            lines.append(line)
            if not line or line in {b"\n", b"\r\n"}:
                break
            if line.startswith(_FROM) and len(lines) == 1:
                break
        return b"".join(lines)

    def _content(self, header: bytes) -> Iterator[bytes]:
        if header.startswith(_FROM):  # two separators: an empty message
            self._line = header
            return
        yield _crlf(header)
        length = _LENGTH.search(header) if self._variant == "mboxcl2" else None
        if length is not None:
            yield from self._counted(int(length[1]))
        else:
            yield from self._until_separator()

    def _counted(self, left: int) -> Iterator[bytes]:
        """The body by its announced length; what follows up to the next separator belongs to it too, if it is not blank."""
        held = b""
        while left > 0:
            chunk = self._stream.read(min(left, CHUNK_OCTETS))
            if not chunk:
                break
            left -= len(chunk)
            chunk = held + chunk
            held = b"\r" if chunk[-1:] == b"\r" else b""
            yield _crlf(chunk[: len(chunk) - len(held)])
        if held:
            yield held
        line = self._stream.readline(CHUNK_OCTETS)
        if line in {b"\n", b"\r\n"}:
            line = self._stream.readline(CHUNK_OCTETS)
        if line and not line.startswith(_FROM):
            yield _crlf(line)
            yield from self._until_separator()
        else:
            self._line = line

    def _until_separator(self) -> Iterator[bytes]:
        """The body up to a separator that follows a blank line, which is the separator's; one ">" is taken away."""
        lines: list[bytes] = []
        octets = 0
        blank = b""
        is_cut = False
        depth = b">" if self._variant == "mboxo" else b""
        while True:
            line = self._stream.readline(CHUNK_OCTETS)
            if not line or (line.startswith(_FROM) and not is_cut and (blank or not lines)):
                self._line = line
                break
            if blank:
                lines.append(blank)
                octets += len(blank)
                blank = b""
            if line in {b"\n", b"\r\n"} and not is_cut:
                blank = line
                continue
            quoted = _QUOTED.match(line) if line[:1] == b">" and not is_cut else None
            if quoted is not None and (not depth or line.startswith(b">From ")):
                line = line[1:]
            is_cut = line[-1:] != b"\n"
            lines.append(line)
            octets += len(line)
            if octets >= CHUNK_OCTETS and not (is_cut and line[-1:] == b"\r"):
                yield _crlf(b"".join(lines))
                lines, octets = [b""], 0
        yield _crlf(b"".join(lines))


def _crlf(octets: bytes) -> bytes:
    return octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def parse_separator(line: bytes) -> int | None:
    """Return the time of a "From " line, taken for UTC; None when there is none that can be read."""
    found = _DATE.search(line)
    if found is None:
        return None
    month = _MONTHS.index(found[1]) + 1
    day, hour, minute, second, year = (int(found[at] or 0) for at in (2, 3, 4, 5, 6))
    try:
        moment = time.strptime(f"{year}-{month}-{day} {hour}:{minute}:{min(second, 59)}", "%Y-%m-%d %H:%M:%S")
    except ValueError:
        return None
    return calendar.timegm(moment)


# ------------------------------------------------------------------------------------------------- flags in headers

_STATUS: Final = re.compile(rb"^(x-)?status:[ \t]*([A-Za-z]*)", re.IGNORECASE | re.MULTILINE)
_MOZILLA: Final = re.compile(rb"^x-mozilla-status:[ \t]*([0-9a-f]{4})", re.IGNORECASE | re.MULTILINE)
_MOZILLA_KEYS: Final = re.compile(rb"^x-mozilla-keys:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_KEYWORDS: Final = re.compile(rb"^x-keywords:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_LABELS: Final = re.compile(rb"^x-gmail-labels:[ \t]*([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.IGNORECASE | re.MULTILINE)
_LETTERS: Final = {b"R": SEEN, b"A": ANSWERED, b"F": FLAGGED, b"D": DELETED, b"T": DRAFT}
_MOZILLA_BITS: Final = {0x0001: SEEN, 0x0002: ANSWERED, 0x0004: FLAGGED, 0x0008: DELETED}
_PLACES: Final = {
    "inbox": "INBOX",
    "sent": "Sent",
    "drafts": "Drafts",
    "draft": "Drafts",
    "spam": "Junk",
    "trash": "Trash",
}
_STATES: Final = frozenset({"opened", "unread", "starred", "important", "archived", "chat", "muted"})
_ATOM: Final = re.compile(r'[^\x00-\x20(){}%*"\\\]\x7f-\U0010ffff]+')


def read_status(header: bytes) -> tuple[int, tuple[str, ...], str]:
    """Return flags, keywords and mailbox that a program wrote into the header.

    Status and X-Status (mutt, Dovecot, c-client), X-Mozilla-Status (Thunderbird), X-Keywords (Dovecot), X-Gmail-Labels (Takeout): the
    first label that is a place is the mailbox, the others are keywords.
    """
    flags = 0
    for _, letters in _STATUS.findall(header):
        for letter in letters:
            flags |= _LETTERS.get(bytes([letter]).upper(), 0)
    mozilla = _MOZILLA.search(header)
    if mozilla is not None:
        flags |= sum(bit for mask, bit in _MOZILLA_BITS.items() if int(mozilla[1], 16) & mask)
    words: list[str] = []
    for pattern in (_KEYWORDS, _MOZILLA_KEYS):
        found = pattern.search(header)
        if found is not None:
            words += found[1].decode("utf-8", "replace").replace(",", " ").split()
    labels = _labels(header)
    if labels is None:
        return flags, keywords_of(words), ""
    folded = [label.lower() for label in labels]
    flags |= FLAGGED if "starred" in folded else 0
    flags |= 0 if "unread" in folded else SEEN
    mailbox = next((_PLACES[each] for each in folded if each in _PLACES), "")
    own = [label for label in labels if label.lower() not in _PLACES and label.lower() not in _STATES]
    if not mailbox:
        mailbox = own.pop(0) if own else "Archive"
    return flags, keywords_of([*words, *own]), mailbox


def _labels(header: bytes) -> list[str] | None:
    found = _LABELS.search(header)
    if found is None:
        return None
    from email.header import decode_header, make_header

    raw = re.sub(rb"\r?\n[ \t]+", b" ", found[1]).decode("utf-8", "replace")
    try:
        text = str(make_header(decode_header(raw)))
    except (LookupError, ValueError):
        text = raw
    return [label.strip().strip('"') for label in text.split(",") if label.strip()]


def keywords_of(words: list[str]) -> tuple[str, ...]:
    """Return what can be an IMAP keyword of the words: others have what is not allowed replaced."""
    made = ["".join(character if _ATOM.fullmatch(character) else "_" for character in word) for word in words]
    return tuple(dict.fromkeys(word[:255] for word in made if word))
