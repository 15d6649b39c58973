"""The wire: octets to commands, whatever way they are cut."""

from __future__ import annotations

import random

import pytest

from livemail.imap.wire import Announced, Chunk, Command, Continue, Event, Limits, Line, Malformed, Wire

BEFORE = Limits(line=200, literals=50)
AFTER = Limits(line=400, literals=100, skip=1000, streams=True)
TAIL = b"tail NOOP\r\n"
TAIL_COMMAND = Command(b"tail", b"NOOP", (b"",), ())


def drain(wire: Wire, accept: bool) -> list[Event]:
    events: list[Event] = []
    while (event := wire.next_event()) is not None:
        events.append(event)
        if isinstance(event, Announced):
            if accept:
                wire.accept()
            elif not wire.refuse():
                events.append(Malformed(b"!", "cannot skip", fatal=True))
    return events


def joined(events: list[Event]) -> list[Event]:
    """How a message is cut into chunks is nobody's promise."""
    result: list[Event] = []
    for event in events:
        if isinstance(event, Chunk) and result and isinstance(result[-1], Chunk):
            result[-1] = Chunk(result[-1].octets + event.octets)
        else:
            result.append(event)
    return result


def read(pieces: list[bytes], limits: Limits = AFTER, *, accept: bool = True) -> list[Event]:
    wire = Wire(limits)
    events: list[Event] = []
    for piece in pieces:
        wire.feed(piece)
        events += drain(wire, accept)
    return joined(events)


def octets(data: bytes) -> list[bytes]:
    return [bytes([octet]) for octet in data]


def command(
    tag: bytes, name: bytes, *fragments: bytes, literals: tuple[bytes, ...] = (), streamed: bool = False
) -> Command:
    return Command(tag, name, fragments or (b"",), literals, streamed)


GOOD: list[tuple[str, bytes, list[Event]]] = [
    ("a command", b"a NOOP\r\n", [command(b"a", b"NOOP")]),
    ("a name in lower case", b"a noop\r\n", [command(b"a", b"NOOP")]),
    ("arguments", b"a.1 LOGIN x y\r\n", [command(b"a.1", b"LOGIN", b" x y")]),
    ("a literal", b"a X {3}\r\nabc y\r\n", [Continue(), command(b"a", b"X", b" ", b" y", literals=(b"abc",))]),
    ("a literal not waited for", b"a X {3+}\r\nabc\r\n", [command(b"a", b"X", b" ", b"", literals=(b"abc",))]),
    ("an empty literal", b"a X {0+}\r\n\r\n", [command(b"a", b"X", b" ", b"", literals=(b"",))]),
    (
        "literals with line ends in them",
        b"a X {2+}\r\n\r\n {4+}\r\na\r\n{ z\r\n",
        [command(b"a", b"X", b" ", b" ", b" z", literals=(b"\r\n", b"a\r\n{"))],
    ),
    (
        "an 8-bit literal",
        b"a X {2+}\r\n\xff\xfe\r\n",
        [command(b"a", b"X", b" ", b"", literals=(b"\xff\xfe",))],
    ),
    (
        "a message",
        b"a APPEND x {5}\r\nhello\r\n",
        [
            Announced(b"a", (b" x ",), (), 5, is_synchronising=True),
            Chunk(b"hello"),
            command(b"a", b"APPEND", b" x ", b"", literals=(b"",), streamed=True),
        ],
    ),
    (
        "a message for a mailbox that is a literal",
        b"a APPEND {1+}\r\nx {5+}\r\nhello\r\n",
        [
            Announced(b"a", (b" ", b" "), (b"x",), 5, is_synchronising=False),
            Chunk(b"hello"),
            command(b"a", b"APPEND", b" ", b" ", b"", literals=(b"x", b""), streamed=True),
        ],
    ),
    (
        "a message larger than any literal",
        b"a APPEND x {5000+}\r\n" + b"\0" * 5000 + b"\r\n",
        [
            Announced(b"a", (b" x ",), (), 5000, is_synchronising=False),
            Chunk(b"\0" * 5000),
            command(b"a", b"APPEND", b" x ", b"", literals=(b"",), streamed=True),
        ],
    ),
    ("no command", b"a\r\n", [Malformed(b"a", "Expected a command")]),
    ("an empty line", b"\r\n", [Malformed(b"*", "Expected a tag")]),
    ("a tag with a plus", b"a+ NOOP\r\n", [Malformed(b"*", "Expected a tag")]),
    ("a space before the tag", b" a NOOP\r\n", [Malformed(b"*", "Expected a tag")]),
    ("a tag of a whole line", b"a" * 150 + b" NOOP\r\n", [Malformed(b"*", "Expected a tag")]),
    ("two spaces", b"a  NOOP\r\n", [Malformed(b"a", "Expected a command")]),
    ("a negative literal", b"a X {-1}\r\n", [Malformed(b"a", "Not a literal")]),
    ("a literal of nothing", b"a X {}\r\n", [Malformed(b"a", "Not a literal")]),
    ("a literal beyond 64 bits", b"a X {99999999999999999999}\r\n", [Malformed(b"a", "Literal too large")]),
    ("a literal beyond 32 bits", b"a X {4294967295}\r\n", [Malformed(b"a", "Literal too large")]),
    ("literals that are too large together", b"a X {60+}\r\n" + b"x" * 60 + b" {60}\r\n", [Malformed(b"a", "Literal too large")]),
]  # fmt: skip

FAULT = "NUL, CR or 8-bit octets in a command; send them in a literal"
GOOD += [
    ("NUL in a line", b'a X "\0"\r\n', [Malformed(b"a", FAULT)]),
    ("CR in a line", b'a X "\r"\r\n', [Malformed(b"a", FAULT)]),
    ("8-bit in a line", b'a X "\xc3\xa9"\r\n', [Malformed(b"a", FAULT)]),
    ("NUL in a literal", b"a X {1+}\r\n\0\r\n", [Malformed(b"a", "NUL in a literal")]),
    ("a refused literal is skipped", b"a X {200+}\r\n" + b"b NOOP\r\n" * 25 + b"\r\n", [Malformed(b"a", "Literal too large")]),
    (
        "a refused literal is skipped with all that follows it",
        b"a X {200+}\r\n" + b"b NOOP\r\n" * 25 + b" {8+}\r\nc NOOP\r\n y\r\n",
        [Malformed(b"a", "Literal too large")],
    ),
    ("a bad line's literal is skipped", b"a X \0 {8+}\r\nb NOOP\r\n\r\n", [Malformed(b"a", FAULT)]),
    ("a literal behind a bad tag is skipped", b"+ {8+}\r\nb NOOP\r\n\r\n", [Malformed(b"*", "Expected a tag")]),
    (
        "a second message",
        b"a APPEND x {1+}\r\nm {8+}\r\nb NOOP\r\n\r\n",
        [
            Announced(b"a", (b" x ",), (), 1, is_synchronising=False),
            Chunk(b"m"),
            Malformed(b"a", "Only one message at a time"),
        ],
    ),
]  # fmt: skip

FATAL: list[tuple[str, bytes, str]] = [
    ("a size that cannot be read, not waited for", b"a X {-1+}\r\n", "Not the size of a literal"),
    ("a size of 25 digits, not waited for", b"a X {1" + b"0" * 24 + b"+}\r\n", "Not the size of a literal"),
    ("a literal too large to skip", b"a X {1001+}\r\n", "Literal too large"),
    ("a bare LF", b'a X "\n', "Lines end with CRLF"),
    ("a bare LF at once", b"\n", "Lines end with CRLF"),
    ("LF CR", b"a NOOP\n\r", "Lines end with CRLF"),
    ("a long line", b"a X " + b"x" * 397, "Line too long"),
    ("a long line behind a literal", b"a X {1+}\r\nx" + b"y" * 500, "Line too long"),
    ("a web browser", b"GET / HTTP/1.1\r\n", "This is an IMAP server"),
    ("a web form", b"POST http://x:1/ HTTP/1.0\r\n", "This is an IMAP server"),
    ("a proxy's client", b"CONNECT x:25 HTTP/1.1\r\n", "This is an IMAP server"),
]


@pytest.mark.parametrize(("data", "events"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
def test_events_do_not_depend_on_how_octets_are_cut(data: bytes, events: list[Event]) -> None:
    assert read([data]) == events
    assert read(octets(data)) == events
    assert read([data + TAIL]) == [*events, TAIL_COMMAND]
    assert read(octets(data + TAIL)) == [*events, TAIL_COMMAND]


@pytest.mark.parametrize(("data", "text"), [row[1:] for row in FATAL], ids=[row[0] for row in FATAL])
def test_nothing_follows_a_fatal_event(data: bytes, text: str) -> None:
    for pieces in ([data + TAIL], octets(data + TAIL), [data, TAIL]):
        events = read(pieces)
        assert [(type(e), getattr(e, "text", ""), getattr(e, "fatal", False)) for e in events] == [
            (Malformed, text, True)
        ]


@pytest.mark.parametrize("end", [b"+}", b"}"])
def test_a_stranger_cannot_make_us_skip(end: bytes) -> None:
    events = read([b"a X {51" + end + b"\r\n" + TAIL], BEFORE)
    assert events[0] == Malformed(b"a", "Literal too large", fatal=end == b"+}")
    assert events[1:] == ([] if end == b"+}" else [TAIL_COMMAND])


@pytest.mark.parametrize("cut", [False, True])
def test_what_is_skipped_counts_together(cut: bool) -> None:
    data = b"a X {900+}\r\n" + b"x" * 900 + b" {%d+}\r\n" + b"y" * 100 + b"\r\n" + TAIL
    for size, last in ((100, TAIL_COMMAND), (101, Malformed(b"*", "Literal too large", fatal=True))):
        stream = data % size
        assert read(octets(stream) if cut else [stream]) == [Malformed(b"a", "Literal too large"), last]


def test_a_stranger_cannot_append() -> None:
    assert read([b"a APPEND x {5+}\r\nhello\r\n"], BEFORE) == [
        command(b"a", b"APPEND", b" x ", b"", literals=(b"hello",))
    ]
    assert read([b"a APPEND x {500}\r\n"], BEFORE) == [Malformed(b"a", "Literal too large")]


@pytest.mark.parametrize("cut", [False, True])
def test_a_refused_message_is_skipped_with_its_command(cut: bool) -> None:
    data = b"a APPEND x {8+}\r\nb NOOP\r\n\r\n" + TAIL
    announced = Announced(b"a", (b" x ",), (), 8, is_synchronising=False)
    assert read(octets(data) if cut else [data], accept=False) == [announced, TAIL_COMMAND]


def test_a_refused_message_that_was_waited_for_never_comes() -> None:
    announced = Announced(b"a", (b" x ",), (), 8, is_synchronising=True)
    assert read([b"a APPEND x {8}\r\n" + TAIL], accept=False) == [announced, TAIL_COMMAND]


def test_a_refused_message_that_is_too_large_to_skip_ends_everything() -> None:
    events = read([b"a APPEND x {1001+}\r\n" + TAIL], accept=False)
    assert events[1:] == [Malformed(b"!", "cannot skip", fatal=True)]


def test_nothing_is_kept_of_a_message() -> None:
    wire = Wire(AFTER)
    wire.feed(b"a APPEND x {1000000}\r\n")
    assert isinstance(wire.next_event(), Announced)
    wire.accept()
    for _ in range(10):
        wire.feed(b"x" * 100_000)
        assert wire.next_event() == Chunk(b"x" * 100_000)
        assert wire.pending == 0


def test_nothing_is_kept_after_a_fatal_event() -> None:
    wire = Wire(AFTER)
    wire.feed(b"x" * 1000)
    assert isinstance(wire.next_event(), Malformed)
    wire.feed(b"x" * 1000)
    assert wire.pending == 0


def test_a_line_may_be_as_long_as_the_limit_and_no_longer() -> None:
    longest = b"a X " + b"x" * (AFTER.line - 4)
    assert read([longest + b"\r\n"]) == [command(b"a", b"X", longest[3:])]
    assert read([longest + b"x\r\n"]) == [Malformed(b"*", "Line too long", fatal=True)]


def test_fragments_count_together() -> None:
    piece = b"x" * 150 + b" {1+}\r\n"
    events = read([b"a X " + piece + b"y " + piece + b"y " + piece])
    assert events == [Malformed(b"a", "Line too long", fatal=True)]


def test_a_dialogue_reads_lines_until_it_is_over() -> None:
    for cut in (False, True):
        wire = Wire(AFTER)
        wire.expect_lines(10)
        events: list[Event] = []
        for piece in octets(b"a {3+}\r\n\r\nDONE\r\n") if cut else [b"a {3+}\r\n\r\nDONE\r\n"]:
            wire.feed(piece)
            events += drain(wire, accept=True)
        assert events == [Line(b"a {3+}"), Line(b""), Line(b"DONE")]
        wire.expect_commands()
        wire.feed(TAIL)
        assert wire.next_event() == TAIL_COMMAND


def test_a_dialogue_has_its_own_limit() -> None:
    wire = Wire(AFTER)
    wire.expect_lines(10)
    wire.feed(b"0123456789\r\n01234567890")
    assert drain(wire, accept=True) == [Line(b"0123456789")]
    wire.feed(b"1")
    assert drain(wire, accept=True) == [Malformed(b"*", "Line too long", fatal=True)]


def test_random_cuts_of_random_commands_give_the_same_events() -> None:
    chance = random.Random(3501)
    rows = [row[1] for row in GOOD]
    for _ in range(300):
        data = b"".join(chance.choice(rows) for _ in range(6))
        cuts = sorted(chance.sample(range(len(data)), min(8, len(data))))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        accept = chance.random() < 0.5
        assert read(pieces, accept=accept) == read([data], accept=accept)
