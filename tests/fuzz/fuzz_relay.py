"""A host that says anything, cut anywhere: only ReplyError, never two readings, nothing kept without bound, no content that ends itself."""

from __future__ import annotations

import re

from livemail.smtp.relay.convert import Unconvertible, converted
from livemail.smtp.relay.needs import Read
from livemail.smtp.relay.offers import parse_offers
from livemail.smtp.relay.wire import LINE_OCTETS, LINES, MAX_TEXT, Content, Replies, ReplyError
from tests.smtp.relay.peer import ALL, PIPELINED, Peer
from tests.smtp.relay.rig import Rig, hop, job

STAGES = ("greeting", "ehlo", "mail", "rcpt", "data", "content")
Found = list[tuple[int, str, str] | str]


def replies(stream: bytes, size: int) -> Found:
    wire, found = Replies(), []
    for at in range(0, len(stream), size):
        wire.feed(stream[at : at + size])
        try:
            while (said := wire.next()) is not None:
                assert 200 <= said.code <= 599
                assert len(said.texts) <= LINES
                assert len(said.text) <= MAX_TEXT
                assert said.text.isprintable()
                assert not said.enhanced or said.enhanced[0] == str(said.code)[0]
                parse_offers(said)
                found.append((said.code, said.enhanced, said.text))
        except ReplyError as error:
            found.append(str(error))
            break
        assert wire.size <= LINE_OCTETS
    return found


def fuzz_one(data: bytes) -> None:
    """One input, as replies, as content, as a whole session's replies."""
    whole = replies(data, len(data) or 1)
    cut = (data[0] if data else 0) % 9 + 1
    assert replies(data, 1) == replies(data, cut) == whole
    _content(data, cut)
    _convert(data)
    _session(data)


def _content(data: bytes, cut: int) -> None:
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
    for stuffs in (True, False):
        whole, cut_up = Content(stuffs=stuffs), Content(stuffs=stuffs)
        sent = whole.feed(data) + whole.end()
        assert b"".join([*map(cut_up.feed, pieces), cut_up.end()]) == sent
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", sent)
        if stuffs:
            assert (b"\r\n" + sent).find(b"\r\n.\r\n") == len(sent) - 3


def _convert(data: bytes) -> None:
    def run(generator: object, out: list[bytes]) -> object:
        answer = None
        try:
            while True:
                need = generator.send(answer)  # type: ignore[attr-defined]
                answer = data[need.offset : need.offset + need.length] if isinstance(need, Read) else out.append(need)
        except StopIteration as stop:
            return stop.value

    out: list[bytes] = []
    try:
        giving = run(converted(0, len(data), utf8_header=False), out)
    except Unconvertible:
        return
    run(giving, out)
    assert b"".join(out).isascii()


def _session(data: bytes) -> None:
    """Whatever the host says, nothing is delivered that it did not have whole before it said 2yz, and nobody gets two answers."""
    for offers in (PIPELINED, ALL):
        for stage in (STAGES[len(data) % 3], STAGES[3 + sum(data) % 3]):
            rig = Rig(Peer(offers, **{stage: data}), hop())
            rig.introduce()
            if rig.connection.is_busy or rig.transport.is_lost:
                continue
            rig.send(job(to=("a@b.example", "c@d.example")))
            delivered = [each for each in rig.outcomes.values() if each.verdict == "delivered"]
            assert not delivered or rig.peer.messages
            rig.clock.advance(100_000)
            assert rig.found
