"""FETCH: every item, whole and in pieces, of small messages and large ones."""

from __future__ import annotations

import pytest
from twisted.logger import LogLevel, globalLogPublisher

from livemail.imap import fetch_stream
from livemail.interfaces.storage import Delivery
from livemail.mail.errors import StorageFailed
from livemail.mail.ids import UIDSet
from livemail.storage.memory.content import BodyReader
from tests.imap.rig import Rig, finish

HEADER = (
    b"From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: Two\r\n parts\r\nDate: Mon, 1 Jan 2024 10:00:00 +0100\r\n"
    b"X-Odd: yes\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
)
PART_1 = b"Content-Type: text/plain\r\n\r\n"
INNER = b"Subject: inner\r\n\r\ninner body"
BODY = (
    b"preamble\r\n--b\r\n" + PART_1 + b"Hello\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n" + INNER + b"\r\n--b--\r\n"
)
MESSAGE = HEADER + BODY
PREFIX = b"Return-Path: <ann@example.org>\r\nDelivered-To: alice@example.org\r\n"


@pytest.fixture(params=["small", "large"])
def rig(request, monkeypatch):
    """The same answers, whether storage hands the message out whole or it is read by chunks."""
    if request.param == "large":
        monkeypatch.setattr(fetch_stream, "SMALL_OCTETS", 1)
        monkeypatch.setattr(fetch_stream, "SMALL_HEADER_OCTETS", 1)
        monkeypatch.setattr(fetch_stream, "CHUNK_OCTETS", 7)
    return Rig()


def deliver(rig, message=MESSAGE, prefix=PREFIX):
    account = finish(rig.store.account_named("alice@example.org")).id
    finish(rig.store.deliver([Delivery(account, "INBOX", rig.content(message), prefix, internal_date=1704103200)]))


def fetch(client, items, numbers=b"1"):
    answer = client.send(b"f FETCH " + numbers + b" " + items + b"\r\n")
    assert answer.endswith(b"f OK FETCH completed\r\n"), answer
    return answer[: -len(b"f OK FETCH completed\r\n")]


def value(client, item):
    """The octets of one section."""
    answer = fetch(client, item)
    label, rest = answer.split(b" {", 1)
    size, rest = rest.split(b"}\r\n", 1)
    assert label.startswith(b"* 1 FETCH (")
    assert rest[int(size) :] == b")\r\n"
    return rest[: int(size)]


@pytest.fixture
def client(rig):
    deliver(rig)
    client = rig.client()
    client.ok(b"SELECT INBOX")
    return client


WHOLE = PREFIX + MESSAGE


@pytest.mark.parametrize(
    ("item", "octets"),
    [
        (b"BODY.PEEK[]", WHOLE),
        (b"BODY.PEEK[HEADER]", PREFIX + HEADER),
        (b"RFC822.HEADER", PREFIX + HEADER),
        (b"BODY.PEEK[TEXT]", BODY),
        (b"BODY.PEEK[1]", b"Hello"),
        (b"BODY.PEEK[1.MIME]", PART_1),
        (b"BODY.PEEK[2]", INNER),
        (b"BODY.PEEK[2.HEADER]", b"Subject: inner\r\n\r\n"),
        (b"BODY.PEEK[2.TEXT]", b"inner body"),
        (b"BODY.PEEK[2.1]", b"inner body"),
        (b"BODY.PEEK[2.HEADER.FIELDS (SUBJECT)]", b"Subject: inner\r\n\r\n"),
        (b"BODY.PEEK[HEADER.FIELDS (subject TO)]", b"To: bob@example.org\r\nSubject: Two\r\n parts\r\n\r\n"),
        (b"BODY.PEEK[HEADER.FIELDS (Delivered-To)]", b"Delivered-To: alice@example.org\r\n\r\n"),
        (b"BODY.PEEK[HEADER.FIELDS (Return-Path X-Odd)]", b"Return-Path: <ann@example.org>\r\nX-Odd: yes\r\n\r\n"),
        (b"BODY.PEEK[HEADER.FIELDS (none)]", b"\r\n"),
        (
            b"BODY.PEEK[HEADER.FIELDS.NOT (return-path delivered-to from to date subject content-type)]",
            b"X-Odd: yes\r\nMIME-Version: 1.0\r\n\r\n",
        ),
        (b"BODY.PEEK[]<0.5>", WHOLE[:5]),
        (b"BODY.PEEK[]<60.31>", WHOLE[60:91]),
        (b"BODY.PEEK[TEXT]<3.100000>", BODY[3:]),
        (b"BODY.PEEK[HEADER.FIELDS (TO)]<4.3>", b"bob"),
        (b"BODY.PEEK[]<100000.5>", b""),
        (b"BODY.PEEK[]<4294967295.4294967295>", b""),
    ],
)
def test_a_section_is_exactly_its_octets(client, item, octets):
    assert value(client, item) == octets


def test_the_response_names_the_section_as_asked_without_peek_and_with_the_origin(client):
    assert fetch(client, b"BODY.PEEK[]<3.2>").startswith(b"* 1 FETCH (BODY[]<3> {2}\r\n")
    assert b'BODY[HEADER.FIELDS (Date "a(b")] ' in fetch(client, b'BODY.PEEK[HEADER.FIELDS (Date "a(b")]')
    assert b"(RFC822.HEADER {" in fetch(client, b"RFC822.HEADER")


@pytest.mark.parametrize("section", [b"3", b"1.1.1", b"1.HEADER", b"99", b"2.2", b"4294967295"])
def test_a_part_that_is_not_there_is_nil(client, section):
    assert fetch(client, b"BODY.PEEK[" + section + b"]") == b"* 1 FETCH (BODY[" + section + b"] NIL)\r\n"


def test_several_items_come_in_one_response(client):
    answer = fetch(client, b"(BODY.PEEK[1] FLAGS UID BODY.PEEK[2.TEXT]<0.5>)")
    assert answer == (b"* 1 FETCH (UID 1 FLAGS (\\Recent) BODY[1] {5}\r\nHello BODY[2.TEXT]<0> {5}\r\ninner)\r\n")


def test_macros_and_the_rest(client):
    size = len(WHOLE)
    fast = b'* 1 FETCH (FLAGS (\\Recent) INTERNALDATE " 1-Jan-2024 10:00:00 +0000" RFC822.SIZE %d' % size
    assert fetch(client, b"FAST") == fast + b")\r\n"
    envelope = (
        b' ENVELOPE ("Mon, 1 Jan 2024 10:00:00 +0100" "Two parts" (("Ann" NIL "ann" "example.org"))'
        b' (("Ann" NIL "ann" "example.org")) (("Ann" NIL "ann" "example.org")) ((NIL NIL "bob" "example.org")) NIL NIL NIL NIL)'
    )
    assert fetch(client, b"ALL") == fast + envelope + b")\r\n"
    body = fetch(client, b"FULL")[len(fast + envelope) :]
    assert body.lower().startswith(b' body (("text" "plain"')
    assert b'"boundary"' not in body.lower()
    assert b'"boundary" "b"' in fetch(client, b"BODYSTRUCTURE").lower()


def test_seen_is_set_and_told_when_the_content_was_read(client):
    fetch(client, b"(BODY.PEEK[] RFC822.HEADER BODYSTRUCTURE)")
    assert fetch(client, b"FLAGS") == b"* 1 FETCH (FLAGS (\\Recent))\r\n"
    answer = fetch(client, b"BODY[1]")
    assert answer.endswith(b"* 1 FETCH (UID 1 FLAGS (\\Seen \\Recent))\r\n")
    assert fetch(client, b"BODY[1]") == b"* 1 FETCH (BODY[1] {5}\r\nHello)\r\n"


@pytest.mark.parametrize("item", [b"RFC822", b"RFC822.TEXT", b"BODY[TEXT]", b"BODY[]<0.1>"])
def test_these_set_seen_too(client, item):
    assert b"FLAGS (\\Seen \\Recent)" in fetch(client, item)


def test_a_mailbox_open_read_only_stays_unread(rig, client):
    client.ok(b"EXAMINE INBOX")
    assert b"FLAGS" not in fetch(client, b"BODY[]")
    assert finish(rig.account().mailbox("INBOX")).unseen == 1


def test_a_message_without_header_and_one_without_body(rig):
    rig.append("INBOX", b"\r\nonly body", b"Subject: only header\r\n", b"")
    client = rig.client()
    client.ok(b"SELECT INBOX")
    assert fetch(client, b"(BODY.PEEK[HEADER] BODY.PEEK[TEXT])", b"1:3") == (
        b"* 1 FETCH (BODY[HEADER] {2}\r\n\r\n BODY[TEXT] {9}\r\nonly body)\r\n"
        b"* 2 FETCH (BODY[HEADER] {22}\r\nSubject: only header\r\n BODY[TEXT] {0}\r\n)\r\n"
        b"* 3 FETCH (BODY[HEADER] {0}\r\n BODY[TEXT] {0}\r\n)\r\n"
    )


@pytest.mark.parametrize(
    "command",
    [
        b"FETCH 1 (FLAGS", b"FETCH 1 ()", b"FETCH 1", b"FETCH 0 FLAGS", b"FETCH 2 FLAGS", b"FETCH 1 (ALL)", b"FETCH 1 NONE",
        b"FETCH 1 BODY[MIME]", b"FETCH 1 BODY[0]", b"FETCH 1 BODY[1.]", b"FETCH 1 BODY[1.NONE]", b"FETCH 1 BODY[",
        b"FETCH 1 BODY[HEADER.FIELDS ()]", b"FETCH 1 BODY[HEADER.FIELDS]", b'FETCH 1 BODY[HEADER.FIELDS ("a:b")]',
        b"FETCH 1 BODY[]<0>", b"FETCH 1 BODY[]<0.0>", b"FETCH 1 BODY[]<-1.1>", b"FETCH 1 BODY[]<1.4294967296>",
        b"FETCH 1 BODY[" + b".".join([b"1"] * 5000) + b"]", b"FETCH 1 (FLAGS) (CHANGEDSINCE)",
        b"FETCH 1 (FLAGS) (VANISHED)", b"FETCH 1 FLAGS FLAGS", b"FETCH $ FLAGS", b"FETCH 1 BODY[].PEEK",
        b"FETCH 1 (" + b" ".join(b"BODY[%d]" % n for n in range(1, 200)) + b")",
        b"FETCH " + b",".join(b"%d" % n for n in range(1, 12_000)) + b" FLAGS",
    ],
)  # fmt: skip
def test_what_is_no_fetch_is_bad(client, command):
    assert client.command(command)[-1].startswith(b"BAD ")
    assert client.ok(b"NOOP") == []


def test_changedsince_answers_what_changed_with_its_modseq(rig, client):
    rig.append("INBOX", MESSAGE)
    client.ok(b"NOOP")
    modseq = finish(rig.account().mailbox("INBOX")).highest_modseq
    answer = client.ok(b"FETCH 1:2 (FLAGS) (CHANGEDSINCE %d)" % (modseq - 1))
    assert answer[0].startswith(b"* OK [HIGHESTMODSEQ %d]" % modseq)
    assert answer[1:] == [b"* 2 FETCH (FLAGS (\\Recent) MODSEQ (%d))" % modseq]
    assert client.ok(b"UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d)" % modseq) == []


def test_a_message_expunged_elsewhere_is_passed_over_and_the_reply_says_so(rig, client):
    rig.append("INBOX", MESSAGE)
    client.ok(b"NOOP")
    account = rig.account()
    finish(account.expunge(finish(account.mailbox("INBOX")).id, UIDSet.of([1]), only_deleted=False))
    lines = client.command(b"FETCH 1:2 (UID BODY.PEEK[1])")
    assert lines[-1].startswith(b"OK [EXPUNGEISSUED]")
    assert lines[:-1] == [b"* 2 FETCH (UID 2 BODY[1] {5}", b"Hello)"]
    assert client.ok(b"UID FETCH 1:2 (UID)") == [b"* 2 FETCH (UID 2)", b"* 1 EXPUNGE"]


def test_a_keyword_that_comes_with_a_new_message_is_announced_before_it_is_used(rig, client):
    rig.client().ok(b"APPEND INBOX (fresh) {12+}\r\nSubject: a\r\n")
    client.ok(b"NOOP")
    lines = client.ok(b"FETCH 2 FLAGS")
    assert lines[0] == b"* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft fresh)"
    assert lines[-1] == b"* 2 FETCH (FLAGS (\\Recent fresh))"


class TestLarge:
    """Messages that do not fit into a batch."""

    SIZE = 3_000_000

    @pytest.fixture
    def client(self):
        rig = Rig()
        self.message = b"Subject: big\r\n\r\n" + b"0123456789abcde\n" * (self.SIZE // 16)
        rig.append("INBOX", self.message)
        client = rig.client()
        client.ok(b"SELECT INBOX")
        return client

    def test_a_slow_reader_is_sent_no_more_than_it_reads(self, client):
        written = []
        write = client.transport.write

        def fills_the_window(octets):
            write(octets)
            written.append(len(octets))
            client.connection.pauseProducing()

        client.transport.write = fills_the_window
        answer = client.send(b"f FETCH 1 BODY[]\r\n")
        turns = 0
        while not answer.endswith(b"completed\r\n"):
            written.clear()
            client.connection.resumeProducing()
            assert sum(written) < 256 * 1024, "queued at once"
            answer += client.take()
            turns += 1
            assert turns < 1000
        assert self.message in answer
        assert turns > 20

    def test_a_damaged_message_is_left_out_and_the_reply_is_no(self, client, monkeypatch):
        client.rig.append("INBOX", b"Subject: small\r\n\r\n")
        client.ok(b"NOOP")

        async def read(self, offset, length):
            raise StorageFailed(reason="checksum")

        monkeypatch.setattr(BodyReader, "read", read)
        lines = client.command(b"FETCH 1:2 BODY.PEEK[TEXT]")
        assert lines[:2] == [b"* 2 FETCH (BODY[TEXT] {0}", b")"]
        assert lines[2].startswith(b"NO [UNAVAILABLE]")
        assert not client.is_closed

    @pytest.mark.parametrize("damage", ["error", "short"])
    def test_damage_behind_the_first_chunk_cuts_the_connection(self, client, monkeypatch, damage):
        whole = BodyReader.read

        async def read(self, offset, length):
            if offset >= 1_000_000:
                if damage == "short":
                    return b""
                raise StorageFailed(reason="checksum")
            return await whole(self, offset, length)

        monkeypatch.setattr(BodyReader, "read", read)
        answer = client.send(b"f FETCH 1 BODY[]\r\n")
        assert client.transport.disconnecting or client.transport.disconnected
        assert b"BYE" not in answer, "it would be taken for the message's octets"
        assert len(answer) < self.SIZE

    def test_a_connection_we_cut_is_not_logged_as_a_failure_of_ours(self, client, monkeypatch):
        whole, events = BodyReader.read, []

        async def read(self, offset, length):
            return b"" if offset >= 1_000_000 else await whole(self, offset, length)

        monkeypatch.setattr(BodyReader, "read", read)
        globalLogPublisher.addObserver(events.append)
        try:
            client.send(b"f FETCH 1 BODY[]\r\n")
        finally:
            globalLogPublisher.removeObserver(events.append)
        assert [event["log_level"] for event in events] == [LogLevel.warn], "the damage, and nothing else"

    def test_a_client_that_leaves_in_the_middle_gives_its_reader_back_and_the_message_stays_unread(
        self, client, monkeypatch
    ):
        closed = []
        close = BodyReader.close
        monkeypatch.setattr(BodyReader, "close", lambda self: (closed.append(1), close(self)))
        client.connection.pauseProducing()
        client.connection.resumeProducing()
        write = client.transport.write

        def fills_the_window(octets):
            write(octets)
            client.connection.pauseProducing()

        client.transport.write = fills_the_window
        client.send(b"f FETCH 1 BODY[]\r\n")
        assert not closed
        client.lose()
        assert closed
        assert finish(client.rig.account().mailbox("INBOX")).unseen == 1
