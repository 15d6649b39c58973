"""An old reader or a slow backup does not make the index grow without bound."""

from __future__ import annotations

import os
import threading
import time

import pytest

from livemail.interfaces.backup import BackupFailed
from livemail.mail.ids import UIDSet
from livemail.storage.lmdb import readers
from livemail.storage.lmdb.backup import snapshot
from tests.contracts.stores import message
from tests.storage.lmdb_rig import FolderRig


@pytest.fixture
def rig(tmp_path):
    rig = FolderRig(tmp_path / "data")
    rig.account = rig.new_account()
    yield rig
    assert rig.problems() == []
    rig.close()


def churn(rig, rounds):
    """Messages come and go; return by how many octets the index grew."""
    environment = rig.store._environment
    before = environment.info()["last_pgno"]
    for number in range(rounds):
        rig.append(rig.account, "INBOX", message(str(number), references=" ".join(f"<{n}@x>" for n in range(20))))
        info = rig.info(rig.account)
        rig.wait(rig.account.expunge(info.id, UIDSet.of([info.uid_next - 1]), only_deleted=False))
    return (environment.info()["last_pgno"] - before) * environment.stat()["psize"]


def test_a_backup_whose_disk_hangs_is_ended_before_the_index_has_grown_much(rig, tmp_path, monkeypatch):
    rig.append(rig.account, "INBOX", *(message(str(at), body=os.urandom(900).hex()) for at in range(2000)))
    churn(rig, 20)
    monkeypatch.setattr(snapshot, "GROWTH_OCTETS", 512 * 1024)
    monkeypatch.setattr(snapshot, "GROWTH_PART", 1_000_000)
    monkeypatch.setattr(snapshot, "WATCH_SECONDS", 0.005)
    monkeypatch.setattr(snapshot, "CHUNK_OCTETS", 4096)
    hangs, goes_on = threading.Event(), threading.Event()

    def hanging(file, chunk):
        hangs.set()
        goes_on.wait(60)
        file.write(chunk)

    monkeypatch.setattr(snapshot, "put", hanging)
    outcome = []

    async def back_up():
        try:
            await rig.store.backup(tmp_path / "backup")
        except BackupFailed as error:
            outcome.append(str(error))

    async def work():
        # While the disk hangs mail goes on, in a thread of its own as the pump is ours.
        assert await rig.pump.run_blocking(hangs.wait, 60)
        for number in range(400):
            await rig.account.subscribe(f"box{number % 7}", number % 2 == 0)
        await rig.pump.run_blocking(time.sleep, 0.05)
        goes_on.set()

    rig.pump.gather([back_up(), work()])
    assert len(outcome) == 1
    assert "which is too slow" in outcome[0]
    assert "faster disk" in outcome[0]
    # The pages it held are used again.
    assert churn(rig, 100) < 256 * 1024
    monkeypatch.setattr(snapshot, "put", lambda file, chunk: file.write(chunk))
    monkeypatch.setattr(snapshot, "GROWTH_OCTETS", 64 * 1024 * 1024)
    assert rig.wait(rig.store.backup(tmp_path / "backup")).messages == 2000


def test_a_target_that_takes_no_more_says_so_and_lets_go(rig, tmp_path, monkeypatch):
    rig.append(rig.account, "INBOX", *(message(str(at)) for at in range(50)))

    def full(file, chunk):
        raise OSError(28, "No space left on device", "there")

    monkeypatch.setattr(snapshot, "put", full)
    with pytest.raises(BackupFailed, match="No space left"):
        rig.wait(rig.store.backup(tmp_path / "backup"))
    assert churn(rig, 100) < 256 * 1024


def test_a_reader_held_open_is_told_of_once(rig, monkeypatch):
    monkeypatch.setattr(readers, "MIN_COMMITS", 50)
    environment = rig.store._environment
    watch = readers.ReaderWatch(environment)
    churn(rig, 5)
    assert watch.old() == ""
    txn = environment.begin()
    assert watch.old() == ""
    held = churn(rig, 60)
    told = watch.old()
    assert f"process {os.getpid()} (" in told
    assert "see what it does" in told
    assert watch.old() == ""
    txn.abort()
    assert watch.old() == ""
    # It did grow meanwhile, and uses the pages again now.
    assert held > 100 * 1024
    assert churn(rig, 60) < held / 4
