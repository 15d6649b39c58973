"""Hostile IMAP and POP3 against the running server: the numbered rows of the acceptance list."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from tests.system.hostile import Raw, spool_empties, unharmed
from tests.system.mail import deliver, smtp
from tests.system.rig import Server


@pytest.fixture(autouse=True)
def _unharmed(server: Server) -> Iterator[None]:
    with unharmed(server):
        yield


def _open(server: Server) -> Raw:
    raw = Raw(server, "imap")
    raw.login()
    return raw


def test_row_5_octets_behind_starttls_and_stls(server: Server) -> None:
    raw = Raw(server, "imap")
    raw.send(b"a STARTTLS\r\nb NOOP\r\n")
    assert b"b OK" not in raw.rest(3)
    raw = Raw(server, "pop3")
    raw.send(b"STLS\r\nCAPA\r\n")
    assert b"UIDL" not in raw.rest(3)


def test_row_7_starttls_twice_and_after_login(server: Server) -> None:
    raw = Raw(server, "imap")
    assert raw.tagged(b"t STARTTLS\r\n").startswith(b"t OK")
    raw.tls()
    assert raw.tagged(b"t STARTTLS\r\n").startswith(b"t BAD")
    raw.login()
    assert raw.tagged(b"t STARTTLS\r\n").startswith(b"t BAD")
    assert raw.tagged(b"t LOGIN a b\r\n").startswith(b"t BAD")


@pytest.mark.parametrize("response", [b"*", b"!!!", b"AGEA\tYg==", b"QUFB" * 25_000])
def test_row_9_bad_sasl_responses(server: Server, response: bytes) -> None:
    raw = Raw(server, "imap")
    raw.send(b"t AUTHENTICATE PLAIN\r\n")
    assert raw.line().startswith(b"+")
    assert raw.tagged(response + b"\r\n").startswith((b"t BAD", b"t NO", b"* BYE"))


@pytest.mark.parametrize(
    "form", [b"{4294967295}", b"{1000000000+}", b"{-1}", b"{99999999999999999999}", b"{99999999999999999999+}"]
)
def test_row_28_literals_before_login(server: Server, form: bytes) -> None:
    raw = Raw(server, "imap")
    raw.send(b"t LOGIN " + form + b"\r\n")
    assert raw.line().startswith((b"t BAD", b"* BYE", b"t NO"))


def test_row_29_parentheses_id_pairs_and_long_lines_before_login(server: Server) -> None:
    for octets in (
        b"t FETCH " + b"(" * 100_000 + b"\r\n",
        b"t ID (" + b'"a" "b" ' * 20_000 + b")\r\n",
        b"x" * 1_000_000,
    ):
        raw = Raw(server, "imap")
        raw.send(octets)
        got = raw.rest(3)
        assert got.count(b"BAD") <= 2
        assert b"BAD" in got or b"BYE" in got, got[:200]


@pytest.mark.parametrize(
    "octets", [b't LOGIN "a\0b" c\r\n', b't LOGIN "a\nb" c\r\n', b't LOGIN "a\rb" c\r\n', b't LOGIN "\xff\xfe" c\r\n']
)
def test_row_31_octets_that_no_quoted_string_holds(server: Server, octets: bytes) -> None:
    raw = Raw(server, "imap")
    answer = raw.tagged(octets)
    assert b" OK" not in answer
    assert b"BAD" in answer or b" NO" in answer or answer.startswith(b"* BYE") or not answer


NAMES = [
    b"../../x", b"a/../../b", b"/etc/x", b"~root/x", b"..", b"a//b", b'"x&y"', b"x&AGE-", b'"\xff\xfe"', b"{3+}\r\na\0b",
    b"x" * 10_000, b"/".join([b"a"] * 500), b'""', b'"*"', b'"a%"',
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_row_32_names_that_are_no_mailbox(server: Server, name: bytes) -> None:
    raw = _open(server)
    answer = raw.tagged(b"t CREATE " + name + b"\r\n")
    assert answer.startswith((b"t NO", b"t BAD", b"* BYE")), answer
    outside = [path for path in server.data.parent.iterdir() if path.name not in {server.data.name, server.log.name}]
    assert outside == []


def test_row_33_sets_and_sections_beyond_reason(server: Server) -> None:
    raw = _open(server)
    assert raw.tagged(b"t SELECT INBOX\r\n").startswith(b"t OK")
    many = b",".join(b"%d:%d" % (number, number + 1) for number in range(1, 90_000, 3))
    assert raw.tagged(b"t UID FETCH " + many + b" (FLAGS)\r\n").startswith((b"t OK", b"t BAD", b"* BYE"))
    raw = _open(server)
    raw.tagged(b"t SELECT INBOX\r\n")
    deep = b".".join([b"1"] * 5_000)
    assert raw.tagged(b"t FETCH 1 BODY.PEEK[" + deep + b"]\r\n").startswith((b"t OK", b"t BAD"))
    raw.send(b"t FETCH 1 BODY.PEEK[]<4294967295.4294967295>\r\n")
    first = raw.line()
    assert b"{0}" in first or b'""' in first or first.startswith(b"t BAD"), first


def test_row_34_appends_over_the_limit(server: Server) -> None:
    for form in (b"{2147483648}", b"{999999999999}"):
        raw = _open(server)
        raw.send(b"t APPEND INBOX " + form + b"\r\n")
        answer = raw.line()
        assert answer.startswith((b"t NO [TOOBIG]", b"t BAD")), answer
    raw = _open(server)
    raw.send(b"t APPEND INBOX {999999999999+}\r\nu CREATE never\r\n")
    got = raw.rest(3)
    assert b"u OK" not in got
    assert b"TOOBIG" in got or b"BAD" in got or b"BYE" in got


def test_row_36_a_client_that_leaves_in_mid_literal(server: Server) -> None:
    raw = _open(server)
    raw.send(b"t APPEND INBOX {5000000+}\r\n" + b"x" * 3_000_000)
    raw.close()
    raw = _open(server)
    assert raw.tagged(b"t NOOP\r\n").startswith(b"t OK")
    assert spool_empties(server)


def test_list_patterns_do_not_backtrack(server: Server) -> None:
    raw = _open(server)
    raw.tagged(b"t CREATE " + b"a" * 200 + b"\r\n")
    assert raw.tagged(b't LIST "" "' + b"*a" * 200 + b'*b"\r\n').startswith((b"t OK", b"t BAD"))


BAITS = [
    b"From: " + b"(" * 1_000_000, b"From: " + b"a@" * 500_000, b"Subject: " + b"=?utf-8?q?" * 100_000, b"Date: " + b"(" * 1_000_000,
    b"Content-Type: multipart/mixed; " + b"a=" * 500_000, b"To: " + b"a@example.org, " * 100_000,
    b"Content-Type: text/plain; " + b"; ".join(b"filename*%d=x" % number for number in range(50_000)),
    b"References: " + b"<a@b> " * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("header", BAITS)
def test_rows_26_and_27_bait_for_parsers(server: Server, header: bytes) -> None:
    with smtp(server) as client:
        client.ehlo()
        code, text = deliver(client, "you@localhost", header + b"\r\n\r\nbody\r\n")
    assert code in {250, 550, 552, 554}, text
    if code == 250:
        raw = _open(server)
        raw.tagged(b"t SELECT INBOX\r\n")
        assert raw.tagged(b"t FETCH * (ENVELOPE BODYSTRUCTURE)\r\n").startswith(b"t OK")


def _nested(depth: int) -> bytes:
    return b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(depth)
    )


SHAPES = {
    "nesting of 2,000": _nested(2_000),
    "nesting of 20,000": _nested(20_000),
    "20,000 parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 20_000 + b"--b--\r\n",
    "a chain of message/rfc822": b"Content-Type: message/rfc822\r\n\r\n" * 5_000 + b"end\r\n",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_row_25_mime_beyond_reason(server: Server, shape: str) -> None:
    with smtp(server) as client:
        client.ehlo()
        code, text = deliver(client, "you@localhost", SHAPES[shape] + b"\r\n")
    assert code == 250, text
    raw = _open(server)
    raw.tagged(b"t SELECT INBOX\r\n")
    assert raw.tagged(b"t FETCH * (ENVELOPE BODYSTRUCTURE)\r\n").startswith(b"t OK")


@pytest.mark.parametrize(
    "line",
    [b"RETR 99999999999999999999", b"RETR -1", b"RETR 0", b"TOP 1 -1", b"TOP 1", b"DELE x", b"LIST 1 2", b"UIDL 0"],
)
def test_row_43_pop3_numbers_that_are_none(server: Server, line: bytes) -> None:
    raw = Raw(server, "pop3")
    for command in (b"USER " + server.facts["account"].encode(), b"PASS " + server.facts["password"].encode()):
        raw.send(command + b"\r\n")
        assert raw.line().startswith(b"+OK")
    raw.send(line + b"\r\n")
    assert raw.line().startswith(b"-ERR")
    raw.send(b"NOOP\r\n")
    assert raw.line().startswith(b"+OK")
    raw.send(b"QUIT\r\n")
    raw.rest(3)


def test_row_43_pop3_locks_and_deletes_only_at_quit(server: Server) -> None:
    facts = server.facts
    token = base64.b64encode(f"\0{facts['account']}\0{facts['password']}".encode())
    first, second = Raw(server, "pop3"), Raw(server, "pop3")
    first.send(b"AUTH PLAIN " + token + b"\r\n")
    assert first.line().startswith(b"+OK")
    second.send(b"AUTH PLAIN " + token + b"\r\n")
    assert second.line().startswith(b"-ERR [IN-USE]")
    first.send(b"DELE 1\r\nSTAT\r\n")
    assert first.line().startswith(b"+OK")
    first.close()
    raw = Raw(server, "pop3")
    raw.send(b"USER " + b"x" * 100_000 + b"\r\n")
    assert raw.rest(3).startswith(b"-ERR")
