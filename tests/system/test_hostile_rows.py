"""More rows of the acceptance list, and more of the same kind, against the running server."""

from __future__ import annotations

import base64
import re
import ssl
import time
from collections.abc import Iterator

import pytest
from imapclient.response_parser import parse_fetch_response

from tests.system.hostile import Raw, unharmed
from tests.system.mail import deliver, imap, smtp
from tests.system.rig import Server


@pytest.fixture(autouse=True)
def _unharmed(server: Server) -> Iterator[None]:
    with unharmed(server):
        yield


def _open(server: Server) -> Raw:
    raw = Raw(server, "imap")
    raw.login()
    return raw


def _deliver(server: Server, octets: bytes) -> None:
    with smtp(server) as client:
        client.ehlo()
        code, text = deliver(client, "you@localhost", octets)
    assert code == 250, text


def _fetch_last(server: Server, items: bytes) -> bytes:
    """The whole answer to FETCH of the newest message, up to and with the tagged line."""
    raw = _open(server)
    assert raw.tagged(b"t SELECT INBOX\r\n").startswith(b"t OK")
    got = raw.answer(b"f FETCH * (" + items + b")\r\n", b"f")
    assert b"\r\nf OK" in got, got[-200:]
    return got


# --------------------------------------------------------------------------------------------------------- row 3


def test_row_3_who_talks_before_the_greeting_is_closed_on(server: Server) -> None:
    raw = Raw(server, "smtp", greeting=False)
    raw.send(b"EHLO early.example\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<you@localhost>\r\n")
    got = raw.rest(5)
    # Loopback is quick: where the greeting was out first, nothing was early.
    assert got.startswith((b"554 ", b"220 "))
    assert got.count(b"\r\n") == 1 or got.startswith(b"220 ")


# -------------------------------------------------------------------------------------------------- rows 4 and 5


def test_row_5_what_stood_behind_starttls_is_not_answered_even_when_the_handshake_follows(server: Server) -> None:
    """The handshake's first octets in the same segment as the plain ones: the buffer is thrown away, or all is closed."""
    for service, go, hello in (
        ("smtp", b"EHLO x.example\r\n", b"STARTTLS\r\nMAIL FROM:<injected@example.org>\r\n"),
        ("lmtp", b"LHLO x.example\r\n", b"STARTTLS\r\nMAIL FROM:<injected@example.org>\r\n"),
        ("imap", b"", b"a STARTTLS\r\nb NOOP\r\n"),
        ("pop3", b"", b"STLS\r\nCAPA\r\n"),
    ):
        raw = Raw(server, service)
        if go:
            raw.send(go)
            raw.reply()
        raw.send(hello)
        raw.line()
        try:
            raw.tls()
        except (ssl.SSLError, ConnectionError):
            continue  # closed, or no TLS spoken
        raw.socket.settimeout(1)
        try:
            said = raw.socket.recv(1000)
        except (TimeoutError, ConnectionError):
            said = b""
        assert said == b"", (service, said)


# -------------------------------------------------------------------------------------------------------- row 25

_LEAF = b"Content-Type: text/plain\r\n\r\nleaf\r\n"
MIME = {
    "100,000 levels": b"".join(
        b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (level, level) for level in range(100_000)
    ),
    "part 10,000 is a message": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--b\r\n\r\nx\r\n" * 9_999
    + b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nbody\r\n--b--\r\n",
    "one boundary on every level": b"Content-Type: multipart/mixed; boundary=same\r\n\r\n"
    + b"--same\r\nContent-Type: multipart/mixed; boundary=same\r\n\r\n" * 2_000
    + b"--same--\r\n" * 2_000,
    "each boundary begins the next": b"".join(
        b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n--%b\r\n" % (b"a" * level, b"a" * level) for level in range(1, 70)
    )
    + _LEAF,
    "a million dashes": b"Content-Type: multipart/mixed; boundary=-\r\n\r\n" + b"---\r\n" * 200_000,
    "messages in messages": b"Content-Type: message/rfc822\r\n\r\n" * 20_000 + b"end\r\n",
    "encoded message inside": b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + base64.encodebytes(_LEAF).replace(b"\n", b"\r\n"),
    "boundary of 10,000 octets": b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n--%b\r\n\r\nx\r\n" % (b"z" * 10_000, b"z" * 10_000),
    "no boundary": b"Content-Type: multipart/mixed\r\n\r\n--\r\n\r\nx\r\n----\r\n",
    "empty boundary": b'Content-Type: multipart/mixed; boundary=""\r\n\r\n--\r\n\r\nx\r\n----\r\n',
    "digest of nothing": b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n--b\r\n--b\r\n--b--\r\n",
}  # fmt: skip


@pytest.mark.parametrize("shape", MIME)
def test_row_25_mime_beyond_reason_is_stored_and_described(server: Server, shape: str) -> None:
    content = b"Subject: row 25\r\n" + MIME[shape] + b"\r\n"
    _deliver(server, content)
    got = _fetch_last(server, b"BODYSTRUCTURE ENVELOPE BODY.PEEK[1.1.1.MIME] BODY.PEEK[2.HEADER] RFC822.SIZE")
    structure = got.partition(b" BODY.PEEK")[0]
    assert structure.count(b"(") < 60_000
    # What is described can be parsed by a client, and every octet comes back.
    size = re.search(rb"RFC822.SIZE (\d+)", got)
    assert size is not None
    assert int(size[1]) > len(content)
    whole = _fetch_last(server, b"BODY.PEEK[]")
    assert content.rstrip(b"\r\n") in whole


# -------------------------------------------------------------------------------------------------------- row 26


@pytest.mark.parametrize(
    "header",
    [
        b"To: " + b", ".join(b"u%d@example.org" % number for number in range(100_000)),
        b"To: " + b"g%d:" * 50_000,
        b"To: " + b"<" * 100_000,
        b"To: " + b'"' * 100_001,
        b"To: " + b"a\\" * 100_000,
        b"From: " + b"@a," * 100_000 + b":b@c",
        b"Content-Type: text/plain" + b"".join(b'; p*%d*="%%41"' % number for number in range(50_000)),
        b"Content-Type: text/plain" + b"; p=x" * 50_000,
        b"Content-Type: text/plain; p*0*=utf-8''a; p*99999999999=b; p*1=c",
        b"Content-Disposition: attachment" + b'; filename="' + b"\\" * 100_000,
        b"Content-Language: " + b"a," * 100_000,
        b"Content-Type: " + b"(" * 100_000 + b")" * 100_000 + b"text/plain",
        b"Date: " + b"1" * 100_000,
        b"Message-ID: " + b"<" * 50_000 + b">" * 50_000,
        b"In-Reply-To: " + b"<a@b>" * 50_000,
        b"Subject:" + b"\r\n " * 50_000 + b"x",
        b"".join(b"X-%d: y\r\n" % number for number in range(50_000)) + b"Subject: many fields",
        b"Subject: x\r\n" * 50_000 + b"Subject: one name",
    ],
    ids=range(18),
)
def test_rows_26_and_27_headers_that_would_cost_more_than_they_weigh(server: Server, header: bytes) -> None:
    began = time.monotonic()
    _deliver(server, header + b"\r\n\r\nbody\r\n")
    raw = _open(server)
    raw.tagged(b"t SELECT INBOX\r\n")
    for command in (
        b"t FETCH * (ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (TO SUBJECT)])\r\n",
        b"t SEARCH TO nowhere@example.org SUBJECT zzz SENTSINCE 1-Jan-2020\r\n",
        b"t SEARCH TEXT zzzz\r\n",
    ):
        assert raw.tagged(command).startswith(b"t OK"), command
    assert time.monotonic() - began < 20  # each is a matter of milliseconds; quadratic would be minutes


# -------------------------------------------------------------------------------------------------------- row 35


def test_row_35_a_literal_that_is_not_taken_is_never_run_as_commands(server: Server) -> None:
    line = b"x CREATE never\r\n"
    for before, count in ((b"t LOGIN", 300), (b"t LOGIN", 4_000), (b"t CREATE", 12_000), (b"t NOOP", 300)):
        raw = Raw(server, "imap") if before == b"t LOGIN" else _open(server)
        raw.send(before + b" {%d+}\r\n" % (count * len(line)) + line * count + b"\r\ny NOOP\r\n")
        got = raw.rest(1)
        assert got.startswith((b"t BAD", b"t NO", b"* BYE")), got[:100]
        assert not re.search(rb"^x ", got, re.MULTILINE), got[:200]
    raw = _open(server)
    raw.send(b't LIST "" "never*"\r\n')
    assert raw.line().startswith(b"t OK")


# -------------------------------------------------------------------------------------------------------- row 37


def test_row_37_line_ends_in_decoded_words_never_begin_a_line(server: Server) -> None:
    encoded = base64.b64encode(b"name\r\nX-Evil: yes\r\n* BYE gone")
    _deliver(
        server,
        b"Subject: =?utf-8?q?a=0D=0AX-Evil:_yes?=\r\n"
        b"From: =?utf-8?b?" + encoded + b'?= <a@example.org>\r\nTo: "q\\\r\n X-Evil: yes" <b@example.org>\r\n'
        b"Content-Type: text/plain; name*=utf-8''a%0D%0A*%20BYE%20gone\r\n"
        b'Content-Disposition: attachment; filename="x\\\r\n\t* BYE gone"\r\n'
        b"Content-Description: =?utf-8?q?=0D=0A*_BYE_gone?=\r\n\r\nbody\r\n",
    )  # fmt: skip
    got = _fetch_last(server, b"ENVELOPE BODYSTRUCTURE")
    assert not re.search(rb"^(X-Evil|\* BYE)", got, re.MULTILINE)
    parsed = parse_fetch_response([got.partition(b"\r\nf OK")[0].partition(b" FETCH ")[2].join([b"1 ", b""])])
    assert parsed[1][b"ENVELOPE"].from_[0].mailbox == b"a"


# -------------------------------------------------------------------------------------------------------- row 47


def test_row_47_another_accounts_mailboxes_are_as_those_that_do_not_exist(server: Server) -> None:
    server.add_account("other@localhost", "other one")
    session = imap(server, "other@localhost", "other one")
    session.create("Private")
    session.append("Private", None, None, b"Subject: private\r\n\r\nx\r\n")
    session.logout()
    raw = _open(server)
    absent = raw.tagged(b"t SELECT Absent\r\n")
    names = [
        b"Private", b"other@localhost/Private", b"other/Private", b"user/other/Private", b'"Other Users/other/Private"', b"#user/other/Private",
        b"~other/Private", b"../other/Private", b"user.other.Private", b"Shared/other@localhost/Private",
    ]  # fmt: skip
    for name in names:
        for command in (
            b"SELECT %b",
            b"EXAMINE %b",
            b"STATUS %b (MESSAGES)",
            b"DELETE %b",
            b"SUBSCRIBE %b",
            b"RENAME %b mine",
        ):
            answer = raw.tagged(b"t " + command % name + b"\r\n")
            if command.startswith(b"SUBSCRIBE"):
                assert not answer.startswith(b"* BYE")  # a name may be subscribed that is not there.  RFC 3501 §6.3.6
                continue
            assert answer in {absent, absent.replace(b"[NONEXISTENT] ", b"")} or b"NO" in answer, (command, answer)
            assert b"OK" not in answer
    session = imap(server, "other@localhost", "other one")
    assert session.select("Private")[1] == [b"1"]
    session.logout()


# -------------------------------------------------------------------------------------------------------- row 48


def test_row_48_names_in_logins_do_not_write_lines_of_the_log(server: Server) -> None:
    evil = "x\\r\\ny"
    raw = Raw(server, "imap")
    raw.tagged(b"t LOGIN {33}\r\n" + b"a\x1b[31m\r\n2026 critical owned by me!" + b" wrong\r\n")
    raw = Raw(server, "imap")
    raw.tagged(
        b"t AUTHENTICATE PLAIN "
        + base64.b64encode(b"\0me\r\n2026-01-01T00:00:00Z critical forged\0topsecretword")
        + b"\r\n"
    )
    raw = Raw(server, "pop3")
    raw.send(b"USER a\x1b]0;title\x07b\r\nPASS topsecretword\r\n")
    raw.line()
    raw.line()
    raw = Raw(server, "submission")
    raw.ask(b"EHLO x")
    raw.ask(b"AUTH LOGIN")
    raw.ask(base64.b64encode(b"me\r\nforged"))
    raw.ask(base64.b64encode(b"topsecretword"))
    log = server.log.read_bytes()
    assert b"\x1b" not in log
    assert b"\x07" not in log
    assert b"topsecretword" not in log
    assert base64.b64encode(b"topsecretword") not in log
    assert not re.search(rb"^(2026-01-01|forged|2026 critical)", log, re.MULTILINE), evil


# --------------------------------------------------------------------------------------- more of the same kind


def test_octets_of_other_protocols_are_answered_shortly_on_every_port(server: Server) -> None:
    hello = bytes.fromhex("16030100c8010000c40303") + bytes(190)
    for service in ("smtp", "submission", "lmtp", "imap", "pop3"):
        for octets in (
            hello,
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"SSH-2.0-x\r\n",
            b"\0" * 5000,
            b"\xff\xf4\xff\xfd\x06" * 100,
        ):
            raw = Raw(server, service)
            raw.send(octets + b"\r\nQUIT\r\n")
            assert len(raw.rest(1)) < 3000


def test_a_thousand_pipelined_commands_are_answered_in_order(server: Server) -> None:
    raw = _open(server)
    raw.send(b"".join(b"n%d NOOP\r\n" % number for number in range(1000)))
    assert [raw.line() for _ in range(1000)] == [b"n%d OK NOOP completed" % number for number in range(1000)]
    raw = Raw(server, "pop3")
    raw.send(
        b"USER %b\r\nPASS %b\r\n" % (server.facts["account"].encode(), server.facts["password"].encode())
        + b"NOOP\r\n" * 1000
    )
    assert all(raw.line().startswith(b"+OK") for _ in range(1002))


def test_tiny_chunks_of_bdat_cost_no_more_than_their_octets(server: Server) -> None:
    raw = Raw(server, "smtp")
    raw.ask(b"EHLO client.example")
    raw.ask(b"MAIL FROM:<a@example.org>")
    raw.ask(b"RCPT TO:<you@localhost>")
    raw.send(b"BDAT 1\r\nx" * 20_000 + b"BDAT 2 LAST\r\n\r\n")
    for _ in range(20_000):
        assert raw.line().startswith(b"250")
    assert raw.line().startswith(b"250")


def test_after_an_error_in_bdat_or_data_the_transaction_is_gone(server: Server) -> None:
    raw = Raw(server, "smtp")
    raw.ask(b"EHLO client.example")
    for _ in range(3):
        raw.ask(b"MAIL FROM:<a@example.org>")
        raw.ask(b"RCPT TO:<you@localhost>")
        raw.ask(b"DATA")
        assert raw.ask(b"a bare\nnewline\r\n.").startswith(b"550")
        assert raw.ask(b"DATA").startswith(b"503")
        assert raw.ask(b"RCPT TO:<you@localhost>").startswith(b"503")
        assert raw.ask(b"BDAT 0 LAST").startswith(b"503")
        assert raw.ask(b"RSET").startswith(b"250")


def test_output_nobody_reads_waits_and_is_given_up(server: Server) -> None:
    """A client that asks for everything a hundred times and reads nothing: memory stays (see the fixture), others are served."""
    _deliver(server, b"Subject: big\r\n\r\n" + (b"x" * 76 + b"\r\n") * 100_000)
    raws = []
    for _ in range(5):
        raw = _open(server)
        raw.tagged(b"t SELECT INBOX\r\n")
        raw.send(b"".join(b"f%d FETCH 1:* (BODY.PEEK[])\r\n" % number for number in range(100)))
        raws.append(raw)
    assert _open(server).tagged(b"t NOOP\r\n").startswith(b"t OK")
    for raw in raws:
        raw.close()
