"""The folder: made only when asked, locked, of a known format, closed to others."""

from __future__ import annotations

import json
import os
import shutil

import lmdb
import pytest

from livemail.mail.errors import StorageFailed
from livemail.storage.lmdb import schema
from livemail.storage.lmdb.folder import StoreLocked, StoreMissing, StoreTooNew, StoreUnusable, open_folder
from tests.storage.lmdb_rig import FolderRig


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_missing_store_is_not_made_unless_asked(tmp_path):
    with pytest.raises(StoreMissing, match="There is no mail store"):
        open_folder(tmp_path / "data", create=False)
    assert not (tmp_path / "data").exists()


def test_a_newer_store_is_named_and_left_as_it_is(tmp_path, make_folder_rig):
    make_folder_rig().close()
    meta = tmp_path / "store" / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"format": 2, "what": "comes"}))
    before = tree(tmp_path)
    with pytest.raises(StoreTooNew, match=r"has format 2.*Install the\s+newer"):
        FolderRig(tmp_path)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b'{"format": 1}', b'{"format": "x"}', b"\xff"])
def test_a_damaged_meta_file_is_an_error_that_says_what_to_do(tmp_path, make_folder_rig, damage):
    make_folder_rig().close()
    (tmp_path / "store" / "meta.json").write_bytes(damage)
    with pytest.raises(StoreUnusable, match="Restore that file from a backup"):
        FolderRig(tmp_path)


def test_a_store_that_lost_its_meta_file_is_not_made_anew(tmp_path, make_folder_rig):
    make_folder_rig().close()
    (tmp_path / "store" / "meta.json").unlink()
    with pytest.raises(StoreUnusable, match=r"meta\.json is missing"):
        FolderRig(tmp_path)


def test_a_second_opener_is_told_who_has_the_store(tmp_path, make_folder_rig):
    make_folder_rig()
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}") as caught:
        open_folder(tmp_path, create=True)
    assert caught.value.pid == os.getpid()


def test_closing_gives_the_store_to_the_next(tmp_path, make_folder_rig):
    first = make_folder_rig()
    account = first.new_account()
    first.wait(first.store.close())
    second = make_folder_rig()
    assert second.wait(second.store.account(account.id)).name == account.name


def test_only_the_owner_reads_what_is_made(tmp_path, make_folder_rig):
    rig = make_folder_rig(tmp_path / "data", reserve_file=4096, memory_content_limit=100)
    account = rig.new_account()
    rig.deliver(account, octets=b"a: b\r\n\r\n" + b"x" * 1000)
    rig.content(b"a: b\r\n\r\n" + b"y" * 1000)
    for path in [rig.folder, *rig.folder.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_closed_store_says_so(folder_rig):
    account = folder_rig.new_account()
    inbox = folder_rig.info(account)
    folder_rig.wait(folder_rig.store.close())
    store = folder_rig.store
    for call in (
        lambda: folder_rig.wait(store.account_named("x")),
        lambda: folder_rig.wait(store.add_accounts([("x@y", "")])),
        lambda: folder_rig.wait(account.mailbox("INBOX")),
        lambda: folder_rig.wait(account.expunge(inbox.id, None)),
        lambda: folder_rig.rows(account),
        lambda: folder_rig.wait(store.check()),
        store.new_content,
    ):
        with pytest.raises(StorageFailed):
            call()
    folder_rig.wait(store.close())


@pytest.mark.parametrize("loss", ["gone", "empty", "made anew"])
def test_a_store_that_lost_its_index_keeps_its_segments_and_says_what_to_do(tmp_path, make_folder_rig, loss):
    rig = make_folder_rig()
    rig.append(rig.new_account(), "INBOX", b"Subject: kept\r\n\r\nx\r\n")
    rig.close()
    index = rig.shard / "data.mdb"
    kept = index.read_bytes()
    index.write_bytes(b"")
    if loss != "empty":
        index.unlink()
    if loss == "made anew":
        lmdb.open(str(rig.shard), lib_version=0).close()
    before = rig.segments
    assert sum(before.values()) > 0
    for _ in range(2):
        with pytest.raises(StoreUnusable, match="Restore the index from a backup"):
            FolderRig(tmp_path)
        assert rig.segments == before
    index.write_bytes(kept)
    again = make_folder_rig()
    assert again.problems() == []
    again.close()


def test_a_store_without_segments_that_lost_its_index_is_not_made_anew(tmp_path, make_folder_rig):
    rig = make_folder_rig()
    rig.new_account()
    rig.close()
    (rig.shard / "data.mdb").unlink()
    for _ in range(2):
        with pytest.raises(StoreUnusable, match=r"says that the store was in use.*from a backup"):
            FolderRig(tmp_path)
    assert not (rig.shard / "data.mdb").exists()


def test_a_damaged_index_is_named_and_left_as_it_is(tmp_path, make_folder_rig):
    rig = make_folder_rig()
    rig.append(rig.new_account(), "INBOX", b"Subject: kept\r\n\r\nx\r\n")
    rig.close()
    index = rig.shard / "data.mdb"
    damaged = bytes(8192) + index.read_bytes()[8192:]
    index.write_bytes(damaged)
    before = rig.segments
    with pytest.raises(
        StoreUnusable, match=r"data\.mdb is damaged.*contents are in .*livemail store restore.*livemail store repair"
    ):
        FolderRig(tmp_path)
    assert index.read_bytes() == damaged
    assert rig.segments == before


def test_a_store_whose_making_was_broken_off_is_made(tmp_path, make_folder_rig):
    open_folder(tmp_path, create=True).close()
    (tmp_path / "store/shard-00/data.mdb.new").write_bytes(bytes(8192))
    rig = make_folder_rig()
    assert rig.problems() == []
    assert sorted(path.name for path in rig.shard.iterdir()) == ["data.mdb", "lock.mdb", "seg"]


def test_a_store_that_lost_its_segments_folder_says_so(tmp_path, make_folder_rig):
    rig = make_folder_rig()
    rig.append(rig.new_account(), "INBOX", b"Subject: lost\r\n\r\nx\r\n")
    rig.close()
    shutil.rmtree(rig.shard / "seg")
    with pytest.raises(StoreUnusable, match="it held all mail"):
        FolderRig(tmp_path)


def test_an_index_that_is_cut_short_is_refused_and_does_not_kill_the_process(tmp_path, make_folder_rig):
    rig = make_folder_rig()
    account = rig.new_account()
    for number in range(50):
        rig.append(account, "INBOX", b"Subject: %d\r\n\r\nx\r\n" % number)
    rig.close()
    index = rig.shard / "data.mdb"
    whole = index.read_bytes()
    for octets in (len(whole) // 4096 * 2048, 8192, 8193, 100):
        index.write_bytes(whole[:octets])
        with pytest.raises(StoreUnusable, match=r"[Rr]estore (it|the store) from a backup"):
            FolderRig(tmp_path)
        assert index.read_bytes() == whole[:octets]


def test_an_index_whose_last_pages_are_free_and_unwritten_is_whole(make_folder_rig):
    rig = make_folder_rig()
    rig.append(rig.new_account(), "INBOX", b"Subject: x\r\n\r\nx\r\n")
    rig.close()

    class Longer:
        """An environment that says of the file at hand that it should be longer."""

        def info(self):
            return {"last_pgno": 1 << 20}

        def stat(self):
            return {"psize": 4096}

    schema._refuse_cut_short(Longer(), rig.shard)
