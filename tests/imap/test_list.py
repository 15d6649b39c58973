"""LIST and LSUB.  RFC 3501 §6.3.8, §6.3.9, RFC 3348, RFC 6154."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemail.imap.listing import Listed, Pattern, listed_mailboxes, listed_subscriptions
from livemail.interfaces.storage import MailboxInfo
from livemail.mail.errors import InvalidName
from livemail.mail.ids import MailboxId
from tests.imap.rig import Client, Rig


@pytest.fixture
def client() -> Client:
    return Rig().client()


MATCHING = [
    ("*", "a/b", True),
    ("%", "a", True),
    ("%", "a/b", False),
    ("a/%", "a/b", True),
    ("a/%", "a/b/c", False),
    ("a/%", "a", False),
    ("a*", "a", True),
    ("%/%", "a/b", True),
    ("%/%", "a/b/c", False),
    ("*/c", "a/b/c", True),
    ("*c", "a/b/c", True),
    ("%b%", "abc", True),
    ("%b%c", "abxc/c", False),
    ("*%b", "x/ab", True),
    ("%*b", "x/ab", True),
    ("a%%%b", "ab", True),
    ("*a*b*", "xxaxx/xb", True),
    ("a", "A", False),
    ("inbox", "INBOX", True),
    ("InB%", "INBOX", True),
    ("inbox", "inboxes", False),
    ("inbox/%", "INBOX/sub", True),
    ("inbox/%", "INBOX/SUB/x", False),
    ("INBOX/sub", "INBOX/SUB", False),
    ("inbox*", "INBOX/x", True),
    ("in*", "INBOX", True),
    ("", "a", False),
    ("cafe\u0301", "caf\u00e9", True),
    ("a.b", "axb", False),
    ("[a]*", "a", False),
]


@pytest.mark.parametrize(("pattern", "name", "is_match"), MATCHING)
def test_a_pattern_matches(pattern: str, name: str, is_match: bool) -> None:
    assert Pattern(pattern).matches(name) is is_match


@settings(max_examples=400)
@given(st.text("ab/%*", max_size=8), st.text("ab/", max_size=10))
def test_a_pattern_means_what_the_regular_expression_means(pattern: str, name: str) -> None:
    expression = "".join({"*": ".*", "%": "[^/]*"}.get(c, c) for c in pattern)
    assert Pattern(pattern).matches(name) is bool(re.fullmatch(expression, name))


@pytest.mark.parametrize("pattern", ["*%" * 400 + "x", "*a%" * 300 + "b", "%a" * 400 + "/b", "*" * 999, "a*" * 499])
def test_no_pattern_makes_us_try_again(pattern: str) -> None:
    # Backtracking needs longer than the universe has been there; the limit is patience, not a measure.
    compiled = Pattern(pattern)
    begun = time.process_time()
    for name in ("a" * 1000, "a/" * 500, "ab" * 500):
        compiled.matches(name)
    assert time.process_time() - begun < 5


def test_a_pattern_longer_than_any_name_is_refused(client: Client) -> None:
    with pytest.raises(InvalidName):
        Pattern("*a" * 501)
    assert client.command(b'LIST "" ' + b"*a" * 501)[0].startswith(b"NO [CANNOT]")


# ---------------------------------------------------------------------------------------------------------- commands


def test_every_mailbox_with_its_attributes(client: Client) -> None:
    client.ok(b'CREATE "a/b c"')
    assert client.ok(b'LIST "" *') == [
        b'* LIST (\\HasNoChildren) "/" INBOX',
        b'* LIST (\\HasNoChildren \\Archive) "/" Archive',
        b'* LIST (\\HasNoChildren \\Drafts) "/" Drafts',
        b'* LIST (\\HasNoChildren \\Junk) "/" Junk',
        b'* LIST (\\HasNoChildren \\Sent) "/" Sent',
        b'* LIST (\\HasNoChildren \\Trash) "/" Trash',
        b'* LIST (\\HasChildren) "/" a',
        b'* LIST (\\HasNoChildren) "/" "a/b c"',
    ]


def test_a_special_mailbox_with_inferiors_says_both(client: Client) -> None:
    client.ok(b"CREATE Archive/2026")
    assert client.ok(b'LIST "" Archive') == [b'* LIST (\\HasChildren \\Archive) "/" Archive']


@pytest.mark.parametrize("reference", [b'""', b"x", b"x/", b'"no such"'])
def test_an_empty_pattern_asks_for_the_separator(client: Client, reference: bytes) -> None:
    assert client.ok(b"LIST " + reference + b' ""') == [b'* LIST (\\Noselect) "/" ""']
    assert client.ok(b"LSUB " + reference + b' ""') == [b'* LSUB (\\Noselect) "/" ""']


def test_the_reference_stands_before_the_pattern(client: Client) -> None:
    client.ok(b"CREATE a/b/c")
    assert client.ok(b"LIST a/ %") == [b'* LIST (\\HasChildren) "/" a/b']
    assert client.ok(b'LIST a "/b/%"') == [b'* LIST (\\HasNoChildren) "/" a/b/c']
    assert client.ok(b"LIST {2+}\r\na/ {1+}\r\n%") == [b'* LIST (\\HasChildren) "/" a/b']


def test_a_pattern_is_spelled_as_names_are(client: Client) -> None:
    client.ok(b'CREATE "caf&AOk-"')
    assert client.ok(b'LIST "" caf&AOk-%') == [b'* LIST (\\HasNoChildren) "/" "caf&AOk-"']
    assert client.command(b'LIST "" "x&AGE-*"')[0].startswith(b"NO [CANNOT]")
    assert client.command(b'LIST "" "x&AOk*"')[0].startswith(b"NO [CANNOT]")


def test_extended_list_is_not_understood_and_not_offered(client: Client) -> None:
    assert client.command(b'LIST (SPECIAL-USE) "" *')[0].startswith(b"BAD ")
    assert client.command(b'LIST "" (a b)')[0].startswith(b"BAD ")
    assert client.command(b'LIST "" * RETURN (CHILDREN)')[0].startswith(b"BAD ")


def test_lsub_lists_names_and_not_mailboxes(client: Client) -> None:
    for name in (b"Archive", b"Drafts", b"Junk", b"Trash", b"Sent"):
        client.ok(b"UNSUBSCRIBE " + name)
    client.ok(b"SUBSCRIBE foo/bar")
    assert client.ok(b'LSUB "" *') == [b'* LSUB () "/" INBOX', b'* LSUB () "/" foo/bar']
    # RFC 3501 §6.3.9: the superior stands for what is too deep for %.
    assert client.ok(b'LSUB "" %') == [b'* LSUB () "/" INBOX', b'* LSUB (\\Noselect) "/" foo']
    assert client.ok(b"LSUB foo/ %") == [b'* LSUB () "/" foo/bar']
    client.ok(b"SUBSCRIBE foo")
    assert client.ok(b'LSUB "" f%') == [b'* LSUB () "/" foo']


def test_a_long_listing_waits_for_a_slow_reader(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(150):
        client.ok(b"CREATE m%d" % i)
    write = client.transport.write

    def write_and_be_full(octets: bytes) -> None:
        write(octets)
        client.connection.pauseProducing()

    monkeypatch.setattr(client.transport, "write", write_and_be_full)
    first = client.send(b"a LIST m *\r\nb NOOP\r\n")
    assert first.count(b"* LIST") == 94  # six of the first hundred looked at do not match
    client.connection.resumeProducing()
    rest = client.take()
    assert rest.count(b"* LIST") == 56
    assert rest.endswith(b"a OK LIST completed\r\nb OK NOOP completed\r\n")


@pytest.mark.parametrize("word", [b"LIST", b"LSUB"])
def test_a_long_listing_lets_others_run(client: Client, monkeypatch: pytest.MonkeyPatch, word: bytes) -> None:
    for i in range(150):
        client.ok(b"CREATE m%d" % i)
        client.ok(b"SUBSCRIBE m%d" % i)
    ticks = iter(range(1000))
    monkeypatch.setattr("livemail.imap.commands.list.time.thread_time", lambda: next(ticks))
    answer = client.send(b"a " + word + b' "" *\r\n')
    turns = 0
    while not answer.endswith(b"completed\r\n"):
        client.rig.clock.advance(0)
        answer += client.take()
        turns += 1
        assert turns < 10
    assert turns >= 1
    assert answer.count(b"* " + word) == 156


# ------------------------------------------------------------------------------------------------------------ values


def info(name: str, special_use: str = "") -> MailboxInfo:
    return MailboxInfo(MailboxId(1), name, special_use, 1, 1, 0, 0, 0, 0, 1, 1, ())


def test_a_superior_without_mailbox_cannot_be_selected() -> None:
    assert list(listed_mailboxes([info("b/c/d"), info("a")], Pattern("*"))) == [
        Listed("a", ("\\HasNoChildren",)),
        Listed("b", ("\\NonExistent", "\\Noselect", "\\HasChildren")),
        Listed("b/c", ("\\NonExistent", "\\Noselect", "\\HasChildren")),
        Listed("b/c/d", ("\\HasNoChildren",)),
    ]


def listed_names(names: set[str], pattern: str) -> list[Listed]:
    return [listed for listed in listed_subscriptions(names, Pattern(pattern)) if listed is not None]


def test_only_percent_lets_superiors_stand_for_subscriptions() -> None:
    assert listed_names({"a/b/c"}, "%") == [Listed("a", ("\\Noselect",))]
    assert listed_names({"a/b/c"}, "a/%") == [Listed("a/b", ("\\Noselect",))]
    assert listed_names({"a/b/c"}, "a") == []


def test_a_superior_that_is_subscribed_stands_for_itself() -> None:
    names = {"a", *(f"a/{i}" for i in range(50))}
    assert listed_names(names, "%") == [Listed("a", ())]
