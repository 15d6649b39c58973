"""SELECT, \\Recent and the commands on messages between sessions, where a dialogue cannot show it."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from livemail.mail.errors import StorageFull
from livemail.mail.flags import DELETED
from livemail.storage.memory.account import MemoryAccount
from tests.imap.rig import Rig, finish

MESSAGE = b"Subject: a\r\n\r\nb\r\n"


@pytest.fixture
def rig():
    rig = Rig()
    rig.append("INBOX", MESSAGE, MESSAGE, MESSAGE)
    return rig


@pytest.fixture
def client(rig):
    client = rig.client()
    client.ok(b"SELECT INBOX")
    return client


def test_a_client_that_left_its_mailbox_hears_nothing_of_it(rig, client):
    client.ok(b"UNSELECT")
    rig.append("INBOX", MESSAGE)
    assert client.ok(b"NOOP") == []


def test_close_tells_nothing_and_removes_only_here(rig, client):
    client.ok(b"STORE 1,3 +FLAGS.SILENT (\\Deleted)")
    rig.append("Archive", MESSAGE, flags=DELETED)
    assert client.ok(b"CLOSE") == []
    assert finish(rig.account().mailbox("INBOX")).exists == 1
    assert finish(rig.account().mailbox("Archive")).exists == 1


def test_close_after_examine_removes_nothing(rig, client):
    client.ok(b"STORE 1 +FLAGS.SILENT (\\Deleted)")
    client.ok(b"EXAMINE INBOX")
    client.ok(b"CLOSE")
    assert finish(rig.account().mailbox("INBOX")).exists == 3


def test_the_first_session_told_has_recent_and_examine_takes_it_from_nobody(rig, client):
    rig.append("INBOX", MESSAGE)
    reader = rig.client()
    assert b"* 1 RECENT" in reader.ok(b"EXAMINE INBOX")
    assert client.ok(b"NOOP") == [b"* 4 EXISTS", b"* 4 RECENT"]
    assert b"* 0 RECENT" in rig.client().ok(b"SELECT INBOX")


def test_a_claim_that_takes_time_delays_nothing_and_is_told_later(rig, client, monkeypatch):
    gates = []
    claim = MemoryAccount.claim_recent

    async def slow(self, mailbox, up_to):
        gate = Deferred()
        gates.append(gate)
        await gate
        return await claim(self, mailbox, up_to)

    monkeypatch.setattr(MemoryAccount, "claim_recent", slow)
    rig.append("INBOX", MESSAGE)
    assert client.ok(b"NOOP") == [b"* 4 EXISTS"]
    rig.append("INBOX", MESSAGE)
    assert client.ok(b"NOOP") == [b"* 5 EXISTS"]
    assert len(gates) == 1, "one at a time"
    gates[0].callback(None)
    gates[1].callback(None)
    assert len(gates) == 2
    assert client.ok(b"NOOP") == [b"* 5 RECENT"]


def test_a_claim_that_fails_is_nobodys_concern(rig, client, monkeypatch):
    async def fail(self, mailbox, up_to):
        raise StorageFull

    monkeypatch.setattr(MemoryAccount, "claim_recent", fail)
    rig.append("INBOX", MESSAGE)
    assert client.ok(b"NOOP") == [b"* 4 EXISTS"]
    assert client.ok(b"FETCH 4 FLAGS") == [b"* 4 FETCH (FLAGS ())"]


def test_content_is_given_when_seen_cannot_be_noted(client, monkeypatch):
    async def fail(self, *arguments):
        raise StorageFull

    monkeypatch.setattr(MemoryAccount, "store", fail)
    assert client.command(b"FETCH 1 BODY[TEXT]")[-1].startswith(b"OK ")
    assert client.command(b"STORE 1 +FLAGS (\\Seen)") == [
        b"NO [OVERQUOTA] Insufficient system storage, try again later"
    ]


def test_a_mailbox_renamed_under_a_session_stays_selected(rig, client):
    client.ok(b"CREATE Old")
    rig.append("Old", MESSAGE)
    client.ok(b"SELECT Old")
    finish(rig.account().rename_mailbox("Old", "New"))
    rig.append("New", MESSAGE)
    assert client.ok(b"NOOP") == [b"* 2 EXISTS", b"* 2 RECENT"]
    assert len(client.ok(b"FETCH 1:2 UID")) == 2


def test_renaming_the_inbox_empties_it_for_who_is_in_it(rig, client):
    finish(rig.account().rename_mailbox("INBOX", "Old"))
    assert client.ok(b"NOOP") == [b"* 3 EXPUNGE", b"* 2 EXPUNGE", b"* 1 EXPUNGE"]


def test_a_mailbox_deleted_under_a_session_never_leaves_it_with_wrong_numbers(rig, client):
    client.ok(b"CREATE Old")
    rig.append("Old", MESSAGE)
    client.ok(b"SELECT Old")
    finish(rig.account().delete_mailbox("Old"))
    assert client.is_closed or client.command(b"FETCH 1 FLAGS")[-1].startswith(b"NO [NONEXISTENT]")


def test_too_many_ranges_are_bad_and_the_session_lives(client):
    ranges = b",".join([b"1:2"] * 15_000)
    assert client.command(b"FETCH " + ranges + b" UID")[-1] == b"OK FETCH completed"
    assert client.command(b"FETCH " + b",".join([b"1"] * 30_000) + b" UID")[-1].startswith(b"BAD At most")
    assert client.command(b"NOOP")[-1].startswith(b"OK ")


def test_the_largest_flag_names_and_full_keywords(client):
    for start in range(0, 64, 16):
        words = " ".join(f"k{number}" for number in range(start, start + 16)).encode()
        client.ok(b"STORE 1 +FLAGS.SILENT (" + words + b")")
    assert client.command(b"STORE 1 +FLAGS (onemore)")[-1].startswith(b"NO [LIMIT]")
    lines = client.ok(b"SELECT INBOX")
    assert not any(b"PERMANENTFLAGS" in line and b"\\*" in line for line in lines)
