"""Names of folders, files and keywords."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from livemail.mail.errors import InvalidName
from livemail.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from livemail.mail.names import canonical_name
from livemail.storage.maildir.keywords import Keywords, add_keywords, parse_keywords
from livemail.storage.maildir.names import (
    folder_name,
    is_hashed,
    mailbox_name,
    new_base,
    read_letters,
    split_name,
    write_letters,
)


@pytest.mark.parametrize(
    ("mailbox", "folder"),
    [
        ("INBOX", ""),
        ("Sent", ".Sent"),
        ("a/b", ".a.b"),
        ("a.b", ".a\\2eb"),
        ("a\\b", ".a\\5cb"),
        ("Entwürfe/ä", ".Entw&APw-rfe.&AOQ-"),
        ("INBOX/x", ".INBOX.x"),
        ("x&y", ".x&-y"),
    ],
)
def test_a_mailbox_and_its_folder_name_each_other(mailbox, folder):
    assert folder_name(mailbox) == folder
    if folder:
        assert mailbox_name(folder) == mailbox


@given(st.text(max_size=400))
@example("a" * 300)
@example("../..")
def test_no_name_leaves_the_accounts_folder_and_none_is_lost(text):
    try:
        name = canonical_name(text)
    except InvalidName:
        return
    folder = folder_name(name)
    assert "/" not in folder
    assert "\0" not in folder
    assert len(folder.encode()) <= 255
    assert folder not in {".", ".."}
    assert name == "INBOX" or is_hashed(folder) or mailbox_name(folder) == name


@pytest.mark.parametrize("folder", ["x", ".", "..", "...", ".a..b", ".x&AGE-", ".a\\2fb", ".a\\zz", ".\\=00", ".INBOX"])
def test_what_is_nobodys_folder_is_no_mailbox(folder):
    assert mailbox_name(folder) is None


@pytest.mark.parametrize(
    ("name", "base", "letters"),
    [
        ("1.a.h:2,FS", "1.a.h", "FS"),
        ("1.a.h", "1.a.h", ""),
        ("1.a.h:1,x", "1.a.h", ""),
        ("1.a.h,S=3,W=4:2,", "1.a.h,S=3,W=4", ""),
    ],
)
def test_a_files_name_is_base_and_letters(name, base, letters):
    assert split_name(name) == (base, letters)


def test_letters_say_flags_and_keywords_and_those_of_others_stay():
    assert read_letters("DFPRSTaz") == (DRAFT | FLAGGED | ANSWERED | SEEN | DELETED, "az")
    assert write_letters(SEEN | FLAGGED, "ca", before="PRT") == "FPSac"
    assert write_letters(0, "") == ""


def test_a_base_says_its_octets_and_holds_nothing_that_ends_it():
    assert new_base(7, "P1Q2", "a/b:c,d", 30, 31) == "7.P1Q2.a\\057b\\072c\\054d,S=30,W=31"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0 $Label1\n1 two words\n", {"a": "$Label1", "b": "two words"}),
        ("26 beyond\n-1 x\n2\n3 \nx y\n25 z\n", {"z": "z"}),
        ("", {}),
    ],
)
def test_dovecot_keywords_are_read_line_by_line(text, names):
    assert parse_keywords(text) == names


def test_keywords_get_free_letters_and_keep_them(tmp_path):
    (tmp_path / "dovecot-keywords").write_text("1 beta\n")
    assert add_keywords(tmp_path, ["alpha", "BETA", "gamma"]).names == {"a": "alpha", "b": "beta", "c": "gamma"}
    assert Keywords.read(tmp_path).of_names(["GAMMA", "nobody"]) == "c"
    assert not (tmp_path / "dovecot-uidlist.lock").exists()
    names = [f"k{at}" for at in range(30)]
    assert len(add_keywords(tmp_path, names).names) == 26
    assert add_keywords(tmp_path, ["more"]).of_names(["more", "alpha"]) == "a"


def test_a_held_dotlock_is_waited_for_and_then_said(tmp_path, monkeypatch):
    monkeypatch.setattr("livemail.storage.maildir.keywords.LOCK_SECONDS", 0.01)
    (tmp_path / "dovecot-uidlist.lock").touch()
    with pytest.raises(TimeoutError, match="held by another program"):
        add_keywords(tmp_path, ["alpha"])
    monkeypatch.setattr("livemail.storage.maildir.keywords.STALE_SECONDS", -1)
    assert add_keywords(tmp_path, ["alpha"]).names == {"a": "alpha"}
