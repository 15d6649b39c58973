"""In and out again: octets, flags, keywords, dates and UIDs; broken off and taken up; what cannot come is named."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile

import pytest

from livemail.mail.errors import StorageFull
from livemail.mail.flags import ANSWERED, FLAGGED, SEEN
from livemail.storage.transfer import importer
from livemail.storage.transfer.files import EmlSource, MboxSource, mailbox_of
from livemail.storage.transfer.importer import allowed_name
from livemail.storage.transfer.maildir import MaildirSource
from livemail.storage.transfer.source import SourceError
from tests.contracts.stores import message
from tests.storage.transfer.run import bring, bring_out, mail

LARGE = message("large", body="x" * 70 + "\r\n" + "line\r\n" * 400_000)
BARE = b"Subject: bare\r\n\r\na\nb\rc\r\n"


def furnish(rig, account):
    """Mail of every kind in several mailboxes."""
    rig.wait(account.create_mailbox("Arbeit/ä.b"))
    for at in range(5):
        rig.append(account, "INBOX", message(f"m{at}"), flags=SEEN * (at % 2), internal_date=1_500_000_000 + at)
    rig.append(account, "INBOX", message("k"), flags=FLAGGED, keywords=("$Work", "Later"), internal_date=1_400_000_000)
    rig.append(account, "Arbeit/ä.b", b"", internal_date=1)
    rig.append(
        account, "Arbeit/ä.b", LARGE, BARE, message("dots", body="..\r\n.\r\nFrom x\r\n>From y"), internal_date=99
    )
    rig.append(account, "Sent", message("s"), flags=SEEN | ANSWERED, internal_date=1_600_000_000)


def test_a_maildir_out_and_in_again_is_the_same_with_its_uids(rig, account, tmp_path):
    furnish(rig, account)
    report = bring_out(rig, account, "maildir", tmp_path / "out")
    assert (report.exported, report.known, report.skipped) == (11, 0, [])
    other = rig.new_account()
    report = bring(rig, other, MaildirSource(tmp_path / "out"), keep_uids=True)
    assert (report.imported, report.known, report.skipped_count) == (11, 0, 0)
    ours, theirs = mail(rig, account), mail(rig, other)
    # What has a bare CR or LF in it is no text to a program that reads Maildirs.
    assert theirs.pop("Arbeit/ä.b")[2][0] == BARE.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    ours.pop("Arbeit/ä.b")
    assert ours == theirs
    assert rig.info(account).uid_validity == rig.info(other).uid_validity
    again = bring_out(rig, account, "maildir", tmp_path / "out")
    assert (again.exported, again.known) == (0, 11)


def test_flags_that_changed_are_those_of_the_last_export(rig, account, tmp_path):
    furnish(rig, account)
    bring_out(rig, account, "maildir", tmp_path / "out")
    from livemail.mail.flags import FlagChange
    from livemail.mail.ids import UIDSet

    rig.wait(account.store(rig.info(account).id, UIDSet.of([1]), FlagChange("add", ANSWERED)))
    bring_out(rig, account, "maildir", tmp_path / "out")
    assert len(list((tmp_path / "out" / "cur").glob("*U1.*:2,R"))) == 1


@pytest.mark.parametrize(("kind", "source"), [("mbox", MboxSource), ("eml", EmlSource)])
def test_mbox_and_eml_out_and_in_again(rig, account, tmp_path, kind, source):
    furnish(rig, account)
    report = bring_out(rig, account, kind, tmp_path / "out")
    assert report.exported == 11
    other = rig.new_account()
    report = bring(rig, other, source(tmp_path / "out"))
    assert report.skipped_count == 0
    ours, theirs = mail(rig, account), mail(rig, other)
    if kind == "eml":
        assert {n: [row[0] for row in rows] for n, rows in ours.items()}["INBOX"] == [row[0] for row in theirs["INBOX"]]
        return
    assert [row[1:4] for row in ours["INBOX"]] == [row[1:4] for row in theirs["INBOX"]]
    for mine, his in zip(ours["INBOX"], theirs["INBOX"], strict=True):
        assert his[0].endswith(mine[0])
    assert theirs["Arbeit/ä.b"][3][0].endswith(ours["Arbeit/ä.b"][3][0])
    again = bring_out(rig, account, "mbox", tmp_path / "out")
    assert (again.exported, again.known) == (0, 11)
    assert "Archive" in {each.where for each in again.skipped}


def test_an_import_that_was_broken_off_goes_on_without_duplicates(rig, account, tmp_path, monkeypatch):
    monkeypatch.setattr(importer, "BATCH_MESSAGES", 3)
    furnish(rig, account)
    bring_out(rig, account, "maildir", tmp_path / "out")
    other = rig.new_account()

    def give_up(done, total, what):
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring(rig, other, MaildirSource(tmp_path / "out"), give_up)
    report = bring(rig, other, MaildirSource(tmp_path / "out"))
    assert report.known >= 3
    assert report.imported + report.known == 11
    assert sum(len(rows) for rows in mail(rig, other).values()) == 11
    assert bring(rig, other, MaildirSource(tmp_path / "out")).imported == 0
    assert bring(rig, other, MaildirSource(tmp_path / "out"), again="1").imported == 11


def test_a_maildir_of_others_with_folders_in_folders_and_dovecots_files(rig, account, tmp_path):
    for folder in (tmp_path, tmp_path / ".Sent", tmp_path / "deep" / "er", tmp_path / ".a.b"):
        for part in ("cur", "new", "tmp"):
            (folder / part).mkdir(parents=True)
    (tmp_path / "cur" / "2.x:2,Sa").write_bytes(b"Subject: two\n\n2\n")
    (tmp_path / "new" / "1.x").write_bytes(b"Subject: one\n\n1\n")
    (tmp_path / "dovecot-uidlist").write_text("3 V77 N9 G1\n5 :2.x\n")
    (tmp_path / "dovecot-keywords").write_text("0 $Work\n")
    os.mkfifo(tmp_path / "new" / "fifo")
    (tmp_path / ".Sent" / "cur" / "3.x:2,").write_bytes(b"x")
    (tmp_path / "deep" / "er" / "new" / "4.x").write_bytes(b"y")
    report = bring(rig, account, MaildirSource(tmp_path), keep_uids=True)
    found = mail(rig, account)
    assert [(row[0], row[1], row[2], row[4]) for row in found["INBOX"]] == [
        (b"Subject: two\r\n\r\n2\r\n", SEEN, ("$Work",), 5),
        (b"Subject: one\r\n\r\n1\r\n", 0, (), 6),
    ]
    assert rig.info(account).uid_validity == 77
    assert [row[0] for row in found["deep/er"]] == [b"y"]
    assert [(each.where, each.why) for each in report.skipped] == [(str(tmp_path / "new" / "fifo"), "is no file")]
    assert {"a/b", "deep/er"} <= set(report.made)


@pytest.mark.parametrize("kind", ["zip", "tgz", "gz"])
def test_archives_as_the_big_providers_hand_them_out(rig, account, tmp_path, kind):
    box = b"From x Mon Jan  2 03:04:05 2006\nX-Gmail-Labels: Inbox,Starred\nSubject: a\n\nx\n\nFrom y Mon Jan  2 03:04:05 2006\nX-Gmail-Labels: Sent\n\ny\n"
    name = "Takeout/Mail/All mail Including Spam and Trash.mbox"
    path = tmp_path / f"takeout.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, box)
            archive.writestr("Takeout/archive_browser.html", b"<html>")
    elif kind == "tgz":
        with tarfile.open(path, "w:gz") as archive:
            info = tarfile.TarInfo(name)
            info.size = len(box)
            archive.addfile(info, io.BytesIO(box))
    else:
        path.write_bytes(gzip.compress(box))
    report = bring(rig, account, MboxSource(path))
    assert (report.imported, report.skipped_count) == (2, 0)
    found = mail(rig, account)
    assert [row[1] for row in found["INBOX"]] == [SEEN | FLAGGED]
    assert len(found["Sent"]) == 1
    assert bring(rig, account, MboxSource(path)).imported == 0


def test_what_is_damaged_is_named_and_the_rest_comes(rig, account, tmp_path):
    octets = gzip.compress(
        b"".join(b"From x\nSubject: %d\n\n%s\n\n" % (at, os.urandom(500).hex().encode()) for at in range(300))
    )
    (tmp_path / "cut.mbox.gz").write_bytes(octets[: len(octets) // 2])
    (tmp_path / "whole.mbox").write_bytes(b"From x\nSubject: w\n\nw\n")
    report = bring(rig, account, MboxSource(tmp_path))
    assert "what follows is missing" in report.skipped[-1].why
    assert len(mail(rig, account)["whole"]) == 1
    assert len(mail(rig, account)["cut"]) > 100


def test_one_message_that_is_refused_does_not_keep_the_others_out(rig, account, tmp_path):
    for name, octets in (("a", b"Subject: a\n\n"), ("b", b"x" * (5 * 1024 * 1024)), ("c", b"Subject: c\n\n")):
        (tmp_path / f"{name}.eml").write_bytes(octets)
    report = bring(rig, account, EmlSource(tmp_path))
    assert report.imported == 2
    assert "too big" in report.skipped[0].why
    (tmp_path / "box").write_bytes(
        b"".join(
            b"From x\nX-Keywords: %s\n\n%d\n\n" % (b" ".join(b"k%d" % (at * 40 + n) for n in range(40)), at)
            for at in range(2)
        )
    )
    report = bring(rig, account, MboxSource(tmp_path / "box"))
    assert report.imported == 1
    assert "keywords" in report.skipped[0].why


def test_a_full_disk_ends_an_import_and_leaves_what_came(rig, account, tmp_path, monkeypatch):
    (tmp_path / "a.eml").write_bytes(b"Subject: a\n\n")
    monkeypatch.setattr("livemail.storage.disk.Disk.is_full", lambda self: True)
    with pytest.raises(StorageFull):
        bring(rig, account, EmlSource(tmp_path))
    monkeypatch.undo()
    assert bring(rig, account, EmlSource(tmp_path)).imported == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: MaildirSource(path), "is no Maildir"),
        (lambda path: MboxSource(path / "missing"), "does not exist"),
        (lambda path: MboxSource(path).mailboxes(), "holds no mbox"),
        (lambda path: EmlSource(path).mailboxes(), "holds no file whose name ends with .eml"),
    ],
)
def test_a_source_that_is_none_is_said(tmp_path, make, words):
    (tmp_path / "x").write_bytes(b"no mail")
    with pytest.raises(SourceError, match=words):
        make(tmp_path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Inbox", "INBOX"),
        ("Local Folders/Inbox.sbd/Work", "Local Folders/Inbox/Work"),
        ("a.mbox.gz", "a"),
        ("Takeout/Mail/All.mbox", "All"),
        ("", "box"),
    ],
)
def test_a_files_path_is_a_mailbox(path, name):
    assert mailbox_of(path, "box.mbox") == name


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("a*b%", "a_b_"), ("../x", "_/x"), ("~x", "x"), (" a / b ", "a/b"), ("\x00", "_"), ("//", "_/_/_")],
)
def test_a_name_that_cannot_be_is_the_nearest_that_can(name, allowed):
    assert allowed_name(name) == allowed
