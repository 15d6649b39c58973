from __future__ import annotations

import random

import pytest

from livemail.mail.errors import WireError
from livemail.smtp.wire import Wire


def data_events(stream, pieces):
    """Feed a stream that begins with content; return (content, was it ended, the lines behind it)."""
    wire = Wire()
    wire.begin_data()
    content, ended, lines = b"", False, []
    for piece in pieces(stream):
        wire.feed(piece)
        while not ended:
            chunk = wire.chunk()
            if chunk is None:
                break
            content += chunk[0]
            ended = chunk[1]
        while ended and (line := wire.line()) is not None:
            lines.append(line)
    return content, ended, lines


def whole(stream):
    return [stream]


def octets(stream):
    return [stream[at : at + 1] for at in range(len(stream))]


def every_cut(stream):
    for at in range(len(stream) + 1):
        yield lambda s, at=at: [s[:at], s[at:]]


CASES = {
    b".\r\n": b"",
    b"\r\n.\r\n": b"\r\n",
    b"a\r\n.\r\n": b"a\r\n",
    b"..\r\n.\r\n": b".\r\n",
    b"...\r\n.\r\n": b"..\r\n",
    b"a\r\n..b\r\n..\r\n.\r\n": b"a\r\n.b\r\n.\r\n",
    b".a\r\n.\r\n": b"a\r\n",
    b"\r\n\r\n..\r\n\r\n.\r\n": b"\r\n\r\n.\r\n\r\n",
    b"a\r\n.\r.\r\n.\r\n": b"a\r\n\r.\r\n",
    b"\r\r\n.\r\n": b"\r\r\n",
}


@pytest.mark.parametrize("stream", CASES)
def test_content_is_unstuffed_and_ends_wherever_the_transport_cuts(stream):
    for tail in (b"", b"NOOP\r\n", b".\r\n.\r\n"):
        lines = tail.split(b"\r\n")[:-1]
        for pieces in (whole, octets, *every_cut(stream + tail)):
            assert data_events(stream + tail, pieces) == (CASES[stream], True, lines)


# Security row 1.
NOT_ENDS = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n.\r\r\n", b"\r\n\0.\r\n", b"\0.\r\n", b"\r\n.\0\r\n",
    b"\n.\r", b"\r\n.\n\n", b"\r\r.\r\r", b"\n\n.\n\n", b"\r\n. \r\n",
]  # fmt: skip


@pytest.mark.parametrize("variant", NOT_ENDS)
def test_row_1_nothing_but_crlf_dot_crlf_ends_content(variant):
    stream = b"a" + variant + b"MAIL FROM:<evil@x>\r\n"
    for pieces in (whole, octets, *every_cut(stream)):
        _, ended, _ = data_events(stream, pieces)
        assert not ended
        content, ended, lines = data_events(stream + b".\r\nRSET\r\n", pieces)
        assert ended
        assert lines == [b"RSET"]
        assert content.endswith(b"MAIL FROM:<evil@x>\r\n")


def test_content_comes_back_as_it_was_stuffed_in_any_pieces():
    source = random.Random(5)
    for _ in range(400):
        content = (
            b"".join(source.choice([b".", b"\r\n", b"\r", b"\n", b"a", b"..", b"\0"]) for _ in range(40)) + b"\r\n"
        )
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        if stuffed.startswith(b"."):
            stuffed = b"." + stuffed

        def pieces(stream):
            while stream:
                size = source.randint(1, 9)
                yield stream[:size]
                stream = stream[size:]

        assert data_events(stuffed + b".\r\nQUIT\r\n", pieces) == (content, True, [b"QUIT"])


def test_what_is_pending_never_counts_octets_that_were_not_sent():
    wire = Wire()
    wire.begin_data()
    assert wire.pending == 0
    wire.feed(b"abc")
    assert wire.pending == 3
    assert wire.chunk() == (b"abc", False)
    assert wire.pending == 0


def test_at_most_four_octets_of_content_are_kept_back():
    wire = Wire()
    wire.begin_data()
    for octet in b"xy\r\n.\r\r\n.\rz":
        wire.feed(bytes([octet]))
        while wire.chunk() is not None:
            pass
        assert wire.pending <= 4


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_bdat_gives_exactly_the_announced_octets(piece):
    wire = Wire()
    wire.begin_bdat(7)
    stream = b"\r\n.\r\nabNOOP\r\n"
    content, ended, lines = b"", False, []
    for at in range(0, len(stream), piece):
        wire.feed(stream[at : at + piece])
        while not ended and (chunk := wire.chunk()) is not None:
            content += chunk[0]
            ended = chunk[1]
        while ended and (line := wire.line()) is not None:
            lines.append(line)
    assert (content, ended, lines) == (b"\r\n.\r\nab", True, [b"NOOP"])


def test_an_empty_chunk_ends_at_once():
    wire = Wire()
    wire.begin_bdat(0)
    assert wire.chunk() == (b"", True)
    assert wire.line() is None


@pytest.mark.parametrize("line", [b"NOOP\n", b"NO\rOP\r\n", b"NO\0OP\r\n", b"\x1b[2J\r\n", b"\n", b"NOOP\x7f\r\n"])
def test_row_19_a_line_with_control_characters_is_taken_out_and_refused(line):
    wire = Wire()
    wire.feed(line + b"RSET\r\n")
    with pytest.raises(WireError) as raised:
        wire.line()
    assert not raised.value.fatal
    assert wire.line() == b"RSET"


def test_a_tab_and_8_bit_pass_the_wire():
    wire = Wire()
    wire.feed("NOOP\tä\r\n".encode())
    assert wire.line() == "NOOP\tä".encode()


@pytest.mark.parametrize("end", [b"", b"\r\n"])
def test_row_17_a_long_line_is_fatal_once_and_nothing_of_it_is_kept(end):
    wire = Wire()
    wire.feed(b"x" * 10_000 + end)
    with pytest.raises(WireError) as raised:
        wire.line()
    assert raised.value.fatal
    wire.feed(b"NOOP\r\n" * 1000)
    assert wire.pending == 0
    assert wire.line() is None


def test_a_line_of_2048_octets_passes_and_auth_may_be_longer():
    wire = Wire()
    wire.feed(b"x" * 2046 + b"\r\n" + b"auth PLAIN " + b"A" * 12_000 + b"\r\n")
    assert wire.line() == b"x" * 2046
    assert len(wire.line()) == 12_011
    wire.feed(b"B" * 12_000 + b"\r\n")
    wire.takes_long_lines = True
    assert wire.line() == b"B" * 12_000
    wire.takes_long_lines = False
    wire.feed(b"x" * 2047 + b"\r\n")
    with pytest.raises(WireError):
        wire.line()


def test_pending_counts_what_was_fed_and_not_taken():
    wire = Wire()
    for octet in b"NOOP\r\nDATA\r\nabc":
        wire.feed(bytes([octet]))
    assert wire.pending == 15
    assert wire.line() == b"NOOP"
    assert wire.pending == 9
    wire.feed(b"de")
    assert wire.pending == 11
    assert wire.line() == b"DATA"
    wire.feed(b"f")
    wire.begin_data()
    assert wire.pending == 6
    wire.feed(b"\r\n")
    assert wire.pending == 8
    assert wire.chunk() == (b"abcdef", False)
    assert wire.pending == 2
