"""IDLE.  RFC 2177."""

from __future__ import annotations

import pytest

from livemail.mail.flags import FlagChange
from livemail.mail.ids import UIDSet
from tests.imap.rig import Client, Rig, finish

MESSAGE = b"Subject: one\r\n\r\ntext\r\n"


@pytest.fixture
def client() -> Client:
    client = Rig().client()
    client.rig.append("INBOX", MESSAGE, MESSAGE)
    client.ok(b"SELECT INBOX")
    return client


def test_changes_are_told_as_they_happen(client: Client) -> None:
    rig = client.rig
    mailbox = client.connection.session.view.mailbox
    assert client.send(b"a IDLE\r\n") == b"+ idling\r\n"
    rig.append("INBOX", MESSAGE)
    assert b"* 3 EXISTS\r\n" in client.take()
    finish(rig.account().store(mailbox, UIDSet([(1, 1)]), FlagChange("add", 1)))
    assert client.take().startswith(b"* 1 FETCH (")
    finish(rig.account().expunge(mailbox, UIDSet([(1, 2)]), only_deleted=False))
    assert client.take().count(b"EXPUNGE\r\n") == 2
    assert client.send(b"DONE\r\n") == b"a OK IDLE completed\r\n"
    rig.append("INBOX", MESSAGE)
    assert client.take() == b""
    assert b"* 2 EXISTS" in client.ok(b"NOOP")


def test_what_happened_before_is_told_at_once(client: Client) -> None:
    client.rig.append("INBOX", MESSAGE)
    answer = client.send(b"a IDLE\r\n")
    assert answer.startswith(b"+ idling\r\n")
    assert b"* 3 EXISTS\r\n" in answer


def test_a_client_that_does_not_read_is_told_once_when_it_does(client: Client) -> None:
    client.send(b"a IDLE\r\n")
    client.connection.pauseProducing()
    for _ in range(50):
        client.rig.append("INBOX", MESSAGE)
    assert client.take() == b""
    client.connection.resumeProducing()
    answer = client.take()
    assert answer.count(b"EXISTS") == 1
    assert b"* 52 EXISTS\r\n" in answer


def test_two_idlers_and_the_one_who_changes(client: Client) -> None:
    other, third = client.rig.client(), client.rig.client()
    for each in (other, third):
        each.ok(b"SELECT INBOX")
        each.send(b"a IDLE\r\n")
    client.ok(b"STORE 1 +FLAGS (\\Deleted)")
    client.ok(b"EXPUNGE")
    for each in (other, third):
        assert b"* 1 EXPUNGE\r\n" in each.take()
        assert list(each.connection.session.view.uids) == [2]


def test_idle_without_a_mailbox_waits_in_silence() -> None:
    client = Rig().client()
    assert client.send(b"a IDLE\r\n") == b"+ idling\r\n"
    client.rig.append("INBOX", MESSAGE)
    assert client.take() == b""
    assert client.send(b"done\r\n") == b"a OK IDLE completed\r\n"


@pytest.mark.parametrize("dripped", [False, True])
def test_anything_but_done_is_bad_and_ends_idle(client: Client, dripped: bool) -> None:
    send = client.drip if dripped else client.send
    answer = send(b"a IDLE\r\nb NOOP\r\nc NOOP\r\n")
    assert answer == b"+ idling\r\na BAD Expected DONE\r\nc OK NOOP completed\r\n"


def test_a_literal_instead_of_done_ends_the_connection(client: Client) -> None:
    answer = client.send(b"a IDLE\r\nb CREATE {15+}\r\nc DELETE Sent\r\n\r\n")
    assert answer == b"+ idling\r\na BAD Expected DONE\r\n* BYE Protocol error\r\n"
    assert client.is_closed


def test_a_line_without_end_instead_of_done(client: Client) -> None:
    client.send(b"a IDLE\r\n")
    assert client.send(b"x" * 5000) == b"a BAD Line too long\r\n* BYE Protocol error\r\n"


def test_done_may_be_on_its_way_already(client: Client) -> None:
    assert client.send(b"a IDLE\r\nDONE\r\nb NOOP\r\n") == (
        b"+ idling\r\na OK IDLE completed\r\nb OK NOOP completed\r\n"
    )


def test_the_line_is_kept_warm_and_the_clock_of_the_client_runs_on() -> None:
    client = Rig(idle_keep_alive=120.0).client()
    client.send(b"a IDLE\r\n")
    for _ in range(14):
        client.rig.clock.advance(120)
        assert client.take() == b"* OK Still here\r\n"
    client.rig.clock.advance(119)
    assert client.take() == b""
    client.rig.clock.advance(2)
    assert client.take().endswith(b"* BYE Autologout: idle for too long\r\n")
    assert client.is_closed


def test_nothing_is_said_when_idle_is_over() -> None:
    client = Rig(idle_keep_alive=120.0).client()
    client.send(b"a IDLE\r\n")
    client.send(b"DONE\r\n")
    client.rig.clock.advance(500)
    assert client.take() == b""
    other = Rig(idle_keep_alive=120.0).client()
    other.send(b"a IDLE\r\n")
    other.lose()
    assert other.rig.clock.getDelayedCalls() == []
    assert Rig(idle_keep_alive=0.0).client().send(b"a IDLE\r\n") == b"+ idling\r\n"


def test_a_drained_server_says_bye_to_idlers(client: Client) -> None:
    client.send(b"a IDLE\r\n")
    client.connection.drain()
    assert client.take() == b"* BYE Server is shutting down\r\n"
    assert client.is_closed


def test_a_deleted_mailbox_under_an_idler(client: Client) -> None:
    client.ok(b"CREATE x")
    client.rig.append("x", MESSAGE)
    client.ok(b"SELECT x")
    client.send(b"a IDLE\r\n")
    finish(client.rig.account().delete_mailbox("x"))
    assert client.take() == b"* 1 EXPUNGE\r\n"
    assert client.send(b"DONE\r\n") == b"a OK IDLE completed\r\n"
    assert client.command(b"SELECT INBOX")[-1].startswith(b"OK ")
