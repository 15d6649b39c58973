"""Hostile SMTP against the running server: the numbered rows of the acceptance list."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from tests.system.hostile import Raw, spool_empties, unharmed
from tests.system.mail import fetch_all, imap
from tests.system.rig import Server


@pytest.fixture(autouse=True)
def _unharmed(server: Server) -> Iterator[None]:
    with unharmed(server):
        yield


def _open(server: Server, service: str = "smtp") -> Raw:
    raw = Raw(server, service)
    assert raw.ask(b"EHLO client.example").startswith(b"250")
    return raw


def _transaction(raw: Raw, recipient: bytes = b"you@localhost") -> None:
    assert raw.ask(b"MAIL FROM:<a@example.org>").startswith(b"250")
    assert raw.ask(b"RCPT TO:<%b>" % recipient).startswith(b"250")


def _count(server: Server) -> int:
    session = imap(server)
    found = fetch_all(session)
    session.logout()
    return len(found)


ENDS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\n\n.\r\n",
    b"\r\r\n.\r\r\n",
    b"\0.\r\n",
]


@pytest.mark.parametrize("end", ENDS)
def test_row_1_no_odd_end_of_data_makes_two_messages(server: Server, end: bytes) -> None:
    raw = _open(server)
    before = _count(server)
    _transaction(raw)
    assert raw.ask(b"DATA").startswith(b"354")
    raw.send(
        b"Subject: row1\r\n\r\nfirst"
        + end
        + b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<you@localhost>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"
    )
    answer = raw.reply()
    assert answer.startswith((b"250", b"550", b"554", b"501")), answer
    assert raw.ask(b"NOOP").startswith(b"250")
    assert _count(server) - before == (1 if answer.startswith(b"250") else 0)


def test_row_2_bdat_keeps_bare_newlines(server: Server) -> None:
    raw = _open(server)
    _transaction(raw)
    content = b"Subject: row2\r\n\r\na\nb\n.\nc\r\n"
    answer = raw.ask(b"BDAT %d LAST\r\n%b" % (len(content), content[:-2]))
    if answer.startswith(b"250"):
        session = imap(server)
        stored = fetch_all(session)
        session.logout()
        assert any(octets.endswith(content) for octets in stored.values())
    else:
        assert answer.startswith(b"5"), answer


def test_row_3_talk_before_the_greeting_or_before_354(server: Server) -> None:
    raw = _open(server)
    _transaction(raw)
    raw.send(b"DATA\r\nSubject: too early\r\n\r\nx\r\n.\r\n")
    # PIPELINING lets a client send DATA last in a group and no more: what follows is either content (354 then 250) or refused.
    assert raw.reply().startswith((b"354", b"503", b"554"))


def test_row_4_octets_behind_starttls_are_never_answered_inside_tls(server: Server) -> None:
    raw = _open(server)
    raw.send(b"STARTTLS\r\nEHLO injected\r\n")
    got = raw.rest(3)
    assert got.count(b"250") == 0, got


def test_row_5_lmtp_starttls_is_the_same(server: Server) -> None:
    raw = Raw(server, "lmtp")
    answer = raw.ask(b"LHLO client.example")
    assert answer.startswith(b"250")
    raw.send(b"STARTTLS\r\nLHLO injected\r\n")
    got = raw.rest(3)
    assert b"injected" not in got
    assert got.count(b"\n") <= 2, got  # the refusal or go-ahead, never the answer to the second line as if in TLS


def test_row_6_starttls_forgets_mail(server: Server) -> None:
    raw = _open(server)
    assert raw.ask(b"MAIL FROM:<a@example.org>").startswith(b"250")
    answer = raw.ask(b"STARTTLS")
    if answer.startswith(b"220"):
        raw.tls()
        assert raw.ask(b"RCPT TO:<you@localhost>").startswith(b"503")
    else:
        assert answer.startswith(b"503"), answer


def test_row_7_starttls_twice_auth_twice_and_auth_in_a_transaction(server: Server) -> None:
    raw = _open(server, "submission")
    assert raw.ask(b"STARTTLS").startswith(b"220")
    raw.tls()
    assert raw.ask(b"EHLO client.example").startswith(b"250")
    assert raw.ask(b"STARTTLS").startswith((b"503", b"502"))
    token = base64.b64encode(f"\0{server.facts['account']}\0{server.facts['password']}".encode())
    assert raw.ask(b"AUTH PLAIN " + token).startswith(b"235")
    assert raw.ask(b"AUTH PLAIN " + token).startswith(b"503")
    assert raw.ask(b"MAIL FROM:<you@localhost>").startswith(b"250")
    assert raw.ask(b"AUTH PLAIN " + token).startswith(b"503")


def test_row_8_the_relay_port_offers_no_auth_and_lmtp_neither(server: Server) -> None:
    for service, hello in (("smtp", b"EHLO x.example"), ("lmtp", b"LHLO x.example")):
        raw = Raw(server, service)
        raw.send(hello + b"\r\n")
        lines = [raw.line()]
        while lines[-1][3:4] == b"-":
            lines.append(raw.line())
        assert not any(b"AUTH" in line for line in lines), lines
        assert raw.ask(b"AUTH PLAIN AGEAYg==").startswith((b"502", b"503", b"538", b"504"))


@pytest.mark.parametrize("response", [b"*", b"!!!!", b"AGEA\tYg==", b"AA==", b"=", b"\0"])
def test_row_9_bad_responses_to_auth(server: Server, response: bytes) -> None:
    raw = _open(server, "submission")
    assert raw.ask(b"AUTH PLAIN").startswith(b"334")
    assert raw.ask(response).startswith((b"501", b"535", b"500"))
    assert raw.ask(b"NOOP").startswith(b"250")
    assert response.decode("latin-1") not in server.output() or len(response) < 4


def test_row_9_a_response_of_100_kb(server: Server) -> None:
    raw = _open(server, "submission")
    assert raw.ask(b"AUTH PLAIN").startswith(b"334")
    raw.send(b"QUFB" * 25_000 + b"\r\n")
    assert raw.reply().startswith((b"500", b"501", b"535"))


def test_row_11_vrfy_and_expn_tell_nothing(server: Server) -> None:
    raw = _open(server)
    for verb in (b"VRFY", b"EXPN"):
        answers = {raw.ask(verb + b" " + name)[:9] for name in (b"you@localhost", b"nobody@localhost")}
        assert len(answers) == 1
        assert answers.pop()[:3] in {b"252", b"502"}


def test_row_12_unknown_users_are_refused_at_rcpt(server: Server) -> None:
    raw = _open(server)
    raw.ask(b"MAIL FROM:<a@example.org>")
    assert raw.ask(b"RCPT TO:<nobody@localhost>").startswith(b"550 5.1.1")


def test_row_13_order_of_commands(server: Server) -> None:
    raw = _open(server)
    assert raw.ask(b"RCPT TO:<you@localhost>").startswith(b"503")
    assert raw.ask(b"DATA").startswith(b"503")
    assert raw.ask(b"MAIL FROM:<a@example.org>").startswith(b"250")
    assert raw.ask(b"MAIL FROM:<a@example.org>").startswith(b"503")
    assert raw.ask(b"DATA").startswith((b"503", b"554"))


@pytest.mark.parametrize(
    "argument", [b"-1", b"99999999999", b"x", b"5 EXTRA", b"", b"5 LAST LAST", b"18446744073709551616 LAST"]
)
def test_row_14_bad_bdat(server: Server, argument: bytes) -> None:
    raw = _open(server)
    _transaction(raw)
    answer = raw.ask(b"BDAT " + argument)
    assert answer[:3] in {b"501", b"552", b"554", b"500", b"503"}, answer


def test_row_15_sizes(server: Server) -> None:
    raw = _open(server)
    assert raw.ask(b"MAIL FROM:<a@example.org> SIZE=99999999999").startswith(b"552 5.3.4")
    assert raw.ask(b"MAIL FROM:<a@example.org> SIZE=99999999999999999999999999").startswith((b"552", b"501"))


def test_row_16_too_many_recipients(server: Server) -> None:
    raw = _open(server)
    raw.ask(b"MAIL FROM:<a@example.org>")
    raw.send(b"".join(b"RCPT TO:<you+%d@localhost>\r\n" % number for number in range(1100)))
    answers = [raw.reply() for _ in range(1100)]
    assert answers[0].startswith(b"250")
    assert answers[-1].startswith(b"452 4.5.3"), answers[-1]
    assert raw.ask(b"DATA").startswith(b"354")
    assert raw.ask(b"Subject: row 16\r\n\r\nx\r\n.").startswith(b"250")


def test_row_17_long_commands(server: Server) -> None:
    raw = _open(server)
    assert raw.ask(b"NOOP " + b"x" * 10_000).startswith(b"500")
    raw = _open(server)
    raw.send(b"x" * 1_000_000)
    got = raw.rest(10)
    assert got.count(b"500") <= 1, got


def test_row_18_thirty_unknown_commands_and_http(server: Server) -> None:
    raw = _open(server)
    raw.send(b"XYZZY\r\n" * 30)
    got = raw.rest(5)
    assert got.count(b"500") + got.count(b"502") <= 21
    assert b"421" in got
    raw = Raw(server, "smtp")
    raw.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    got = raw.rest(5)
    assert got.startswith((b"5", b"421"))
    assert got.count(b"\n") <= 2, got


@pytest.mark.parametrize(
    "line",
    [
        b"MAIL FROM:<a\0b@example.org>",
        b"MAIL FROM:<\x80@example.org>",
        b"MAIL FROM:<a\x07@example.org>",
        b"NO\0OP",
        "MAIL FROM:<ä@example.org>".encode(),
    ],
)
def test_row_19_control_and_8_bit_characters(server: Server, line: bytes) -> None:
    raw = _open(server)
    assert raw.ask(line)[:3] in {b"500", b"501", b"550", b"553"}
    assert raw.ask(b"NOOP").startswith(b"250")


@pytest.mark.parametrize(
    "path",
    [
        b"user%other.example@localhost", b"@localhost:user@other.example", b'"user@other.example"@localhost',
        b"other.example!user@localhost", b"user@other.example@localhost", b"user@[192.0.2.1]", b"user@other.example",
        b"@other.example:user@localhost", b"@localhost,@other.example:user@third.example", b'"user%other.example"',
        b"user@other.example.", b"user@localhost.other.example",
    ],
)  # fmt: skip
def test_row_20_no_relay_by_any_spelling(server: Server, path: bytes) -> None:
    raw = _open(server)
    assert raw.ask(b"MAIL FROM:<a@example.org>").startswith(b"250")
    assert raw.ask(b"RCPT TO:<%b>" % path)[:3] in {b"550", b"554", b"501", b"553", b"551"}


@pytest.mark.parametrize(
    "path",
    [
        b'""@localhost',
        b"@",
        b"a@b.",
        b"x" * 400 + b"@localhost",
        b"a@",
        b"@b",
        b"",
        b"a b@localhost",
        b"<<a@localhost>>",
    ],
)
def test_row_21_impossible_addresses(server: Server, path: bytes) -> None:
    raw = _open(server)
    raw.ask(b"MAIL FROM:<a@example.org>")
    assert raw.ask(b"RCPT TO:<%b>" % path)[:3] in {b"550", b"501", b"553"}
    assert raw.ask(b"NOOP").startswith(b"250")


def test_row_22_the_null_path_to_an_unknown_user(server: Server) -> None:
    raw = _open(server)
    assert raw.ask(b"MAIL FROM:<>").startswith(b"250")
    assert raw.ask(b"RCPT TO:<nobody@localhost>").startswith(b"550")


def test_row_23_too_many_hops(server: Server) -> None:
    raw = _open(server)
    _transaction(raw)
    raw.ask(b"DATA")
    raw.send(b"Received: from a by b; now\r\n" * 101 + b"Subject: loop\r\n\r\nx\r\n")
    assert raw.ask(b".").startswith(b"554 5.4.6")


def test_row_30_a_byte_now_and_then_does_not_stop_others(server: Server) -> None:
    slow = [Raw(server, service, greeting=False) for service in ("smtp", "imap", "pop3") for _ in range(60)]
    for raw in slow:
        raw.send(b"E")
    fast = _open(server)
    assert fast.ask(b"NOOP").startswith(b"250")
    for raw in slow:
        raw.close()


def test_row_36_a_client_that_leaves_in_the_middle_leaves_nothing(server: Server) -> None:
    before = _count(server)
    for begin in (b"DATA\r\nSubject: half\r\n\r\n" + b"x" * 3_000_000, b"BDAT 5000000 LAST\r\n" + b"y" * 3_000_000):
        raw = _open(server)
        _transaction(raw)
        raw.send(begin)
        raw.close()
    assert _open(server).ask(b"NOOP").startswith(b"250")
    assert _count(server) == before
    assert spool_empties(server)


def test_row_48_what_the_peer_says_is_escaped_in_the_log(server: Server) -> None:
    raw = Raw(server, "smtp")
    raw.ask(b"EHLO \x1b[31mred.example")
    raw.ask(b"HELO fine.example")
    _transaction(raw)
    raw.ask(b"DATA")
    raw.ask(b"Subject: \x1b[2Jcleared\r\n\r\nx\r\n.")
    wrong = _open(server, "submission")
    token = base64.b64encode(b"\0bad\x1b[0muser\0verysecretword")
    wrong.ask(b"AUTH PLAIN " + token)
    log = server.log.read_bytes()
    assert b"\x1b" not in log
    assert b"verysecretword" not in log
    assert token not in log
