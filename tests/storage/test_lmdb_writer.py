"""Group commit: what fails, fails alone; what the disk refuses can be done later; what it loses is never claimed."""

from __future__ import annotations

import errno
import os
import threading

import lmdb
import pytest

from livemail.interfaces.storage import AppendItem, Delivery
from livemail.mail.changes import Added, FlagsChanged
from livemail.mail.errors import NoSuchMailbox, Overloaded, OverQuota, StorageFailed, StorageFull
from livemail.mail.flags import SEEN, FlagChange
from livemail.mail.ids import UIDSet
from livemail.net.coroutines import run
from livemail.storage import failpoints
from tests.contracts.stores import Recorder, message
from tests.storage.lmdb_rig import Once


def full():
    return OSError(errno.ENOSPC, "No space left on device")


class Held:
    """Holds the writer at the begin of its next group, so that what is submitted meanwhile becomes one group."""

    def __init__(self, rig, account):
        self.groups = 0
        self.operations = 0
        self._rig = rig
        self._reached, self._go_on = threading.Event(), threading.Event()
        self._first = account.subscribe("held", True)

    def __call__(self, name):
        if name == "group-begin":
            self.groups += 1
            self._reached.set()
            self._rig.pump.call_from_thread(lambda: None)  # so that who takes turns sees it
            assert self._go_on.wait(30)
        self.operations += name == "txn-operation"

    def settle(self, coroutines):
        """Run all as one group; return the outcome of each."""
        failpoints.install(self)
        try:

            async def release():
                self._go_on.set()

            run(self._first, lambda *_: None)
            while not self._reached.is_set():
                self._rig.pump.turn()
            return self._rig.pump.settle([*coroutines, release()])[:-1]
        finally:
            failpoints.install(None)


def deliver(rig, account, octets, mailbox="INBOX"):
    return rig.store.deliver([Delivery(account.id, mailbox, rig.content(octets))])


def test_what_queues_while_a_group_is_flushed_shares_the_next_flush(folder_rig):
    account = folder_rig.new_account()
    recorder = Recorder()
    account.watch(recorder)
    held = Held(folder_rig, account)
    outcomes = held.settle([deliver(folder_rig, account, message(f"s{number}")) for number in range(20)])
    assert [delivered[0].uid for delivered in outcomes] == list(range(1, 21))
    assert (held.groups, held.operations) == (2, 21)
    (added,) = [change for change in recorder.changes if isinstance(change, Added)]
    assert added.uids == tuple(range(1, 21))
    assert len({row[3] for row in folder_rig.rows(account)}) == 1
    assert folder_rig.problems() == []


def test_a_change_between_deliveries_of_one_group_has_a_modseq_of_its_own(folder_rig):
    account = folder_rig.new_account()
    inbox = folder_rig.info(account)
    one = UIDSet.of([1])
    outcomes = Held(folder_rig, account).settle(
        [
            deliver(folder_rig, account, message("a")),
            account.store(inbox.id, one, FlagChange("add", SEEN)),
            deliver(folder_rig, account, message("b")),
            account.store(inbox.id, one, FlagChange("remove", SEEN), inbox.highest_modseq + 3),
        ]
    )
    stored, again = outcomes[1], outcomes[3]
    first, second = folder_rig.rows(account)
    assert inbox.highest_modseq < stored.modseq < second[3] < again.modseq == first[3]


def test_a_refusal_costs_its_neighbours_nothing(folder_rig):
    account = folder_rig.new_account()
    inbox = folder_rig.info(account)
    missing = AppendItem(folder_rig.content(message("lost")))
    outcomes = Held(folder_rig, account).settle(
        [
            deliver(folder_rig, account, message("a")),
            account.append("Nowhere", [missing]),
            account.store(99, UIDSet.all(), FlagChange("add", SEEN)),
            deliver(folder_rig, account, message("b")),
        ]
    )
    assert [type(outcome) for outcome in outcomes[1:3]] == [NoSuchMailbox, NoSuchMailbox]
    assert folder_rig.info(account).exists == inbox.exists + 2
    assert folder_rig.problems() == []


def test_a_bug_in_one_operation_fails_that_one_alone(folder_rig):
    account = folder_rig.new_account()

    class Broken:
        def run(self, group):
            group.txn.put(b"\0\0\0\x63", b"half done", db=group.tables.acnt)
            raise ZeroDivisionError

    async def broken():
        await folder_rig.store.write(Broken())

    outcomes = Held(folder_rig, account).settle(
        [deliver(folder_rig, account, message("a")), broken(), deliver(folder_rig, account, message("b"))]
    )
    assert isinstance(outcomes[1], ZeroDivisionError)
    assert [row[0] for row in folder_rig.rows(account)] == [1, 2]
    assert folder_rig.problems() == []


@pytest.mark.parametrize("step", ["segment-written", "segment-sync"])
def test_a_disk_full_for_contents_refuses_mail_and_nothing_else_and_recovers(folder_rig, step):
    account = folder_rig.new_account()
    folder_rig.deliver(account, octets=message("before"))
    inbox = folder_rig.info(account)
    before = folder_rig.segments
    with Once(step, full) as once:
        with pytest.raises(StorageFull):
            folder_rig.deliver(account, octets=message("refused"))
        assert step in once.seen
        assert folder_rig.segments == before
        folder_rig.wait(account.store(inbox.id, UIDSet.all(), FlagChange("add", SEEN)))
    folder_rig.deliver(account, octets=message("after"))
    assert folder_rig.fetch(account, contents=True)["contents"] == [message("before"), message("after")]
    assert folder_rig.problems() == []


@pytest.mark.parametrize(
    ("code", "refusal"), [(errno.ENOSPC, StorageFull), (errno.EINVAL, StorageFailed), (errno.EIO, StorageFailed)]
)
def test_a_flush_that_fails_while_the_index_is_filled_refuses_the_mail(folder_rig, monkeypatch, code, refusal):
    account = folder_rig.new_account()
    folder_rig.deliver(account, octets=message("before"))
    inbox = folder_rig.info(account)
    before = folder_rig.segments
    asked = []

    def fails(fd):
        asked.append(fd)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr("livemail.storage.lmdb.segments.os.fdatasync", fails)
        refused, stored = Held(folder_rig, account).settle(
            [
                deliver(folder_rig, account, message("refused")),
                account.store(inbox.id, UIDSet.all(), FlagChange("add", SEEN)),
            ]
        )
    assert type(refused) is refusal
    if code == errno.EIO:  # Never asked again: the kernel may have dropped the pages.
        assert isinstance(stored, StorageFailed)
        assert len(asked) == 1
        assert folder_rig.segments == before
    else:
        assert stored.changed == ((1, SEEN, 0),)
        assert folder_rig.segments == before
    folder_rig.deliver(account, octets=message("after"))
    assert folder_rig.fetch(account, contents=True)["contents"] == [message("before"), message("after")]
    assert folder_rig.problems() == []


def test_when_the_index_fails_and_the_flush_as_well_the_shard_fails(folder_rig, monkeypatch):
    account = folder_rig.new_account()

    def fails(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("livemail.storage.lmdb.segments.os.fdatasync", fails)
    with Once("txn-filled", full), pytest.raises(StorageFailed) as caught:
        folder_rig.deliver(account, octets=message("lost"))
    assert "Input/output error" in caught.value.reason
    with pytest.raises(StorageFailed):
        folder_rig.deliver(account, octets=message("refused"))
    monkeypatch.undo()
    folder_rig.reopen()
    assert folder_rig.problems() == []


def test_a_group_on_a_full_disk_still_changes_flags(folder_rig):
    account = folder_rig.new_account()
    folder_rig.deliver(account, octets=message("before"))
    inbox = folder_rig.info(account)
    held = Held(folder_rig, account)
    original = held.__call__

    class Full(Held):
        def __call__(self, name):
            original(name)
            if name == "segment-written":
                raise full()

    held.__class__ = Full
    refused, stored = held.settle(
        [
            deliver(folder_rig, account, message("refused")),
            account.store(inbox.id, UIDSet.all(), FlagChange("add", SEEN)),
        ]
    )
    assert isinstance(refused, StorageFull)
    assert stored.changed == ((1, SEEN, 0),)
    assert folder_rig.problems() == []


@pytest.mark.parametrize("error", [full, lambda: lmdb.MapFullError("map full")])
def test_an_index_without_room_refuses_mail_and_recovers(folder_rig, error):
    account = folder_rig.new_account()
    with Once("txn-filled", error), pytest.raises(StorageFull):
        folder_rig.deliver(account, octets=message("refused"))
    folder_rig.deliver(account, octets=message("after"))
    assert folder_rig.fetch(account, contents=True)["contents"] == [message("after")]
    assert folder_rig.problems() == []


def test_an_expunge_on_a_full_disk_uses_up_the_reserve_file(make_folder_rig):
    rig = make_folder_rig(reserve_file=65536)
    account = rig.new_account()
    rig.deliver(account, octets=message("goes"))
    reserve = rig.shard / "reserve"
    assert reserve.stat().st_blocks * 512 >= 65536
    with Once("txn-filled", full):
        rig.wait(account.expunge(rig.info(account).id, None, only_deleted=False))
    assert not reserve.exists()
    with Once("txn-filled", full), pytest.raises(StorageFull):
        rig.wait(account.expunge(rig.info(account).id, None, only_deleted=False)) or rig.deliver(account)
    rig.reopen()
    assert reserve.exists()
    assert rig.problems() == []


@pytest.mark.parametrize("step", ["segment-sync", "segment-written", "segment-created"])
@pytest.mark.parametrize("is_reopened", [False, True])
def test_after_an_error_of_the_disk_a_new_segment_is_written_and_no_restart_is_needed(folder_rig, step, is_reopened):
    account = folder_rig.new_account()
    expected = []
    if step != "segment-created":
        folder_rig.deliver(account, octets=message("before"))
        expected = [message("before")]
    before = folder_rig.segments
    with Once(step, lambda: OSError(errno.EIO, "Input/output error"), times=3):
        for _ in range(3):
            with pytest.raises(StorageFailed) as caught:
                folder_rig.deliver(account, octets=message("refused"))
            assert not isinstance(caught.value, StorageFull)
            assert caught.value.temporary
    assert folder_rig.fetch(account, contents=True).get("contents", []) == expected
    if is_reopened:
        folder_rig.reopen()
        account = folder_rig.handle(account.id)
    folder_rig.deliver(account, octets=message("after"))
    after = folder_rig.segments
    if not is_reopened:
        # Never again the file whose flush failed.
        assert before.items() <= after.items()
        assert "00000000.seg" not in after.keys() - before.keys()
    for _ in range(2):
        assert folder_rig.fetch(account, contents=True)["contents"] == [*expected, message("after")]
        assert folder_rig.problems() == []
        folder_rig.reopen()
        account = folder_rig.handle(account.id)


def test_a_new_segments_name_is_flushed_although_its_first_write_was_refused(folder_rig, monkeypatch):
    account = folder_rig.new_account()
    with Once("segment-written", full), pytest.raises(StorageFull):
        folder_rig.deliver(account, octets=message("refused"))
    flushed = []
    monkeypatch.setattr("livemail.storage.lmdb.segments.sync_folder", flushed.append)
    folder_rig.deliver(account, octets=message("after"))
    assert flushed == [folder_rig.shard / "seg"]


def test_a_broken_index_fails_the_shard_and_all_that_waits(folder_rig):
    account = folder_rig.new_account()
    folder_rig.deliver(account, octets=message("before"))
    held = Held(folder_rig, account)
    original = held.__call__

    class Broken(Held):
        def __call__(self, name):
            original(name)
            if name == "txn-filled" and self.groups > 1:
                raise lmdb.CorruptedError("corrupted")

    held.__class__ = Broken
    outcomes = held.settle([deliver(folder_rig, account, message(f"s{number}")) for number in range(3)])
    assert [type(outcome) for outcome in outcomes] == [StorageFailed] * 3
    assert folder_rig.fetch(account, contents=True)["contents"] == [message("before")]
    folder_rig.reopen()
    assert folder_rig.problems() == []


def test_more_than_the_queue_holds_is_refused_at_once_and_later_taken(make_folder_rig):
    rig = make_folder_rig(max_queued=4)
    account = rig.new_account()
    outcomes = Held(rig, account).settle([deliver(rig, account, message(f"s{number}")) for number in range(10)])
    refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
    assert len(refused) == 7
    rig.deliver(account)
    assert rig.info(account).exists == 4
    assert rig.problems() == []


def test_octets_that_wait_in_memory_are_bounded_too(make_folder_rig):
    rig = make_folder_rig(max_queued_octets=5000)
    account = rig.new_account()
    outcomes = Held(rig, account).settle([deliver(rig, account, message(body="x" * 3000)) for _ in range(4)])
    assert [isinstance(outcome, Overloaded) for outcome in outcomes] == [False, False, True, True]


def test_below_the_reserve_nothing_grows_but_all_that_shrinks_works(make_folder_rig):
    rig = make_folder_rig()
    account = rig.new_account()
    kept = rig.content(message("late"))
    rig.deliver(account)
    inbox = rig.info(account)
    rig.wait(rig.store.close())
    rig.settings = type(rig.settings)(reserve_octets=1 << 60, reserve_file=0)
    rig.store = rig.open()
    account = rig.handle(account.id)
    for growing in (
        lambda: rig.store.deliver([Delivery(account.id, "INBOX", kept)]),
        lambda: account.append("INBOX", [AppendItem(kept)]),
        lambda: account.copy(inbox.id, UIDSet.all(), "Sent"),
        lambda: account.create_mailbox("More"),
        lambda: rig.store.add_accounts([("b@localhost", "")]),
    ):
        with pytest.raises(StorageFull):
            rig.wait(growing())
    with pytest.raises(StorageFull):
        rig.store.new_content()
    rig.wait(account.store(inbox.id, UIDSet.all(), FlagChange("add", SEEN)))
    rig.wait(account.move(inbox.id, UIDSet.all(), "Trash"))
    trash = rig.info(account, "Trash")
    assert rig.wait(account.expunge(trash.id, None, only_deleted=False)) == UIDSet.of([1])


def test_a_quota_refuses_only_what_goes_over_it(make_folder_rig):
    rig = make_folder_rig(account_quota=1000)
    account = rig.new_account()
    small, large = message(body="x" * 300), message(body="y" * 1100)
    contents = [rig.content(one) for one in (large, small)]
    results = rig.wait(rig.store.deliver([Delivery(account.id, "INBOX", one) for one in contents]))
    assert isinstance(results[0], OverQuota)
    inbox = rig.info(account)
    assert inbox.exists == 1
    rig.wait(account.copy(inbox.id, UIDSet.all(), "Sent"))
    with pytest.raises(OverQuota):
        rig.wait(account.copy(inbox.id, UIDSet.all(), "Sent"))
    assert rig.problems() == []


def test_changes_are_told_before_the_call_returns(folder_rig):
    account = folder_rig.new_account()
    recorder = Recorder()
    account.watch(recorder)
    folder_rig.deliver(account)
    inbox = folder_rig.info(account)
    told = []

    async def store():
        await account.store(inbox.id, UIDSet.all(), FlagChange("add", SEEN))
        told.extend(recorder.calls[-1:])

    folder_rig.wait(store())
    ((modseq, origin, (change,)),) = told
    assert origin is account
    assert change == FlagsChanged(inbox.id, modseq, ((1, SEEN, 0),), ())
