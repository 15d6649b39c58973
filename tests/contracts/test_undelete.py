"""Undelete: what was expunged comes back, for a while, whatever the back end."""

from __future__ import annotations

import pytest

from livemail.interfaces.storage import DATE, EMAIL_ID, FLAGS, KEYWORDS, THREAD_ID, UID_
from livemail.interfaces.undelete import KEY_OCTETS, IUndelete, Kept
from livemail.mail.changes import Added, MailboxCreated
from livemail.mail.errors import InvalidName, LimitReached, OverQuota
from livemail.mail.flags import DELETED, FLAGGED, SEEN, FlagChange
from livemail.mail.ids import UIDSet
from tests.contracts.stores import Recorder, message


def expunge(rig, account, mailbox="INBOX", uids=None):
    return rig.wait(account.expunge(rig.info(account, mailbox).id, uids, only_deleted=False))


def kept(rig, account):
    return rig.wait(account.kept())


def deleted(rig, account, **more):
    return rig.wait(account.deleted(**more))


def back(rig, account, keys=None, mailbox="INBOX"):
    keys = [each.key for each in deleted(rig, account)] if keys is None else keys
    return rig.wait(account.undelete(keys, mailbox))


def test_what_was_expunged_is_listed_and_comes_back_as_it_was(rig, account):
    assert IUndelete.providedBy(account)
    assert kept(rig, account) == Kept(0, 0)
    rig.append(account, "INBOX", message("one"), flags=SEEN | FLAGGED, keywords=("$Work",), internal_date=1_600_000_000)
    rig.append(account, "INBOX", message("two"), message("stays"))
    before = rig.fetch(account, envelopes=True, structures=True, fields=True, parts=True)
    info = rig.info(account)
    rig.wait(account.store(info.id, UIDSet.of([1, 2]), FlagChange("add", DELETED, ())))
    assert rig.wait(account.expunge(info.id, None)) == UIDSet.of([1, 2])
    one, two = deleted(rig, account)
    assert len(one.key) == KEY_OCTETS
    assert (one.mailbox, one.uid, one.flags, one.keywords) == ("INBOX", 1, SEEN | FLAGGED | DELETED, ("$Work",))
    assert (one.deleted, one.internal_date, one.size) == (int(rig.clock()), 1_600_000_000, len(message("one")))
    assert (one.envelope, two.envelope) == tuple(before["envelopes"][:2])
    assert kept(rig, account) == Kept(2, one.size + two.size)
    assert back(rig, account) == [(one.key, 4), (two.key, 5)]
    assert deleted(rig, account) == []
    assert kept(rig, account) == Kept(0, 0)
    after = rig.fetch(account, envelopes=True, structures=True, fields=True, parts=True)
    for column in ("envelopes", "structures", "fields", "parts"):
        assert after[column] == before[column][2:] + before[column][:2]
    old, new = before["rows"][0], after["rows"][1]
    assert (new[UID_], new[FLAGS], new[DATE]) == (4, SEEN | FLAGGED, 1_600_000_000)
    assert [after["keywords"][bit] for bit in range(8) if new[KEYWORDS] >> bit & 1] == ["$Work"]
    assert (new[EMAIL_ID], new[THREAD_ID]) == (old[EMAIL_ID], old[THREAD_ID])
    assert [rig.read(account, info.id, uid) for uid in (3, 4, 5)] == [message("stays"), message("one"), message("two")]
    info = rig.info(account)
    assert (info.exists, info.unseen, info.deleted) == (3, 2, 0)
    assert back(rig, account, [one.key]) == []


def test_the_prefix_of_a_delivery_comes_back_with_it(rig, account):
    rig.deliver(account, octets=message("x"), prefix=b"Return-Path: <a@b>\r\n")
    expunge(rig, account)
    back(rig, account)
    assert rig.read(account, rig.info(account).id, 2) == b"Return-Path: <a@b>\r\n" + message("x")


def test_coming_back_is_one_change_and_survives_a_restart(rig, account):
    rig.append(account, "INBOX", message("a"), message("b"))
    expunge(rig, account)
    if rig.is_durable:
        rig.reopen()
        account = rig.handle(account.id)
    listener = Recorder()
    watch = account.watch(listener)
    back(rig, account)
    (change,) = listener.changes
    assert isinstance(change, Added)
    assert change.uids == (3, 4)
    assert rig.wait(account.changes(change.mailbox, change.modseq - 1)).changed == UIDSet.of([3, 4])
    watch.stop()
    if rig.is_durable:
        rig.reopen()
        account = rig.handle(account.id)
        assert rig.info(account).exists == 2
        assert deleted(rig, account) == []


def test_a_deleted_mailbox_comes_back_with_its_messages(rig, account):
    rig.wait(account.create_mailbox("Work/Year"))
    rig.append(account, "Work/Year", message("a"), keywords=("k",))
    rig.wait(account.delete_mailbox("Work/Year"))
    rig.wait(account.delete_mailbox("Work"))
    (one,) = deleted(rig, account)
    assert (one.mailbox, one.uid) == ("Work/Year", 1)
    listener = Recorder()
    watch = account.watch(listener)
    assert back(rig, account, mailbox=one.mailbox) == [(one.key, 1)]
    watch.stop()
    assert [change.name for change in listener.changes if isinstance(change, MailboxCreated)] == ["Work", "Work/Year"]
    assert rig.read(account, rig.info(account, "Work/Year").id, 1) == message("a")
    assert rig.fetch(account, "Work/Year")["keywords"] == ["k"]


def test_into_another_mailbox_than_it_was_in(rig, account):
    rig.append(account, "INBOX", message("a"), keywords=("old",))
    rig.append(account, "Drafts", message("b"), keywords=("new",))
    expunge(rig, account)
    back(rig, account, mailbox="Drafts")
    rows = rig.fetch(account, "Drafts")
    assert (rows["keywords"], [row[KEYWORDS] for row in rows["rows"]]) == (["new", "old"], [1, 2])
    rig.append(account, "INBOX", message("c"))
    expunge(rig, account)
    with pytest.raises(InvalidName):
        back(rig, account, mailbox="a//b")
    assert len(deleted(rig, account)) == 1


def test_pages_are_in_order_of_time_and_of_one_account(rig, account):
    other = rig.new_account()
    for at in range(5):
        rig.append(account, "INBOX", message(str(at)))
        rig.append(other, "INBOX", message("theirs"))
        expunge(rig, account)
        expunge(rig, other)
        rig.clock.seconds += 10
    everything = deleted(rig, account)
    assert [each.uid for each in everything] == [1, 2, 3, 4, 5]
    assert [each.uid for each in deleted(rig, account, limit=2)] == [1, 2]
    assert [each.uid for each in deleted(rig, account, after=everything[1].key, limit=2)] == [3, 4]
    assert deleted(rig, account, after=everything[-1].key) == []
    theirs = deleted(rig, other)
    assert back(rig, account, [theirs[0].key]) == []
    assert rig.wait(account.forget_deleted([theirs[0].key])) == Kept(0, 0)
    assert len(deleted(rig, other)) == 5


def test_moved_and_copied_messages_are_kept_where_they_went(rig, account):
    rig.append(account, "INBOX", message("a"), message("b"))
    inbox = rig.info(account).id
    rig.wait(account.copy(inbox, UIDSet.of([1]), "Drafts"))
    rig.wait(account.move(inbox, UIDSet.all(), "Trash"))
    assert deleted(rig, account) == []
    expunge(rig, account, "Trash")
    assert [(each.mailbox, each.uid) for each in deleted(rig, account)] == [("Trash", 1), ("Trash", 2)]
    assert rig.read(account, rig.info(account, "Drafts").id, 1) == message("a")
    back(rig, account)
    assert rig.read(account, inbox, 3) == message("a")


def test_kept_mail_counts_against_no_quota_but_coming_back_does(make_rig):
    size = len(message("a"))
    rig = make_rig(account_quota=2 * size, quota_warning_percent=0)
    account = rig.new_account()
    rig.append(account, "INBOX", message("a"), message("b"))
    with pytest.raises(OverQuota):
        rig.append(account, "INBOX", message("c"))
    expunge(rig, account, uids=UIDSet.of([1]))
    rig.append(account, "INBOX", message("c"))
    with pytest.raises(OverQuota):
        back(rig, account)
    assert [each.uid for each in deleted(rig, account)] == [1]
    assert rig.info(account).exists == 2


def test_an_account_keeps_at_most_its_quota_and_the_oldest_go_first(make_rig):
    size = len(message("a"))
    rig = make_rig(account_quota=2 * size, quota_warning_percent=0)
    account = rig.new_account()
    for at in "abcd":
        rig.append(account, "INBOX", message(at))
        expunge(rig, account)
        rig.clock.seconds += 1
    assert [each.uid for each in deleted(rig, account)] == [3, 4]
    assert kept(rig, account) == Kept(2, 2 * size)


def test_without_undelete_nothing_is_kept(make_rig):
    rig = make_rig(undelete=0.0)
    account = rig.new_account()
    rig.append(account, "INBOX", message("a"))
    rig.wait(account.create_mailbox("gone"))
    rig.append(account, "gone", message("b"))
    expunge(rig, account)
    rig.wait(account.delete_mailbox("gone"))
    assert deleted(rig, account) == []
    assert rig.wait(rig.store.check()).contents == 0


def test_forgetting_is_for_good(rig, account):
    rig.append(account, "INBOX", message("a"), message("b"))
    expunge(rig, account)
    first, second = deleted(rig, account)
    assert rig.wait(account.forget_deleted([first.key, first.key])) == Kept(1, first.size)
    assert deleted(rig, account) == [second]
    assert back(rig, account, [first.key, second.key]) == [(second.key, 3)]
    assert rig.wait(rig.store.check()).messages == 1


def test_more_keywords_than_a_mailbox_can_have_are_refused_before_anything_is_done(rig, account):
    for name in ("one", "two"):
        rig.wait(account.create_mailbox(name))
        rig.append(account, name, message(name), keywords=tuple(f"{name}{at}" for at in range(40)))
        rig.wait(account.delete_mailbox(name))
    with pytest.raises(LimitReached):
        back(rig, account, mailbox="three")
    names = [box.name for box in rig.wait(account.mailboxes()).mailboxes]
    assert "three" not in names
    assert len(deleted(rig, account)) == 2


def test_the_same_content_twice_in_and_out(rig, account):
    rig.append(account, "INBOX", message("a"), message("a"))
    expunge(rig, account, uids=UIDSet.of([1]))
    rig.append(account, "INBOX", message("a"))
    expunge(rig, account)
    assert len(deleted(rig, account)) == 3
    back(rig, account)
    assert [rig.read(account, rig.info(account).id, uid) for uid in (4, 5, 6)] == [message("a")] * 3


def test_what_is_kept_goes_with_its_account(rig, account):
    rig.append(account, "INBOX", message("a"))
    expunge(rig, account)
    rig.wait(rig.store.remove_account(account.name))
    report = rig.wait(rig.store.check())
    assert (report.problems, report.contents) == ((), 0)
