"""APPEND.  RFC 3501 §6.3.11, RFC 4315 §3, RFC 7888, RFC 7889; security rows 34, 36."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from livemail.interfaces.storage import DATE, FLAGS, KEYWORDS, UID_, ZONE, FetchWant
from livemail.mail.errors import OverQuota, StorageFull
from livemail.mail.flags import DRAFT, SEEN
from livemail.mail.ids import UIDSet
from tests.imap.rig import Client, Rig, finish

MESSAGE = b"Subject: one\r\n\r\ntext\r\n"


@pytest.fixture
def rig() -> Rig:
    return Rig(append_limit=1_000_000)


@pytest.fixture
def client(rig: Rig) -> Client:
    return rig.client()


def messages(rig: Rig, mailbox: str = "INBOX") -> list[tuple[Any, bytes, tuple[str, ...]]]:
    """Rows, contents and keyword names of a mailbox."""
    account = rig.account()
    info = finish(account.mailbox(mailbox))

    async def read() -> list[tuple[Any, bytes, tuple[str, ...]]]:
        found = []
        async for batch in account.fetch(info.id, UIDSet.all(), FetchWant(contents=True, contents_up_to=10**9)):
            found += [(r, c, batch.keywords) for r, c in zip(batch.rows, batch.contents or (), strict=True)]
        return found

    return finish(read())


class Sinks:
    """Counts what the store hands out, and can make it fail."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[Any] = []
        self.fail_after: int | None = None
        real = rig.store.new_content
        outer = self

        class Sink:
            def __init__(self, size: int) -> None:
                self.sink = real(size)
                self.aborted = self.finished = False
                self.size = 0
                outer.made.append(self)

            def write(self, chunk: bytes) -> None:
                self.size += len(chunk)
                if outer.fail_after is not None and self.size > outer.fail_after:
                    raise StorageFull
                self.sink.write(chunk)

            async def finish(self) -> Any:
                self.finished = True
                return await self.sink.finish()

            def abort(self) -> None:
                self.aborted = True
                self.sink.abort()

        monkeypatch.setattr(rig.store, "new_content", Sink, raising=False)


@pytest.fixture
def sinks(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Sinks:
    return Sinks(rig, monkeypatch)


@pytest.mark.parametrize("mailbox", [b"INBOX", b'"inbox"', b"{5+}\r\nINBOX"])
@pytest.mark.parametrize("dripped", [False, True])
def test_a_message_is_kept_as_it_came(client: Client, mailbox: bytes, dripped: bool) -> None:
    octets = bytes(range(256)) * 3 + b"\n\r\n.\r\nb NOOP\r\n"
    send = client.drip if dripped else client.send
    uid_validity = finish(client.rig.account().mailbox("INBOX")).uid_validity
    assert send(b"a APPEND %s {%d}\r\n" % (mailbox, len(octets))) == b"+ OK\r\n"
    assert send(octets + b"\r\n") == b"a OK [APPENDUID %d 1] APPEND completed\r\n" % uid_validity
    ((_, content, _),) = messages(client.rig)
    assert content == octets


def test_flags_keywords_and_date_are_kept(client: Client) -> None:
    client.ok(b'APPEND INBOX (\\Seen $Fwd \\draft Todo) "17-Jul-1996 02:44:25 -0700" {1+}\r\nx')
    ((row, _, names),) = messages(client.rig)
    assert (row[FLAGS], row[DATE], row[ZONE]) == (SEEN | DRAFT, 837596665, -420)
    assert {names[bit] for bit in range(len(names)) if row[KEYWORDS] >> bit & 1} == {"$Fwd", "Todo"}


def test_flags_and_date_may_be_left_out(client: Client) -> None:
    client.ok(b"APPEND INBOX () {1+}\r\nx")
    client.ok(b'APPEND INBOX " 1-Feb-2020 00:00:00 +0000" {1+}\r\nx')
    rows = [row for row, _, _ in messages(client.rig)]
    assert [row[UID_] for row in rows] == [1, 2]
    assert rows[1][DATE] == 1580515200


@pytest.mark.parametrize(
    "arguments",
    [
        b"",
        b" INBOX",
        b" INBOX (\\Seen)",
        b" INBOX (\\Recent)",
        b" INBOX (\\Bogus)",
        b" INBOX ((a))",
        b' INBOX "yesterday"',
        b' INBOX " 1-Feb-2020 00:00:00 +0000" (\\Seen)',
        b" INBOX  ",
        b" INBOX x",
        b" (\\Seen)",
    ],
)
@pytest.mark.parametrize("ending", [b"", b" {6}", b" {6+}"])
def test_what_stands_before_the_message_must_be_right(client: Client, arguments: bytes, ending: bytes) -> None:
    if not arguments and ending:
        return  # a mailbox name as a literal
    if arguments == b" INBOX (\\Seen)" and ending:
        return  # right
    if arguments == b" INBOX" and ending:
        return  # right
    octets = b"abcdef\r\n" if ending.endswith(b"+}") else b""
    answer = client.send(b"a APPEND" + arguments + ending + b"\r\n" + octets + b"b NOOP\r\n")
    assert answer.startswith(b"a BAD "), answer
    assert answer.count(b"\r\n") == 2
    assert answer.endswith(b"b OK NOOP completed\r\n")
    assert messages(client.rig) == []


def test_a_missing_mailbox_is_told_before_the_message_comes(client: Client, sinks: Sinks) -> None:
    assert client.send(b"a APPEND nowhere {5}\r\n") == b"a NO [TRYCREATE] No such mailbox\r\n"
    assert sinks.made == []


def test_a_message_that_was_not_asked_for_is_read_past(client: Client, sinks: Sinks) -> None:
    data = b"a APPEND nowhere {18+}\r\nb DELETE INBOX\r\n\r\n\r\nc NOOP\r\n"
    for send in (client.send, client.drip):
        assert send(data) == b"a NO [TRYCREATE] No such mailbox\r\nc OK NOOP completed\r\n"
    assert sinks.made == []


@pytest.mark.parametrize("size", [b"1000001", b"2147483648", b"4294967295", b"99999999999999999999"])
def test_a_message_over_the_limit_is_told_without_a_plus(client: Client, sinks: Sinks, size: bytes) -> None:
    assert client.send(b"a APPEND INBOX {" + size + b"}\r\nb NOOP\r\n") == (
        b"a NO [TOOBIG] Message too big\r\nb OK NOOP completed\r\n"
    )
    assert sinks.made == []


@pytest.mark.parametrize("size", [b"1000001+", b"999999999999+"])
def test_a_message_over_the_limit_that_comes_anyway_ends_the_connection(
    client: Client, sinks: Sinks, size: bytes
) -> None:
    answer = client.send(b"a APPEND INBOX {" + size + b"}\r\nb DELETE Sent\r\n")
    assert answer == (b"a NO [TOOBIG] Message too big\r\n* BYE The message was refused and cannot be skipped\r\n")
    assert client.is_closed
    assert sinks.made == []


def test_a_message_of_exactly_the_limit_is_taken(client: Client) -> None:
    client.ok(b"APPEND INBOX {1000000+}\r\n" + b"x" * 1_000_000)


@pytest.mark.parametrize("literal", [b"{0}", b"{0+}\r\n"])
def test_an_empty_message_is_refused(client: Client, literal: bytes, sinks: Sinks) -> None:
    assert client.send(b"a APPEND INBOX " + literal + b"\r\n") == b"a NO A message is not empty\r\n"
    assert client.command(b"NOOP") == [b"OK NOOP completed"]
    assert sinks.made == []


def test_only_one_message_at_a_time(client: Client, sinks: Sinks) -> None:
    answer = client.send(b"a APPEND INBOX {1+}\r\nx {1+}\r\ny\r\nb NOOP\r\n")
    assert answer == b"a BAD Only one message at a time\r\nb OK NOOP completed\r\n"
    answer = client.send(b"a APPEND INBOX {1+}\r\nx {1}\r\nb NOOP\r\n")
    assert answer == b"a BAD Only one message at a time\r\nb OK NOOP completed\r\n"
    assert [sink.aborted for sink in sinks.made] == [True, True]
    assert messages(client.rig) == []


def test_nothing_may_stand_behind_the_message(client: Client, sinks: Sinks) -> None:
    answer = client.send(b"a APPEND INBOX {1+}\r\nx y\r\nb NOOP\r\n")
    assert answer == b"a BAD Expected the end of the command\r\nb OK NOOP completed\r\n"
    assert [sink.aborted for sink in sinks.made] == [True]
    assert messages(client.rig) == []


def test_a_client_that_leaves_in_the_middle_leaves_nothing(client: Client, sinks: Sinks) -> None:
    client.send(b"a APPEND INBOX {1000}\r\n" + b"x" * 999)
    client.lose()
    (sink,) = sinks.made
    assert sink.aborted
    assert not sink.finished
    assert messages(client.rig) == []


def test_a_full_disk_in_the_middle_is_told_at_the_end(client: Client, sinks: Sinks) -> None:
    sinks.fail_after = 500
    client.send(b"a APPEND INBOX {2000}\r\n")
    for _ in range(20):
        assert client.send(b"x" * 100) == b""
    assert client.send(b"\r\n").startswith(b"a NO [OVERQUOTA] Insufficient system storage")
    assert [sink.aborted for sink in sinks.made] == [True]
    sinks.fail_after = None
    client.ok(b"APPEND INBOX {1+}\r\nx")


def test_a_full_disk_at_the_start_is_told_without_a_plus(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise StorageFull

    monkeypatch.setattr(client.rig.store, "new_content", full, raising=False)
    assert client.send(b"a APPEND INBOX {2000}\r\n").startswith(b"a NO [OVERQUOTA]")


class FakeContent:
    closed = False

    def close(self) -> None:
        self.closed = True


class FakeSink:
    def __init__(self, _: int) -> None:
        self.content = FakeContent()

    def write(self, chunk: bytes) -> None:
        pass

    async def finish(self) -> FakeContent:
        return self.content

    def abort(self) -> None:
        pass


@pytest.mark.parametrize("leaves", [False, True])
def test_the_content_is_closed_when_the_store_refuses_or_the_client_leaves(
    client: Client, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    gate: Deferred[None] = Deferred()

    async def append(*_: Any) -> None:
        await gate
        raise OverQuota

    monkeypatch.setattr(client.connection.session.account, "append", append, raising=False)
    monkeypatch.setattr(client.rig.store, "new_content", FakeSink, raising=False)
    client.send(b"a APPEND INBOX {1}\r\n")
    content = client.connection.session.upload.sink.content
    assert client.send(b"x\r\n") == b""
    assert not content.closed
    if leaves:
        client.lose()
    else:
        gate.callback(None)
        assert client.take() == b"a NO [OVERQUOTA] Mailbox full\r\n"
    assert content.closed


def test_a_mailbox_deleted_while_the_message_comes(client: Client, sinks: Sinks) -> None:
    client.ok(b"CREATE x")
    client.send(b"a APPEND x {1}\r\n")
    finish(client.rig.account().delete_mailbox("x"))
    assert client.send(b"m\r\n") == b"a NO [TRYCREATE] No such mailbox\r\n"


def test_what_is_sent_behind_a_message_waits_for_its_commit(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    gate: Deferred[None] = Deferred()
    account = client.connection.session.account
    real = account.append

    async def append(*arguments: Any) -> Any:
        await gate
        return await real(*arguments)

    monkeypatch.setattr(account, "append", append, raising=False)
    assert client.send(b"a APPEND INBOX {1+}\r\nx\r\nb NOOP\r\n") == b""
    gate.callback(None)
    answer = client.take()
    assert answer.startswith(b"a OK [APPENDUID ")
    assert answer.endswith(b"b OK NOOP completed\r\n")


def test_the_selected_mailbox_grows_before_the_reply(client: Client) -> None:
    client.ok(b"SELECT INBOX")
    lines = client.command(b"APPEND INBOX {1+}\r\nx")
    assert b"* 1 EXISTS" in lines[:-1]
    assert lines[-1].startswith(b"OK [APPENDUID ")


def test_a_stranger_cannot_append(rig: Rig) -> None:
    client = rig.connect()
    client.take()
    assert client.command(b"APPEND INBOX {1+}\r\nx") == [b"BAD APPEND is not allowed when not authenticated"]
    assert client.send(b"a APPEND INBOX {5000}\r\n") == b"a BAD Literal too large\r\n"


def test_a_drained_server_lets_a_message_finish(client: Client) -> None:
    client.send(b"a APPEND INBOX {3}\r\nx")
    client.connection.drain()
    assert not client.is_closed
    answer = client.send(b"yz\r\n")
    assert answer.startswith(b"a OK [APPENDUID ")
    assert answer.endswith(b"* BYE Server is shutting down\r\n")
    assert client.is_closed
