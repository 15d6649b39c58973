"""An MTA and a milter that send anything, cut anywhere: the wire gives out the same however it is cut, parsers raise WireError only,
and a session answers or closes.
"""

from __future__ import annotations

import contextlib

from livemail.filters import CONTINUE, Filter
from livemail.mail.errors import WireError
from livemail.milter import codes, grammar
from livemail.milter.state import EDITS
from livemail.milter.wire import Wire
from tests.milter.rig import MTA


def fuzz_one(data: bytes) -> None:
    _wire(data)
    for parse in (
        grammar.parse_options,
        grammar.parse_connect,
        grammar.parse_macros,
        grammar.parse_mail,
        grammar.parse_rcpt,
        grammar.parse_reply,
        grammar.parse_path,
    ):
        with contextlib.suppress(WireError):
            parse(data)
    for leading_space in (True, False):
        with contextlib.suppress(WireError):
            name, value = grammar.parse_header(data, leading_space=leading_space)
            field = name + b":" + value + b"\r\n"
            assert all(line[:1] in b" \t" for line in field.split(b"\r\n")[1:-1])
        for command in EDITS:
            with contextlib.suppress(WireError):
                _edit(command, data, leading_space=leading_space)
    _session(data)


def _edit(command: bytes, data: bytes, *, leading_space: bool) -> None:
    edit = grammar.parse_edit(command, data, leading_space=leading_space)
    if isinstance(edit, grammar.HeaderChange):
        assert b"\n" not in edit.value.replace(b"\r\n ", b"").replace(b"\r\n\t", b"")
        assert b"\r" not in edit.value.replace(b"\r\n", b"")


def _wire(data: bytes) -> None:
    whole = _packets([data])
    cut = data[0] if data else 0
    assert _packets([data[at : at + cut + 1] for at in range(0, len(data), cut + 1)]) == whole


def _packets(pieces: list[bytes]) -> list[tuple[bytes, bytes] | str]:
    wire, found = Wire(200), []
    for piece in pieces:
        wire.feed(piece)
        while True:
            try:
                packet = wire.packet()
            except WireError as error:
                found.append(error.text)
                break
            if packet is None:
                break
            found.append(packet)
    return found


class Edits(Filter):
    async def message(self, tx, message):
        message.insert_header("X-Seen", "yes")
        message.remove_header("Subject")
        return CONTINUE


def _session(data: bytes) -> None:
    """The octets as packets of an MTA: a command octet and its data up to the next 0xff."""
    mta = MTA(Edits)
    mta.connect()
    for piece in data.split(b"\xff"):
        if mta.is_closed:
            return
        for command, _ in mta.say((piece[:1] or b"A", piece[1:])):
            assert command in b"".join((codes.CONTINUE, codes.REPLYCODE, codes.OPTNEG, codes.DISCARD, *sorted(EDITS)))
    if not mta.is_closed:
        assert all(command == codes.CONTINUE for command, _ in mta.say((codes.ABORT,), (codes.MAIL, b"<>\0")))
