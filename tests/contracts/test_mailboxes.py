"""The storage contract: accounts, mailboxes, names, subscriptions."""

from __future__ import annotations

import pytest

from livemail.interfaces.storage import AccountRecord, Delivery
from livemail.mail.changes import (
    AccountRemoved,
    Added,
    Expunged,
    MailboxCreated,
    MailboxDeleted,
    MailboxRenamed,
    Subscribed,
)
from livemail.mail.errors import (
    AccountExists,
    InvalidName,
    LimitReached,
    MailboxExists,
    MailError,
    NoSuchAccount,
    NoSuchMailbox,
    NotPermitted,
)
from livemail.mail.flags import FLAGGED, SEEN
from livemail.mail.ids import UIDSet
from livemail.mail.names import SPECIAL_USE
from tests.contracts.rig import DURABLE
from tests.contracts.stores import Recorder, message

NEW = ["Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash"]


def names(rig, account):
    return [box.name for box in rig.wait(account.mailboxes()).mailboxes]


def test_a_new_account_has_inbox_and_the_special_use_mailboxes_subscribed(rig, account):
    listed = rig.wait(account.mailboxes())
    assert [box.name for box in listed.mailboxes] == NEW
    assert {box.name: box.special_use for box in listed.mailboxes} == {"INBOX": "", **SPECIAL_USE}
    assert listed.subscribed == set(NEW)
    inbox = rig.info(account)
    assert (inbox.uid_next, inbox.exists, inbox.unseen, inbox.deleted, inbox.size, inbox.recent_from) == (
        1,
        0,
        0,
        0,
        0,
        1,
    )
    assert inbox.keywords == ()
    assert inbox.uid_validity > 0
    assert inbox.highest_modseq >= 1


def test_accounts_are_added_each_for_itself_and_listed_by_name(rig):
    results = rig.wait(rig.store.add_accounts([("b@localhost", "x"), ("a@localhost", ""), ("b@localhost", "y")]))
    assert [type(each) for each in results] == [AccountRecord, AccountRecord, AccountExists]
    assert [each.name for each in rig.wait(rig.store.accounts())] == ["a@localhost", "b@localhost"]
    found = rig.wait(rig.store.account_named("b@localhost"))
    assert (found.password, found.created, found.is_enabled) == ("x", 1_700_000_000, True)
    assert rig.wait(rig.store.account_named("c@localhost")) is None
    assert rig.handle(found.id).name == "b@localhost"
    (again,) = rig.wait(rig.store.add_accounts([("a@localhost", "z")]))
    assert isinstance(again, AccountExists)


def test_a_password_is_replaced(rig):
    rig.wait(rig.store.add_accounts([("a@localhost", "x")]))
    assert rig.wait(rig.store.set_password("a@localhost", "y")).password == "y"
    assert rig.wait(rig.store.account_named("a@localhost")).password == "y"
    with pytest.raises(NoSuchAccount):
        rig.wait(rig.store.set_password("b@localhost", "y"))


def test_a_removed_account_is_gone_with_its_mail_and_its_id(rig, account):
    rig.deliver(account)
    heard = Recorder()
    account.watch(heard)
    rig.wait(rig.store.remove_account(account.name))
    assert [type(change) for change in heard.changes] == [AccountRemoved]
    assert rig.wait(rig.store.account_named(account.name)) is None
    for call in (rig.store.account(account.id), rig.store.remove_account(account.name)):
        with pytest.raises(NoSuchAccount):
            rig.wait(call)
    with pytest.raises(MailError):
        rig.wait(account.mailbox("INBOX"))
    assert isinstance(rig.deliver(account), NoSuchAccount)
    assert rig.wait(rig.store.check()).messages == 0
    rig.wait(rig.store.add_accounts([(account.name, "")]))
    assert rig.wait(rig.store.account_named(account.name)).id > account.id


def test_creating_creates_missing_superiors(rig, account):
    heard = Recorder()
    account.watch(heard)
    made = rig.wait(account.create_mailbox("a/b/c", "\\Flagged"))
    assert (made.name, made.special_use) == ("a/b/c", "\\Flagged")
    assert made == rig.info(account, "a/b/c")
    assert rig.info(account, "a/b").special_use == ""
    assert names(rig, account) == [*NEW, "a", "a/b", "a/b/c"]
    assert [change.name for change in heard.changes] == ["a", "a/b", "a/b/c"]
    assert len({box.id for box in rig.wait(account.mailboxes()).mailboxes}) == 9


@pytest.mark.parametrize("name", ["a", "INBOX", "inbox", "Sent", "a/b"])
def test_creating_what_exists_is_refused(rig, account, name):
    rig.wait(account.create_mailbox("a/b"))
    with pytest.raises(MailboxExists):
        rig.wait(account.create_mailbox(name))


@pytest.mark.parametrize("name", ["", "a//b", "../x", "/x", "a\x00b", "x" * 1001, "/".join("a" * 33), "a*", "~x"])
def test_a_name_no_mailbox_can_have_is_refused(rig, account, name):
    with pytest.raises(InvalidName):
        rig.wait(account.create_mailbox(name))
    with pytest.raises(InvalidName):
        rig.wait(account.rename_mailbox("Sent", name))
    assert isinstance(rig.deliver(account, name), InvalidName)
    assert names(rig, account) == NEW


def test_long_names_are_told_apart(rig, account):
    one, two = "ä" * 490 + "/x", "ä" * 490 + "/y"
    rig.wait(account.create_mailbox(one))
    rig.wait(account.create_mailbox(two))
    assert {one, two, "ä" * 490} <= set(names(rig, account))
    rig.wait(account.rename_mailbox(one, "short"))
    assert rig.info(account, "short").name == "short"
    with pytest.raises(NoSuchMailbox):
        rig.wait(account.mailbox(one))


def test_the_number_of_mailboxes_is_limited_superiors_included(make_rig):
    rig = make_rig(max_mailboxes=8)
    account = rig.new_account()
    with pytest.raises(LimitReached):
        rig.wait(account.create_mailbox("a/b/c"))
    rig.wait(account.create_mailbox("a/b"))
    with pytest.raises(LimitReached):
        rig.wait(account.create_mailbox("c"))
    assert isinstance(rig.deliver(account, "c"), LimitReached)
    rig.wait(account.delete_mailbox("a/b"))
    rig.wait(account.create_mailbox("c"))


def test_what_does_not_exist_is_nowhere(rig, account):
    gone = rig.wait(account.create_mailbox("gone"))
    rig.wait(account.delete_mailbox("gone"))
    everything = UIDSet.all()
    for call in (
        account.mailbox("gone"),
        account.rename_mailbox("gone", "x"),
        account.delete_mailbox("gone"),
        account.select("gone", True),
        account.select("gone", False),
        account.copy(rig.info(account).id, everything, "gone"),
        account.move(rig.info(account).id, everything, "gone"),
        account.append("gone", []),
        account.changes(gone.id, 1),
        account.expunge(gone.id, None),
        account.claim_recent(gone.id, 1),
    ):
        with pytest.raises(NoSuchMailbox):
            rig.wait(call)


def test_renaming_takes_inferiors_along_and_keeps_messages_and_uids(rig, account):
    rig.wait(account.create_mailbox("a/b/c"))
    rig.append(account, "a/b", message("x"), message("y"), flags=SEEN)
    before = rig.info(account, "a/b")
    heard = Recorder()
    account.watch(heard)
    rig.wait(account.rename_mailbox("a/b", "new/place"))
    assert names(rig, account) == [*NEW, "a", "new", "new/place", "new/place/c"]
    after = rig.info(account, "new/place")
    assert (after.id, after.uid_validity, after.uid_next, after.exists) == (before.id, before.uid_validity, 3, 2)
    assert {(type(c), c.name) for c in heard.changes} == {
        (MailboxCreated, "new"),
        (MailboxRenamed, "new/place"),
        (MailboxRenamed, "new/place/c"),
    }
    assert {c.old for c in heard.changes if isinstance(c, MailboxRenamed)} == {"a/b", "a/b/c"}
    rig.wait(account.rename_mailbox("new/place", "a/b"))
    assert names(rig, account) == [*NEW, "a", "a/b", "a/b/c", "new"]


def test_a_name_that_only_begins_alike_is_no_inferior(rig, account):
    for name in ("ab", "a/b", "a-b"):
        rig.wait(account.create_mailbox(name))
    rig.wait(account.rename_mailbox("a", "z"))
    assert names(rig, account) == [*NEW, "a-b", "ab", "z", "z/b"]
    rig.wait(account.delete_mailbox("ab"))


def test_renaming_is_refused_where_it_cannot_be(rig, account):
    rig.wait(account.create_mailbox("a/b"))
    for old, new, error in (
        ("a", "Sent", MailboxExists),
        ("a", "INBOX", MailboxExists),
        ("a", "a", MailboxExists),
        ("a", "a/b", MailboxExists),
        ("a", "a/c", NotPermitted),
        ("a", "a/b/c", NotPermitted),
        ("a", "x/" + "y" * 997, InvalidName),
        ("x", "y", NoSuchMailbox),
    ):
        with pytest.raises(error):
            rig.wait(account.rename_mailbox(old, new))
    assert names(rig, account) == [*NEW, "a", "a/b"]


def test_renaming_inbox_moves_its_messages_and_leaves_it_and_its_inferiors(rig, account):
    rig.wait(account.create_mailbox("INBOX/below"))
    rig.append(account, "INBOX", message("x"), flags=FLAGGED, keywords=("Work",), internal_date=5, zone=60)
    rig.append(account, "INBOX", message("y"), internal_date=6)
    rig.append(account, "INBOX/below", message("z"))
    rig.wait(account.subscribe("INBOX", True))
    before = rig.info(account)
    heard = Recorder()
    account.watch(heard)
    rig.wait(account.rename_mailbox("INBOX", "old/mail"))
    inbox, made = rig.info(account), rig.info(account, "old/mail")
    assert (inbox.id, inbox.exists, inbox.uid_next, inbox.uid_validity) == (before.id, 0, 3, before.uid_validity)
    assert (made.exists, made.keywords) == (2, ("Work",))
    assert [row[1:3] + row[4:6] for row in rig.rows(account, "old/mail")] == [(FLAGGED, 1, 5, 60), (0, 0, 6, 0)]
    assert rig.info(account, "INBOX/below").exists == 1
    assert {type(change) for change in heard.changes} == {MailboxCreated, Added, Expunged}
    rig.wait(account.rename_mailbox("INBOX", "INBOX/empty"))
    assert rig.info(account, "INBOX/empty").exists == 0


def test_deleting_is_refused_for_inbox_and_for_what_has_inferiors(rig, account):
    rig.wait(account.create_mailbox("a/b"))
    for name in ("INBOX", "a"):
        with pytest.raises(NotPermitted):
            rig.wait(account.delete_mailbox(name))
    rig.wait(account.delete_mailbox("a/b"))
    rig.wait(account.delete_mailbox("a"))
    assert names(rig, account) == NEW


def test_a_mailbox_made_anew_is_another(rig, account):
    first = rig.wait(account.create_mailbox("a"))
    rig.append(account, "a", message(), keywords=("x",))
    heard = Recorder()
    account.watch(heard)
    rig.wait(account.delete_mailbox("a"))
    assert [(type(c), c.mailbox, c.name) for c in heard.changes] == [(MailboxDeleted, first.id, "a")]
    rig.clock.seconds -= 86400
    second = rig.wait(account.create_mailbox("a"))
    assert second.id > first.id
    assert second.uid_validity > first.uid_validity
    assert (second.exists, second.uid_next, second.keywords) == (0, 1, ())


def test_names_are_subscribed_to_without_existing_and_stay_when_they_go(rig, account):
    heard = Recorder()
    account.watch(heard)
    for name, wish in (("x/y", True), ("x/y", True), ("Sent", False), ("Sent", False)):
        rig.wait(account.subscribe(name, wish))
    assert rig.wait(account.mailboxes()).subscribed == {*NEW, "x/y"} - {"Sent"}
    assert [(c.name, c.is_subscribed) for c in heard.changes if isinstance(c, Subscribed)] == [
        ("x/y", True),
        ("Sent", False),
    ]
    rig.wait(account.delete_mailbox("Junk"))
    rig.wait(account.rename_mailbox("Trash", "Bin"))
    assert {"Junk", "Trash"} <= rig.wait(account.mailboxes()).subscribed
    assert "Bin" not in rig.wait(account.mailboxes()).subscribed


def test_accounts_do_not_see_each_other(rig, account):
    other = rig.new_account()
    rig.wait(account.create_mailbox("mine"))
    rig.deliver(account, "mine")
    rig.wait(account.subscribe("theirs", True))
    assert names(rig, other) == NEW
    assert "theirs" not in rig.wait(other.mailboxes()).subscribed
    heard = Recorder()
    other.watch(heard)
    rig.deliver(account)
    assert heard.calls == []
    results = rig.wait(
        rig.store.deliver(
            [Delivery(each, "INBOX", rig.content()) for each in (account.id, other.id, 4_000_000, other.id)]
        )
    )
    assert isinstance(results[2], NoSuchAccount)
    assert (rig.info(account).exists, rig.info(other).exists) == (2, 2)


@pytest.mark.parametrize("make_rig", DURABLE, indirect=True)
def test_everything_is_there_after_reopening(rig, account):
    rig.wait(account.create_mailbox("a/b", "\\Flagged"))
    rig.wait(account.subscribe("x", True))
    there = rig.deliver(account, "a/b", b"X: y\r\n\r\nz\r\n", prefix=b"P: q\r\n", flags=SEEN)
    before = rig.wait(account.mailboxes())
    rows = rig.rows(account, "a/b")
    rig.reopen()
    again = rig.handle(account.id)
    assert rig.wait(again.mailboxes()) == before
    assert rig.rows(again, "a/b") == rows
    assert rig.read(again, there.mailbox, there.uid) == b"P: q\r\nX: y\r\n\r\nz\r\n"
    made = rig.wait(again.create_mailbox("c"))
    assert made.uid_validity > max(box.uid_validity for box in before.mailboxes)
    assert made.highest_modseq > max(box.highest_modseq for box in before.mailboxes)
