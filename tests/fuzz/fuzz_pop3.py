"""A POP3 client that sends anything, cut anywhere: answers are whole lines, the wire keeps no more than a line."""

from __future__ import annotations

import contextlib

from livemail.mail.errors import WireError
from livemail.pop3.grammar import parse_command, parse_number, parse_text
from livemail.pop3.wire import Stuffing, Wire


def fuzz_one(data: bytes) -> None:
    _wire(data)
    _stuffing(data)
    for parse in (parse_command, parse_number, parse_text):
        with contextlib.suppress(WireError):
            parse(data)


def _wire(data: bytes) -> None:
    """However it is cut, the same lines and errors come out."""
    whole = _lines([data])
    cut = data[0] if data else 0
    assert _lines([data[at : at + cut + 1] for at in range(0, len(data), cut + 1)]) == whole


def _lines(pieces: list[bytes]) -> list[bytes]:
    wire, lines = Wire(line_limit=40, sasl_limit=60), []
    for piece in pieces:
        wire.feed(piece)
        while True:
            try:
                line = wire.line()
            except WireError as error:
                lines.append(error.text.encode())
                continue
            if line is None:
                break
            lines.append(line)
        assert wire.pending <= 60
    return lines


def _stuffing(data: bytes) -> None:
    """However it is cut, what is sent ends where it should, for clients that split at CRLF and at LF."""
    whole = Stuffing()
    sent = whole.stuff(data) + whole.end()
    cut = (data[0] if data else 0) % 7 + 1
    pieces = Stuffing()
    assert b"".join(pieces.stuff(data[at : at + cut]) for at in range(0, len(data), cut)) + pieces.end() == sent
    assert (b"\r\n" + sent).find(b"\r\n.\r\n") + 5 == len(sent) + 2
    lines = [line[:-1] if line.endswith(b"\r") else line for line in sent.split(b"\n")]
    assert lines.index(b".") == len(lines) - 2
    unstuffed = (b"\n" + sent[:-3]).replace(b"\n.", b"\n")[1:]
    assert unstuffed in {data, data + b"\r\n"}
