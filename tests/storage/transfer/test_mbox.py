"""mbox in its variants, and what programs wrote into the headers."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemail.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from livemail.storage.transfer import mbox
from livemail.storage.transfer.mbox import MboxReader, keywords_of, parse_separator, read_status, tell_variant

SEPARATOR = b"From a@b Mon Jan  2 03:04:05 2006\n"


def read(octets, variant):
    return [b"".join(message.chunks()) for message in MboxReader(io.BytesIO(octets), "f", variant)]


def written(bodies, variant):
    """Write messages as a program of that variant does."""
    whole = b""
    for body in bodies:
        lines = body.split(b"\n")
        if variant == "mboxo":
            lines = [b">" + line if line.startswith(b"From ") else line for line in lines]
        if variant == "mboxrd":
            lines = [b">" + line if line.lstrip(b">").startswith(b"From ") else line for line in lines]
        text = b"\n".join(lines)
        head = b"Subject: s\n"
        if variant == "mboxcl2":
            head += b"Content-Length: %d\n" % len(text)
        whole += SEPARATOR + head + b"\n" + text + b"\n"
    return whole


def expected(bodies, variant):
    heads = [
        b"Subject: s\n" + (b"Content-Length: %d\n" % len(body) if variant == "mboxcl2" else b"") + b"\n"
        for body in bodies
    ]
    return [(head + body).replace(b"\n", b"\r\n") for head, body in zip(heads, bodies, strict=True)]


BODIES = [
    b"plain\n",
    b"From here\nFrom  there\n",
    b">From quoted\n",
    b">>From twice\n",
    b"\nFrom x\n\nFrom y\n",
    b"no end",
    b"",
]


@pytest.mark.parametrize("variant", ["mboxrd", "mboxcl2"])
def test_what_was_written_is_read(variant):
    bodies = [body if variant == "mboxcl2" or body.endswith(b"\n") or not body else body + b"\n" for body in BODIES]
    octets = written(bodies, variant)
    assert tell_variant(octets) == variant
    assert read(octets, variant) == expected(bodies, variant)
    assert read(octets.replace(b"\n", b"\r\n") if variant == "mboxrd" else octets, variant) == expected(bodies, variant)


def test_mboxo_loses_what_it_loses_and_no_more():
    bodies = [b"plain\n", b"From here\n", b">>From twice\n"]
    octets = written(bodies[:2], "mboxo")
    assert tell_variant(octets) == "mboxo"
    assert read(octets, "mboxo") == expected(bodies[:2], "mboxo")
    assert read(written(bodies, "mboxo"), "mboxo") == expected(bodies, "mboxo")


LINES = st.sampled_from([b"From x", b">From x", b">>From x", b"", b"x", b"a" * 50, b"\r", b">", b"From"])


@given(st.lists(st.lists(LINES, max_size=6), min_size=1, max_size=4), st.sampled_from([3, 40, 100000]), st.data())
def test_mboxrd_gives_back_every_octet_wherever_the_reads_end(bodies, size, data):
    octets = [b"".join(line + b"\n" for line in lines) for lines in bodies]
    octets = [body.replace(b"\r", b"") for body in octets]
    before, mbox.CHUNK_OCTETS = mbox.CHUNK_OCTETS, max(size, 60)
    try:
        assert read(written(octets, "mboxrd"), "mboxrd") == expected(octets, "mboxrd")
        assert read(written(octets, "mboxcl2"), "mboxcl2") == expected(octets, "mboxcl2")
    finally:
        mbox.CHUNK_OCTETS = before


def test_a_content_length_that_lies_does_not_swallow_the_next_message():
    octets = written([b"one\n", b"two\n"], "mboxcl2").replace(b"Content-Length: 4", b"Content-Length: 2", 1)
    first, second = read(octets, "mboxcl2")
    assert first.endswith(b"\r\n\r\none\r\n")
    assert second.endswith(b"two\r\n")
    assert tell_variant(octets) != "mboxcl2"


def test_ids_are_of_the_octets_so_that_a_file_may_grow():
    bodies = [b"a\n", b"b\n", b"a\n"]
    ids = [(b"".join(m.chunks()), m.id)[1] for m in MboxReader(io.BytesIO(written(bodies, "mboxrd")), "f", "mboxrd")]
    assert len(set(ids)) == 3
    again = [
        (b"".join(m.chunks()), m.id)[1] for m in MboxReader(io.BytesIO(written(bodies[1:], "mboxrd")), "f", "mboxrd")
    ]
    assert set(again) == {ids[1], ids[0]}


def test_a_message_nobody_reads_is_passed_over():
    messages = list(MboxReader(io.BytesIO(written([b"a\n", b"b\n"], "mboxrd")), "f", "mboxrd"))
    assert [m.where for m in messages] == ["f, message 1", "f, message 2"]
    assert all(m.id for m in messages)


def test_rubbish_before_the_first_message_and_empty_files_are_no_message():
    assert read(b"rubbish\n" + written([b"a\n"], "mboxrd"), "mboxrd") == expected([b"a\n"], "mboxrd")
    assert read(b"", "mboxrd") == []
    assert read(b"no mbox at all\n", "mboxrd") == []
    assert read(SEPARATOR + SEPARATOR + b"Subject: s\n\nx\n", "mboxrd")[1] == b"Subject: s\r\n\r\nx\r\n"


def test_random_octets_never_raise():
    chance = random.Random(1)
    for _ in range(300):
        octets = bytes(chance.choice(b"From >\r\n:x0") for _ in range(200))
        for variant in ("mboxo", "mboxrd", "mboxcl2"):
            read(SEPARATOR + octets, variant)
        tell_variant(SEPARATOR + octets)


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (SEPARATOR, 1136171045),
        (b"From x Mon, Jan 2 03:04 CET 2006\n", 1136171040),
        (b"From 123@xxx Tue Feb 29 10:00:00 +0000 2000\n", 951818400),
        (b"From a Mon Feb 30 10:00:00 2006\n", None),
        (b"From \n", None),
    ],
)
def test_the_time_of_a_from_line(line, seconds):
    assert parse_separator(line) == seconds


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Status: RO\nX-Status: AF\n", (SEEN | ANSWERED | FLAGGED, (), "")),
        (b"X-Status: DT\nX-Keywords: a b\n", (DELETED | DRAFT, ("a", "b"), "")),
        (b"X-Mozilla-Status: 0005\nX-Mozilla-Keys: $label1 work\n", (SEEN | FLAGGED, ("$label1", "work"), "")),
        (b"X-Gmail-Labels: Inbox,Unread,My (work)\n", (0, ("My__work_",), "INBOX")),
        (b"X-Gmail-Labels: =?UTF-8?Q?Starred,Spam,=C3=A4?=\r\n", (SEEN | FLAGGED, ("_",), "Junk")),
        (b"X-Gmail-Labels: Opened,Family,\n Friends\n", (SEEN, ("Friends",), "Family")),
        (b"X-Gmail-Labels: Archived\n", (SEEN, (), "Archive")),
        (b"Subject: Status: R\n", (0, (), "")),
    ],
)
def test_flags_keywords_and_labels_of_the_header(header, status):
    assert read_status(header) == status


def test_keywords_are_atoms_once_each():
    assert keywords_of(["a", "a", "b c", "", "x" * 300]) == ("a", "b_c", "x" * 255)
