"""The committer in a process of its own: the same store, and what happens when either side dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from livemail.interfaces.storage import AppendItem
from livemail.mail.changes import Added, FlagsChanged
from livemail.mail.errors import MailboxExists, StorageFailed
from livemail.mail.flags import SEEN, FlagChange
from livemail.mail.ids import UIDSet
from livemail.storage.lmdb import writer_process
from livemail.storage.lmdb.folder import StoreLocked
from livemail.storage.lmdb.writer_process import MAX_DEATHS
from tests.contracts.stores import Recorder, message
from tests.storage.lmdb_rig import FolderRig


@pytest.fixture
def process_rig(tmp_path: Path) -> Iterator[FolderRig]:
    rig = FolderRig(tmp_path / "data", writer="process", memory_content_limit=16 * 1024)
    yield rig
    rig.close()


def child_of(rig: FolderRig) -> int:
    return rig.store._writer._carrier.pid


def test_what_it_commits_is_what_the_server_reads(process_rig):
    account = process_rig.new_account()
    other = process_rig.wait(process_rig.store.account(account.id))
    recorder = Recorder()
    other.watch(recorder)
    small, large = message("small"), message("large", body="x" * 100_000)
    for octets in (small, large, small):
        process_rig.deliver(account, octets=octets)
    again = process_rig.content(large)
    process_rig.wait(account.append("Sent", [AppendItem(again)]))
    again.close()
    process_rig.wait(account.store(process_rig.info(account).id, UIDSet.of([2]), FlagChange("add", SEEN)))
    assert process_rig.fetch(account, contents=True, contents_up_to=1 << 20)["contents"] == [small, large, small]
    assert [type(change) for change in recorder.changes] == [Added, Added, Added, Added, FlagsChanged]
    # An event names the handle that made it, though that never crossed.
    assert recorder.calls[-1][1] is account
    assert process_rig.spooled == []
    assert process_rig.problems() == []
    with pytest.raises(MailboxExists):
        process_rig.wait(account.create_mailbox("Sent"))
    process_rig.reopen()
    assert process_rig.problems() == []


def test_a_spooled_content_that_was_given_away_can_be_stored_again(process_rig):
    account = process_rig.new_account()
    octets = message("twice", body="y" * 50_000)
    content = process_rig.content(octets)
    process_rig.wait(account.append("INBOX", [AppendItem(content)]))
    inbox = process_rig.info(account).id
    process_rig.wait(account.expunge(inbox, None, only_deleted=False))
    process_rig.wait(account.append("INBOX", [AppendItem(content)]))
    content.close()
    assert process_rig.fetch(account, contents=True)["contents"] == [octets]
    assert process_rig.problems() == []


def test_when_it_is_killed_the_group_is_refused_and_another_takes_its_place(process_rig):
    account = process_rig.new_account()
    process_rig.deliver(account, octets=message("before"))
    first = child_of(process_rig)
    os.kill(first, signal.SIGKILL)
    # Spooled, so that its file may have been renamed by the one that died.
    content = process_rig.content(message("after", body="z" * 50_000))
    with pytest.raises(StorageFailed, match="not available") as caught:
        process_rig.wait(account.append("INBOX", [AppendItem(content)]))
    assert f"the writer process {first} was killed by signal 9" in caught.value.reason
    process_rig.wait(account.append("INBOX", [AppendItem(content)]))
    content.close()
    assert child_of(process_rig) != first
    process_rig.deliver(account, octets=message("again"))
    assert len(process_rig.rows(account)) == 3
    assert process_rig.spooled == []
    assert process_rig.problems() == []
    process_rig.reopen()
    assert process_rig.problems() == []


@pytest.mark.parametrize("step", ["group-begin", "segment-renamed", "segment-synced", "txn-filled", "txn-committed"])
def test_wherever_it_dies_nothing_is_torn_and_the_same_content_can_be_stored_again(tmp_path, monkeypatch, step):
    armed = tmp_path / "armed"
    die = (
        "import os; from livemail.storage import failpoints\n"
        f"def die(name):\n  if name == {step!r} and os.path.exists({str(armed)!r}):\n"
        f"    os.unlink({str(armed)!r}); os.kill(os.getpid(), 9)\n"
        "failpoints.install(die)\n"
    )
    monkeypatch.setattr(writer_process, "_PROGRAM", die + writer_process._PROGRAM)
    process_rig = FolderRig(tmp_path / "data", writer="process", memory_content_limit=16 * 1024)
    account = process_rig.new_account()
    process_rig.deliver(account, octets=message("before"))
    octets = [message("small"), message("large", body="w" * 50_000)]
    contents = [process_rig.content(each) for each in octets]
    armed.touch()
    with pytest.raises(StorageFailed):
        process_rig.wait(account.append("INBOX", [AppendItem(each) for each in contents]))
    assert not armed.exists()
    process_rig.wait(account.append("INBOX", [AppendItem(each) for each in contents]))
    for content in contents:
        content.close()
    stored = process_rig.fetch(account, contents=True, contents_up_to=1 << 20)["contents"]
    # Who was refused may have been served all the same, whole.
    assert stored[1:] == octets * (2 if step == "txn-committed" else 1)
    assert process_rig.spooled == []
    assert process_rig.problems() == []
    process_rig.reopen()
    assert process_rig.problems() == []
    process_rig.close()


def test_when_it_dies_again_and_again_the_shard_stops(process_rig):
    account = process_rig.new_account()
    for _ in range(MAX_DEATHS):
        os.kill(child_of(process_rig), signal.SIGKILL)
        with pytest.raises(StorageFailed):
            process_rig.deliver(account, octets=message("after"))
    with pytest.raises(StorageFailed) as caught:
        process_rig.deliver(account, octets=message("after"))
    assert "restart livemail" in caught.value.reason
    assert len(process_rig.rows(account)) == 0
    process_rig.reopen()
    account = process_rig.wait(process_rig.store.account(account.id))
    process_rig.deliver(account, octets=message("again"))
    assert len(process_rig.rows(account)) == 1
    assert process_rig.problems() == []


def test_the_store_stays_locked_until_it_has_ended(process_rig):
    child = child_of(process_rig)
    os.kill(child, signal.SIGTERM)  # what a terminal or a supervisor sends to the whole group does not end it
    process_rig.deliver(process_rig.new_account())
    with pytest.raises(StoreLocked):
        FolderRig(process_rig.folder)
    process_rig.wait(process_rig.store.close())
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    process_rig.store = process_rig.open()


def test_a_server_that_was_killed_leaves_a_writer_that_ends_by_itself(tmp_path: Path) -> None:
    """The lock outlives the server by its writer, and the next server waits for that."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            rig = FolderRig(tmp_path / "data", writer="process")
            account = rig.new_account()
            rig.deliver(account, octets=message("acknowledged"))
            os.write(write, b"%d" % child_of(rig))
            signal.pause()
        finally:
            os._exit(1)
    os.close(write)
    child = int(os.read(read, 20))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    rig = FolderRig(tmp_path / "data", writer="process")
    try:
        [record] = rig.wait(rig.store.accounts())
        account = rig.wait(rig.store.account(record.id))
        assert len(rig.rows(account)) == 1
        assert rig.problems() == []
        assert child_of(rig) != child
    finally:
        rig.close()
    os.close(read)
