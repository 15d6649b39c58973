"""Imports: each message of a source once, with the UID, flags, keywords and date it had."""

from __future__ import annotations

import pytest

from livemail.interfaces.storage import DATE, FLAGS, UID_, ZONE
from livemail.interfaces.transfer import ImportItem
from livemail.mail.changes import Added
from livemail.mail.errors import LimitReached, NoSuchMailbox, OverQuota
from livemail.mail.flags import SEEN
from livemail.mail.ids import MAX_UID, UIDSet
from tests.contracts.stores import Recorder, message


def bring(rig, account, *items, mailbox="INBOX", source="s", validity=0):
    """items: (source id, subject, further fields)."""
    made = [ImportItem(rig.content(message(subject)), id_, **fields) for id_, subject, fields in items]
    return list(rig.wait(account.import_messages(mailbox, source, made, validity)))


def test_each_message_comes_once_whatever_the_batch(rig, account):
    assert bring(rig, account, (b"1", "a", {}), (b"2", "b", {}), (b"1", "again", {})) == [1, 2, 0]
    assert bring(rig, account, (b"2", "b", {}), (b"3", "c", {})) == [0, 3]
    assert bring(rig, account, (b"1", "a", {}), source="other") == [4]
    assert rig.wait(account.imported("s")) == {b"1", b"2", b"3"}
    assert rig.wait(account.imported("nobody")) == frozenset()
    assert [rig.read(account, rig.info(account).id, uid) for uid in (1, 3)] == [message("a"), message("c")]


def test_what_was_expunged_since_does_not_come_back(rig, account):
    bring(rig, account, (b"1", "a", {}))
    rig.wait(account.expunge(rig.info(account).id, UIDSet.all(), only_deleted=False))
    assert bring(rig, account, (b"1", "a", {})) == [0]
    assert rig.info(account).exists == 0


def test_flags_keywords_dates_and_uids_are_kept(rig, account):
    fields = {"flags": SEEN, "keywords": ("$Work",), "internal_date": 1_600_000_000, "zone": 90, "uid": 7}
    assert bring(rig, account, (b"1", "a", fields), (b"2", "b", {"uid": 9}), validity=4242) == [7, 9]
    rows = rig.fetch(account)
    first = rows["rows"][0]
    assert (first[UID_], first[FLAGS], first[DATE], first[ZONE]) == (7, SEEN, 1_600_000_000, 90)
    assert rows["keywords"] == ["$Work"]
    info = rig.info(account)
    assert (info.uid_validity, info.uid_next, info.exists, info.unseen) == (4242, 10, 2, 1)
    # Lower UIDs were given, and somebody was told the UIDVALIDITY.
    assert bring(rig, account, (b"3", "c", {"uid": 3}), validity=1) == [10]
    assert rig.info(account).uid_validity == 4242


def test_an_import_is_one_change_and_survives_a_restart(rig, account):
    listener = Recorder()
    watch = account.watch(listener)
    bring(rig, account, (b"1", "a", {"uid": 5}), (b"2", "b", {}))
    (change,) = listener.changes
    assert isinstance(change, Added)
    assert change.uids == (5, 6)
    watch.stop()
    if rig.is_durable:
        rig.reopen()
        account = rig.handle(account.id)
        assert bring(rig, account, (b"1", "a", {}), (b"2", "b", {})) == [0, 0]


def test_a_refused_import_did_nothing(make_rig):
    rig = make_rig(account_quota=1000)
    account = rig.new_account()
    with pytest.raises(NoSuchMailbox):
        bring(rig, account, (b"1", "a", {}), mailbox="nowhere")
    with pytest.raises(OverQuota):
        bring(rig, account, *((bytes([at]), "a" * 300, {}) for at in range(4)))
    with pytest.raises(LimitReached):
        bring(rig, account, (b"1", "a", {"uid": MAX_UID}))
    with pytest.raises(LimitReached):
        bring(rig, account, (b"1", "a", {"keywords": tuple(f"k{at}" for at in range(65))}))
    assert rig.wait(account.imported("s")) == frozenset()
    assert rig.info(account).uid_next == 1


def test_what_was_imported_goes_with_the_account(rig, account):
    bring(rig, account, (b"1", "a", {}))
    rig.wait(rig.store.remove_account(account.name))
    (record,) = rig.wait(rig.store.add_accounts([(account.name, "")]))
    assert rig.wait(rig.handle(record.id).imported("s")) == frozenset()
