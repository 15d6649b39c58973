"""Greeting, capabilities, LOGIN, AUTHENTICATE, STARTTLS.  RFC 3501 §6.1, §6.2; security rows 4 to 10, 48."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher

from livemail.interfaces.identity import AuthenticationUnavailable
from tests.imap.rig import ALICE, BOB, Rig, base64

PLAIN = base64(b"\0alice@example.org\0secret")
WRONG = b"t1 NO [AUTHENTICATIONFAILED] Authentication credentials invalid\r\n"


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Everything that is logged, as an observer would write it, the traceback included."""
    lines: list[str] = []

    def observe(event: Any) -> None:
        lines.append(formatEvent(event))
        if "log_failure" in event:
            lines.append(event["log_failure"].getTraceback(detail="verbose"))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def capabilities(line: bytes) -> set[bytes]:
    return set(line.partition(b"CAPABILITY ")[2].partition(b"]")[0].split())


def test_the_greeting_names_us_and_what_we_can() -> None:
    greeting = Rig().connect().take()
    assert greeting.startswith(b"* OK [CAPABILITY IMAP4rev1 ")
    assert greeting.endswith(b"] mail.example.org livemail ready\r\n")


def test_strangers_over_loopback_may_log_in_where_configured() -> None:
    offered = capabilities(Rig().connect().take())
    assert {b"AUTH=PLAIN", b"AUTH=LOGIN", b"STARTTLS", b"SASL-IR", b"LITERAL+"} <= offered
    assert not {b"LOGINDISABLED", b"NAMESPACE", b"CONDSTORE"} & offered


@pytest.mark.parametrize(
    ("cleartext", "peer"),
    [(False, "127.0.0.1"), (True, "192.0.2.1"), (True, "::ffff:192.0.2.1"), (True, "not an address")],
)
def test_no_password_crosses_in_the_clear(cleartext: bool, peer: str) -> None:
    rig = Rig(cleartext_login=cleartext)
    client = rig.connect(peer)
    offered = capabilities(client.take())
    assert b"LOGINDISABLED" in offered
    assert not [name for name in offered if name.startswith(b"AUTH=")]
    assert client.command(b"LOGIN alice@example.org secret") == [b"NO [PRIVACYREQUIRED] Not without TLS"]
    assert client.command(b"AUTHENTICATE PLAIN " + PLAIN) == [b"NO [PRIVACYREQUIRED] Not without TLS"]
    assert client.command(b"AUTHENTICATE PLAIN") == [b"NO [PRIVACYREQUIRED] Not without TLS"]
    assert rig.authenticator.logins == []


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", ""])
def test_loopback_is_loopback_in_every_spelling(peer: str) -> None:
    assert b"AUTH=PLAIN" in capabilities(Rig().connect(peer).take())


def test_starttls_is_offered_only_where_it_can_be_done() -> None:
    rig = Rig()
    rig.owner.tls = None
    client = rig.connect()
    assert b"STARTTLS" not in capabilities(client.take())
    assert client.command(b"STARTTLS") == [b"BAD STARTTLS is not possible here"]


def test_capabilities_after_login_come_with_the_ok() -> None:
    client = Rig(append_limit=12345).connect()
    client.take()
    (answer,) = client.command(b"LOGIN alice@example.org secret")
    offered = capabilities(answer)
    assert offered == {
        *(b"IMAP4rev1", b"LITERAL+", b"ID", b"ENABLE", b"IDLE", b"NAMESPACE", b"CHILDREN", b"UNSELECT", b"UIDPLUS"),
        *(b"MOVE", b"SPECIAL-USE", b"STATUS=SIZE", b"CONDSTORE", b"APPENDLIMIT=12345"),
    }
    (untagged,) = client.ok(b"CAPABILITY")
    assert capabilities(untagged) == offered


def test_hidden_capabilities_are_not_told() -> None:
    client = Rig(hidden_capabilities=("idle", "AUTH=LOGIN", "MOVE")).connect()
    assert not {b"IDLE", b"AUTH=LOGIN"} & capabilities(client.take())
    assert not {b"IDLE", b"MOVE"} & capabilities(client.command(b"LOGIN alice@example.org secret")[0])


def test_condstore_is_told_only_where_the_store_has_it() -> None:
    rig = Rig()
    rig.store.capabilities = frozenset()  # type: ignore[misc]
    client = rig.client()
    assert b"CONDSTORE" not in capabilities(client.ok(b"CAPABILITY")[0])
    assert client.ok(b"ENABLE CONDSTORE") == [b"* ENABLED"]
    assert client.command(b"STATUS INBOX (HIGHESTMODSEQ)") == [b"BAD Unknown item of STATUS"]


# ------------------------------------------------------------------------------------------------------------- LOGIN


@pytest.mark.parametrize(
    "arguments",
    [
        b"alice@example.org secret",
        b'"alice@example.org" "secret"',
        b"{17+}\r\nalice@example.org {6+}\r\nsecret",
    ],
)
def test_a_password_may_be_spelled_in_every_way(arguments: bytes) -> None:
    rig = Rig()
    client = rig.connect()
    client.take()
    assert client.command(b"LOGIN " + arguments)[-1].startswith(b"OK ")
    assert rig.authenticator.logins == [ALICE]


def test_a_password_with_quotes_and_backslashes_arrives_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.imap.rig.PASSWORD", 'a"b\\c')
    client = Rig().connect()
    client.take()
    client.ok(b'LOGIN alice@example.org "a\\"b\\\\c"')


def test_wrong_password_and_unknown_name_look_the_same() -> None:
    client = Rig().connect()
    client.take()
    assert client.send(b"t1 LOGIN alice@example.org nonsense\r\n") == WRONG
    assert client.send(b"t1 LOGIN nobody@example.org secret\r\n") == WRONG
    assert client.send(b"t1 LOGIN {1+}\r\n\xff {1+}\r\n\xff\r\n") == WRONG
    client.login()


def test_too_many_wrong_passwords_end_the_connection() -> None:
    client = Rig(max_failed_logins=3).connect()
    client.take()
    for _ in range(2):
        assert client.send(b"t1 LOGIN alice@example.org x\r\n") == WRONG
    last = client.send(b"t1 LOGIN alice@example.org x\r\nt2 LOGIN alice@example.org secret\r\n")
    assert last == WRONG + b"* BYE Too many failed logins\r\n"
    assert client.is_closed


def test_an_authenticator_that_cannot_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()

    async def login(*_: Any) -> Any:
        raise AuthenticationUnavailable(reason="database down")

    monkeypatch.setattr(rig.authenticator, "login", login)
    client = rig.connect()
    client.take()
    (answer,) = client.command(b"LOGIN alice@example.org secret")
    assert answer == b"NO [UNAVAILABLE] Temporary authentication failure, try again later"


def test_what_is_sent_behind_a_login_waits_for_it() -> None:
    rig = Rig()
    rig.authenticator.gate = Deferred()
    client = rig.connect()
    client.take()
    assert client.send(b"a LOGIN alice@example.org secret\r\nb NOOP\r\nc NAMESPACE\r\n") == b""
    rig.authenticator.gate.callback(None)
    tags = [line.split()[0] for line in client.lines()]
    assert tags == [b"a", b"b", b"*", b"c"]


def test_a_client_that_leaves_while_it_logs_in_leaves_nothing() -> None:
    rig = Rig()
    rig.authenticator.gate = Deferred()
    client = rig.connect()
    client.send(b"a LOGIN alice@example.org secret\r\n")
    client.lose()
    assert rig.authenticator.logins == []
    assert rig.owner.connections == []


def test_the_account_is_logged_out_once() -> None:
    rig = Rig()
    client = rig.client()
    client.ok(b"LOGOUT")
    client.lose()
    assert rig.authenticator.logouts == 1


def test_nobody_logs_in_twice() -> None:
    client = Rig().client()
    assert client.command(b"LOGIN bob@example.org secret") == [b"BAD LOGIN is not allowed when authenticated"]
    assert client.command(b"AUTHENTICATE PLAIN") == [b"BAD AUTHENTICATE is not allowed when authenticated"]
    assert client.command(b"STARTTLS") == [b"BAD STARTTLS is not allowed when authenticated"]


# ------------------------------------------------------------------------------------------------------ AUTHENTICATE


def test_plain_with_and_without_initial_response() -> None:
    rig = Rig()
    one, two = rig.connect(), rig.connect()
    for client in (one, two):
        client.take()
    assert one.send(b"a AUTHENTICATE plain " + PLAIN + b"\r\n").startswith(b"a OK [CAPABILITY ")
    assert two.send(b"a AUTHENTICATE PLAIN\r\n") == b"+ \r\n"
    assert two.send(PLAIN + b"\r\n").startswith(b"a OK [CAPABILITY ")
    assert rig.authenticator.logins == [ALICE, ALICE]


def test_the_login_mechanism_asks_twice() -> None:
    client = Rig().connect()
    client.take()
    assert client.send(b"a AUTHENTICATE LOGIN\r\n") == b"+ " + base64(b"Username:") + b"\r\n"
    assert client.drip(base64(b"bob@example.org") + b"\r\n") == b"+ " + base64(b"Password:") + b"\r\n"
    assert client.drip(base64(b"secret") + b"\r\n").startswith(b"a OK ")
    assert client.rig.authenticator.logins == [BOB]


def test_an_empty_initial_response_is_a_response() -> None:
    client = Rig().connect()
    client.take()
    assert client.send(b"a AUTHENTICATE LOGIN =\r\n") == b"+ " + base64(b"Password:") + b"\r\n"


def test_a_long_challenge_is_one_line() -> None:
    rig = Rig()
    rig.authenticator.words.append("LONG")
    client = rig.connect()
    client.take()
    assert client.send(b"a AUTHENTICATE LONG\r\n") == b"+ " + base64(b"x" * 200) + b"\r\n"
    assert client.send(b"\r\n").startswith(b"a NO [AUTHENTICATIONFAILED]")


@pytest.mark.parametrize("mechanism", [b"GSSAPI", b"LONG", b"x" * 60])
def test_a_mechanism_we_do_not_offer_is_refused(mechanism: bytes) -> None:
    client = Rig().connect()
    client.take()
    assert client.command(b"AUTHENTICATE " + mechanism) == [b"NO Unsupported authentication mechanism"]


def test_a_client_may_cancel() -> None:
    client = Rig().connect()
    client.take()
    assert client.send(b"a AUTHENTICATE PLAIN\r\n*\r\nb NOOP\r\n") == (
        b"+ \r\na BAD Authentication cancelled\r\nb OK NOOP completed\r\n"
    )


@pytest.mark.parametrize(
    "response", [b"====", b"A", b"AGFs\taWNl", b"AGFs\0aWNl", b"AGFs aWNl", b"!", b"AGFsaWNl=", b"\xff"]
)
def test_what_is_not_base64_is_bad_and_ends_the_exchange(response: bytes) -> None:
    client = Rig().connect()
    client.take()
    assert client.send(b"a AUTHENTICATE PLAIN\r\n" + response + b"\r\nb NOOP\r\n") == (
        b"+ \r\na BAD Not base64\r\nb OK NOOP completed\r\n"
    )
    answer = client.send(b"c AUTHENTICATE PLAIN " + response + b"\r\nd NOOP\r\n")
    assert answer.startswith(b"c BAD ")
    assert answer.endswith(b"d OK NOOP completed\r\n")


def test_a_malformed_message_of_the_mechanism_is_bad() -> None:
    client = Rig().connect()
    client.take()
    assert client.command(b"AUTHENTICATE PLAIN " + base64(b"no nuls")) == [b"BAD malformed PLAIN"]


def test_a_response_without_end_ends_the_connection() -> None:
    client = Rig(sasl_response_limit=1000).connect()
    client.take()
    client.send(b"a AUTHENTICATE PLAIN\r\n")
    assert client.send(b"x" * 100_000) == b"a BAD Line too long\r\n* BYE Protocol error\r\n"
    assert client.is_closed


def test_failed_exchanges_count_as_failed_logins() -> None:
    client = Rig(max_failed_logins=2).connect()
    client.take()
    wrong = b"a AUTHENTICATE PLAIN " + base64(b"\0alice@example.org\0x") + b"\r\n"
    client.send(wrong)
    assert client.send(wrong).endswith(b"* BYE Too many failed logins\r\n")


def test_no_secret_reaches_the_log(logged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    client = rig.connect()
    secret = b"hunter2"
    client.send(b"a LOGIN alice@example.org hunter2\r\n")
    client.send(b"a LOGIN alice@example.org hunter2 surplus\r\n")
    client.send(b"a AUTHENTICATE PLAIN " + base64(b"\0alice@example.org\0hunter2") + b"\r\n")
    client.send(b"a AUTHENTICATE PLAIN\r\n" + base64(b"hunter2") + b"\r\n")

    async def login(authcid: str, password: str, *_: Any) -> Any:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(rig.authenticator, "login", login)
    assert client.send(b"a LOGIN alice@example.org hunter2\r\n").endswith(b"a NO [SERVERBUG] Internal error\r\n")
    text = "\n".join(logged)
    assert "a bug" in text
    for spelling in (secret, base64(secret), base64(b"\0alice@example.org\0hunter2")):
        assert spelling.decode() not in text


# ---------------------------------------------------------------------------------------------------------- STARTTLS


def test_starttls_forgets_what_was_said_in_the_clear() -> None:
    rig = Rig(cleartext_login=False)
    client = rig.connect()
    client.take()
    for _ in range(5):
        client.send(b"x NONSENSE\r\n")
    before = client.connection.session
    assert client.send(b"a STARTTLS\r\n") == b"a OK Begin TLS negotiation now\r\n"
    assert client.transport.tls_options == "tls options"
    client.connection.tls = "TLSv1.3 TLS_AES_256_GCM_SHA384"
    assert client.connection.session is not before
    (untagged,) = client.ok(b"CAPABILITY")
    assert {b"AUTH=PLAIN"} <= capabilities(untagged)
    assert not {b"STARTTLS", b"LOGINDISABLED"} & capabilities(untagged)
    assert client.command(b"STARTTLS") == [b"BAD STARTTLS is not possible here"]
    client.login()


@pytest.mark.parametrize("behind", [b"b NOOP\r\n", b"b", b"\r\n"])
def test_octets_behind_starttls_drop_the_connection(behind: bytes) -> None:
    client = Rig().connect()
    client.take()
    assert client.send(b"a STARTTLS\r\n" + behind) == b""
    assert client.transport.disconnected
    assert client.transport.tls_options is None
