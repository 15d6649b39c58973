"""What a server and a filter's own process say to each other: frames of MessagePack, each behind its length (u32, big-endian)."""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

import msgspec

from livemail.interfaces.filter import (
    CONTINUE,
    SKIP,
    Accept,
    ConnectionInfo,
    Continue,
    Defer,
    Discard,
    EnvelopeEdit,
    HeaderEdit,
    Quarantine,
    Reject,
    Skip,
    Verdict,
)
from livemail.mail.envelope import Recipient, ReversePath
from livemail.mail.message.summary import Summary

LENGTH: Final = Struct(">I")
READ: Final = Struct(">QQI")
"""A question for content: handle, offset, octets.  The answer is a length and the octets."""

SMALL: Final = 256 * 1024
"""Octets up to which a content goes with the question."""

MAX_FRAME: Final = 1 << 30

# No `Ask` has this number: they are counted from 1.
NOBODY: Final = 0

COMMANDS, ANSWERS, QUESTIONS, CONTENTS = 3, 4, 5, 6
"""The process's descriptors: it reads commands and contents, it writes answers and questions for content."""


class Begin(msgspec.Struct, tag=True):
    """The first frame.  filter: ``module:Class``."""

    filter: str
    config: dict[str, Any]
    memory: int
    hostname: str
    folder: str
    name: str


class ContentInfo(msgspec.Struct):
    """A message's content: whole when it is small, else to be asked for by its handle."""

    size: int
    summary: Summary
    data: bytes
    handle: int


class Ask(msgspec.Struct, tag=True):
    """Ask an object something; the object is made when it is new.  content: with the first content stage only."""

    request: int
    object: int
    stage: str
    connection: ConnectionInfo
    helo: str
    reverse_path: ReversePath | None
    recipients: list[Recipient]
    scores: list[tuple[float, str]]
    name: str = ""
    recipient: Recipient | None = None
    chunk: bytes = b""
    content: ContentInfo | None = None
    new_path: ReversePath | None = None


class Close(msgspec.Struct, tag=True):
    """The object is not needed any more."""

    object: int


class Ready(msgspec.Struct, tag=True):
    """The process runs, and can be asked where it is."""


class Spoken(msgspec.Struct):
    """A verdict."""

    kind: str
    enhanced: str = ""
    text: str = ""
    reason: str = ""
    code: int = 0


class Told(msgspec.Struct, tag=True):
    """The answer to one `Ask`, or to a `Close` that went wrong: request is NOBODY then.

    error: what was raised, "" when there is a verdict; line: where.
    """

    request: int
    verdict: Spoken | None = None
    error: str = ""
    line: str = ""
    headers: list[HeaderEdit] = []
    envelope: list[EnvelopeEdit] = []
    body: bytes | None = None
    scores: list[tuple[float, str]] = []


class Fault(msgspec.Struct, tag=True):
    """An edit of an object that could not be, at any time."""

    object: int
    text: str


encode: Final = msgspec.msgpack.Encoder().encode
decode_command: Final = msgspec.msgpack.Decoder(Begin | Ask | Close).decode
decode_answer: Final = msgspec.msgpack.Decoder(Ready | Told | Fault).decode


def frame(value: msgspec.Struct) -> bytes:
    """Render one frame."""
    octets = encode(value)
    return LENGTH.pack(len(octets)) + octets


class Frames:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take octets; return the frames they complete.  Raises ValueError for a frame nobody sends."""
        self._buffer += data
        found = []
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} octets")
            end = LENGTH.size + length
            if len(self._buffer) < end:
                break
            found.append(bytes(self._buffer[LENGTH.size : end]))
            del self._buffer[:end]
        return found


def spoken(verdict: Verdict) -> Spoken:
    """Pack a verdict."""
    kind = type(verdict).__name__
    if isinstance(verdict, Reject | Defer):
        return Spoken(kind, verdict.enhanced, verdict.text, verdict.reason, verdict.code)
    return Spoken(kind, reason=getattr(verdict, "reason", ""))


_KINDS: Final = {kind.__name__: kind for kind in (Accept, Discard, Quarantine)}


def heard(words: Spoken) -> Verdict:
    """Unpack a verdict.  Raises ValueError."""
    if words.kind == Continue.__name__:
        return CONTINUE
    if words.kind == Skip.__name__:
        return SKIP
    if words.kind == Reject.__name__:
        return Reject(words.enhanced, words.text, words.reason, words.code)
    if words.kind == Defer.__name__:
        return Defer(words.enhanced, words.text, words.reason, words.code)
    if words.kind in _KINDS:
        verdict: Verdict = _KINDS[words.kind](words.reason)
        return verdict
    raise ValueError(f"no verdict: {words.kind}")
