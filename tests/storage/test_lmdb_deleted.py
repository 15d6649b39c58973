"""Kept messages in the back end on disk: check, repair, purging, compaction, the disk's reserve, Maildirs, backups."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from livemail.interfaces.undelete import Kept
from livemail.mail.errors import StorageFull
from livemail.mail.ids import UIDSet
from livemail.storage.lmdb.backup.restore import restore_steps, verify_steps
from livemail.storage.lmdb.backup.sealing import Keys
from livemail.storage.lmdb.deleted import purging
from livemail.storage.lmdb.deleted.records import FOLDER, KEY, TOTALS
from tests.contracts.stores import message
from tests.storage.lmdb_rig import FolderRig
from tests.storage.maildir.rig import MaildirFolderRig, listed
from tests.storage.test_lmdb_check import change, counters

DAY = 86400.0


@pytest.fixture(params=[FolderRig, MaildirFolderRig], ids=["segments", "maildir"])
def make(request, tmp_path):
    made = []

    def open_(**settings):
        made.append(request.param(tmp_path / "data", **({"undelete": 14 * DAY} | settings)))
        if request.param is FolderRig:
            made[-1].account = made[-1].new_account()
        return made[-1]

    yield open_
    for rig in made:
        rig.close()


@pytest.fixture
def filled(make):
    """Three messages expunged, a day between them, and one that stays."""
    rig = make()
    rig.append(rig.account, "INBOX", *(message(each) for each in "abcd"))
    for uid in (1, 2, 3):
        expunge(rig, uid)
        rig.clock.seconds += DAY
    assert rig.problems() == []
    return rig


def expunge(rig, *uids, mailbox="INBOX"):
    rig.wait(rig.account.expunge(rig.info(rig.account, mailbox).id, UIDSet.of(uids), only_deleted=False))


def kept(rig):
    return [each.uid for each in rig.wait(rig.account.deleted())]


def purge(rig, seconds):
    return rig.wait(rig.store.purging.run(seconds))


def is_maildir(rig):
    return isinstance(rig, MaildirFolderRig)


def octets_on_disk(rig):
    if is_maildir(rig):
        return len(listed(rig.root / FOLDER))
    return rig.wait(rig.store.check()).contents - rig.info(rig.account).exists


def test_what_is_older_goes_and_its_content_with_it(filled):
    assert octets_on_disk(filled) == 3
    assert purge(filled, 14 * DAY) == Kept(0, 0)
    assert purge(filled, 1.5 * DAY) == Kept(2, 2 * len(message("a")))
    assert kept(filled) == [3]
    assert octets_on_disk(filled) == 1
    assert purge(filled, 0.0) == Kept(1, len(message("a")))
    assert octets_on_disk(filled) == 0
    assert filled.problems() == []


def test_many_accounts_are_walked_by_their_old_rows_only(make, monkeypatch):
    monkeypatch.setattr(purging, "BATCH", 2)
    rig = make()
    accounts = [rig.account, *(rig.new_account() for _ in range(3))]
    for account in accounts:
        rig.append(account, "INBOX", message("old"), message("old too"), message("new"))
        rig.wait(account.expunge(rig.info(account).id, UIDSet.of([1, 2]), only_deleted=False))
    rig.clock.seconds += DAY
    for account in accounts:
        rig.wait(account.expunge(rig.info(account).id, None, only_deleted=False))
    assert purge(rig, DAY / 2).messages == 8
    assert [[each.uid for each in rig.wait(account.deleted())] for account in accounts] == [[3]] * 4
    assert rig.problems() == []


def test_the_background_lets_go_every_hour(filled):
    clock = Clock()
    filled.store.purging.run_with(clock)

    def pass_(seconds):
        clock.pump([purging.ROUND_SECONDS] * int(seconds / purging.ROUND_SECONDS))
        filled.wait(settled(filled))

    pass_(60)
    assert kept(filled) == [1, 2, 3]
    filled.clock.seconds += 11.5 * DAY
    pass_(3000)
    assert kept(filled) == [1, 2, 3]
    pass_(1200)
    assert kept(filled) == [2, 3]


async def settled(rig):
    """The background's own work has been answered: it goes through the same threads and the same writer."""
    for _ in range(20):
        await rig.pump.run_blocking(lambda: None)
        await rig.account.forget_deleted([])


def test_near_the_reserve_the_time_is_halved_and_grows_back(filled, monkeypatch):
    clock = Clock()
    near = True
    monkeypatch.setattr(filled.store.disk, "is_below", lambda factor: near)
    filled.store.purging.run_with(clock)
    seen = []
    for _ in range(5):
        clock.advance(purging.ROUND_SECONDS)
        filled.wait(settled(filled))
        seen.append(kept(filled))
    # 7, 3.5, 1.75, … days; the messages went 3, 2 and 1 days ago.
    assert seen == [[1, 2, 3], [1, 2, 3], [3], [], []]
    near = False
    filled.append(filled.account, "INBOX", message("e"))
    expunge(filled, 5)
    for _ in range(100):
        clock.advance(purging.ROUND_SECONDS)
    filled.wait(settled(filled))
    assert kept(filled) == [5]


def test_on_a_full_disk_an_expunge_makes_room_at_once(filled, monkeypatch):
    monkeypatch.setattr(filled.store.disk, "is_full", lambda: True)
    expunge(filled, 4)
    assert kept(filled) == [1, 2, 3]
    with pytest.raises(StorageFull):
        filled.wait(filled.account.undelete([each.key for each in filled.wait(filled.account.deleted())], "INBOX"))
    assert filled.problems() == []


def test_compaction_moves_what_is_kept_and_it_comes_back(tmp_path):
    rig = FolderRig(tmp_path / "data", undelete=DAY, segment_octets=1 << 20)
    rig.account = rig.new_account()
    rig.append(rig.account, "INBOX", *(message(str(at), body="x" * 60_000) for at in range(40)))
    expunge(rig, *range(1, 31))
    assert rig.wait(rig.store.compact(1)).segments == 0
    keys = [each.key for each in rig.wait(rig.account.deleted())]
    rig.wait(rig.account.forget_deleted(keys[1:]))
    assert rig.wait(rig.store.compact(1)).segments > 0
    assert rig.wait(rig.account.undelete(keys[:1], "INBOX")) == [(keys[0], 41)]
    assert rig.read(rig.account, rig.info(rig.account).id, 41) == message("0", body="x" * 60_000)
    assert rig.problems() == []
    rig.close()


@pytest.mark.parametrize(
    ("table", "edit", "kinds"),
    [
        ("gcnt", counters(TOTALS, 0), {"deleted-counters"}),
        ("gcnt", counters(TOTALS, 1, -1), {"deleted-counters"}),
        ("gcnt", lambda _: None, {"deleted-counters"}),
        ("gone", lambda _: None, {"deleted-counters", "content-references"}),
        ("gone", lambda row: row[:-1], {"deleted-row", "deleted-counters", "content-references"}),
        ("gone", lambda row: b"\xff" * 8, {"deleted-row", "deleted-counters", "content-references"}),
    ],
)
def test_check_finds_and_repair_mends(filled, table, edit, kinds):
    if is_maildir(filled):
        kinds = kinds - {"content-references"}
    change(filled, table, edit)
    assert set(filled.problems()) - {"segment-totals"} == kinds
    assert {each.kind for each in filled.wait(filled.store.plan_repair())} >= kinds - {"content-references"}
    filled.wait(filled.store.repair())
    assert filled.problems() == []
    assert filled.wait(filled.store.repair()) == []
    if not is_maildir(filled) and table == "gone":
        # A content that lost its last row is in lost+found, not gone.
        assert filled.info(filled.account, "lost+found").exists == 1


def test_a_row_without_its_account_gives_its_content_to_lost_and_found(tmp_path):
    rig = FolderRig(tmp_path / "data", undelete=DAY)
    rig.account = rig.new_account()
    rig.append(rig.account, "INBOX", message("a"))
    expunge(rig, 1)
    environment, tables = rig.store._environment, rig.store._tables
    with environment.begin(write=True) as txn:
        ((key, row),) = txn.cursor(tables.gone).iternext()
        txn.delete(key, db=tables.gone)
        txn.put(KEY.pack(77, *KEY.unpack(key)[1:]), row, db=tables.gone)
    assert "deleted-orphan" in rig.problems()
    rig.wait(rig.store.repair())
    assert rig.problems() == []
    assert rig.read(rig.account, rig.info(rig.account, "lost+found").id, 1) == message("a")
    rig.close()


def test_rows_that_are_damaged_stop_neither_listing_nor_purging(filled):
    change(filled, "gone", lambda row: row[:-1])
    assert kept(filled) == [2, 3]
    assert purge(filled, 0.0).messages == 2
    assert kept(filled) == []


# ------------------------------------------------------------------------------------------------------------- Maildirs


@pytest.fixture
def maildir(tmp_path):
    rig = MaildirFolderRig(tmp_path / "data", undelete=14 * DAY)
    yield rig
    rig.close()


def test_a_kept_file_is_no_mailbox_and_comes_back_under_a_new_name(maildir):
    path = maildir.put(b"Subject: raw\nX: \r\n\nbare\n", flags="FS")
    maildir.state()
    octets = maildir.octets(1)
    expunge(maildir, 1)
    assert maildir.files() == []
    (name,) = listed(maildir.root / FOLDER)
    assert not path.exists()
    assert [info.name for info in maildir.wait(maildir.account.mailboxes()).mailboxes] == sorted(
        ["Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash"]
    )
    (one,) = maildir.wait(maildir.account.deleted())
    assert name.startswith(one.key.hex())
    maildir.wait(maildir.account.undelete([one.key], "INBOX"))
    assert maildir.files() == ["cur:FS"]
    assert maildir.octets(2) == octets
    assert listed(maildir.root / FOLDER) == []
    assert maildir.problems() == []


def test_a_deleted_folder_gives_its_files_first(maildir):
    maildir.wait(maildir.account.create_mailbox("Work"))
    maildir.append(maildir.account, "Work", message("a"), keywords=("k",))
    maildir.put(mailbox="Work")
    maildir.wait(maildir.account.select("Work", False))
    maildir.wait(maildir.account.delete_mailbox("Work"))
    assert not maildir.path("Work").exists()
    assert len(listed(maildir.root / FOLDER)) == 2
    maildir.wait(maildir.account.undelete([each.key for each in maildir.wait(maildir.account.deleted())], "Work"))
    assert [names for _, names in maildir.state("Work").values()] == [("k",), ()]
    assert maildir.problems() == []


def test_what_another_program_removed_is_not_kept(maildir):
    maildir.put().unlink()
    path = maildir.put()
    maildir.state()
    path.unlink()
    assert maildir.state() == {}
    assert kept(maildir) == []


def test_a_kept_file_that_is_lost_is_found_and_does_not_come_back(maildir):
    maildir.append(maildir.account, "INBOX", message("a"), message("b"))
    expunge(maildir, 1, 2)
    first, second = maildir.wait(maildir.account.deleted())
    next((maildir.root / FOLDER).glob(f"{first.key.hex()}*")).unlink()
    assert maildir.problems() == ["deleted-file"]
    assert maildir.wait(maildir.account.undelete([first.key, second.key], "INBOX")) == [(second.key, 3)]
    (fix,) = maildir.wait(maildir.store.repair())[:1]
    assert fix.kind == "deleted-file"
    assert maildir.problems() == []
    assert kept(maildir) == []


def test_files_a_crash_left_go_by_their_names(maildir):
    maildir.append(maildir.account, "INBOX", message("a"))
    expunge(maildir, 1)
    now = int(maildir.clock())
    folder = maildir.root / FOLDER
    old, new = (KEY.pack(1, now - int(days * DAY), 1, 99).hex() for days in (16, 2))
    for name in (old, f"{old},S=1,W=1", new, "somebody else's"):
        (folder / name).write_bytes(b"x")
    purge(maildir, 14 * DAY)
    assert sorted(listed(folder)) == sorted([*(p.name for p in folder.glob("*,S=*")), new, "somebody else's"])
    assert kept(maildir) == [1]


# -------------------------------------------------------------------------------------------------------------- backups


def test_a_backup_has_what_is_kept(filled, tmp_path):
    target = tmp_path / "backup"
    filled.wait(filled.store.backup(target, ""))
    problems: list[str] = []
    for _ in verify_steps(target, 0, Keys(""), problems):
        pass
    assert problems == []
    for _ in restore_steps(target, 0, Keys(""), tmp_path / "restored"):
        pass
    again = type(filled).__new__(type(filled))
    FolderRig.__init__(again, tmp_path / "restored", undelete=DAY)
    account = again.handle(filled.account.id)
    again.wait(account.mailboxes())
    assert again.problems() == []
    keys = [each.key for each in again.wait(account.deleted())]
    assert [uid for _, uid in again.wait(account.undelete(keys, "INBOX"))] == [5, 6, 7]
    inbox = again.info(account).id
    assert [again.read(account, inbox, uid) for uid in (5, 6, 7)] == [message(each) for each in "abc"]
    assert again.problems() == []
    again.close()
