"""What other programs do to a Maildir is noticed, and what we do to it is what they expect."""

from __future__ import annotations

import os
import shutil

import pytest

from livemail.interfaces.storage import AppendItem
from livemail.mail.changes import Added, Expunged, FlagsChanged
from livemail.mail.errors import NoSuchMailbox, StorageFailed
from livemail.mail.flags import ANSWERED, FLAGGED, SEEN, FlagChange
from livemail.mail.ids import UIDSet
from tests.contracts.stores import Recorder, message
from tests.storage.maildir.rig import listed

ALL = UIDSet.all()


def names(rig):
    return [info.name for info in rig.wait(rig.account.mailboxes()).mailboxes]


# ------------------------------------------------------------------------------------------------------------ ours


def test_a_delivery_is_a_file_in_new_with_lf_and_the_recipients_prefix(rig):
    rig.deliver(rig.account, octets=message("s"), prefix=b"Delivered-To: x\r\n", internal_date=1_600_000_000)
    (path,) = rig.paths()
    assert path.parent.name == "new"
    assert path.read_bytes() == (b"Delivered-To: x\r\n" + message("s")).replace(b"\r\n", b"\n")
    assert int(path.stat().st_mtime) == 1_600_000_000
    octets = path.stat().st_size
    assert f",S={octets},W={len(message('s')) + 17}" in path.name
    assert path.stat().st_mode & 0o777 == 0o600
    assert listed(rig.root / "tmp") == []


def test_flags_and_keywords_are_in_the_name(rig):
    rig.append(rig.account, "INBOX", message("a"), flags=SEEN)
    rig.deliver(rig.account)
    inbox = rig.info(rig.account).id
    assert rig.files() == ["cur:S", "new:"]
    rig.wait(rig.account.store(inbox, ALL, FlagChange("add", FLAGGED, ("$Work",))))
    assert rig.files() == ["cur:FSa", "cur:Fa"]
    assert (rig.root / "dovecot-keywords").read_text() == "0 $Work\n"
    rig.wait(rig.account.store(inbox, ALL, FlagChange("replace", ANSWERED)))
    assert rig.files() == ["cur:R", "cur:R"]


def test_copy_move_and_expunge_link_rename_and_remove(rig):
    rig.append(rig.account, "INBOX", message("a"), message("b"), flags=SEEN)
    inbox = rig.info(rig.account).id
    rig.wait(rig.account.copy(inbox, UIDSet.of([1]), "Sent"))
    assert rig.paths()[0].stat().st_nlink == 2
    rig.wait(rig.account.move(inbox, UIDSet.of([2]), "Archive"))
    rig.wait(rig.account.move(inbox, UIDSet.of([1]), "INBOX"))
    assert (rig.files(), rig.files("Sent"), rig.files("Archive")) == (["cur:S"], ["cur:S"], ["cur:S"])
    rig.wait(rig.account.expunge(rig.info(rig.account, "Sent").id, None, only_deleted=False))
    assert rig.files("Sent") == []
    assert listed(rig.path("Sent") / "tmp") == []
    assert rig.octets(3) == message("a")


def test_mailboxes_are_folders(rig):
    rig.wait(rig.account.create_mailbox("a/b.c"))
    assert (rig.root / ".a.b\\2ec" / "maildirfolder").exists()
    rig.append(rig.account, "a/b.c", message("x"))
    rig.wait(rig.account.rename_mailbox("a", "z"))
    assert not (rig.root / ".a").exists()
    assert rig.octets(1, "z/b.c") == message("x")
    rig.wait(rig.account.delete_mailbox("z/b.c"))
    assert not (rig.root / ".z.b\\2ec").exists()
    long = "l" * 300
    rig.wait(rig.account.create_mailbox(long))
    rig.reopen()
    rig.account = rig.handle(rig.account.id)
    assert long in names(rig)
    rig.wait(rig.store.remove_account(rig.account.name))
    assert listed(rig.root.parent) == []


def test_a_group_that_fails_leaves_the_folder_as_it_was(rig, monkeypatch):
    rig.append(rig.account, "INBOX", message("a"), flags=SEEN)
    before = sorted(str(path) for path in rig.root.rglob("*"))
    inbox = rig.info(rig.account).id
    monkeypatch.setattr(
        "livemail.storage.lmdb.files.effects.Effects.flush", lambda self: (_ for _ in ()).throw(OSError(5, "broken"))
    )
    for attempt in (
        rig.account.store(inbox, ALL, FlagChange("add", FLAGGED)),
        rig.account.expunge(inbox, None, only_deleted=False),
        rig.account.move(inbox, ALL, "Sent"),
        rig.account.copy(inbox, ALL, "Sent"),
        rig.account.append("INBOX", [AppendItem(rig.content(message("b")))]),
        rig.account.create_mailbox("new/mailbox"),
        rig.account.rename_mailbox("Archive", "Elsewhere"),
        rig.account.delete_mailbox("Junk"),
        rig.store.remove_account(rig.account.name),
    ):
        with pytest.raises(StorageFailed):
            rig.wait(attempt)
    monkeypatch.undo()
    assert sorted(str(path) for path in rig.root.rglob("*")) == before
    assert rig.state() == {1: (SEEN, ())}


# ---------------------------------------------------------------------------------------------------------- theirs


def test_delivered_flagged_and_removed_by_others_with_uids_that_stay(rig):
    rig.deliver(rig.account)
    listener = Recorder()
    rig.account.watch(listener)
    first, second = rig.put(), rig.put(flags="S")
    assert rig.state() == {1: (0, ()), 2: (0, ()), 3: (SEEN, ())}
    first.rename(rig.root / "cur" / f"{first.name}:2,FR")
    second.unlink()
    assert rig.state() == {1: (0, ()), 2: (FLAGGED | ANSWERED, ())}
    rig.put()
    assert sorted(rig.state()) == [1, 2, 4]
    kinds = [type(change) for change in listener.changes]
    assert kinds == [Added, Expunged, FlagsChanged, Added]
    modseqs = [call[0] for call in listener.calls]
    assert modseqs == sorted(set(modseqs))


def test_the_octets_of_others_are_read_with_crlf(rig):
    rig.put(b"Subject: lf\n\nbody\n")
    rig.put(b"Subject: crlf\r\n\r\nbody\r\n")
    rig.put(b"Subject: both\n\r\nbody\r\nmore\n")
    assert len(rig.state()) == 3
    assert rig.octets(1) == b"Subject: lf\r\n\r\nbody\r\n"
    assert rig.octets(2, piece=7) == b"Subject: crlf\r\n\r\nbody\r\n"
    assert rig.octets(3, piece=5) == b"Subject: both\r\n\r\nbody\r\nmore\r\n"
    assert rig.info(rig.account).size == sum(len(rig.octets(uid)) for uid in (1, 2, 3))
    contents = rig.fetch(rig.account, contents=True)["contents"]
    assert contents == [rig.octets(1), rig.octets(2), rig.octets(3)]


def test_keywords_of_others_are_those_of_dovecot(rig):
    (rig.root / "dovecot-keywords").write_text("0 $Forwarded\n3 Later\n")
    rig.put(flags="Sad")
    assert rig.state() == {1: (SEEN, ("$Forwarded", "Later"))}
    inbox = rig.info(rig.account).id
    rig.wait(rig.account.store(inbox, ALL, FlagChange("remove", 0, ("Later",))))
    assert rig.files() == ["cur:Sa"]


def test_a_keyword_without_a_letter_is_not_lost_when_others_change_flags(rig):
    (rig.root / "dovecot-keywords").write_text("".join(f"{at} k{at}\n" for at in range(26)))
    path = rig.put(flags="")
    rig.state()
    rig.wait(rig.account.store(rig.info(rig.account).id, ALL, FlagChange("add", 0, ("extra",))))
    path.rename(path.with_name(path.name + "F"))
    assert rig.state() == {1: (FLAGGED, ("extra",))}


def test_letters_nobody_here_knows_survive_our_change(rig):
    rig.put(flags="P")
    rig.state()
    rig.wait(rig.account.store(rig.info(rig.account).id, ALL, FlagChange("add", SEEN)))
    assert rig.files() == ["cur:PS"]


def test_a_file_renamed_since_we_looked_is_found_by_its_base(rig):
    path = rig.put(flags="")
    rig.state()
    inbox = rig.info(rig.account).id
    path.rename(path.with_name(path.name + "F"))
    assert rig.read(rig.account, inbox, 1) is not None
    rig.wait(rig.account.store(inbox, ALL, FlagChange("add", SEEN)))
    assert rig.files() == ["cur:FS"]
    assert rig.state() == {1: (SEEN | FLAGGED, ())}
    (path,) = rig.paths()
    path.unlink()
    assert rig.read(rig.account, inbox, 1) is None
    rig.wait(rig.account.store(inbox, ALL, FlagChange("add", ANSWERED)))
    rig.wait(rig.account.copy(inbox, ALL, "Sent"))
    rig.wait(rig.account.expunge(inbox, ALL, only_deleted=False))
    assert rig.state() == {}
    assert rig.state("Sent") == {}


def test_a_change_behind_one_of_ours_in_the_same_moment_is_found_a_little_later(rig):
    rig.deliver(rig.account)
    rig.state()
    rig.put()
    times = [(part, (rig.root / part).stat()) for part in ("new", "cur")]
    rig.deliver(rig.account)
    assert len(rig.state()) == 3
    path = rig.put()
    for part, before in times:
        os.utime(rig.root / part, ns=(before.st_mtime_ns, before.st_mtime_ns))
    rig.wait(rig.account.mailbox("INBOX"))
    rig.clock.seconds += 11
    assert len(rig.state()) == 4
    assert path.exists()


def test_folders_made_and_removed_by_others_are_mailboxes(rig):
    for name in (".Neu.A&-B", ".x..y", "plain"):
        for part in ("cur", "new", "tmp"):
            (rig.root / name / part).mkdir(parents=True)
    listed = rig.wait(rig.account.mailboxes())
    assert {"Neu", "Neu/A&B"} <= {info.name for info in listed.mailboxes}
    assert "Neu/A&B" in listed.subscribed
    rig.put(mailbox="Neu.A&-B")
    assert len(rig.state("Neu/A&B")) == 1
    shutil.rmtree(rig.root / ".Neu.A&-B")
    assert "Neu/A&B" not in names(rig)
    shutil.rmtree(rig.root / ".Sent")
    with pytest.raises(NoSuchMailbox):
        rig.wait(rig.account.select("Sent", True))


def test_an_account_whose_disk_is_not_mounted_loses_nothing(rig):
    rig.deliver(rig.account)
    away = rig.root.with_name("away")
    rig.root.rename(away)
    for attempt in (rig.account.mailboxes(), rig.account.select("INBOX", False), rig.account.mailbox("Sent")):
        with pytest.raises(StorageFailed):
            rig.wait(attempt)
    away.rename(rig.root)
    assert len(rig.state()) == 1
    assert len(names(rig)) == 6


def test_what_is_no_message_is_left_alone(rig):
    (rig.root / "new" / "folder").mkdir()
    (rig.root / "new" / ".hidden").touch()
    os.mkfifo(rig.root / "new" / "fifo")
    (rig.root / "new" / "link").symlink_to("/etc/passwd")
    rig.put(b"")
    assert list(rig.state()) == [1]
    assert rig.octets(1) == b""
    assert (rig.root / "new" / "folder").is_dir()


def test_what_was_put_aside_before_a_crash_is_swept_and_what_others_write_is_not(rig, monkeypatch):
    monkeypatch.setattr("livemail.storage.lmdb.files.compare.ASIDE_SECONDS", -1)
    (rig.root / "tmp" / "livemail-gone.1.1").touch()
    (rig.root / "tmp" / "1.being.written").touch()
    rig.put()
    rig.state()
    assert listed(rig.root / "tmp") == ["1.being.written"]


def test_many_messages_come_in_batches_in_the_order_of_their_names(rig, monkeypatch):
    monkeypatch.setattr("livemail.storage.lmdb.files.compare.BATCH_MESSAGES", 7)
    for at in range(50):
        rig.put(message(f"s{at}").replace(b"\r\n", b"\n"), base=f"{1000 + at}.x")
    assert list(rig.state()) == list(range(1, 51))
    envelopes = rig.fetch(rig.account, envelopes=True)["envelopes"]
    assert [f'"s{at}"'.encode() in envelope for at, envelope in enumerate(envelopes)] == [True] * 50


# --------------------------------------------------------------------------------------------------------- dovecot


@pytest.mark.parametrize("version", [1, 3])
def test_a_maildir_dovecot_has_served_keeps_its_uids(rig, version):
    known = [rig.put(base=f"{1000 - at}.x") for at in range(3)]
    late = rig.put(base="1.early")
    lines = {
        3: ["3 V1234567 N20 Gabc", f"5 :{known[0].name}", f"6 W33 :{known[1].name}:2,S", f"11 :{known[2].name}"],
        1: ["1 1234567 20", f"5 {known[0].name}", f"6 {known[1].name}:2,S", f"11 {known[2].name}"],
    }[version]
    (rig.root / "dovecot-uidlist").write_text("\n".join(lines) + "\n")
    assert list(rig.state()) == [5, 6, 11, 20]
    assert rig.info(rig.account).uid_validity == 1234567
    assert rig.octets(20) == late.read_bytes().replace(b"\n", b"\r\n")
    rig.deliver(rig.account)
    assert list(rig.state()) == [5, 6, 11, 20, 21]


def test_a_list_of_an_empty_folder_keeps_uidnext(rig):
    (rig.root / "dovecot-uidlist").write_text("3 V77 N500 Gabc\n")
    rig.state()
    assert (rig.info(rig.account).uid_validity, rig.info(rig.account).uid_next) == (77, 500)


def test_a_list_met_after_uids_were_given_is_too_late(rig):
    rig.put()
    rig.state()
    before = rig.info(rig.account).uid_validity
    (rig.root / "dovecot-uidlist").write_text("3 V77 N500 Gabc\n")
    rig.put()
    rig.state()
    assert rig.info(rig.account).uid_validity == before
