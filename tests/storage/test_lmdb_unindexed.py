"""An index older than the segments beside it: what came since is kept, told, and filed by repair; what a crash left goes quietly."""

from __future__ import annotations

import shutil

import pytest
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from livemail.interfaces.storage import Delivery
from livemail.mail.ids import UIDSet
from livemail.storage import failpoints
from livemail.storage.lmdb.mark import mark_path
from livemail.storage.lmdb.records import SEGMENT
from livemail.storage.spool import HEAD
from tests.contracts.stores import message
from tests.storage.test_lmdb_check import change, counters
from tests.storage.test_lmdb_repair import mend, names

LARGE = b"subject: large\r\n\r\n" + b"0123456789abcdef" * 65536


@pytest.fixture
def logged():
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def warnings(logged):
    found = [formatEvent(event) for event in logged if event["log_level"] >= LogLevel.warn]
    logged.clear()
    return found


def contents(rig, mailbox="INBOX", account=1):
    return rig.fetch(rig.handle(account), mailbox, contents=True, contents_up_to=1 << 24)["contents"]


def lost(rig, account=1):
    return set(contents(rig, "lost+found", account))


def octets_of(rig):
    return {path.name: path.read_bytes() for path in (rig.shard / "seg").glob("*.seg")}


class Aged:
    """A store whose index can be put back to what it was."""

    def __init__(self, rig):
        self.rig = rig
        self.account = rig.handle(1) if rig.wait(rig.store.accounts()) else rig.new_account()
        rig.deliver(self.account, octets=message("before"))
        rig.wait(rig.store.close())
        self._index = (rig.shard / "data.mdb").read_bytes()
        self.open()

    def open(self):
        self.rig.store = self.rig.open()
        self.account = self.rig.handle(self.account.id)

    def deliver(self, *octets):
        for each in octets:
            self.rig.deliver(self.account, octets=each)

    def put_back(self):
        self.rig.wait(self.rig.store.close())
        (self.rig.shard / "data.mdb").write_bytes(self._index)
        self.open()


@pytest.fixture
def aged(folder_rig):
    return Aged(folder_rig)


def test_mail_that_an_older_index_does_not_know_is_kept_told_and_filed_by_repair(aged, logged):
    rig = aged.rig
    aged.deliver(message("s1"), message("s2"), LARGE)
    before = octets_of(rig)
    warnings(logged)
    aged.put_back()
    told = "\n".join(warnings(logged))
    assert "data.mdb is older than the segments" in told
    assert "00000000.seg" in told
    assert "00000001.seg" in told
    assert "livemail store check" in told
    assert "livemail store repair" in told
    aged.deliver(message("after"))
    assert {name: octets_of(rig)[name] for name in before} == before
    report = rig.wait(rig.store.check())
    assert [problem.kind for problem in report.problems] == ["content-unindexed"] * 2
    assert [problem.detail.split(",")[0] for problem in report.problems] == ["2 whole messages", "1 whole messages"]
    rig.reopen()
    assert len(warnings(logged)) == 2
    assert {name: octets_of(rig)[name] for name in before} == before
    mend(rig)
    assert rig.problems() == []
    assert lost(rig) == {message("s1"), message("s2"), LARGE}
    assert contents(rig) == [message("before"), message("after")]
    rig.reopen()
    assert warnings(logged) == []
    assert rig.problems() == []


def test_a_server_that_was_killed_keeps_it_too(aged, make_folder_rig, tmp_path):
    rig = aged.rig
    index = aged._index
    aged.deliver(message("s1"))
    shutil.copytree(rig.folder, tmp_path / "killed")
    (tmp_path / "killed/store/shard-00/data.mdb").write_bytes(index)
    other = make_folder_rig(tmp_path / "killed")
    assert other.problems() == ["content-unindexed"]
    mend(other)
    assert lost(other) == {message("s1")}


def test_numbers_and_places_are_not_used_again(make_folder_rig):
    aged = Aged(make_folder_rig(segment_octets=6000))
    aged.deliver(*(message(f"s{number}", body="x" * 2500) for number in range(8)))
    before = octets_of(aged.rig)
    assert len(before) == 3
    aged.put_back()
    aged.deliver(*(message(f"t{number}", body="x" * 2500) for number in range(8)))
    assert {name: octets_of(aged.rig)[name] for name in before} == before
    mend(aged.rig)
    assert lost(aged.rig) == {message(f"s{number}", body="x" * 2500) for number in range(8)}
    assert aged.rig.problems() == []


def test_contents_that_were_moved_since_are_found_again(make_folder_rig):
    rig = make_folder_rig(segment_octets=6000)
    aged = Aged(rig)
    aged.deliver(*(message(f"s{number}", body="x" * 2500) for number in range(8)))
    rig.wait(rig.store.close())
    aged._index = (rig.shard / "data.mdb").read_bytes()
    aged.open()
    inbox = rig.info(aged.account)
    rig.wait(aged.account.expunge(inbox.id, UIDSet([(2, 2), (4, 4)]), only_deleted=False))
    rig.wait(rig.store.compact(1))
    aged.deliver(message("new"))
    aged.put_back()
    assert {"content-unindexed", "segment-missing"} <= set(rig.problems())
    assert "content-unindexed" in mend(rig)
    found = contents(rig)
    assert found[0] == message("before")
    # Those that were expunged since are gone for good with their segments.
    assert {*found[1:]} - {None} == {message(f"s{number}", body="x" * 2500) for number in (1, 3, 4, 5, 6, 7)}
    assert lost(rig) == {message("new")}


def test_numbers_of_segments_that_are_gone_are_not_used_again_either(aged):
    rig = aged.rig
    aged.deliver(LARGE)
    rig.wait(aged.account.expunge(rig.info(aged.account).id, UIDSet([(2, 2)]), only_deleted=False))
    aged.put_back()
    aged.deliver(LARGE, message("after"))
    assert "00000001.seg" not in rig.segments
    assert rig.problems() == []


def test_what_is_kept_is_neither_removed_nor_emptied(folder_rig):
    rig = folder_rig
    rig.deliver(rig.new_account(), octets=message("first"))
    aged = Aged(rig)
    aged.deliver(message("s1"))
    aged.put_back()
    before = octets_of(rig)
    for uids in (UIDSet([(1, 1)]), None):
        rig.wait(aged.account.expunge(rig.info(aged.account).id, uids, only_deleted=False))
        rig.wait(rig.store.compact(1))
        rig.reopen()
        aged.account = rig.handle(aged.account.id)
        assert octets_of(rig) == before
        assert rig.problems() == ["content-unindexed"]
    mend(rig)
    assert lost(rig) == {message("s1")}


def test_what_the_index_knows_elsewhere_is_given_back(aged):
    rig = aged.rig
    aged.deliver(LARGE)
    aged.put_back()
    aged.deliver(LARGE)
    assert rig.problems() == ["content-unindexed"]
    mend(rig)
    assert rig.problems() == []
    assert "lost+found" not in names(rig)
    assert sorted(rig.segments.values()) == [HEAD.size + len(message("before")), HEAD.size + len(LARGE)]


def test_without_an_account_it_stays(aged):
    rig = aged.rig
    aged.deliver(message("s1"))
    aged.put_back()
    rig.wait(rig.store.remove_account(aged.account.name))
    before = octets_of(rig)
    mend(rig)
    assert rig.problems() == ["content-unindexed"]
    assert octets_of(rig) == before
    rig.new_account()
    mend(rig)
    assert rig.problems() == []
    assert lost(rig, 2) == {message("s1")}


def test_a_whole_copy_that_was_put_back_keeps_newer_segments_laid_beside_it(make_folder_rig, tmp_path):
    rig = make_folder_rig(tmp_path / "a")
    account = rig.new_account()
    rig.deliver(account, octets=message("before"))
    rig.wait(rig.store.close())
    shutil.copytree(rig.folder, tmp_path / "copy")
    rig.store = rig.open()
    account = rig.handle(1)
    for octets in (message("s1"), LARGE):
        rig.deliver(account, octets=octets)
    rig.wait(rig.store.close())
    for path in (rig.shard / "seg").glob("*.seg"):
        shutil.copy(path, tmp_path / "copy/store/shard-00/seg")
    copy = make_folder_rig(tmp_path / "copy")
    assert copy.problems() == ["content-unindexed"] * 2
    mend(copy)
    assert lost(copy) == {message("s1"), LARGE}
    rig.store = rig.open()


@pytest.mark.parametrize("damage", [None, b"", b"x" * 21])
def test_without_a_mark_a_whole_record_is_kept_and_a_torn_one_goes(aged, damage):
    rig = aged.rig

    def unmark():
        mark_path(rig.shard / "seg").unlink()
        if damage is not None:
            mark_path(rig.shard / "seg").write_bytes(damage)

    aged.deliver(message("s1"))
    rig.wait(rig.store.close())
    whole = octets_of(rig)["00000000.seg"]
    (rig.shard / "data.mdb").write_bytes(aged._index)
    (rig.shard / "seg" / "00000000.seg").write_bytes(whole[:-1])
    unmark()
    aged.open()
    assert rig.problems() == []
    assert rig.segments["00000000.seg"] == HEAD.size + len(message("before"))
    rig.wait(rig.store.close())
    (rig.shard / "data.mdb").write_bytes(aged._index)
    (rig.shard / "seg" / "00000000.seg").write_bytes(whole)
    unmark()
    aged.open()
    assert rig.problems() == ["content-unindexed"]


@pytest.mark.parametrize("step", ["segment-written", "segment-renamed", "txn-filled", "segment-synced"])
def test_what_a_killed_server_had_not_acknowledged_goes_quietly(folder_rig, make_folder_rig, tmp_path, logged, step):
    account = folder_rig.new_account()
    folder_rig.deliver(account, octets=message("before"))
    killed = tmp_path.parent / f"{tmp_path.name}-killed"

    def copy(name):
        if name == step and not killed.exists():
            shutil.copytree(folder_rig.folder, killed)

    batch = [Delivery(account.id, "INBOX", folder_rig.content(octets)) for octets in (message("torn"), LARGE)]
    failpoints.install(copy)
    try:
        folder_rig.wait(folder_rig.store.deliver(batch))
    finally:
        failpoints.install(None)
    warnings(logged)
    rig = make_folder_rig(killed)
    assert warnings(logged) == []
    assert rig.problems() == []
    assert rig.segments == {"00000000.seg": HEAD.size + len(message("before"))}


def test_a_dead_segment_that_a_killed_server_did_not_remove_goes_quietly(folder_rig, make_folder_rig, tmp_path, logged):
    account = folder_rig.new_account()
    folder_rig.deliver(account, octets=LARGE)
    killed = tmp_path.parent / f"{tmp_path.name}-killed"
    failpoints.install(lambda name: name == "txn-committed" and shutil.copytree(folder_rig.folder, killed))
    try:
        folder_rig.wait(account.expunge(folder_rig.info(account).id, None, only_deleted=False))
    finally:
        failpoints.install(None)
    assert any((killed / "store/shard-00/seg").glob("*.seg"))
    rig = make_folder_rig(killed)
    assert warnings(logged) == []
    assert rig.segments == {}
    assert rig.problems() == []


def test_a_segment_that_lost_its_row_is_kept_while_messages_lie_in_it(folder_rig):
    account = folder_rig.new_account()
    for octets in (message("s0"), LARGE):
        folder_rig.deliver(account, octets=octets)
    change(folder_rig, "seg", lambda _: None, at=1)
    folder_rig.reopen()
    assert contents(folder_rig) == [message("s0"), LARGE]
    mend(folder_rig)
    assert folder_rig.problems() == []
    assert contents(folder_rig) == [message("s0"), LARGE]
    change(folder_rig, "seg", counters(SEGMENT, 1))
    assert folder_rig.problems() == ["segment-totals"]


def test_a_backup_has_what_is_kept(aged, make_folder_rig, tmp_path):
    from livemail.storage.lmdb.backup.restore import restore_steps
    from livemail.storage.lmdb.backup.sealing import Keys

    rig = aged.rig
    aged.deliver(message("s1"))
    aged.put_back()
    rig.wait(rig.store.backup(tmp_path / "backup"))
    for _ in restore_steps(tmp_path / "backup", 1, Keys(), tmp_path / "restored"):
        pass
    restored = make_folder_rig(tmp_path / "restored")
    assert restored.problems() == ["content-unindexed"]
    mend(restored)
    assert lost(restored) == {message("s1")}
