"""A mailbox is opened by what was noted of it, and what was noted never makes a session see anything else."""

from __future__ import annotations

import random
import threading
from itertools import islice

import pytest

from livemail.interfaces.storage import FLAGS, UID_
from livemail.mail.flags import FLAGGED, SEEN, FlagChange
from livemail.mail.ids import UIDSet
from livemail.storage.lmdb import opening
from livemail.storage.lmdb.opening import HEAD, UNSEEN, NoteOpening, unpack_noted
from livemail.storage.lmdb.records import U32, pack_ranges
from tests.contracts.stores import message
from tests.storage.lmdb_rig import FolderRig
from tests.storage.test_lmdb_check import change


@pytest.fixture
def rig(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "NOTE_FROM", 5)
    monkeypatch.setattr(opening, "BATCH_ROWS", 3)
    rig = FolderRig(tmp_path / "data", expunge_rows=150)
    rig.account = rig.new_account()
    yield rig
    assert rig.problems() == []
    rig.close()


def fill(rig, count, **fields):
    rig.append(rig.account, "INBOX", *(message(str(at)) for at in range(count)), **fields)


def select(rig, name="INBOX"):
    selected = rig.wait(rig.account.select(name, False))
    rig.wait(rig.account.subscribe(name, True))  # behind the note, in the writer
    return list(selected.uids), selected.first_unseen


def noted(rig):
    with rig.store._environment.begin() as txn:
        tables = rig.store._tables
        return [HEAD.unpack_from(row) for _, row in txn.cursor(tables.opened).iternext()], [
            UNSEEN.unpack(row) for _, row in txn.cursor(tables.unseen).iternext()
        ]


def reads(monkeypatch):
    """Which walks are made: "all" over every key, "tail" behind the notes."""
    seen = []
    walk = opening._uids_from

    def counted(txn, tables, key, first, end):
        seen.append(first)
        return walk(txn, tables, key, first, end)

    monkeypatch.setattr(opening, "_uids_from", counted)
    return seen


def test_the_second_opening_reads_what_is_new(rig, monkeypatch):
    fill(rig, 20, flags=SEEN)
    fill(rig, 3)
    assert select(rig) == ([*range(1, 24)], 21)
    ((_, uid_next),), ((first, _),) = noted(rig)
    assert (uid_next, first) == (24, 21)
    walks = reads(monkeypatch)
    assert select(rig) == ([*range(1, 24)], 21)
    assert walks == []
    fill(rig, 2)
    rig.wait(rig.account.expunge(rig.info(rig.account).id, UIDSet.of([3, 21]), only_deleted=False))
    assert select(rig) == ([1, 2, *range(4, 21), 22, 23, 24, 25], 20)
    assert walks == [24]


def test_small_mailboxes_and_small_changes_are_not_noted(rig):
    fill(rig, 5)
    select(rig)
    assert noted(rig) == ([], [])
    fill(rig, 5)
    select(rig)
    before = noted(rig)
    fill(rig, 4)
    select(rig)
    assert noted(rig) == before
    fill(rig, 4)
    select(rig)
    assert noted(rig) != before


def test_a_message_that_is_not_seen_any_more_is_the_first(rig):
    fill(rig, 20, flags=SEEN)
    fill(rig, 1)
    inbox = rig.info(rig.account).id
    assert select(rig)[1] == 21
    rig.wait(rig.account.store(inbox, UIDSet.of([7, 9]), FlagChange("remove", SEEN, ())))
    assert select(rig)[1] == 7
    rig.wait(rig.account.store(inbox, UIDSet.of([4]), FlagChange("set", FLAGGED, ())))
    assert select(rig)[1] == 4
    rig.wait(rig.account.store(inbox, UIDSet.all(), FlagChange("add", SEEN, ())))
    assert select(rig)[1] == 0


def test_a_note_of_before_does_not_undo_what_happened_since(rig):
    fill(rig, 20, flags=SEEN)
    fill(rig, 1)
    inbox = rig.info(rig.account).id
    _, early = rig.store.reader.select(rig.account.id, "INBOX")
    assert isinstance(early, NoteOpening)
    rig.wait(rig.account.store(inbox, UIDSet.of([7]), FlagChange("remove", SEEN, ())))
    assert select(rig)[1] == 7
    fill(rig, 6)
    assert select(rig) == ([*range(1, 28)], 7)
    before = noted(rig)

    async def late():
        await rig.store.write(early)

    rig.wait(late())
    assert noted(rig) == before
    assert select(rig) == ([*range(1, 28)], 7)


def test_when_the_log_is_too_short_everything_is_read_again(rig, monkeypatch):
    fill(rig, 300)
    inbox = rig.info(rig.account).id
    select(rig)
    for uid in range(1, 290):
        rig.wait(rig.account.expunge(inbox, UIDSet.of([uid]), only_deleted=False))
    walks = reads(monkeypatch)
    assert select(rig) == ([*range(290, 301)], 1)
    assert walks == [0]


def test_a_wrong_note_is_found_and_forgotten(rig):
    fill(rig, 9, flags=SEEN)
    fill(rig, 11)
    select(rig)
    change(rig, "unseen", lambda _: UNSEEN.pack(15, 0))
    assert rig.problems() == ["opening"]
    (fix,) = rig.wait(rig.store.repair())
    assert fix.kind == "opening"
    assert select(rig) == ([*range(1, 21)], 10)


def test_a_note_that_does_not_add_up_is_none(rig):
    fill(rig, 10)
    select(rig)
    change(rig, "opened", lambda row: row[: HEAD.size] + pack_ranges([(1, 9)]))
    assert select(rig)[0] == [*range(1, 11)]


def test_a_long_walk_is_made_in_a_thread_and_only_the_first_time(rig, monkeypatch):
    monkeypatch.setattr(opening, "LONG_WALK", 10)
    threads = []
    walk = opening._uids_from
    monkeypatch.setattr(opening, "_uids_from", lambda *a: threads.append(threading.current_thread()) or walk(*a))
    fill(rig, 20)
    assert select(rig) == ([*range(1, 21)], 1)
    assert threads != [threading.current_thread()]
    assert len(threads) == 1
    fill(rig, 1)
    assert select(rig) == ([*range(1, 22)], 1)
    assert threads[1:] == [threading.current_thread()]


def test_notes_go_with_their_mailbox_and_account(rig):
    rig.wait(rig.account.create_mailbox("a"))
    rig.append(rig.account, "a", *(message(str(at)) for at in range(9)))
    select(rig, "a")
    assert noted(rig)[0] != []
    rig.wait(rig.account.delete_mailbox("a"))
    assert noted(rig) == ([], [])
    fill(rig, 9)
    select(rig)
    rig.wait(rig.store.remove_account(rig.account.name))
    assert noted(rig) == ([], [])
    rig.account = rig.new_account()


def test_random_work_looks_the_same_with_notes_and_without(rig):
    chance = random.Random(11)
    inbox = rig.info(rig.account).id
    for _ in range(300):
        what = chance.randrange(8)
        uids = UIDSet.of(
            [chance.randrange(1, rig.info(rig.account).uid_next + 1) for _ in range(chance.randrange(1, 5))]
        )
        if what < 3:
            fill(rig, chance.randrange(1, 4), flags=chance.choice([0, SEEN]))
        elif what == 3:
            rig.wait(rig.account.expunge(inbox, uids, only_deleted=False))
        elif what == 4:
            rig.wait(rig.account.move(inbox, uids, "Archive"))
        else:
            op = chance.choice(["add", "remove", "set"])
            rig.wait(rig.account.store(inbox, uids, FlagChange(op, chance.choice([SEEN, FLAGGED]), ())))
        if chance.random() < 0.5:
            rows = rig.rows(rig.account)
            first = next((at for at, row in enumerate(rows, 1) if not row[FLAGS] & SEEN), 0)
            assert select(rig) == ([row[UID_] for row in rows], first)
    assert noted(rig)[0] != []


def test_an_opening_by_notes_reads_neither_old_rows_nor_those_of_the_next_mailbox(rig, monkeypatch):
    monkeypatch.setattr(opening, "BATCH_ROWS", 1000)
    fill(rig, 100, flags=SEEN)
    fill(rig, 10)
    rig.wait(rig.account.create_mailbox("behind"))
    rig.append(rig.account, "behind", *(message(str(at)) for at in range(100)))
    select(rig)
    fill(rig, 2)
    read = []
    monkeypatch.setattr(opening, "islice", lambda rows, most: islice((read.append(row) or row for row in rows), most))
    assert select(rig) == ([*range(1, 113)], 101)
    assert len(set(read)) < 20  # one slice of another counts twice


def test_what_was_noted_is_unpacked_once(rig, monkeypatch):
    fill(rig, 20)
    inbox = rig.info(rig.account).id
    rig.wait(rig.account.expunge(inbox, UIDSet.of([3, 9]), only_deleted=False))
    select(rig)
    unpacked = []
    monkeypatch.setattr(opening, "unpack_noted", lambda row: unpacked.append(row) or unpack_noted(row))
    assert [select(rig)[0] for _ in range(3)] == [[1, 2, *range(4, 9), *range(10, 21)]] * 3
    assert len(unpacked) == 1


def test_a_session_does_not_change_what_the_next_is_given(rig):
    fill(rig, 20)
    select(rig)
    mine = rig.wait(rig.account.select("INBOX", False)).uids
    mine.remove(UIDSet.of([5]))
    mine.extend([99])
    assert select(rig)[0] == [*range(1, 21)]


def test_only_so_many_gaps_are_kept_unpacked(rig, monkeypatch):
    monkeypatch.setattr(opening, "KEPT_RUNS", 2 * (2 + opening.MAILBOX_RUNS))
    for name in ("a", "b", "c"):
        rig.wait(rig.account.create_mailbox(name))
        rig.append(rig.account, name, *(message(str(at)) for at in range(9)))
        rig.wait(rig.account.expunge(rig.info(rig.account, name).id, UIDSet.of([4]), only_deleted=False))
        for _ in range(2):
            assert select(rig, name)[0] == [1, 2, 3, 5, 6, 7, 8, 9]
    kept = rig.store.reader.kept_openings
    assert [uids.run_count for _, uids in kept.by_mailbox.values()] == [2, 2]
    assert kept.runs == opening.KEPT_RUNS
    assert [select(rig, name)[0] for name in ("a", "b", "c")] == [[1, 2, 3, 5, 6, 7, 8, 9]] * 3


def test_a_counter_that_is_wrong_finds_nothing_in_the_next_mailbox(rig):
    fill(rig, 12, flags=SEEN)
    for name in ("Archive", "Drafts", "Junk", "Sent", "Trash"):
        rig.append(rig.account, name, message(name))
    change(rig, "mcnt", lambda row: row[:16] + b"\1\0\0\0" + row[20:])
    assert rig.info(rig.account).unseen == 1
    assert select(rig) == ([*range(1, 13)], 0)
    rig.wait(rig.store.repair())


def test_a_full_walk_does_not_believe_the_counters(rig):
    fill(rig, 20)
    change(rig, "mcnt", lambda row: U32.pack(5)[::-1] + row[4:])
    assert rig.info(rig.account).uid_next == 5
    assert select(rig)[0] == [*range(1, 21)]
    rig.wait(rig.store.repair())
    assert select(rig)[0] == [*range(1, 21)]
