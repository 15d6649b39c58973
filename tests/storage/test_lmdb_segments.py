"""Contents on disk: once each, adopted when large, gone when dead, cut when torn, distrusted when damaged."""

from __future__ import annotations

import pytest

from livemail.interfaces.storage import Delivery
from livemail.mail.errors import StorageFailed
from livemail.mail.ids import UIDSet
from livemail.storage.spool import HEAD
from tests.contracts.stores import content, message

LARGE = b"subject: large\r\n\r\n" + b"0123456789abcdef" * 65536


def damage(rig, name, offset, octets=b"\xff"):
    with (rig.shard / "seg" / name).open("r+b") as file:
        file.seek(offset)
        before = file.read(len(octets))
        assert before != octets
        file.seek(offset)
        file.write(octets)


def test_equal_contents_are_stored_once_in_a_group_and_across(folder_rig):
    octets = message("same")
    accounts = [folder_rig.new_account() for _ in range(3)]
    both = [folder_rig.content(octets), folder_rig.content(octets)]
    folder_rig.pump.gather(
        [
            folder_rig.store.deliver([Delivery(accounts[0].id, "INBOX", both[0], b"X-To: a\r\n")]),
            folder_rig.store.deliver([Delivery(accounts[1].id, "INBOX", both[1], b"X-To: b\r\n")]),
        ]
    )
    folder_rig.deliver(accounts[2], octets=octets)
    assert folder_rig.segments == {"00000000.seg": HEAD.size + len(octets)}
    report = folder_rig.wait(folder_rig.store.check())
    assert (report.messages, report.contents, report.problems) == (3, 1, ())
    assert folder_rig.fetch(accounts[1], contents=True)["contents"] == [b"X-To: b\r\n" + octets]


def test_a_large_content_becomes_a_segment_of_its_own_and_leaves_the_spool(folder_rig):
    account = folder_rig.new_account()
    large = folder_rig.content(LARGE)
    assert len(folder_rig.spooled) == 1
    folder_rig.wait(folder_rig.store.deliver([Delivery(account.id, "INBOX", large, b"X: y\r\n")]))
    assert folder_rig.spooled == []
    assert folder_rig.segments == {"00000001.seg": HEAD.size + len(LARGE)}
    assert large.read(0, len(LARGE)) == LARGE
    assert folder_rig.read(account, folder_rig.info(account).id, 1, 70_000) == b"X: y\r\n" + LARGE
    folder_rig.reopen()
    account = folder_rig.handle(account.id)
    assert folder_rig.read(account, folder_rig.info(account).id, 1) == b"X: y\r\n" + LARGE
    assert folder_rig.problems() == []


def test_an_adopted_content_delivered_again_after_its_expunge_is_written_again(folder_rig):
    account = folder_rig.new_account()
    large = folder_rig.content(LARGE)
    for _ in range(2):
        folder_rig.wait(folder_rig.store.deliver([Delivery(account.id, "INBOX", large)]))
        inbox = folder_rig.info(account)
        assert folder_rig.read(account, inbox.id, inbox.uid_next - 1) == LARGE
        folder_rig.wait(account.expunge(inbox.id, None, only_deleted=False))
    assert folder_rig.problems() == []


def test_a_content_expunged_in_the_same_group_as_its_next_delivery_is_not_lost(folder_rig):
    account = folder_rig.new_account()
    octets = message("again")
    folder_rig.deliver(account, octets=octets)
    inbox = folder_rig.info(account)
    _, (delivered,) = folder_rig.pump.gather(
        [
            account.expunge(inbox.id, None, only_deleted=False),
            folder_rig.store.deliver([Delivery(account.id, "INBOX", folder_rig.content(octets))]),
        ]
    )
    assert folder_rig.read(account, inbox.id, delivered.uid) == octets
    assert folder_rig.problems() == []


def test_a_refused_large_content_leaves_nothing(folder_rig):
    account = folder_rig.new_account()
    large = folder_rig.content(LARGE)
    folder_rig.wait(folder_rig.store.remove_account(account.name))
    folder_rig.wait(folder_rig.store.deliver([Delivery(account.id, "INBOX", large)]))
    large.close()
    assert folder_rig.segments == {}
    assert folder_rig.spooled == []
    assert folder_rig.problems() == []


def test_a_dead_large_segment_goes_at_once_but_who_reads_it_reads_on(folder_rig):
    account = folder_rig.new_account()
    folder_rig.deliver(account, octets=LARGE)
    inbox = folder_rig.info(account)
    reader = folder_rig.wait(account.open_content(inbox.id, 1))
    first = folder_rig.wait(reader.read(0, 1000))
    folder_rig.wait(account.expunge(inbox.id, None, only_deleted=False))
    assert folder_rig.segments == {}
    assert first + folder_rig.wait(reader.read(1000, 1 << 30)) == LARGE
    reader.close()
    reader.close()
    with pytest.raises(StorageFailed):
        folder_rig.wait(reader.read(0, 1))


def test_segments_are_closed_when_large_and_removed_when_dead(make_folder_rig):
    rig = make_folder_rig(segment_octets=20_000)
    account = rig.new_account()
    for number in range(12):
        rig.deliver(account, octets=message(f"s{number}", body="x" * 5000))
    assert len(rig.segments) >= 3
    inbox = rig.info(account)
    rig.wait(account.expunge(inbox.id, UIDSet([(2, 12)]), only_deleted=False))
    assert "00000000.seg" in rig.segments
    rig.wait(account.expunge(inbox.id, UIDSet([(1, 1)]), only_deleted=False))
    assert sum(rig.segments.values()) < 20_000
    rig.reopen()
    account = rig.handle(account.id)
    rig.deliver(account, octets=message("last"))
    assert rig.problems() == []


def test_octets_behind_the_committed_tail_are_cut_off(folder_rig):
    account = folder_rig.new_account()
    octets = message("whole")
    folder_rig.deliver(account, octets=octets)
    folder_rig.wait(folder_rig.store.close())
    seg = folder_rig.shard / "seg"
    with (seg / "00000000.seg").open("ab") as file:
        file.write(b"LMr1 torn")
    (seg / "00000007.seg").write_bytes(b"LMr1 never acknowledged")
    folder_rig.store = folder_rig.open()
    assert folder_rig.segments == {"00000000.seg": HEAD.size + len(octets)}
    account = folder_rig.handle(account.id)
    folder_rig.deliver(account, octets=message("next"))
    assert len(folder_rig.fetch(account, contents=True)["contents"]) == 2
    assert folder_rig.problems() == []


def test_a_segment_that_lost_its_end_keeps_what_is_whole(folder_rig):
    account = folder_rig.new_account()
    for number in range(2):
        folder_rig.deliver(account, octets=message(f"s{number}"))
    folder_rig.wait(folder_rig.store.close())
    path = folder_rig.shard / "seg" / "00000000.seg"
    path.write_bytes(path.read_bytes()[:-3])
    folder_rig.store = folder_rig.open()
    account = folder_rig.handle(account.id)
    folder_rig.deliver(account, octets=message("s2"))
    inbox = folder_rig.info(account)
    assert folder_rig.read(account, inbox.id, 1) == message("s0")
    with pytest.raises(StorageFailed):
        folder_rig.read(account, inbox.id, 2)
    assert folder_rig.read(account, inbox.id, 3) == message("s2")
    assert folder_rig.problems() == ["content-damaged"]


@pytest.mark.parametrize("offset", [0, 10, 25, 30, HEAD.size + 3], ids=["magic", "digest", "length", "crc", "octets"])
def test_a_damaged_record_is_refused_with_its_place_and_the_others_are_served(folder_rig, offset):
    account = folder_rig.new_account()
    for number in range(3):
        folder_rig.deliver(account, octets=message(f"s{number}"))
    record = HEAD.size + len(message("s0"))
    damage(folder_rig, "00000000.seg", record + offset)
    inbox = folder_rig.info(account)
    with pytest.raises(StorageFailed, match=f"segment 0, offset {record}"):
        folder_rig.read(account, inbox.id, 2)
    fetched = folder_rig.fetch(account, contents=True)["contents"]
    assert fetched == [message("s0"), None, message("s2")]
    assert folder_rig.problems() == ["content-damaged"]


def test_damage_is_noticed_in_pieces_too(folder_rig):
    account = folder_rig.new_account()
    folder_rig.deliver(account, octets=LARGE)
    damage(folder_rig, "00000001.seg", HEAD.size + 500_000)
    with pytest.raises(StorageFailed, match="checksum"):
        folder_rig.read(account, folder_rig.info(account).id, 1, 65536)


def test_contents_of_another_store_are_copied(folder_rig, make_folder_rig, tmp_path):
    other = make_folder_rig(tmp_path / "other")
    account = folder_rig.new_account()
    small, large = other.content(message("foreign")), other.content(LARGE)

    class Plain:
        """Only what the protocol promises."""

        def __init__(self, inner):
            self.size, self.digest, self.summary, self.read, self.close = (
                inner.size, inner.digest, inner.summary, inner.read, inner.close
            )  # fmt: skip

    batch = [Delivery(account.id, "INBOX", Plain(one)) for one in (small, large, folder_rig.content(message("own")))]
    folder_rig.wait(folder_rig.store.deliver(batch))
    inbox = folder_rig.info(account)
    assert [folder_rig.read(account, inbox.id, uid) for uid in (1, 2, 3)] == [message("foreign"), LARGE, message("own")]
    assert folder_rig.problems() == []


def test_what_a_crash_left_in_the_spool_is_removed_at_the_start(folder_rig):
    made = folder_rig.wait(content(folder_rig.store, LARGE))
    folder_rig.wait(folder_rig.store.close())
    assert len(folder_rig.spooled) == 1
    folder_rig.store = folder_rig.open()
    assert folder_rig.spooled == []
    made.close()
