"""The table of states, printed and tried."""

from __future__ import annotations

import pytest

from livemail.imap.commands import TABLE
from livemail.imap.state import RULES, State
from tests.imap.rig import Client, Rig

# RFC 3501 §6: section 6.1 any state, 6.2 before login, 6.3 after login, 6.4 selected; UNSELECT RFC 3691, MOVE RFC 6851.
PRINTED = """
APPEND        -  A  S            expunge
AUTHENTICATE  N  -  -            expunge
CAPABILITY    N  A  S            expunge
CHECK         -  -  S            expunge
CLOSE         -  -  S            expunge
COPY          -  -  S  uid       expunge
CREATE        -  A  S            expunge
DELETE        -  A  S            expunge
ENABLE        -  A  S            expunge
EXAMINE       -  A  S            expunge
EXPUNGE       -  -  S  uid       expunge
FETCH         -  -  S  uid  no expunge
ID            N  A  S            expunge
IDLE          -  A  S            expunge
LIST          -  A  S            expunge
LOGIN         N  -  -            expunge
LOGOUT        N  A  S            expunge
LSUB          -  A  S            expunge
MOVE          -  -  S  uid       expunge
NAMESPACE     -  A  S            expunge
NOOP          N  A  S            expunge
RENAME        -  A  S            expunge
SEARCH        -  -  S  uid  no expunge
SELECT        -  A  S            expunge
STARTTLS      N  -  -            expunge
STATUS        -  A  S            expunge
STORE         -  -  S  uid  no expunge
SUBSCRIBE     -  A  S            expunge
UNSELECT      -  -  S            expunge
UNSUBSCRIBE   -  A  S            expunge
"""

LETTERS = {State.NOT_AUTHENTICATED: "N", State.AUTHENTICATED: "A", State.SELECTED: "S"}


def printed() -> str:
    lines = [""]
    for word, rule in sorted(RULES.items()):
        states = "  ".join(letter if state in rule.states else "-" for state, letter in LETTERS.items())
        uid = "uid" if rule.uid else ""
        lines.append(f"{word:12}  {states}  {uid:3}  {'' if rule.expunge_allowed else 'no ':>2}{'expunge':>7}".rstrip())
    return "\n".join(lines)


def test_the_table_is_as_the_rfc_has_it() -> None:
    assert [line.split() for line in printed().splitlines()] == [line.split() for line in PRINTED.splitlines()]


def test_every_rule_has_its_command_and_every_command_its_rule() -> None:
    assert {word: entry.rule for word, entry in TABLE.items()} == RULES


def in_state(state: State) -> Client:
    rig = Rig()
    if state is State.NOT_AUTHENTICATED:
        client = rig.connect()
        client.take()
        return client
    client = rig.client()
    if state is State.SELECTED:
        client.ok(b"SELECT INBOX")
    return client


@pytest.mark.parametrize("state", LETTERS, ids=lambda state: state.value)
def test_a_command_out_of_place_is_bad_and_does_nothing(state: State) -> None:
    for word, rule in RULES.items():
        if state not in rule.states:
            client = in_state(state)
            for form in [word.encode(), *([b"UID " + word.encode()] if rule.uid else [])]:
                assert client.command(form) == [f"BAD {word} is not allowed when {state.value}".encode()]
            assert client.connection.session.state is state


@pytest.mark.parametrize("word", sorted(RULES))
def test_no_command_takes_what_is_surplus(word: str) -> None:
    state = next(state for state in reversed(LETTERS) if state in RULES[word].states)
    surplus = {"ID": b"ID NIL x", "LOGIN": b"LOGIN a b c", "ENABLE": b"ENABLE x ("}.get(
        word, word.encode() + b" (() ) "
    )
    lines = in_state(state).command(surplus)
    assert len(lines) == 1
    assert lines[0].startswith(b"BAD Expected ") or lines[0] == b"BAD Unknown item of STATUS", lines


BARE = {"NOOP", "CHECK", "LOGOUT", "CAPABILITY", "STARTTLS", "NAMESPACE", "CLOSE", "UNSELECT", "EXPUNGE", "IDLE"}


@pytest.mark.parametrize("word", sorted(set(RULES) - BARE))
def test_a_command_without_its_arguments_is_bad(word: str) -> None:
    state = next(state for state in reversed(LETTERS) if state in RULES[word].states)
    client = in_state(state)
    assert client.command(word.encode())[-1].startswith(b"BAD Expected ")
    assert client.command(word.encode() + b" ")[-1].startswith(b"BAD Expected ")


def test_uid_is_a_prefix_of_five_commands_only() -> None:
    for word, rule in RULES.items():
        if not rule.uid:
            assert in_state(State.SELECTED).command(b"UID " + word.encode()) == [b"BAD Unknown command"]
