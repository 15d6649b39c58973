"""The session: order, answers to everything, changes, time, draining.  Security rows 17, 18, 28 to 31, 48."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from livemail.imap.commands import TABLE, Entry
from livemail.imap.outcome import Done
from livemail.imap.state import RULES
from livemail.interfaces.storage import Changes
from livemail.mail.changes import AccountRemoved, Added
from livemail.mail.errors import CannotCalculate, LimitReached, MailError, WireError
from livemail.mail.flags import FlagChange
from livemail.mail.ids import UIDSet
from tests.imap.rig import ALICE, Client, Rig, finish

MESSAGE = b"Subject: one\r\n\r\ntext\r\n"


@pytest.fixture
def client() -> Client:
    return Rig().client()


def stranger(**settings: Any) -> Client:
    client = Rig(**settings).connect()
    client.take()
    return client


def instead(monkeypatch: pytest.MonkeyPatch, word: str, run: Any) -> None:
    """Let NOOP or another bare command do something else."""
    monkeypatch.setitem(TABLE, word, Entry(RULES[word], TABLE[word].parse, run))


# ------------------------------------------------------------------------------------------------------ its answers


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (MailError("No, thank you"), b"NO No, thank you"),
        (MailError("No", condition="CANNOT", reason="the private part"), b"NO [CANNOT] No"),
        (LimitReached(), b"NO [LIMIT] Limit reached"),
        (WireError("Nonsense"), b"BAD Nonsense"),
        (MailError("two\r\nlines, \xe9 and \x1b"), b"NO two??lines, ? and ?"),
        (ZeroDivisionError("the secret of the bug"), b"NO [SERVERBUG] Internal error"),
        (RecursionError(), b"NO [SERVERBUG] Internal error"),
    ],
)
@pytest.mark.parametrize("suspends", [False, True])
def test_whatever_a_command_raises_has_its_answer(
    client: Client, monkeypatch: pytest.MonkeyPatch, error: Exception, answer: bytes, suspends: bool
) -> None:
    gate: Deferred[None] = Deferred()

    async def run(*_: Any) -> Done:
        if suspends:
            await gate
        raise error

    instead(monkeypatch, "NOOP", run)
    client.send(b"a NOOP\r\nb NAMESPACE\r\n") if suspends else None
    if suspends:
        gate.callback(None)
        assert client.take().startswith(b"a " + answer + b"\r\n* NAMESPACE")
    else:
        assert client.command(b"NOOP") == [answer]
        assert client.command(b"NAMESPACE")[-1] == b"OK NAMESPACE completed"


def test_a_bug_in_parsing_is_answered_too(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(TABLE, "NOOP", Entry(RULES["NOOP"], parse, TABLE["NOOP"].run))
    assert client.command(b"NOOP") == [b"NO [SERVERBUG] Internal error"]


def test_a_bug_while_telling_changes_ends_the_session(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the client was told is unknown then, and every sequence number with it.
    client.ok(b"SELECT INBOX")

    def flush(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(client.connection.session.view, "flush", flush)
    assert client.send(b"a NOOP\r\n") == b"* BYE [SERVERBUG] Internal error\r\n"
    assert client.is_closed


def test_replies_keep_the_order_of_commands(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    gates: list[Deferred[None]] = []

    async def run(*_: Any) -> Done:
        gates.append(Deferred())
        await gates[-1]
        return Done("slow")

    instead(monkeypatch, "NOOP", run)
    assert client.send(b"a NAMESPACE\r\nb NOOP\r\nc NAMESPACE\r\nd NOOP\r\ne NAMESPACE\r\n").endswith(
        b"a OK NAMESPACE completed\r\n"
    )
    assert len(gates) == 1
    gates[0].callback(None)
    assert client.take().startswith(b"b OK slow\r\n* NAMESPACE")
    gates[1].callback(None)
    assert client.take().endswith(b"e OK NAMESPACE completed\r\n")


def test_a_client_that_leaves_while_a_command_waits(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    gate: Deferred[None] = Deferred()

    async def run(*_: Any) -> Done:
        await gate
        return Done("never")

    instead(monkeypatch, "NOOP", run)
    client.send(b"a NOOP\r\n")
    client.lose()
    assert client.rig.authenticator.logouts == 1
    assert client.connection.session.login is None


def test_a_bug_with_a_client_that_left_is_nobodys_answer(client: Client) -> None:
    client.ok(b"SELECT INBOX")
    client.lose()
    client.rig.append("INBOX", MESSAGE)
    assert client.take() == b""


def test_logout_says_bye_before_ok(client: Client) -> None:
    client.ok(b"SELECT INBOX")
    client.rig.append("INBOX", MESSAGE)
    assert client.send(b"a LOGOUT\r\nb NOOP\r\n") == b"* BYE Logging out\r\na OK LOGOUT completed\r\n"
    assert client.is_closed
    assert stranger().send(b"a LOGOUT\r\n") == b"* BYE Logging out\r\na OK LOGOUT completed\r\n"


# ---------------------------------------------------------------------------------------------------- hostile input


def test_every_bad_line_gets_one_answer_until_there_are_too_many() -> None:
    client = stranger(max_bad_commands=5)
    answer = client.send(b"".join(b"t%d NONSENSE\r\n" % i for i in range(30)))
    expected = [b"t%d BAD Unknown command" % i for i in range(5)] + [b"* BYE Too many bad commands", b""]
    assert answer.split(b"\r\n") == expected
    assert client.is_closed


def test_malformed_lines_count_as_well(client: Client) -> None:
    answer = client.send(b"\r\n" * 100)
    limit = client.rig.settings.max_bad_commands
    assert answer == b"* BAD Expected a tag\r\n" * limit + b"* BYE Too many bad commands\r\n"


def test_a_web_browser_is_turned_away_at_once() -> None:
    client = stranger()
    assert client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == (
        b"GET BAD This is an IMAP server\r\n* BYE Protocol error\r\n"
    )
    assert client.is_closed


@pytest.mark.parametrize("dripped", [False, True])
def test_a_line_without_end_gets_one_answer(dripped: bool) -> None:
    client = stranger()
    data = b"a NOOP " + b"x" * 20_000
    answer = client.drip(data) if dripped else client.send(data * 50)
    assert answer == b"* BAD Line too long\r\n* BYE Protocol error\r\n"
    assert client.is_closed
    assert client.connection.wire.pending == 0


@pytest.mark.parametrize(
    "size", [b"4294967295", b"1000000000+", b"-1", b"99999999999999999999", b"-1+", b"5000", b"5000+", b"0x10", b"1 "]
)
def test_a_strangers_huge_literal_is_bad_without_a_plus(size: bytes) -> None:
    for command in (b"a LOGIN", b"a FOO", b"a APPEND x", b'a ID ("'):
        client = stranger()
        answer = client.send(command + b" {" + size + b"}\r\n")
        assert answer.startswith(b"a BAD ")
        assert b"+" not in answer
        assert client.is_closed == size.endswith(b"+")


def test_a_strangers_parentheses() -> None:
    client = stranger()
    answer = client.send(b"a ID " + b"(" * 100_000 + b"\r\n")
    assert answer == b"* BAD Line too long\r\n* BYE Protocol error\r\n"
    client = stranger()
    assert client.send(b"a ID " + b"(" * 8000 + b"\r\n") == b"a BAD Expected a string\r\n"
    client = stranger()
    answer = client.send(b'a ID ("a" ' + b"(" * 8000 + b")" * 100 + b"\r\n")
    assert answer.startswith(b"a BAD ")


@pytest.mark.parametrize("password", [b'"a\0b"', b'"a\rb"', b'"\xc3\xa9"', b"a\0", b"\x80", b"{1+}\r\n\0"])
def test_what_a_string_cannot_hold_is_bad(password: bytes) -> None:
    client = stranger()
    answer = client.send(b"a LOGIN alice@example.org " + password + b"\r\nb NOOP\r\n")
    assert answer.startswith(b"a BAD ")
    assert answer.endswith(b"b OK NOOP completed\r\n")
    assert answer.count(b"\r\n") == 2


def test_a_line_feed_hides_no_command(client: Client) -> None:
    answer = client.send(b'a CREATE "x\nb DELETE Sent\r\nc NOOP\r\n')
    assert answer == b"* BAD Lines end with CRLF\r\n* BYE Protocol error\r\n"
    assert client.is_closed


def test_a_refused_literal_hides_no_command(client: Client) -> None:
    hidden = b"b DELETE Sent\r\n"
    data = b"a CREATE {%d+}\r\n" % (len(hidden) * 6000) + hidden * 6000 + b"\r\nc NOOP\r\n"
    assert client.send(data) == b"a BAD Literal too large\r\nc OK NOOP completed\r\n"
    assert client.ok(b"STATUS Sent (MESSAGES)")


def test_a_stalled_reader_holds_up_its_own_commands_only(client: Client) -> None:
    client.connection.pauseProducing()
    assert client.send(b"a NOOP\r\n" * 10) == b""
    assert client.rig.client().ok(b"NOOP") == []
    client.connection.resumeProducing()
    assert client.take().count(b"OK") == 10


def test_a_refused_connection_is_told_why() -> None:
    rig = Rig()
    rig.owner.refusal = "Too many connections from your network"
    client = rig.connect()
    assert client.take() == b"* BYE Too many connections from your network\r\n"
    assert client.is_closed


# ------------------------------------------------------------------------------------------------------------- time


def test_a_stranger_has_a_deadline_however_busy_he_is() -> None:
    client = stranger(login_timeout=120.0)
    for octet in b"a NOOP x":
        client.rig.clock.advance(14)
        client.connection.dataReceived(bytes([octet]))
        assert not client.is_closed
    client.rig.clock.advance(14)
    assert client.take() == b"* BYE Autologout: idle for too long\r\n"
    assert client.is_closed


def test_a_login_lifts_the_deadline_and_half_an_hour_ends_an_idle_session(client: Client) -> None:
    client.rig.clock.advance(1799)
    assert not client.is_closed
    client.ok(b"NOOP")
    client.rig.clock.advance(1799)
    assert not client.is_closed
    client.rig.clock.advance(2)
    assert client.take() == b"* BYE Autologout: idle for too long\r\n"
    assert client.is_closed


def test_a_slow_command_is_not_the_clients_idleness(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    gate: Deferred[None] = Deferred()

    async def run(*_: Any) -> Done:
        await gate
        return Done("slow")

    instead(monkeypatch, "NOOP", run)
    client.send(b"a NOOP\r\n")
    client.rig.clock.advance(4000)
    gate.callback(None)
    assert client.take() == b"a OK slow\r\n"


def test_a_drained_server_says_bye_between_commands(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    gate: Deferred[None] = Deferred()

    async def run(*_: Any) -> Done:
        await gate
        return Done("slow")

    instead(monkeypatch, "NOOP", run)
    client.send(b"a NOOP\r\nb NAMESPACE\r\n")
    client.connection.drain()
    assert not client.is_closed
    gate.callback(None)
    assert client.take() == b"a OK slow\r\n* BYE Server is shutting down\r\n"
    assert client.is_closed


# ---------------------------------------------------------------------------------------------------------- changes


def test_a_removed_account_ends_its_sessions(client: Client) -> None:
    other = client.rig.client()
    other.send(b"a IDLE\r\n")
    finish(client.rig.store.remove_account(ALICE))
    for each in (client, other):
        assert each.take() == b"* BYE The account was removed\r\n"
        assert each.is_closed


def test_a_change_published_while_select_waits_is_not_lost(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = client.rig
    gate: Deferred[None] = Deferred()
    account = client.connection.session.account
    real = account.select

    async def select(*arguments: Any, **keywords: Any) -> Any:
        selected = await real(*arguments, **keywords)
        await gate
        return selected

    monkeypatch.setattr(account, "select", select, raising=False)
    rig.append("INBOX", MESSAGE)
    assert client.send(b"a SELECT INBOX\r\n") == b""
    rig.append("INBOX", MESSAGE)
    gate.callback(None)
    lines = client.lines()
    assert lines[-1].startswith(b"a OK ")
    told = lines + client.command(b"NOOP")
    assert b"* 2 EXISTS" in told
    assert list(client.connection.session.view.uids) == [1, 2]


def test_changes_are_kept_for_the_length_of_a_command_only(client: Client) -> None:
    for i in range(10):
        client.ok(b"CREATE m%d" % i)
        client.ok(b"APPEND INBOX {1+}\r\nx")
    assert client.connection.session._missed == []


class Feed:
    """Stands between the store and the session: says only that something happened."""

    def __init__(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        session = client.connection.session
        real = session.changed
        self.count = 0

        def changed(modseq: int, origin: object, changes: Sequence[Any] | None) -> None:
            self.count += 1
            removed = changes and any(isinstance(change, AccountRemoved) for change in changes)
            real(modseq, origin, changes if removed else None)

        # The session has slots: the subscription is made anew, through us.
        session._watch.stop()

        class Listener:
            pass

        listener = Listener()
        listener.changed = changed
        session._watch = session.account.watch(listener)


def test_a_feed_that_lost_count_is_asked_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = client.rig
    appended = rig.append("INBOX", MESSAGE, MESSAGE, MESSAGE)
    client.ok(b"SELECT INBOX")
    feed = Feed(client, monkeypatch)
    other = rig.account()
    finish(other.store(appended.mailbox, UIDSet([(1, 1)]), FlagChange("add", 4, ("Later",))))
    finish(other.expunge(appended.mailbox, UIDSet([(2, 2)]), only_deleted=False))
    rig.append("INBOX", MESSAGE)
    assert feed.count == 3
    told = client.ok(b"NOOP")
    assert b"* 2 EXPUNGE" in told
    assert b"* 3 EXISTS" in told
    assert [line for line in told if line.startswith(b"* 1 FETCH") and b"\\Flagged" in line and b"Later" in line]
    assert list(client.connection.session.view.uids) == [1, 3, 4]
    assert client.ok(b"NOOP") == []
    client.send(b"a IDLE\r\n")
    rig.append("INBOX", MESSAGE)
    assert b"* 4 EXISTS\r\n" in client.take()


def test_a_feed_that_cannot_be_caught_up_with_ends_the_session(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.ok(b"SELECT INBOX")
    Feed(client, monkeypatch)

    async def changes(*_: Any) -> Changes:
        raise CannotCalculate

    monkeypatch.setattr(client.connection.session.account, "changes", changes, raising=False)
    client.rig.append("INBOX", MESSAGE)
    answer = client.send(b"a NOOP\r\n")
    assert answer.endswith(b"* BYE Changes that old are no longer known\r\n")
    assert client.is_closed


def test_changes_of_other_mailboxes_are_not_told(client: Client) -> None:
    client.ok(b"SELECT Sent")
    client.rig.append("INBOX", MESSAGE)
    client.ok(b"CREATE x")
    assert client.ok(b"NOOP") == []
    client.rig.append("Sent", MESSAGE)
    assert b"* 1 EXISTS" in client.ok(b"NOOP")


def test_a_listener_never_raises(client: Client) -> None:
    session = client.connection.session
    client.lose()
    session.changed(5, None, [Added(1, 5, (1,))])
    session.changed(6, None, None)
