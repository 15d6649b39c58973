from __future__ import annotations

import random
import re

import pytest

from livemail.smtp.relay.wire import (
    LINE_OCTETS,
    LINES,
    MAX_TEXT,
    Content,
    Replies,
    ReplyError,
    Unspeakable,
    command,
    printable,
)


def replies(stream, piece=0):
    """Everything that comes out of a stream: (code, texts), then the error's text if there was one, and whether octets are left."""
    wire, found = Replies(), []
    size = piece or len(stream) or 1
    for at in range(0, len(stream), size):
        wire.feed(stream[at : at + size])
        try:
            while (said := wire.next()) is not None:
                found.append((said.code, said.texts))
        except ReplyError as error:
            found.append(str(error))
            break
    return found, wire.pending


CASES = {
    b"250 ok\r\n": [(250, [b"ok"])],
    b"250\r\n": [(250, [b""])],
    b"250 \r\n": [(250, [b""])],
    b"250-a\r\n250-\r\n250 b\r\n": [(250, [b"a", b"", b"b"])],
    b"250-a\r\n250\r\n": [(250, [b"a", b""])],
    b"250 1\r\n550 2\r\n354 3\r\n": [(250, [b"1"]), (550, [b"2"]), (354, [b"3"])],
    b"250 \xff\xc3\xa4\x07\r\n": [(250, [b"\xff\xc3\xa4\x07"])],
}


@pytest.mark.parametrize("stream", CASES)
def test_replies_are_the_same_whole_octet_by_octet_and_with_a_tail(stream):
    assert replies(stream) == (CASES[stream], False)
    assert replies(stream, 1) == (CASES[stream], False)
    for piece in (0, 1, 7):
        assert replies(stream + b"25", piece) == (CASES[stream], True)


WRONG = {
    b"hello\r\n": "not a reply",
    b"HTTP/1.1 400 Bad Request": "not a reply",
    b"25\r\n": "not a reply",
    b"150 x\r\n": "not a reply",
    b"600 x\r\n": "not a reply",
    b"2500 x\r\n": "not a reply",
    b"250_x\r\n": "not a reply",
    b"\r\n": "not a reply",
    b"250 x\n": "bare",
    b"250 x\rIMAP\r\n": "bare",
    b"250 a\r\r\n": "bare",
    b"250 a\0b\r\n": "bare",
    b"250-a\r\n550 b\r\n": "different codes",
    b"250-a\r\nb\r\n": "not a reply",
    b"250-a\r\n\r\n": "not a reply",
    b"250 " + b"x" * LINE_OCTETS: "too long",
    b"250-x\r\n" * (LINES + 1): "too many lines",
}


@pytest.mark.parametrize("stream", WRONG)
def test_what_is_no_reply_is_an_error_and_nothing_is_believed_after_it(stream):
    for piece in (0, 1, 7):
        found, pending = replies(b"220 hello\r\n" + stream + b"250 taken\r\n", piece)
        assert found[0] == (220, [b"hello"])
        assert WRONG[stream] in found[1]
        assert not pending
    wire = Replies()
    wire.feed(stream)
    with pytest.raises(ReplyError):
        wire.next()
    wire.feed(b"250 taken\r\n")
    with pytest.raises(ReplyError):
        wire.next()


def test_what_begins_unlike_a_reply_is_found_out_before_its_line_ends():
    assert replies(b"GET ")[0] == ["a line that is not a reply"]
    assert replies(b"250")[0] == []


def test_a_line_without_end_is_never_kept_beyond_the_limit():
    wire = Replies()
    for at in range(LINE_OCTETS // 256 + 1):
        wire.feed(b"250 " + b"x" * 252 if at == 0 else b"x" * 256)
        try:
            wire.next()
        except ReplyError:
            break
        assert wire.size <= LINE_OCTETS
    assert wire.size == 0


def said(line):
    wire = Replies()
    wire.feed(line)
    return wire.next()


def test_enhanced_codes_are_taken_only_where_they_fit():
    for line, enhanced, text in (
        (b"550 5.1.1 no such user\r\n", "5.1.1", "no such user"),
        (b"550 5.1.1\r\n", "5.1.1", ""),
        (b"550 4.1.1 no\r\n", "", "4.1.1 no"),
        (b"250 5.1.1 no\r\n", "", "5.1.1 no"),
        (b"550 5.01.1 no\r\n", "", "5.01.1 no"),
        (b"550 5.1.1111 no\r\n", "", "5.1.1111 no"),
        (b"550 5.1 no\r\n", "", "5.1 no"),
        (b"550 5.1.1no\r\n", "", "5.1.1no"),
        (b"550 10.0.0.1 is listed\r\n", "", "10.0.0.1 is listed"),
        (b"550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.2 three\r\n", "5.7.1", "one two 5.7.2 three"),
    ):
        reply = said(line)
        assert (reply.enhanced, reply.text) == reply.parts == (enhanced, text), line


def test_reply_text_holds_nothing_that_controls_and_is_bounded():
    text = said(b"550 a\x1b[2J\x07\x7f\xe2\x80\xae\xe2\x80\xa8\xff b \xc3\xa4\r\n").text
    assert text == "a?[2J???? b ä" or re.fullmatch(r"a\?\[2J\?{4,5} b ä", text)
    assert text.isprintable()
    long = b"".join(b"550-%b\r\n" % (b"x" * 2000) for _ in range(50)) + b"550 x\r\n"
    assert len(said(long).text) == MAX_TEXT
    for octet in range(256):
        assert printable(bytes([octet]) * 3).isprintable()


def test_commands_are_one_line_whatever_is_in_them():
    assert command("MAIL FROM:<ä@b>") == "MAIL FROM:<ä@b>\r\n".encode()
    for bad in ("a\r\nRCPT TO:<x>", "a\nb", "a\0b", "a\rb", "a\u2028b", "a\x85b", "\x1b"):
        with pytest.raises(Unspeakable):
            command(bad)


# --------------------------------------------------------------------------------------------------------------- content


def on_the_wire(content, pieces, stuffs=True):
    out = Content(stuffs=stuffs)
    return b"".join([*(out.feed(piece) for piece in pieces), out.end()])


def cuts(content):
    yield [content]
    yield [content[at : at + 1] for at in range(len(content))]
    for at in range(len(content) + 1):
        yield [content[:at], content[at:]]


STUFFED = {
    b"": b".\r\n",
    b"a": b"a\r\n.\r\n",
    b"a\r\n": b"a\r\n.\r\n",
    b".": b"..\r\n.\r\n",
    b".\r\n": b"..\r\n.\r\n",
    b"a\r\n.b\r\n..c\r\n": b"a\r\n..b\r\n...c\r\n.\r\n",
    b"a\r\n.\r\nb\r\n": b"a\r\n..\r\nb\r\n.\r\n",
    b"a.b\r\n": b"a.b\r\n.\r\n",
    # Bare CR and LF: RFC 5321 §2.3.8.
    b"a\nb": b"a\r\nb\r\n.\r\n",
    b"a\rb": b"a\r\nb\r\n.\r\n",
    b"a\r": b"a\r\n.\r\n",
    b"a\n.\nb": b"a\r\n..\r\nb\r\n.\r\n",
    b"a\r.\rb": b"a\r\n..\r\nb\r\n.\r\n",
    b"a\r\r\nb": b"a\r\n\r\nb\r\n.\r\n",
}


@pytest.mark.parametrize("content", STUFFED)
def test_content_is_stuffed_and_ended_whatever_the_chunks(content):
    for pieces in cuts(content):
        assert on_the_wire(content, pieces) == STUFFED[content], pieces
        plain = re.sub(rb"(?m)^\.\.", b".", STUFFED[content][:-3])
        assert on_the_wire(content, pieces, stuffs=False) == plain


ENDS = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n.\r\r\n", b"\n.\r", b"\r\n.\n\n", b"\r\r.\r\r",
    b"\n\n.\n\n", b"\r\n.\r\n", b"\r\n..\r\n", b"\0.\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n",
]  # fmt: skip


@pytest.mark.parametrize("variant", ENDS)
def test_rows_1_and_2_no_content_can_end_itself_however_the_next_hop_reads_lines(variant):
    content = b"a" + variant + b"MAIL FROM:<evil@x>\r\n"
    for pieces in cuts(content):
        octets = on_the_wire(content, pieces)
        assert octets.endswith(b"\r\n.\r\n")
        body = octets[:-3]
        # No bare CR or LF, and no line that is a dot alone, under any reading of what ends a line.
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", body)
        assert not re.search(rb"(?:^|[\r\n])\.(?:[\r\n]|$)", body)
        without = on_the_wire(content, pieces, stuffs=False)
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", without)


def test_content_comes_back_from_the_wire_in_any_pieces():
    source = random.Random(7)
    for _ in range(500):
        content = b"".join(source.choice([b".", b"\r\n", b"a", b"..", b"\r\n."]) for _ in range(30)) + b"\r\n"
        pieces, rest = [], content
        while rest:
            size = source.randint(1, 9)
            pieces.append(rest[:size])
            rest = rest[size:]
        octets = on_the_wire(content, pieces)
        assert (b"\r\n" + octets).count(b"\r\n.\r\n") == 1
        assert (b"\r\n" + octets[:-3]).replace(b"\r\n..", b"\r\n.")[2:] == content
