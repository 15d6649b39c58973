"""The rows of the security table that a whole SMTP service answers; the row's number stands in the name."""

from __future__ import annotations

import re

import pytest

from tests.smtp.rig import Rig
from tests.smtp.test_wire import NOT_ENDS

SECOND = b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<you@localhost>\r\nDATA\r\nsecond\r\n.\r\n"


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize("variant", NOT_ENDS)
def test_row_1_smuggling_gives_one_mail_or_550_never_two(variant, piece):
    rig = Rig()
    client = rig.connect()
    client.begin()
    client.say("DATA")
    said = client.feed(b"first" + variant + SECOND, piece)
    has_bare = b"\r" in variant.replace(b"\r\n", b"") or b"\n" in variant.replace(b"\r\n", b"")
    assert re.fullmatch(r"550 5\.6\.0 .*bare.*\r\n" if has_bare else r"250 2\.0\.0 .*\r\n", said)
    assert len(rig.mail()) == (0 if has_bare else 1)


def test_row_1_bare_newlines_where_they_are_allowed_are_kept_and_end_nothing():
    rig = Rig(refuse_bare_newlines=False)
    client = rig.connect()
    client.begin()
    client.say("DATA")
    assert client.feed(b"first\n.\n" + SECOND).count("250") == 1
    assert len(rig.mail()) == 1
    assert b"first\n.\nMAIL FROM" in rig.mail()[0]


def test_row_2_bdat_keeps_bare_newlines():
    rig = Rig()
    client = rig.connect()
    client.begin()
    assert client.feed(b"BDAT 14 LAST\r\na\nb\r\n.\r\nc\rd\r\n.").startswith("250")
    assert rig.mail()[0].endswith(b"+0000\r\na\nb\r\n.\r\nc\rd\r\n.")


@pytest.mark.parametrize("piece", [0, 1])
def test_row_3_content_before_354_closes(piece):
    rig = Rig()
    client = rig.connect()
    client.begin()
    said = client.feed(b"DATA\r\nSubject: x\r\n\r\n.\r\n")
    assert said.startswith("554 5.5.0")
    assert client.is_closed
    assert not rig.mail()


def test_row_3_a_client_that_talks_before_the_greeting():
    rig = Rig(greet_delay=2.0)
    client = rig.connect(helo=False)
    assert client.greeting == ""
    assert client.feed(b"EHLO x\r\n") == ""
    rig.clock.advance(2)
    assert client.read().startswith("554 5.5.0")
    assert client.is_closed
    polite = rig.connect(helo=False)
    rig.clock.advance(2)
    assert polite.read().startswith("220")


@pytest.mark.parametrize(
    "command",
    [b"BDAT -1", b"BDAT x", b"BDAT 5 EXTRA", b"BDAT", b"BDAT 99999999999 LAST", b"BDAT 99999999999999999999999"],
)
@pytest.mark.parametrize("in_transaction", [True, False])
def test_row_14_bdat_that_cannot_be_followed_closes(command, in_transaction):
    rig = Rig()
    client = rig.connect()
    if in_transaction:
        client.begin()
    said = client.feed(command + b"\r\nNOOP\r\n" + SECOND)
    assert said[:3] in {"501", "552", "503"}
    assert said.count("\r\n") == 1
    assert client.is_closed
    assert not rig.mail()


def test_row_14_a_chunk_over_the_limit_is_skipped():
    rig = Rig(max_message_octets=1000)
    client = rig.connect()
    client.begin()
    assert client.feed(b"BDAT 600\r\n" + b"x" * 600).startswith("250")
    said = client.feed(b"BDAT 600\r\n" + b"MAIL FROM\r\n" * 54 + b"abcdef" + b"BDAT 3 LAST\r\nabcNOOP\r\n")
    assert [line[:9] for line in said.splitlines()] == ["552 5.3.4", "503 5.5.1", "250 2.0.0"]
    assert not rig.mail()
    assert client.send(b"x\r\n").startswith("250")


def test_row_14_bdat_then_data_in_one_transaction():
    # Postfix 2026-07-24: a BDAT error, then DATA.
    rig = Rig()
    client = rig.connect()
    client.begin()
    assert client.feed(b"BDAT 3\r\nabc").startswith("250")
    assert client.say("DATA").startswith("503")
    assert client.feed(b"BDAT 2 LAST\r\n\r\n").startswith("250")
    assert len(rig.mail()) == 1


def test_row_14_a_bug_at_bdat_does_not_turn_its_octets_into_commands(monkeypatch):
    rig = Rig()
    client = rig.connect()
    client.begin()

    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(rig.store, "new_content", broken)
    said = client.feed(b"BDAT 12 LAST\r\nNOOP\r\nNOOP\r\nRSET\r\n")
    assert [line[:9] for line in said.splitlines()] == ["451 4.3.0", "250 2.0.0"]


def test_row_15_size_over_the_limit():
    rig = Rig(max_message_octets=1000)
    client = rig.connect()
    assert client.say("MAIL FROM:<a@b.example> SIZE=99999999999").startswith("552 5.3.4")
    client.begin()
    client.say("DATA")
    assert client.feed((b"x" * 70 + b"\r\n") * 100) == ""
    assert client.feed(b".\r\nNOOP\r\n") == "552 5.3.4 Message over 1000 octets\r\n250 2.0.0 Ok\r\n"
    client.begin()
    assert (
        client.feed(b"BDAT 900\r\n" + b"x" * 900 + b"BDAT 101 LAST\r\n" + b"x" * 101).splitlines()[1].startswith("552")
    )
    assert not rig.mail()
    client.begin()
    client.say("DATA")
    assert client.feed(b"x" * 998 + b"\r\n.\r\n").startswith("250")


def test_row_16_recipients_over_the_limit():
    rig = Rig()
    client = rig.connect()
    client.say("MAIL FROM:<a@b.example>")
    said = client.feed(b"".join(b"RCPT TO:<you+%d@localhost>\r\n" % at for at in range(1100)))
    codes = [line[:9] for line in said.splitlines()]
    assert codes == ["250 2.1.5"] * 1000 + ["452 4.5.3"] * 100
    client.say("DATA")
    assert client.feed(b"x\r\n.\r\n").startswith("250")
    assert len(rig.mail()) == 1


@pytest.mark.parametrize("octets", [b"x" * 10_000 + b"\r\n", b"x" * 1_000_000])
def test_row_17_long_lines(octets):
    client = Rig().connect()
    said = client.feed(octets, piece=1000)
    assert said == "500 5.5.2 Line too long\r\n"
    assert client.is_closed


def test_row_18_unknown_commands():
    client = Rig().connect()
    said = client.feed(b"XYZZY\r\n" * 30).splitlines()
    assert [line[:3] for line in said] == ["500"] * 14 + ["421"]
    assert client.is_closed


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"POST /x HTTP/1.0", b"CONNECT a:25 HTTP/1.1", b"get /"])
def test_row_18_http(line):
    client = Rig().connect(helo=False)
    said = client.feed(line + b"\r\nHost: x\r\n\r\n" + b"EHLO x\r\n" + SECOND)
    assert said == "554 5.5.1 This is a mail server\r\n"
    assert client.is_closed


def test_row_18_commands_that_lead_nowhere():
    client = Rig().connect()
    said = client.feed(b"NOOP\r\n" * 500).splitlines()
    assert len(said) == 100
    assert said[-1].startswith("421 4.7.0")
    assert client.is_closed


def test_addresses_cannot_be_harvested_on_one_connection():
    client = Rig().connect()
    client.say("MAIL FROM:<a@b.example>")
    said = client.feed(b"".join(b"RCPT TO:<guess%d@localhost>\r\n" % at for at in range(500))).splitlines()
    assert len(said) == 100
    assert said[-1].startswith("421")


@pytest.mark.parametrize(
    "line", [b"NO\0OP", b"MAIL FROM:<a\x01@b.example>", b"EHLO \x1b[31m", b"N\xc3\x96\xc3\x96P", b"MAIL FROM:<\xff@b.example>", b"\xff\xfe"]
)  # fmt: skip
def test_row_19_control_characters_and_8_bit(line):
    client = Rig().connect()
    said = client.feed(line + b"\r\nNOOP\r\n")
    assert re.match(r"(500|501|553) 5\.\d\.\d .*\r\n250 ", said)


RELAY = [
    "user%other.example@localhost", "@localhost:user@other.example", '"user@other.example"@localhost', "other.example!user@localhost",
    "user@other.example@localhost", "user@[127.0.0.1]", "user@other.example", "@other.example:user@other.example", "other!user", '"user@other.example"',
    "user@localhost@other.example", "@localhost,@other.example:user@other.example", "user%other.example", "user@localhost.", "user@[192.168.1.1]",
    '"other.example!user"@localhost', "other.example!user@[127.0.0.1]",
]  # fmt: skip


@pytest.mark.parametrize("service", ["smtp", "lmtp"])
@pytest.mark.parametrize("path", RELAY)
def test_row_20_nothing_is_relayed_for_strangers(path, service):
    rig = Rig()
    for sender in ("", "a@b.example", "you@localhost", "you@[127.0.0.1]", "you"):
        client = rig.connect(service)
        client.say(f"MAIL FROM:<{sender}>")
        said = client.say(f"RCPT TO:<{path}>")
        assert re.match(r"5(50|54|01|03) 5\.", said), said
        assert client.say("DATA").startswith("503")


def test_row_12_and_22_unknown_recipients_are_refused_at_rcpt():
    client = Rig().connect()
    client.say("MAIL FROM:<>")
    assert client.say("RCPT TO:<nobody@localhost>").startswith("550 5.1.1")


def test_row_23_too_many_hops():
    rig = Rig()
    field = b"Received: from a by b; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    client = rig.connect()
    assert client.send(field * 101 + b"\r\n").startswith("554 5.4.6")
    assert not rig.mail()
    assert client.send(field * 100 + b"\r\n").startswith("250")


def test_row_36_a_client_that_leaves_while_its_message_is_filed_is_no_error(monkeypatch):
    from twisted.internet.defer import Deferred
    from twisted.logger import globalLogPublisher

    rig = Rig()
    events = []

    async def slow(_):
        await Deferred()

    monkeypatch.setattr(rig.store, "deliver", slow)
    globalLogPublisher.addObserver(events.append)
    try:
        client = rig.connect()
        assert client.send(b"x\r\n") == ""
        client.transport.lose()
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert client.connection.session.transaction is None
    assert not [event for event in events if "log_failure" in event]


@pytest.mark.parametrize("tail", [b"DATA\r\n", b"BDAT 100\r\n", b"BDAT 100 LAST\r\n"])
def test_row_36_a_client_that_leaves_in_the_middle_stores_nothing(tail):
    rig = Rig()
    client = rig.connect()
    client.begin()
    client.feed(tail)
    client.feed(b"Subject: half\r\n\r\nhal")
    client.transport.lose()
    assert not rig.mail()
    assert client.connection.session.transaction is None


def test_row_37_what_a_peer_sent_makes_no_line_of_ours():
    from livemail.smtp.replies import reply

    assert reply(550, "5.7.1", "a\r\nb\x1b[1m\x9b\u2028") == b"550 5.7.1 a??b?[1m??\r\n"
    assert len(reply(550, "5.7.1", "ä" * 1000, utf8=True)) <= 512
    assert reply(550, "5.7.1", "ä") == b"550 5.7.1 \\xe4\r\n"


def test_row_48_nothing_a_peer_sends_reaches_the_log_raw(caplog):
    from twisted.logger import formatEvent, globalLogPublisher

    lines = []

    def observe(event):
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        rig = Rig()
        client = rig.connect("submission", helo=False, tls="TLSv1.3 X")
        for line in (b"EHLO \x1b[31m\x07", b"\x1b]0;x\x07", b"EHLO good", b'MAIL FROM:<"\x1b"@x>', b"AUTH PLAIN AHlvdUBsb2NhbGhvc3QAd3Jvbmc=", b"AUTH PLAIN AHlvdUBsb2NhbGhvc3QAc2VjcmV0"):  # fmt: skip
            client.feed(line + b"\r\n")
        client.send(b"Subject: \x1b[31m\x07x\r\n\r\n", "me@localhost", sender="you@localhost")
    finally:
        globalLogPublisher.removeObserver(observe)
    text = "\n".join(line or "" for line in lines)
    assert ": taken from <you@localhost>" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert "secret" not in text
    assert "AHlvdUBs" not in text
