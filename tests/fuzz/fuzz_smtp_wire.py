"""SMTP's wire under any octets: only WireError, content only ended by CRLF.CRLF, and the same whatever the pieces."""

from __future__ import annotations

from livemail.mail.errors import WireError
from livemail.smtp.wire import Wire

Events = list[tuple[str, bytes]]


def events(stream: bytes, size: int) -> Events:
    """Play a dialogue: DATA and BDAT 9 switch the wire as a session would."""
    wire = Wire()
    found: Events = []
    in_content = False
    content = b""
    for at in range(0, len(stream), size):
        wire.feed(stream[at : at + size])
        while True:
            if in_content:
                chunk = wire.chunk()
                if chunk is None:
                    break
                content += chunk[0]
                if chunk[1]:
                    found.append(("content", content))
                    in_content, content = False, b""
                continue
            try:
                line = wire.line()
            except WireError as error:
                found.append(("fatal" if error.fatal else "error", error.text.encode()))
                continue
            if line is None:
                break
            found.append(("line", line))
            if line == b"DATA":
                wire.begin_data()
                in_content = True
            elif line == b"BDAT":
                wire.begin_bdat(9)
                in_content = True
    return found


def fuzz_one(data: bytes) -> None:
    """One input."""
    whole = events(data, len(data) or 1)
    assert events(data, 1) == whole
    assert events(data, 7) == whole
    assert sum(len(octets) for kind, octets in whole if kind in {"line", "content"}) <= len(data)
