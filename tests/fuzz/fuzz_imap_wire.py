"""Fuzz target: the IMAP wire never raises, keeps no more than its limits, and does not care how octets are cut."""

from __future__ import annotations

from livemail.imap.wire import Announced, Chunk, Command, Event, Limits, Malformed, Wire

LIMITS = Limits(line=256, literals=64, skip=512, streams=True)


def events_of(pieces: list[bytes], *, accept: bool) -> list[Event]:
    wire = Wire(LIMITS)
    events: list[Event] = []
    for piece in pieces:
        wire.feed(piece)
        while (event := wire.next_event()) is not None:
            if isinstance(event, Chunk) and events and isinstance(events[-1], Chunk):
                events[-1] = Chunk(events[-1].octets + event.octets)
            else:
                events.append(event)
            if isinstance(event, Command):
                assert len(event.fragments) == len(event.literals) + 1
                assert sum(map(len, event.fragments)) <= LIMITS.line
                assert sum(map(len, event.literals)) <= LIMITS.literals
            if isinstance(event, Announced):
                if accept:
                    wire.accept()
                else:
                    wire.refuse()
        assert wire.pending <= LIMITS.line + 2 or wire.pending <= LIMITS.literals
    for event in events[:-1]:
        assert not (isinstance(event, Malformed) and event.fatal)
    return events


def fuzz_one(data: bytes) -> None:
    """The first octet says how the rest is cut, and whether messages are let in."""
    if not data:
        return
    step, data = 1 + data[0] // 2, data[1:]
    accept = bool(step % 2)
    cut = [data[i : i + step] for i in range(0, len(data), step)]
    assert events_of(cut, accept=accept) == events_of([data], accept=accept)
