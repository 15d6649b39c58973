"""Backups of a working store: consistent, incremental, encrypted, verified, restored whole and in parts."""

from __future__ import annotations

import random

import pyrage
import pytest

from livemail.interfaces.backup import BackupFailed
from livemail.mail.flags import FLAGGED, SEEN, FlagChange
from livemail.mail.ids import UIDSet
from livemail.storage.lmdb.backup import write
from livemail.storage.lmdb.backup.manifest import generations, read_manifest
from livemail.storage.lmdb.backup.restore import restore_steps, verify_steps
from livemail.storage.lmdb.backup.sealing import Keys
from livemail.storage.lmdb.backup.source import BackupSource
from livemail.storage.transfer.source import SourceError
from tests.contracts.stores import message
from tests.storage.lmdb_rig import FolderRig
from tests.storage.transfer.run import bring, mail


class Rig(FolderRig):
    """Two accounts, the second in a Maildir where asked for."""

    def __init__(self, folder, *, maildir=False, **settings):
        self.maildir = maildir
        super().__init__(folder, **({"segment_octets": 1 << 20, "memory_content_limit": 16 * 1024} | settings))

    def maildir_of(self, name):
        return self.folder / "mail" / name if self.maildir and name.startswith("m") else None

    def backup(self, target, recipient=""):
        return self.wait(self.store.backup(target, recipient))

    def everything(self):
        return {r.name: mail(self, self.handle(r.id)) for r in self.wait(self.store.accounts())}


@pytest.fixture(params=[False, True], ids=["segments", "maildir"])
def rig(request, tmp_path):
    made = Rig(tmp_path / "data", maildir=request.param)
    made.wait(made.store.add_accounts([("ann@localhost", ""), ("mia@localhost", "")]))
    yield made
    assert made.problems() == []
    made.close()


def work(rig, chance, rounds=40):
    """Random work on both accounts."""
    for _ in range(rounds):
        record = chance.choice(rig.wait(rig.store.accounts()))
        account = rig.handle(record.id)
        inbox = rig.info(account)
        what = chance.randrange(6)
        uid = UIDSet.of([chance.randrange(1, inbox.uid_next + 1)])
        if what < 3 or not inbox.exists:
            size = chance.choice([10, 300, 30_000])
            rig.append(
                account, "INBOX", message(f"s{chance.random()}", body="x\r\n" * size), flags=chance.choice([0, SEEN])
            )
        elif what == 3:
            rig.wait(account.store(inbox.id, uid, FlagChange("add", FLAGGED, ("$Work",))))
        elif what == 4:
            rig.wait(account.copy(inbox.id, uid, "Archive"))
        else:
            rig.wait(account.expunge(inbox.id, uid, only_deleted=False))


def run(steps):
    for _ in steps:
        pass


def verify(folder, keys=None, generation=0):
    problems = []
    run(verify_steps(folder, generation, keys or Keys(), problems))
    return problems


def reopened(rig, data):
    """The store restored to ``data``, its Maildirs with it."""
    return Rig(data, maildir=rig.maildir)


def test_what_is_restored_equals_the_store_at_backup_time(rig, tmp_path):
    chance = random.Random(1)
    work(rig, chance)
    before = rig.everything()
    report = rig.backup(tmp_path / "b")
    assert (report.generation, report.accounts) == (1, 2)
    assert report.octets * 0.9 < report.new_octets <= report.octets
    work(rig, chance)
    assert rig.everything() != before
    assert verify(tmp_path / "b") == []
    run(restore_steps(tmp_path / "b", 0, Keys(), tmp_path / "new"))
    other = reopened(rig, tmp_path / "new")
    try:
        assert other.everything() == before
        assert other.problems() == []
        account = other.handle(1)
        other.append(account, "INBOX", message("later"))
        assert other.problems() == []
    finally:
        other.close()


def test_the_next_backup_writes_what_is_new_and_every_one_can_be_restored(rig, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "PIECE_OCTETS", 100_000)
    chance = random.Random(2)
    states = []
    for _ in range(3):
        work(rig, chance, 30)
        states.append(rig.everything())
        report = rig.backup(tmp_path / "b")
    assert report.generation == 3
    assert report.new_octets < report.octets
    idle = rig.backup(tmp_path / "b")
    assert idle.new_octets < 200_000
    assert verify(tmp_path / "b", generation=1) == []
    for generation, state in enumerate(states, 1):
        run(restore_steps(tmp_path / "b", generation, Keys(), tmp_path / f"n{generation}"))
        other = reopened(rig, tmp_path / f"n{generation}")
        assert other.everything() == state
        other.close()


def test_an_encrypted_backup_needs_the_secret_key_and_shows_nothing(rig, tmp_path):
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(f"# a comment\n{identity}\n")
    (tmp_path / "other").write_text(f"{pyrage.x25519.Identity.generate()}\n")
    for record in rig.wait(rig.store.accounts()):
        rig.append(rig.handle(record.id), "INBOX", message("SECRETWORD"))
    before = rig.everything()
    rig.backup(tmp_path / "b", str(identity.to_public()))
    rig.backup(tmp_path / "b")
    assert not any(b"SECRETWORD" in path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.is_file())
    assert verify(tmp_path / "b") == []
    assert verify(tmp_path / "b", Keys(str(tmp_path / "key"))) == []
    with pytest.raises(BackupFailed, match="--identity FILE"):
        run(restore_steps(tmp_path / "b", 0, Keys(), tmp_path / "n1"))
    with pytest.raises(BackupFailed, match="cannot be decrypted"):
        run(restore_steps(tmp_path / "b", 0, Keys(str(tmp_path / "other")), tmp_path / "n2"))
    for record in rig.wait(rig.store.accounts()):
        account = rig.handle(record.id)
        rig.wait(account.expunge(rig.info(account).id, None, only_deleted=False))
        source = BackupSource(tmp_path / "b", 0, Keys(str(tmp_path / "key")), record.name)
        assert bring(rig, account, source).imported == 1
    assert {n: [row[0] for row in boxes["INBOX"]] for n, boxes in rig.everything().items()} == {
        n: [row[0] for row in boxes["INBOX"]] for n, boxes in before.items()
    }
    with pytest.raises(BackupFailed, match="another recipient"):
        rig.backup(tmp_path / "b", str(pyrage.x25519.Identity.generate().to_public()))
    with pytest.raises(BackupFailed, match="is no recipient"):
        rig.backup(tmp_path / "c", "age1rubbish")


def test_one_mailbox_or_one_message_comes_back_in_place_and_what_is_there_stays(rig, tmp_path):
    record = rig.wait(rig.store.accounts())[1]
    account = rig.handle(record.id)
    for at in range(4):
        rig.append(account, "INBOX", message(f"m{at}", message_id=f"<M{at}@x>"), flags=SEEN)
    rig.append(account, "Sent", message("sent"))
    rig.backup(tmp_path / "b")
    inbox = rig.info(account)
    rig.wait(account.expunge(inbox.id, UIDSet.of([2, 3]), only_deleted=False))
    rig.wait(account.expunge(rig.info(account, "Sent").id, None, only_deleted=False))

    def present():
        uids = frozenset(row[0] for row in rig.rows(account))
        return {"INBOX": (rig.info(account).uid_validity, uids)}

    def source(**only):
        return BackupSource(tmp_path / "b", 0, Keys(), record.name, present=present(), **only)

    assert bring(rig, account, source(message="<m1@X>"), keep_uids=True).imported == 1
    assert len(mail(rig, account)["INBOX"]) == 3
    assert bring(rig, account, source(mailbox="INBOX"), keep_uids=True).imported == 1
    found = mail(rig, account)
    assert sorted(row[0] for row in found["INBOX"]) == sorted(
        message(f"m{at}", message_id=f"<M{at}@x>") for at in range(4)
    )
    assert {row[1] for row in found["INBOX"]} == {SEEN}
    assert "Sent" not in found
    assert bring(rig, account, source(), into="Restored").imported >= 1
    with pytest.raises(SourceError, match="no mailbox 'Nowhere'"):
        source(mailbox="Nowhere").mailboxes()
    with pytest.raises(SourceError, match="no account nobody"):
        BackupSource(tmp_path / "b", 0, Keys(), "nobody@localhost")


@pytest.mark.parametrize("victim", ["*.index", "seg/*", "*.meta"])
def test_damage_is_found(rig, tmp_path, victim):
    work(rig, random.Random(3))
    rig.backup(tmp_path / "b")
    path = min((tmp_path / "b").glob(victim))
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    path.write_bytes(octets)
    assert [text.split(":")[0] for text in verify(tmp_path / "b")] == [str(path.relative_to(tmp_path / "b"))]
    path.unlink()
    assert "No such file" in verify(tmp_path / "b")[0]


def test_a_backup_that_was_broken_off_does_not_exist_and_the_next_one_uses_what_it_copied(rig, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "PIECE_OCTETS", 50_000)
    work(rig, random.Random(4))
    account = rig.handle(1)
    rig.append(account, "INBOX", *(message(f"b{at}", body="y\r\n" * 4000) for at in range(20)))
    backup = write.Backup(rig.store._environment, rig.store._tables, rig.store._folder, tmp_path / "b", "", 1)
    while (step := backup.step()) is not None and step[0] < 150_000:
        pass
    backup.close()
    assert generations(tmp_path / "b") == []
    with pytest.raises(BackupFailed, match="no complete backup yet"):
        verify(tmp_path / "b")
    (tmp_path / "b" / "seg" / "x.part").touch()
    report = rig.backup(tmp_path / "b")
    assert report.new_octets < report.octets - 100_000
    assert verify(tmp_path / "b") == []
    assert not list((tmp_path / "b").rglob("*.part"))


def test_segments_that_go_while_they_are_copied_are_in_the_backup(rig, tmp_path):
    account = rig.handle(1)
    rig.append(account, "INBOX", message("big", body="x\r\n" * 50_000), message("small"))
    before = rig.everything()
    backup = write.Backup(rig.store._environment, rig.store._tables, rig.store._folder, tmp_path / "b", "", 1)
    backup.step()
    backup.step()
    rig.wait(account.expunge(rig.info(account).id, None, only_deleted=False))
    while backup.step() is not None:
        pass
    backup.close()
    assert read_manifest(tmp_path / "b").messages == 2
    run(restore_steps(tmp_path / "b", 0, Keys(), tmp_path / "n"))
    other = reopened(rig, tmp_path / "n")
    assert other.everything()["ann@localhost"] == before["ann@localhost"]
    other.close()


def test_folders_that_are_in_the_way_are_named(rig, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(BackupFailed, match="is not empty and holds no backups"):
        rig.backup(tmp_path / "full")
    with pytest.raises(BackupFailed, match="holds no backup"):
        verify(tmp_path / "full")
    rig.backup(tmp_path / "b")
    with pytest.raises(BackupFailed, match="has a mail store"):
        run(restore_steps(tmp_path / "b", 0, Keys(), rig.folder))
    with pytest.raises(BackupFailed, match="no backup 7; there are 1"):
        verify(tmp_path / "b", generation=7)
    other = Rig(tmp_path / "other")
    with pytest.raises(BackupFailed, match="backups of another store"):
        other.backup(tmp_path / "b")
    other.close()
