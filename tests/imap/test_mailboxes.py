"""CREATE, DELETE, RENAME, SUBSCRIBE, STATUS, ID, ENABLE, NAMESPACE.  RFC 3501 §6.3; security rows 29, 32, 47, 48."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import formatEvent, globalLogPublisher

from livemail.imap.settings import IMAPSettings
from livemail.mail.errors import LimitReached
from tests.imap.rig import BOB, Client, Rig, finish


@pytest.fixture
def client() -> Client:
    return Rig().client()


def names(client: Client, word: bytes = b"LIST") -> list[bytes]:
    return [line.partition(b'"/" ')[2] for line in client.ok(word + b' "" *')]


def test_a_new_mailbox_has_its_superiors(client: Client) -> None:
    client.ok(b"CREATE a/b/c")
    assert {b"a", b"a/b", b"a/b/c"} <= set(names(client))
    assert client.command(b"CREATE a/b") == [b"NO [ALREADYEXISTS] Mailbox exists already"]


def test_a_trailing_separator_announces_inferiors(client: Client) -> None:
    client.ok(b"CREATE lists/")
    client.ok(b"CREATE lists/twisted")
    assert {b"lists", b"lists/twisted"} <= set(names(client))


def test_inbox_is_inbox_in_any_case(client: Client) -> None:
    assert client.command(b"CREATE inBox")[0].startswith(b"NO [ALREADYEXISTS]")
    assert client.command(b"DELETE iNBOX")[0].startswith(b"NO [CANNOT]")
    client.ok(b"CREATE inbox/sub")
    assert b"INBOX/sub" in names(client)
    assert client.ok(b"STATUS inbox (MESSAGES)") == [b"* STATUS INBOX (MESSAGES 0)"]


def test_a_mailbox_with_inferiors_stays(client: Client) -> None:
    client.ok(b"CREATE a/b")
    assert client.command(b"DELETE a")[0].startswith(b"NO [CANNOT]")
    client.ok(b"DELETE a/b")
    client.ok(b"DELETE a")
    assert client.command(b"DELETE a") == [b"NO [NONEXISTENT] No such mailbox"]


def test_renaming_takes_the_inferiors_along(client: Client) -> None:
    client.ok(b"CREATE a/b")
    client.ok(b"RENAME a x/y")
    assert {b"x", b"x/y", b"x/y/b"} <= set(names(client))
    assert not {b"a", b"a/b"} & set(names(client))
    assert client.command(b"RENAME x x/y/z")[0].startswith(b"NO [CANNOT]")
    assert client.command(b"RENAME x Sent")[0].startswith(b"NO [ALREADYEXISTS]")
    assert client.command(b"RENAME nothing something")[0].startswith(b"NO [NONEXISTENT]")


def test_renaming_inbox_moves_its_messages(client: Client) -> None:
    client.rig.append("INBOX", b"Subject: x\r\n\r\n")
    client.ok(b"RENAME INBOX old")
    assert client.ok(b"STATUS old (MESSAGES)") == [b"* STATUS old (MESSAGES 1)"]
    assert client.ok(b"STATUS INBOX (MESSAGES)") == [b"* STATUS INBOX (MESSAGES 0)"]


def test_the_selected_mailbox_may_be_deleted(client: Client) -> None:
    client.ok(b"CREATE a")
    client.ok(b"SELECT a")
    assert client.ok(b"DELETE a") == [b"* OK [CLOSED] The selected mailbox is deleted"]
    assert client.command(b"FETCH 1 FLAGS") == [b"BAD FETCH is not allowed when authenticated"]
    client.ok(b"SELECT INBOX")
    assert client.ok(b"DELETE Sent") == []
    client.ok(b"CHECK")


def test_the_selected_mailbox_may_be_deleted_under_its_new_name(client: Client) -> None:
    client.ok(b"CREATE a")
    client.ok(b"SELECT a")
    client.ok(b"RENAME a b")
    assert client.ok(b"DELETE b") == [b"* OK [CLOSED] The selected mailbox is deleted"]


def test_subscriptions_need_no_mailbox(client: Client) -> None:
    client.ok(b"SUBSCRIBE never/was")
    assert b"never/was" in names(client, b"LSUB")
    client.ok(b"SUBSCRIBE never/was")
    client.ok(b"UNSUBSCRIBE never/was")
    client.ok(b"UNSUBSCRIBE never/was")
    assert b"never/was" not in names(client, b"LSUB")


def test_a_deleted_mailbox_stays_subscribed(client: Client) -> None:
    client.ok(b"CREATE a")
    client.ok(b"SUBSCRIBE a")
    client.ok(b"DELETE a")
    assert b"a" in names(client, b"LSUB")


BAD_NAMES = [
    b"../../x",
    b"a/../../b",
    b"/etc/x",
    b"~root/x",
    b'".."',
    b"a//b",
    b'"x&y"',
    b'"x&AGE-"',
    b'""',
    b'"/"',
    b'"a*"',
    b'"a%b"',
    b'" a"',
    b"{2+}\r\n\xff\xfe",
    b"{3+}\r\na\0b",
    b"{4+}\r\na\r\nb",
    b'"a\xc3\xa9"',
    b'"a\tb"',
    b'"a&AAAACg-b"',
    b"x" * 10_240,
    b"/".join([b"a"] * 500),
    b'"' + b"&AOk-" * 600 + b'"',
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name[:20]))
def test_a_bad_name_is_refused_everywhere(client: Client, name: bytes) -> None:
    before = names(client)
    for command in (
        b"CREATE %s",
        b"DELETE %s",
        b"RENAME INBOX %s",
        b"RENAME %s x",
        b"SUBSCRIBE %s",
        b"UNSUBSCRIBE %s",
        b"STATUS %s (MESSAGES)",
        b"SELECT %s",
        b"APPEND %s {1+}\r\nx",
    ):
        (answer,) = client.command(command % name)
        assert answer.startswith((b"NO [CANNOT] ", b"BAD ")), answer
    assert names(client) == before


def test_another_accounts_mailbox_is_as_one_that_does_not_exist(client: Client) -> None:
    other = client.rig.client(BOB)
    other.ok(b"CREATE private")
    assert client.command(b"STATUS private (MESSAGES)") == client.command(b"STATUS nowhere (MESSAGES)")
    assert client.command(b"DELETE private") == client.command(b"DELETE nowhere")
    assert b"private" not in names(client)


def test_a_limit_of_the_store_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def create(*_: Any) -> None:
        raise LimitReached("Too many mailboxes", reason="secret detail")

    monkeypatch.setattr(client.connection.session.account, "create_mailbox", create, raising=False)
    assert client.command(b"CREATE x") == [b"NO [LIMIT] Too many mailboxes"]


# ------------------------------------------------------------------------------------------------------------ STATUS


def test_status_tells_every_counter() -> None:
    rig = Rig(append_limit=777)
    client = rig.client()
    rig.append("Sent", b"x" * 10, flags=1)
    rig.append("Sent", b"y" * 5)
    info = finish(rig.account().mailbox("Sent"))
    items = b"MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN SIZE HIGHESTMODSEQ APPENDLIMIT"
    expected = (
        f"* STATUS Sent (MESSAGES 2 RECENT 2 UIDNEXT 3 UIDVALIDITY {info.uid_validity} UNSEEN 1 SIZE 15 "
        f"HIGHESTMODSEQ {info.highest_modseq} APPENDLIMIT 777)"
    )
    assert client.ok(b"STATUS Sent (" + items + b")") == [expected.encode()]


def test_asking_for_status_takes_no_recent_away(client: Client) -> None:
    client.rig.append("INBOX", b"x")
    for _ in range(2):
        assert client.ok(b"STATUS INBOX (RECENT)") == [b"* STATUS INBOX (RECENT 1)"]
    assert b"* 1 RECENT" in client.ok(b"SELECT INBOX")
    assert client.ok(b"STATUS INBOX (recent)") == [b"* STATUS INBOX (RECENT 0)"]


def test_status_quotes_the_name_and_answers_in_the_clients_order(client: Client) -> None:
    client.ok(b'CREATE "My \\"Box\\" &- &AOk-"')
    assert client.ok(b'STATUS "My \\"Box\\" &- &AOk-" (UNSEEN MESSAGES UNSEEN)') == [
        b'* STATUS "My \\"Box\\" &- &AOk-" (UNSEEN 0 MESSAGES 0)'
    ]


def test_status_refuses(client: Client) -> None:
    assert client.command(b"STATUS nowhere (MESSAGES)") == [b"NO [NONEXISTENT] No such mailbox"]
    assert client.command(b"STATUS INBOX (BOGUS)") == [b"BAD Unknown item of STATUS"]
    assert client.command(b"STATUS INBOX ()")[0].startswith(b"BAD ")
    assert client.command(b"STATUS INBOX MESSAGES")[0].startswith(b"BAD ")


def test_asking_for_highestmodseq_enables_condstore(client: Client) -> None:
    client.ok(b"STATUS INBOX (MESSAGES)")
    assert client.connection.session.enabled == set()
    client.ok(b"STATUS INBOX (HIGHESTMODSEQ)")
    assert client.connection.session.enabled == {"CONDSTORE"}


# ------------------------------------------------------------------------------------------- ID, ENABLE, NAMESPACE


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: Any) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def test_id_is_answered_with_our_name_and_logged_harmlessly(client: Client, logged: list[str]) -> None:
    assert client.ok(b"ID NIL") == [b'* ID ("name" "livemail")']
    assert client.ok(b"ID ()") == [b'* ID ("name" "livemail")']
    hostile = b'ID ("name" {13+}\r\n\x1b[31m\r\nFORGED "x" NIL "v" "\\"")'
    assert client.ok(hostile) == [b'* ID ("name" "livemail")']
    (line,) = [line for line in logged if "client is" in line]
    assert "\\x1b[31m\\r\\nFORGED" in line
    assert line.isprintable()


def test_id_is_bounded(client: Client) -> None:
    pairs = IMAPSettings().max_id_pairs
    client.ok(b"ID (" + b" ".join([b'"a" "b"'] * pairs) + b")")
    assert client.command(b"ID (" + b" ".join([b'"a" "b"'] * (pairs + 1)) + b")") == [b"BAD Too many fields"]
    assert client.command(b'ID ("' + b"a" * 31 + b'" "b")') == [b"BAD A field of ID is too long"]
    assert client.command(b'ID ("a" "' + b"b" * 1025 + b'")') == [b"BAD A field of ID is too long"]
    for bad in (b'ID ("a")', b"ID (NIL NIL)", b'ID ("a" "b""c" "d")', b"ID", b'ID "a" "b"'):
        assert client.command(bad)[0].startswith(b"BAD Expected ")


def test_enable_tells_what_it_turned_on_and_passes_over_the_rest(client: Client) -> None:
    assert client.ok(b"ENABLE QRESYNC x condstore CONDSTORE") == [b"* ENABLED CONDSTORE"]
    assert client.ok(b"ENABLE UTF8=ACCEPT") == [b"* ENABLED"]
    assert client.connection.session.enabled == {"CONDSTORE"}


def test_one_namespace(client: Client) -> None:
    assert client.ok(b"NAMESPACE") == [b'* NAMESPACE (("" "/")) NIL NIL']
