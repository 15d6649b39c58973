"""Reading rows and columns: any set of UIDs, batches of any cut, logs that were trimmed."""

from __future__ import annotations

import random

import pytest

from livemail.interfaces.storage import FetchWant
from livemail.mail.errors import CannotCalculate
from livemail.mail.flags import FLAGGED, SEEN, FlagChange
from livemail.mail.ids import UIDSet
from livemail.storage.lmdb import reader, rows
from tests.contracts.stores import message


@pytest.fixture
def holes(folder_rig):
    """An account whose INBOX has UIDs with holes, between two other mailboxes with rows."""
    account = folder_rig.new_account()
    neighbour = folder_rig.new_account()
    for number in range(60):
        folder_rig.append(account, "INBOX", message(f"s{number}"), internal_date=number)
    folder_rig.append(account, "Drafts", message("below"))
    folder_rig.append(neighbour, "INBOX", message("beside"))
    inbox = folder_rig.info(account)
    gone = [uid for uid in range(1, 61) if uid % 7 in {0, 3, 4} or 20 < uid < 30]
    folder_rig.wait(account.expunge(inbox.id, UIDSet.of(gone), only_deleted=False))
    account.left = [uid for uid in range(1, 61) if uid not in gone]
    return account


@pytest.mark.parametrize("most", [1, 2, 7, 1000])
def test_any_set_of_uids_gives_the_messages_that_exist(folder_rig, holes, monkeypatch, most):
    monkeypatch.setattr(reader, "BATCH_ROWS", most)
    monkeypatch.setattr(reader, "BATCH_ROWS_WITH_CONTENTS", most)
    chance = random.Random(most)
    sets = [UIDSet.all(), UIDSet([(60, 4_000_000_000)]), UIDSet([(61, 70)]), UIDSet([(1, 1)]), UIDSet()]
    sets += [UIDSet.of(chance.sample(range(1, 65), chance.randrange(1, 40))) for _ in range(15)]
    for uids in sets:
        expected = [uid for uid in holes.left if uid in uids]
        got = folder_rig.fetch(holes, uids=uids, contents=True, envelopes=True, fields=True)
        assert [row[0] for row in got["rows"]] == expected
        assert got.get("contents", []) == [message(f"s{uid - 1}") for uid in expected]
        for uid, envelope in zip(expected, got.get("envelopes", []), strict=True):
            assert f'"s{uid - 1}"'.encode() in envelope
        assert [row[4] for row in got["rows"]] == [uid - 1 for uid in expected]


@pytest.mark.parametrize(
    "want", [{"envelopes": True}, {"fields": True}, {"structures": True, "parts": True}, {"contents": True}]
)
def test_a_batch_is_bounded_in_octets(folder_rig, monkeypatch, want):
    """However much a sender made of his header: a thousand such rows must not be in memory at once."""
    account = folder_rig.new_account()
    sizes = [10, 200_000, 200_000, 10, 90_000, *[200_000] * 24, 10]
    for number, size in enumerate(sizes):
        folder_rig.append(account, "INBOX", message(f"{number} " + "x" * size))
    inbox = folder_rig.info(account)
    folder_rig.wait(account.expunge(inbox.id, UIDSet.of([4, 9, 10]), only_deleted=False))
    left = [uid for uid in range(1, len(sizes) + 1) if uid not in {4, 9, 10}]
    whole = folder_rig.fetch(account, **dict.fromkeys(("envelopes", "structures", "fields", "parts"), True))
    assert [row[0] for row in whole["rows"]] == left

    read = []

    def read_beside(*arguments):
        caches = rows.read_beside(*arguments)
        read.append(sum(map(len, caches)))
        return caches

    monkeypatch.setattr(reader, "read_beside", read_beside)

    async def batches(uids, since):
        return [batch async for batch in account.fetch(inbox.id, uids, FetchWant(**want, changed_since=since))]

    for uids in [UIDSet.all(), UIDSet.of(left[::2]), UIDSet([(1, 5), (7, 28)])]:
        for since in (0, 5):
            expected = [row[0] for row in whole["rows"] if row[0] in uids and row[3] > since]
            found = folder_rig.wait(batches(uids, since))
            assert [row[0] for batch in found for row in batch.rows] == expected
            for batch in found:
                for name in ("envelopes", "structures", "fields", "parts", "prefixes", "contents"):
                    assert len(getattr(batch, name) or batch.rows) == len(batch.rows)
            assert max(read) <= reader.CACHE_OCTETS
            for name in ("envelopes", "structures", "parts"):
                if name in want:
                    got = [piece for batch in found for piece in getattr(batch, name)]
                    assert got == [
                        piece for row, piece in zip(whole["rows"], whole[name], strict=True) if row[0] in expected
                    ]


def test_a_batch_has_one_row_at_least(folder_rig, monkeypatch):
    monkeypatch.setattr(reader, "CACHE_OCTETS", 1)
    account = folder_rig.new_account()
    for number in range(5):
        folder_rig.append(account, "INBOX", message(f"{number}" * 300))
    assert [row[0] for row in folder_rig.fetch(account, envelopes=True)["rows"]] == [1, 2, 3, 4, 5]


def test_going_back_among_many_ranges_looks_at_none_before():
    """Every other UID asked for, and every row too large for a batch of two."""
    walk = rows.Walk([(uid, uid) for uid in range(1, 200_000, 2)])
    walk.go_back(150_001)
    assert walk._ranges[walk._at] == (150_001, 150_001)
    walk.go_back(150_000)
    assert walk._ranges[walk._at] == (150_001, 150_001)


def test_every_column_is_what_the_summary_said(folder_rig):
    account = folder_rig.new_account()
    octets = message("columns", message_id="<a@b>")
    content = folder_rig.content(octets)
    folder_rig.deliver(account, octets=octets, prefix=b"Return-Path: <x@y>\r\n", flags=FLAGGED, internal_date=5)
    got = folder_rig.fetch(account, envelopes=True, structures=True, fields=True, parts=True, contents=True)
    summary = content.summary
    assert got["envelopes"] == [summary.envelope]
    assert got["structures"] == [summary.structure]
    assert got["fields"] == [summary.fields]
    assert got["parts"] == [summary.parts]
    assert got["prefixes"] == [b"Return-Path: <x@y>\r\n"]
    prefix = len(b"Return-Path: <x@y>\r\n")
    ((uid, flags, _, _, date, zone, size, header, saved, email, thread),) = got["rows"]
    assert (uid, flags, date, zone, size, header) == (
        1,
        FLAGGED,
        5,
        0,
        len(octets) + prefix,
        summary.header_size + prefix,
    )
    assert (saved, email, thread) == (int(folder_rig.clock()), 1, 1)
    for name in ("envelopes", "structures", "fields", "parts"):
        assert folder_rig.fetch(account, **{name: True})[name] == got[name]


def test_fields_too_large_to_be_cached_are_none_and_not_empty(folder_rig):
    account = folder_rig.new_account()
    folder_rig.deliver(account, octets=message("x" * 5000))
    folder_rig.deliver(account, octets=b"x-none: of these\r\n\r\n")
    assert folder_rig.fetch(account, fields=True)["fields"] == [None, b""]


def test_contents_come_in_bounded_batches_and_large_ones_not_at_all(folder_rig):
    account = folder_rig.new_account()
    for number in range(40):
        folder_rig.deliver(account, octets=message(f"s{number}", body="x" * 60_000))
    folder_rig.deliver(account, octets=message("large", body="x" * 70_000))
    inbox = folder_rig.info(account)

    async def batches():
        want = FetchWant(contents=True, fields=True)
        return [batch async for batch in account.fetch(inbox.id, UIDSet.all(), want)]

    got = folder_rig.wait(batches())
    assert [row[0] for batch in got for row in batch.rows] == list(range(1, 42))
    assert got[-1].contents[-1] is None
    for batch in got:
        assert len(batch.rows) == len(batch.contents) == len(batch.fields) == len(batch.prefixes)
        assert sum(len(content or b"") for content in batch.contents) < (1 << 20) + 65536


def test_a_message_expunged_between_batches_is_absent(folder_rig, monkeypatch):
    monkeypatch.setattr(reader, "BATCH_ROWS_WITH_CONTENTS", 2)
    account = folder_rig.new_account()
    large = [message(f"s{number}", body="x" * 300_000) for number in range(5)]
    for octets in large:
        folder_rig.deliver(account, octets=octets)
    inbox = folder_rig.info(account)

    async def fetch():
        seen = []
        async for batch in account.fetch(inbox.id, UIDSet.all(), FetchWant(contents=True, contents_up_to=1 << 20)):
            seen += [(row[0], content) for row, content in zip(batch.rows, batch.contents, strict=True)]
            if len(seen) == 2:
                await account.expunge(inbox.id, UIDSet([(3, 4)]), only_deleted=False)
        return seen

    assert folder_rig.wait(fetch()) == [(1, large[0]), (2, large[1]), (5, large[4])]


def test_a_message_whose_segment_is_missing_is_told_as_damaged_and_the_others_are_read(make_folder_rig):
    rig = make_folder_rig(segment_octets=1)
    account = rig.new_account()
    octets = [message(f"s{number}") for number in range(4)]
    for each in octets:
        rig.deliver(account, octets=each)
    for name in list(rig.segments)[1:3]:
        (rig.shard / "seg" / name).unlink()
    rig.reopen()
    # Read without end before: the place was asked for again and again, with every session waiting.
    assert rig.fetch(rig.handle(account.id), contents=True)["contents"] == [octets[0], None, None, octets[3]]


def test_the_first_unseen_is_found_behind_many(folder_rig):
    account = folder_rig.new_account()
    folder_rig.append(account, "INBOX", *[message("same")] * 1500, flags=SEEN)
    inbox = folder_rig.info(account)
    assert folder_rig.wait(account.select("INBOX", claim_recent=False)).first_unseen == 0
    for uid in (1500, 1001, 1000, 1):
        folder_rig.wait(account.store(inbox.id, UIDSet.of([uid]), FlagChange("remove", SEEN)))
        assert folder_rig.wait(account.select("INBOX", claim_recent=False)).first_unseen == uid


@pytest.mark.parametrize("forgotten", [False, True], ids=["log", "scan"])
def test_changed_since_is_the_same_from_the_log_and_from_the_rows(make_folder_rig, forgotten):
    rig = make_folder_rig(change_rows=5 if forgotten else 10_000)
    account = rig.new_account()
    rig.append(account, "INBOX", *[message("same")] * 50)
    inbox = rig.info(account)
    rig.wait(account.store(inbox.id, UIDSet([(7, 8), (30, 30)]), FlagChange("add", SEEN)))
    for number in range(150 if forgotten else 3):
        rig.wait(account.store(inbox.id, UIDSet.of([9]), FlagChange("add" if number % 2 == 0 else "remove", FLAGGED)))
    rows = rig.rows(account, uids=UIDSet([(8, 60)]), changed_since=inbox.highest_modseq)
    assert [row[0] for row in rows] == [8, 9, 30]
    changes = rig.wait(account.changes(inbox.id, inbox.highest_modseq))
    assert changes.changed == UIDSet.of([7, 8, 9, 30])


def test_vanished_uids_are_forgotten_in_the_end_and_then_nobody_pretends(make_folder_rig):
    rig = make_folder_rig(expunge_rows=10)
    account = rig.new_account()
    rig.append(account, "INBOX", *[message("same")] * 200)
    inbox = rig.info(account)
    states = []
    for uid in range(1, 160):
        rig.wait(account.expunge(inbox.id, UIDSet.of([uid]), only_deleted=False))
        states.append(rig.info(account).highest_modseq)
    with pytest.raises(CannotCalculate):
        rig.wait(account.changes(inbox.id, inbox.highest_modseq))
    assert rig.wait(account.changes(inbox.id, states[-5])).vanished == UIDSet([(156, 159)])
    rig.reopen()
    account = rig.handle(account.id)
    known = [modseq for modseq in states if not _is_forgotten(rig, account, inbox.id, modseq)]
    assert len(known) >= 10
    for modseq in known:
        vanished = rig.wait(account.changes(inbox.id, modseq)).vanished
        assert list(vanished) == list(range(states.index(modseq) + 2, 160))


def _is_forgotten(rig, account, mailbox, modseq):
    try:
        rig.wait(account.changes(mailbox, modseq))
    except CannotCalculate:
        return True
    return False


def test_names_longer_than_a_key_are_names_like_others(folder_rig):
    account = folder_rig.new_account()
    long = ["n" * 990 + tail for tail in "ab"]
    for name in long:
        folder_rig.wait(account.create_mailbox(name))
        folder_rig.wait(account.subscribe(name, True))
    folder_rig.wait(account.rename_mailbox(long[0], "short"))
    listed = folder_rig.wait(account.mailboxes())
    assert {"short", long[1]} <= {info.name for info in listed.mailboxes}
    assert set(long) <= listed.subscribed
    folder_rig.wait(account.delete_mailbox(long[1]))
    assert folder_rig.wait(folder_rig.store.account_named("x" * 5000)) is None
