"""The edits are made of a header by two models of an MTA: Postfix's, which forgets what was removed, and Sendmail's."""

from __future__ import annotations

import random

import pytest

from livemail.milter.changes import CannotChange, header_changes

OWN = (b"Received", b"Received: by the MTA in front\r\n")


def field(text):
    return text.partition(":")[0].encode(), text.encode() + b"\r\n"


def applied(before, changes, *, forgets):
    """What an MTA makes of it.  forgets: whether removed fields are gone at once, or are counted on as removed."""
    fields = list(before)
    for change in changes:
        made = (change.name, change.name + b":" + change.value + b"\r\n")
        if change.action == "add":
            fields.append(made)
        elif change.action == "insert":
            fields.insert(change.index, made)
        else:
            skipped = 1 if fields[0] is OWN else 0
            places = [
                at for at, (name, _) in enumerate(fields) if at >= skipped and name.lower() == change.name.lower()
            ]
            at = places[change.index - 1]
            if change.value:
                fields[at] = made
            elif forgets:
                del fields[at]
            else:
                fields[at] = (fields[at][0], None)
    return [each for each in fields if each[1] is not None]


def check(before, after):
    """The MTA's own field in front of both; after may have it anywhere itself."""
    before, after = [OWN, *before], after if OWN in after else [OWN, *after]
    changes = header_changes(before, after)
    for forgets in (True, False):
        assert applied(before, changes, forgets=forgets) == after
    return changes


BASE = [field(text) for text in ("Received: a", "Received: b", "From: x", "Subject: s", "X-A: 1", "X-A: 2", "To: y")]


@pytest.mark.parametrize(
    "after",
    [
        BASE,
        [],
        [*BASE, field("X-New: 1")],
        [field("X-New: 1"), field("X-New: 2"), *BASE],
        [field("X-New: 1"), field("Received: upper"), OWN, field("X-New: 2"), *BASE[1:]],
        [*BASE[:3], field("X-A: 0"), *BASE[3:]],
        [*BASE[:5], field("X-A: 3"), BASE[6]],
        [*BASE[:4], BASE[6]],
        [field("Received: new"), BASE[1], *BASE[2:], field("Received: last")],
        [*BASE[:3], field("Subject: other"), field("Subject: more"), *BASE[4:]],
        [*BASE[:3], field("Subject:"), *BASE[4:]],
        list(reversed(BASE)),
    ],
)
def test_the_edits_make_the_one_header_of_the_other(after):
    check(BASE, after)


def test_one_field_changed_is_one_edit():
    after = [*BASE[:3], field("Subject: [EXT] s"), *BASE[4:]]
    (change,) = check(BASE, after)
    assert (change.action, change.name, change.value, change.index) == ("change", b"Subject", b" [EXT] s", 1)


def test_a_field_put_in_front_goes_before_the_mtas_own_received_or_behind_it():
    (change,) = check(BASE, [field("X-First: 1"), OWN, *BASE])
    assert (change.action, change.index) == ("insert", 0)
    (change,) = check(BASE, [OWN, field("X-First: 1"), *BASE])
    assert (change.action, change.index) == ("insert", 1)


@pytest.mark.parametrize("after", [BASE, [(b"Received", b"Received: other\r\n"), *BASE]])
def test_the_mtas_own_received_cannot_be_changed(after):
    with pytest.raises(CannotChange):
        header_changes([OWN, *BASE], after)


def test_any_edits_of_any_header_come_out_right():
    chance = random.Random(5)
    names = ["Received", "X-A", "X-B", "Subject"]
    for _ in range(2000):
        before = [field(f"{chance.choice(names)}: {chance.randrange(4)}") for _ in range(chance.randrange(9))]
        after = [OWN, *before]
        for _ in range(chance.randrange(5)):
            made = field(f"{chance.choice(names)}: {chance.randrange(9)}")
            kind = chance.randrange(3)
            if kind == 0:
                after.insert(chance.randrange(len(after) + 1), made)
            at = chance.randrange(len(after))
            if kind == 1 and after[at] is not OWN:
                del after[at]
            elif kind == 2 and after[at] is not OWN:
                after[at] = made
        check(before, after)


def test_a_large_header_is_compared_in_linear_time():
    before = [field(f"X-{number}: a") for number in range(20_000)]
    after = [field(f"X-{number}: b") for number in range(20_000)]
    assert len(header_changes([OWN, *before], [OWN, *after])) == 20_000
    check(before[:700], after[200:900])
