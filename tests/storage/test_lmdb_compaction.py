"""Compaction returns the space of what is gone, and nothing that lives is lost, torn or held up by it."""

from __future__ import annotations

import errno
import threading

import msgspec
import pytest
from twisted.internet.task import Clock

from livemail.interfaces.storage import AppendItem
from livemail.mail.errors import StorageFailed, StorageFull
from livemail.mail.flags import FLAGGED, FlagChange
from livemail.mail.ids import UIDSet
from livemail.storage.lmdb import compaction
from livemail.storage.lmdb.backup.restore import restore_steps, verify_steps
from livemail.storage.lmdb.backup.sealing import Keys
from livemail.storage.lmdb.records import BLOB
from livemail.storage.lmdb.segments import Location, SegmentGone, SegmentReader
from livemail.storage.spool import HEAD
from tests.contracts.queue_rig import QueueDriver
from tests.contracts.stores import message
from tests.storage.lmdb_rig import FolderRig, Once

MIB = 1024 * 1024
KEEP = 5
"""Every fifth message stays."""


def octets_of(number):
    return message(f"m{number}", body=f"{number:06d} " * 3000)


def fill(rig, account, count=120):
    for first in range(1, count + 1, 20):
        rig.append(account, "INBOX", *map(octets_of, range(first, min(first + 20, count + 1))))


def expunge(rig, account, uids):
    rig.wait(account.expunge(rig.info(account).id, UIDSet.of(uids), only_deleted=False))


def thin(rig, account, keep=KEEP):
    expunge(rig, account, [uid for uid in range(1, rig.info(account).uid_next) if uid % keep])


def contents(rig, account):
    return rig.fetch(account, contents=True, contents_up_to=8 * MIB).get("contents", [])


def compact(rig, percent=None, progress=None):
    return rig.wait(rig.store.compact(percent, progress))


def locations(rig):
    environment, tables = rig.store._environment, rig.store._tables
    with environment.begin() as txn:
        return {key: Location(*BLOB.unpack(row)[1:]) for key, row in txn.cursor(tables.blob).iternext()}


@pytest.fixture
def account(rig):
    return rig.new_account()


@pytest.fixture
def rig(make_folder_rig):
    return make_folder_rig(segment_octets=MIB)


def test_the_space_of_what_is_gone_comes_back_and_what_stays_is_whole(rig, account):
    fill(rig, account)
    thin(rig, account)
    before, kept = sum(rig.segments.values()), contents(rig, account)
    told = []
    report = compact(rig, progress=lambda *step: told.append(step))
    assert report.before == before
    assert report.after == sum(rig.segments.values()) == before - report.returned
    assert report.returned > before / 2
    assert report.damaged == ()
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][0] == told[-1][1]
    assert contents(rig, account) == kept == [octets_of(uid) for uid in range(KEEP, 121, KEEP)]
    assert rig.problems() == []
    rig.reopen()
    assert contents(rig, rig.handle(account.id)) == kept
    assert rig.problems() == []
    assert compact(rig).segments == 0


def test_segments_of_which_enough_lives_are_left_alone(rig, account):
    fill(rig, account)
    thin(rig, account, keep=2)
    before = rig.segments
    assert compact(rig, percent=60).segments == 0
    assert rig.segments == before
    assert compact(rig, percent=40).segments > 0
    assert rig.problems() == []


def test_a_tail_of_which_much_is_dead_is_closed_for_the_command(rig, account):
    fill(rig, account, 10)
    assert len(rig.segments) == 1
    thin(rig, account)
    report = compact(rig)
    assert (report.segments, list(rig.segments)) == (1, ["00000001.seg"])
    assert report.before - report.after == report.returned > 0
    assert contents(rig, account) == [octets_of(5), octets_of(10)]
    assert rig.problems() == []


def test_large_contents_move_by_a_file_of_their_own(make_folder_rig):
    rig = make_folder_rig(segment_octets=MIB, memory_content_limit=4 * MIB)
    account = rig.new_account()
    large = message("large", body="x" * 70 * 30_000)
    rig.append(account, "INBOX", message("m", body="y" * MIB * 3), large)
    rig.append(account, "INBOX", message("next"))
    expunge(rig, account, [1])
    assert list(rig.segments) == ["00000000.seg", "00000001.seg"]
    rig.settings = msgspec.structs.replace(rig.settings, memory_content_limit=256 * 1024)
    rig.reopen()
    account = rig.handle(account.id)
    assert compact(rig).segments == 1
    assert rig.segments["00000002.seg"] == HEAD.size + len(large)
    assert contents(rig, account) == [large, message("next")]
    assert rig.spooled == []
    assert rig.problems() == []


@pytest.mark.parametrize("at", [5, 2 * MIB])
def test_a_large_content_that_is_damaged_stays_too(make_folder_rig, at):
    rig = make_folder_rig(segment_octets=MIB, memory_content_limit=4 * MIB)
    account = rig.new_account()
    rig.append(account, "INBOX", message("m", body="y" * MIB * 3), message("large", body="x" * 70 * 30_000))
    expunge(rig, account, [1])
    ((digest, place),) = locations(rig).items()
    damage(rig, digest, place, at)
    assert len(compact(rig).damaged) == 1
    assert locations(rig) == {digest: place}
    assert rig.problems() == ["content-damaged"]


def test_a_content_in_its_own_segment_is_not_copied(rig, account):
    rig.append(account, "INBOX", message("large", body="x" * MIB))
    fill(rig, account, 10)
    expunge(rig, account, list(range(2, 12)))
    before = locations(rig)
    compact(rig)
    assert locations(rig) == before


def test_the_queues_contents_move_along(rig, account):
    queue = QueueDriver(rig)
    fill(rig, account, 30)
    id_ = queue.accept("b@b.example", octets=octets_of(500))
    fill(rig, account, 60)
    expunge(rig, account, list(range(1, 91)))
    before = set(locations(rig).values())
    assert compact(rig).returned > 0
    assert set(locations(rig).values()).isdisjoint(before)
    assert queue.read(id_) == octets_of(500)
    assert rig.problems() == []


def test_a_queued_content_that_moves_between_looking_it_up_and_opening_it_is_found(rig, account, monkeypatch):
    queue = QueueDriver(rig)
    id_ = queue.accept("b@b.example", octets=octets_of(1))
    rig.append(account, "INBOX", octets_of(1))
    opened = SegmentReader.open
    gone = [SegmentGone()]

    def open_(self, number):
        if gone:
            raise gone.pop()
        return opened(self, number)

    monkeypatch.setattr(SegmentReader, "open", open_)
    assert queue.read(id_) == octets_of(1)
    # A file that stays away is no reason to ask for ever.
    (rig.shard / "seg" / "00000000.seg").unlink()
    rig.store._segments.close()
    with pytest.raises(StorageFailed) as missing:
        queue.read(id_)
    assert "segment 0 is missing" in missing.value.reason
    with pytest.raises(StorageFailed):
        rig.wait(account.open_content(rig.info(account).id, 1))


@pytest.fixture
def meanwhile(rig, monkeypatch):
    """Does something, to its end, between the reading of the first slice and its going to the writer."""
    works = []
    walk = compaction.Walk.next

    def next_(self):
        part = walk(self)
        if works:
            work, done = works.pop(), threading.Event()
            rig.pump.call_from_thread(lambda: (rig.pump.settle([work()]), done.set()))
            assert done.wait(30)
        return part

    monkeypatch.setattr(compaction.Walk, "next", next_)
    yield works.append
    assert works == []


def test_what_is_expunged_while_its_copy_is_on_the_way_stays_gone(rig, account, meanwhile):
    fill(rig, account)
    thin(rig, account)
    inbox = rig.info(account).id
    meanwhile(lambda: account.expunge(inbox, UIDSet.of(range(1, 100)), only_deleted=False))
    compact(rig)
    assert contents(rig, account) == [octets_of(uid) for uid in range(100, 121, KEEP)]
    assert rig.problems() == []


def test_what_is_gone_and_comes_again_while_its_copy_is_on_the_way_stays_in_its_new_place(rig, account, meanwhile):
    fill(rig, account)
    thin(rig, account)
    inbox = rig.info(account).id
    places = {}

    async def again():
        # One in each segment, for either may be the first.
        await account.expunge(inbox, UIDSet.of([KEEP, 120]), only_deleted=False)
        for uid in (KEEP, 120):
            made = rig.content(octets_of(uid))
            await account.append("INBOX", [AppendItem(made)])
            places[made.digest] = locations(rig)[made.digest]

    meanwhile(again)
    compact(rig)
    assert places.items() <= locations(rig).items()
    assert contents(rig, account) == [octets_of(uid) for uid in [*range(2 * KEEP, 120, KEEP), KEEP, 120]]
    assert rig.problems() == []


def test_deliveries_reads_and_flags_go_on_beside_it(rig, account):
    fill(rig, account, 300)
    thin(rig, account)
    inbox = rig.info(account).id
    order = []

    async def compacting():
        report = await rig.store.compact(None, lambda *_: order.append("slice"))
        order.append("compacted")
        return report

    async def delivering():
        for number in range(1000, 1040):
            made = rig.content(octets_of(number))
            order.append("begin")
            await account.append("INBOX", [AppendItem(made)])
            order.append("delivery")

    async def reading():
        for _ in range(30):
            for uid in (5, 150, 300):
                reader = await account.open_content(inbox, uid)
                assert await reader.read(0, reader.size) == octets_of(uid)
                reader.close()
            await account.store(inbox, UIDSet.of([150]), FlagChange("add", FLAGGED))

    report, *_ = rig.pump.gather([compacting(), delivering(), reading()])
    assert report.segments > 0
    during = order[: order.index("compacted")]
    assert during.count("slice") >= 3
    # The slice under way, one in the delivery's own group, and the word that a segment is done.
    waits = "".join(each[0] for each in during).split("b")[1:]
    assert len(waits) > 2
    assert max(wait.partition("d")[0].count("s") for wait in waits) <= 3
    assert contents(rig, account) == [octets_of(uid) for uid in range(KEEP, 301, KEEP)] + [
        octets_of(number) for number in range(1000, 1040)
    ]
    assert rig.problems() == []


def test_a_reader_that_is_open_reads_on(rig, account):
    fill(rig, account)
    thin(rig, account)
    reader = rig.wait(account.open_content(rig.info(account).id, KEEP))
    first = rig.wait(reader.read(0, 100))
    before = rig.segments
    compact(rig)
    assert next(iter(before)) not in rig.segments
    assert first + rig.wait(reader.read(100, reader.size)) == octets_of(KEEP)
    reader.close()


def damage(rig, digest, location, at):
    path = rig.shard / "seg" / f"{location.segment:08d}.seg"
    with path.open("r+b") as file:
        file.seek(location.offset + at)
        octet = file.read(1)
        file.seek(location.offset + at)
        file.write(bytes([octet[0] ^ 1]))


@pytest.mark.parametrize("at", [5, -1, -HEAD.size, -5], ids=["content", "crc", "magic", "size"])
def test_a_damaged_content_stays_where_it_is_with_its_segment(rig, account, at):
    fill(rig, account)
    thin(rig, account)
    before = locations(rig)
    digest, place = min(before.items(), key=lambda item: item[1])
    damage(rig, digest, place, at)
    report = compact(rig)
    assert len(report.damaged) == 1
    assert f"segment {place.segment}" in report.damaged[0]
    assert locations(rig)[digest] == place
    assert report.segments > 0
    assert rig.problems() == ["content-damaged"]


def test_nothing_begins_below_the_reserve(rig, account):
    fill(rig, account)
    thin(rig, account)
    before = rig.segments
    rig.store.disk.is_full = lambda: True
    with pytest.raises(StorageFull):
        compact(rig)
    assert rig.segments == before


@pytest.mark.parametrize("step", ["segment-written", "segment-sync", "txn-begun", "txn-filled"])
def test_a_write_that_fails_loses_nothing_and_is_done_again(rig, account, step):
    fill(rig, account)
    thin(rig, account)
    kept = contents(rig, account)
    with (
        Once(step, lambda: OSError(errno.ENOSPC, "full"), times=2),
        pytest.raises(StorageFull),
    ):
        compact(rig)
    assert contents(rig, account) == kept
    assert rig.problems() == []
    assert compact(rig).segments > 0
    assert contents(rig, account) == kept
    assert rig.problems() == []


def test_a_backup_made_meanwhile_is_whole(rig, account, tmp_path):
    fill(rig, account, 300)
    thin(rig, account)
    rig.wait(rig.store.backup(tmp_path / "b"))
    kept = contents(rig, account)
    rig.pump.gather([rig.store.compact(), rig.store.backup(tmp_path / "b")])
    rig.wait(rig.store.backup(tmp_path / "b"))
    for generation in (1, 2, 3):
        problems = []
        list(verify_steps(tmp_path / "b", generation, Keys(""), problems))
        assert problems == []
        data = tmp_path / f"restored{generation}"
        list(restore_steps(tmp_path / "b", generation, Keys(""), data))
        restored = FolderRig(data)
        assert contents(restored, restored.handle(account.id)) == kept
        assert restored.problems() == []
        restored.close()


# ------------------------------------------------------------------------------------------------------------ by itself


class Background:
    """A store's background on a clock of the test's."""

    def __init__(self, rig):
        self.rig = rig
        self.clock = Clock()
        rig.store.compaction.run_with(self.clock)

    def until_waiting(self):
        """Until it waits for the clock again."""
        while not self.clock.getDelayedCalls():
            self.rig.pump.turn()

    def pass_(self, seconds):
        self.clock.advance(seconds)
        self.until_waiting()

    def pauses(self):
        """Go through a round; return how long each pause was."""
        found = []
        while (
            left := self.clock.getDelayedCalls()[0].getTime() - self.clock.seconds()
        ) < compaction.COMPACT_SECONDS - 1:
            found.append(left)
            self.pass_(left)
        return found


def test_the_background_empties_segments_by_and_by(rig, account):
    fill(rig, account, 240)
    thin(rig, account)
    kept, before = contents(rig, account), sum(rig.segments.values())
    background = Background(rig)
    background.pass_(compaction.COMPACT_SECONDS - 1)
    assert sum(rig.segments.values()) == before
    background.pass_(1)
    pauses = background.pauses()
    assert len(pauses) >= 2
    assert min(pauses) >= compaction.PAUSE_SECONDS - 1e-6
    assert sum(rig.segments.values()) < before / 2
    assert contents(rig, account) == kept
    assert rig.problems() == []
    # The copies closed a tail of which much was dead; with that gone there is no more to do.
    background.pass_(compaction.COMPACT_SECONDS)
    background.pauses()
    background.pass_(compaction.COMPACT_SECONDS)
    assert background.pauses() == []


def test_a_slice_that_took_long_is_followed_by_a_pause_nine_times_as_long(rig, account, monkeypatch):
    fill(rig, account)
    thin(rig, account)
    background = Background(rig)
    walk = compaction.Walk.next

    def slow(self):
        background.clock.rightNow += 2
        return walk(self)

    monkeypatch.setattr(compaction.Walk, "next", slow)
    background.pass_(compaction.COMPACT_SECONDS)
    assert background.pauses()[0] == pytest.approx(18)


def test_the_background_leaves_the_tail_alone_and_can_be_turned_off(make_folder_rig):
    rig = make_folder_rig(segment_octets=MIB, compact_dead_percent=0)
    account = rig.new_account()
    fill(rig, account)
    thin(rig, account)
    clock = Clock()
    rig.store.compaction.run_with(clock)
    assert clock.getDelayedCalls() == []
    # The command works all the same.
    assert compact(rig).segments > 0


def test_a_damaged_segment_is_tried_once_in_the_background(rig, account, monkeypatch):
    fill(rig, account)
    thin(rig, account)
    digest, place = min(locations(rig).items(), key=lambda item: item[1])
    damage(rig, digest, place, 5)
    background = Background(rig)
    background.pass_(compaction.COMPACT_SECONDS)
    background.pauses()
    seen = []
    walk = compaction.Walk.next
    monkeypatch.setattr(compaction.Walk, "next", lambda self: seen.append(self) or walk(self))
    background.pass_(compaction.COMPACT_SECONDS)
    background.pauses()
    assert seen == []
    assert place in locations(rig).values()


def test_the_background_waits_while_the_disk_is_full(rig, account):
    fill(rig, account)
    thin(rig, account)
    background = Background(rig)
    before = rig.segments
    rig.store.disk.is_full = lambda: True
    background.pass_(compaction.COMPACT_SECONDS)
    assert rig.segments == before
    rig.store.disk.is_full = lambda: False
    background.pass_(compaction.COMPACT_SECONDS)
    background.pauses()
    assert sum(rig.segments.values()) < sum(before.values())


def test_a_command_does_not_wait_for_the_backgrounds_pauses(rig, account):
    fill(rig, account)
    thin(rig, account)
    background = Background(rig)
    background.clock.advance(compaction.COMPACT_SECONDS)
    before = sum(rig.segments.values())
    compact(rig)  # while the background has its first segment in hand
    background.until_waiting()
    assert background.pauses() == []
    assert sum(rig.segments.values()) < before / 2
    assert rig.problems() == []


def test_a_store_closes_in_the_middle_of_a_round(rig, account):
    fill(rig, account)
    thin(rig, account)
    kept = contents(rig, account)
    background = Background(rig)
    background.pass_(compaction.COMPACT_SECONDS)
    rig.reopen()
    rig.pump.drain()
    assert background.clock.getDelayedCalls() == []
    assert contents(rig, rig.handle(account.id)) == kept
    assert rig.problems() == []
