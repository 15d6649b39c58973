"""Header fields picked out of a whole batch: the same octets as message by message."""

from __future__ import annotations

import random

import pytest

from livemail.imap.render import picks
from livemail.imap.render.picks import pick_fields
from livemail.imap.render.sections import CACHED_NAMES
from livemail.mail.message.fields import select_fields
from livemail.storage.memory import batches
from tests.imap.rig import Rig

NAMES = frozenset({b"from", b"to", b"date", b"message-id"})

ODD = [
    b"",
    b"From: a\r\n",
    b"from : a\r\nFROM\t:b\r\n",
    b"To: a,\r\n\tb,\r\n c\r\nTopic: no\r\n",
    b"Subject: x\r\n From: not a field\r\nDate: y\r\n",
    b"From: no line end",
    b"Subject: no line end, not wanted",
    b"From: bare:\nTo: newlines:\n :\nCc: z\n",
    b"Message-Identity: no\r\nMessage-ID:\r\n <a@b>\r\n",
    b"Subject: :\r\n :\r\n",
    b"From:\r\n:\r\n",
    b"From: never cached\n:\nTo: but said to be\r\n",
    b"From: \xff\x00%d %s {3}\r\n",
]


@pytest.mark.parametrize("header", ODD)
def test_odd_headers_alone_and_between_others(header):
    expected = select_fields(header, NAMES)
    assert pick_fields([header], NAMES) == [expected]
    for other in ODD:
        beside = select_fields(other, NAMES)
        assert pick_fields([other, header, header, other], NAMES) == [beside, expected, expected, beside]


def test_what_is_cached_is_never_picked_one_by_one(monkeypatch):
    expected = [select_fields(header, NAMES) for header in ODD[:-1]]
    monkeypatch.setattr(picks, "select_fields", None)
    assert pick_fields(ODD[:-1], NAMES) == expected


def test_any_headers_any_names():
    chance = random.Random(3)
    names = sorted(CACHED_NAMES | {b"x-other"})
    pieces = [b"\r\n", b"\n", b"\r\n ", b"\n\t", b":", b" ", b"text", b"From: x", b"\xe9", b"\r"]
    for _ in range(300):
        headers = []
        for _ in range(chance.randrange(6)):
            fields = []
            for _ in range(chance.randrange(6)):
                name = chance.choice(names)
                value = b"".join(chance.choices(pieces, k=chance.randrange(6)))
                fields.append((name.title() if chance.random() < 0.5 else name.upper()) + b":" + value + b"\r\n")
            headers.append(b"".join(fields))
        # As the cache has them: whole fields, and nothing that is none.
        headers = [select_fields(header, CACHED_NAMES) for header in headers]
        wanted = frozenset(chance.sample(sorted(CACHED_NAMES), chance.randrange(1, 6)))
        assert pick_fields(headers, wanted) == [select_fields(header, wanted) for header in headers]


def test_a_batch_with_and_without_cached_fields(monkeypatch):
    """Fields too many for the cache are read from the message, in their place among the others."""
    monkeypatch.setattr(batches, "BATCH_MESSAGES", 4)
    rig = Rig()
    long = b"References: " + b"".join(b"<%d@example.org>\r\n " % number for number in range(200)) + b"\r\n"
    subjects = [b"Subject: s%d 100%%\r\n" % number for number in range(9)]
    for number, subject in enumerate(subjects):
        rig.append("INBOX", (long if number in {0, 2, 3, 8} else b"X-Mailer: m\r\n") + subject + b"\r\nbody\r\n")
    client = rig.client()
    client.ok(b"SELECT INBOX")
    label = b"BODY[HEADER.FIELDS (SUBJECT)]"
    answer = client.send(
        b"a FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)] BODY.PEEK[HEADER.FIELDS (SUBJECT)]<3.4>)\r\n"
    )
    assert answer == b"".join(
        b"* %d FETCH (UID %d %b {%d}\r\n%b\r\n %b<3> {4}\r\nject)\r\n"
        % (number, number, label, len(subject) + 2, subject, label)
        for number, subject in enumerate(subjects, 1)
    ) + b"a OK FETCH completed\r\n"  # fmt: skip
    assert client.send(b"b FETCH 1:3 BODY[HEADER.FIELDS (Subject)]<20.1>\r\n").count(b"<20> {0}\r\n)") == 3
    assert client.ok(b"SEARCH SEEN") == [b"* SEARCH 1 2 3"]
