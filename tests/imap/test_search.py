"""SEARCH: evidence by cost, turns given back, limits, and the parsers' only errors."""

from __future__ import annotations

import random

import pytest

from livemail.imap import search_run
from livemail.imap.grammar.cursor import Cursor
from livemail.imap.search_keys import MAX_DEPTH, parse_program
from livemail.interfaces.storage import Delivery
from livemail.mail.errors import MailError, WireError
from livemail.mail.search import AnyOf, HasFlag, Not
from livemail.storage.memory.account import MemoryAccount
from tests.imap.rig import Rig, finish


def message(n, body):
    return b"From: ann@example.org\r\nSubject: number %d\r\nX-Odd: odd%d\r\n\r\n%b\r\n" % (n, n, body)


@pytest.fixture(params=["small", "large"])
def client(request, monkeypatch):
    if request.param == "large":
        monkeypatch.setattr(search_run, "SMALL_OCTETS", 1)
    rig = Rig()
    rig.append("INBOX", *[message(n, b"needle" if n % 2 else b"hay") for n in range(1, 7)])
    account = finish(rig.store.account_named("alice@example.org")).id
    content = rig.content(message(7, b"x" * 300_000 + b" needle"))
    finish(rig.store.deliver([Delivery(account, "INBOX", content, b"Return-Path: <bounce@example.org>\r\n")]))
    client = rig.client()
    client.ok(b"SELECT INBOX")
    return client


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (b"SUBJECT NUMBER", b" 1 2 3 4 5 6 7"),
        (b"BODY needle", b" 1 3 5 7"),
        (b"TEXT odd4", b" 4"),
        (b"HEADER X-Odd odd7", b" 7"),
        (b"HEADER Return-Path bounce", b" 7"),
        (b"NOT BODY needle 2:4", b" 2 4"),
        (b"OR UID 2 BODY needle", b" 1 2 3 5 7"),
        (b"LARGER 1000 FROM ann", b" 7"),
        (b"2:3,5 (OR SUBJECT 5 X)", None),
        (b"(1:3 NOT (2 SUBJECT number)) BODY e", b" 1 3"),
        (b"NOT ALL", b""),
    ],
)
def test_keys_find_their_messages(client, keys, found):
    lines = client.command(b"SEARCH " + keys)
    if found is None:
        assert lines[-1].startswith(b"BAD ")
    else:
        assert lines == [b"* SEARCH" + found, b"OK SEARCH completed"]


def test_rows_decide_without_a_look_at_the_contents(client, monkeypatch):
    wanted = []
    fetch = MemoryAccount.fetch
    monkeypatch.setattr(
        MemoryAccount, "fetch", lambda self, box, uids, want: (wanted.append(want), fetch(self, box, uids, want))[1]
    )
    client.ok(b"SEARCH UNSEEN LARGER 10")
    client.ok(b"SEARCH DELETED BODY needle")
    assert [want.contents or want.fields for want in wanted] == [False, False]
    wanted.clear()
    client.ok(b"SEARCH FROM ann")
    assert [(want.contents, want.fields) for want in wanted] == [(False, False), (False, True)]


def test_only_named_messages_are_read(client, monkeypatch):
    asked = []
    fetch = MemoryAccount.fetch
    monkeypatch.setattr(
        MemoryAccount,
        "fetch",
        lambda self, box, uids, want: (asked.append(list(uids)), fetch(self, box, uids, want))[1],
    )
    assert client.ok(b"SEARCH UID 3 BODY needle") == [b"* SEARCH 3"]
    assert asked == [[3], [3]]


def test_a_long_search_gives_the_reactor_its_turns(client, monkeypatch):
    monkeypatch.setattr(search_run, "TURN_SECONDS", 0.0)
    clock = client.rig.clock
    later = clock.callLater
    turns = []
    monkeypatch.setattr(clock, "callLater", lambda delay, *call: (turns.append(delay), later(delay, *call))[1])
    assert client.send(b"a SEARCH BODY needle\r\n") == b""
    assert turns == [0]
    clock.advance(0)
    assert client.take() == b"* SEARCH 1 3 5 7\r\na OK SEARCH completed\r\n"
    assert turns.count(0) >= 7


def test_a_client_that_leaves_during_a_search_ends_it(client, monkeypatch):
    monkeypatch.setattr(search_run, "TURN_SECONDS", 0.0)
    client.send(b"a SEARCH BODY needle\r\n")
    client.lose()
    client.rig.clock.advance(0)
    assert client.rig.authenticator.logouts == 1


def parse(text):
    return parse_program(Cursor([text])).key


def test_depth_and_number_of_keys_are_limited():
    nested = parse(b"OR SEEN " * (MAX_DEPTH - 1) + b"SEEN")
    assert isinstance(nested, AnyOf)
    assert parse(b"NOT SEEN") == Not(HasFlag(1))
    for text in (b"OR SEEN " * 500 + b"SEEN", b"(" * 20_000, b"NOT " * 16_000 + b"ALL", b"ALL " * 16_000 + b"ALL"):
        with pytest.raises(WireError):
            parse(text)


PIECES = [b"(", b")", b" ", b"NOT", b"OR", b"SEEN", b"1:*", b"UID", b"SUBJECT", b'"a"', b"SINCE", b"1-Jan-2024", b"{", b"\\",
          b"MODSEQ", b"CHARSET", b"UTF-8", b"KEYWORD", b"\xff", b"*", b"0", b"HEADER", b"LARGER", b"99999999999999"]  # fmt: skip


def test_nonsense_is_a_wire_error_and_nothing_else():
    chance = random.Random(6)
    parsed = 0
    for _ in range(20_000):
        text = b"".join(chance.choice(PIECES) + b" " * chance.choice([0, 1, 1]) for _ in range(chance.randrange(1, 8)))
        try:
            parse(text)
            parsed += 1
        except (WireError, MailError):
            pass
    assert parsed
