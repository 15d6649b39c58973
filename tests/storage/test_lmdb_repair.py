"""`repair` mends every kind of damage `check` finds, and a plan is what it does."""

from __future__ import annotations

import pytest

from livemail.interfaces.storage import FLAGS
from livemail.mail.flags import SEEN, FlagChange
from livemail.mail.ids import UIDSet
from livemail.storage.lmdb.records import ACCOUNT_COUNTERS, BLOB, MAILBOX_COUNTERS, SEGMENT
from tests.contracts.queue_rig import QueueDriver
from tests.contracts.stores import message
from tests.storage.test_lmdb_check import change, counters, filled, record

__all__ = ["filled"]


def mend(rig):
    plan = rig.wait(rig.store.plan_repair())
    assert rig.wait(rig.store.repair()) == plan
    return {each.kind for each in plan}


def names(rig, account=1):
    return {info.name: info.exists for info in rig.wait(rig.handle(account).mailboxes()).mailboxes}


@pytest.mark.parametrize(
    ("table", "edit", "kinds"),
    [
        ("mcnt", counters(MAILBOX_COUNTERS, 2), {"mailbox-counters"}),
        ("mcnt", counters(MAILBOX_COUNTERS, 5), {"mailbox-counters"}),
        ("mcnt", counters(MAILBOX_COUNTERS, 0, -1), {"mailbox-counters"}),
        ("mcnt", counters(MAILBOX_COUNTERS, 1, -1), {"mailbox-counters"}),
        ("mcnt", lambda _: None, {"mailbox-counters"}),
        ("acnt", counters(ACCOUNT_COUNTERS, 1), {"account-counters"}),
        ("acnt", counters(ACCOUNT_COUNTERS, 0, -2), {"account-counters"}),
        ("acnt", lambda _: None, {"account-counters"}),
        ("user", lambda _: None, {"account-name"}),
        ("mname", lambda _: None, {"mailbox-name"}),
        ("msg", record(uid=9), {"message-row"}),
        ("msg", record(keywords=1), {"message-row"}),
        ("msg", record(modseq=0), {"message-row"}),
        ("msg", record(size=1), {"message-row"}),
        ("cache", lambda value: value + b"x", {"cache-row"}),
        ("cache", lambda _: None, {"cache-row"}),
        ("blob", counters(BLOB, 0), {"content-references"}),
        ("seg", counters(SEGMENT, 1), {"segment-totals"}),
        ("seg", counters(SEGMENT, 0), {"segment-totals"}),
    ],
)
def test_what_can_be_derived_is_derived_and_nothing_is_lost(filled, table, edit, kinds):
    before = filled.fetch(filled.handle(1), envelopes=True, structures=True, contents=True)
    flags = [row[FLAGS] for row in before["rows"]]
    change(filled, table, edit)
    assert filled.problems() != []
    assert mend(filled) == kinds
    assert filled.problems() == []
    assert mend(filled) == set()
    after = filled.fetch(filled.handle(1), envelopes=True, structures=True, contents=True)
    assert [row[FLAGS] for row in after["rows"]] == flags
    assert {key: after[key] for key in ("envelopes", "structures", "contents")} == {
        key: before[key] for key in ("envelopes", "structures", "contents")
    }


@pytest.mark.parametrize(
    ("table", "edit", "left"),
    [
        ("mbox", lambda _: None, {"lost+found": 3, "Sent": 1}),
        ("msg", lambda value: value[:-1], {"INBOX": 2, "Sent": 1}),
        ("blob", lambda _: None, None),
    ],
)
def test_what_belongs_nowhere_goes_to_lost_and_found(filled, table, edit, left):
    change(filled, table, edit)
    kinds = mend(filled)
    assert kinds
    assert filled.problems() == []
    there = {name: count for name, count in names(filled).items() if count}
    if left is not None:
        assert there == left
    else:
        assert sum(there.values()) < 4
        assert "content-missing" in kinds


def test_a_content_nobody_refers_to_becomes_a_message_in_lost_and_found(filled):
    account = filled.handle(1)
    filled.wait(account.expunge(filled.info(account, "Sent").id, None, only_deleted=False))
    environment, tables = filled.store._environment, filled.store._tables
    with environment.begin(write=True) as txn:
        for table in (tables.msg, tables.cache):
            txn.cursor(table).first()
            cursor = txn.cursor(table)
            cursor.first()
            cursor.delete()
    assert "content-references" in mend(filled)
    assert filled.problems() == []
    assert names(filled)["lost+found"] == 1
    assert filled.fetch(account, "lost+found", contents=True)["contents"] == [message("s0")]
    # It works as any other mailbox does.
    box = filled.info(account, "lost+found")
    filled.wait(account.store(box.id, UIDSet.all(), FlagChange("add", SEEN)))
    filled.wait(account.move(box.id, UIDSet.all(), "INBOX"))
    filled.append(account, "lost+found", message("more"))
    assert filled.problems() == []


def test_an_account_that_is_gone_leaves_its_mail_to_the_first(filled):
    other = filled.new_account()
    filled.append(other, "INBOX", message("mine"))
    environment, tables = filled.store._environment, filled.store._tables
    with environment.begin(write=True) as txn:
        txn.delete((2).to_bytes(4, "big"), db=tables.acct)
        txn.delete(other.name.encode(), db=tables.user)
        txn.delete((2).to_bytes(4, "big"), db=tables.acnt)
    assert "mailbox-orphan" in mend(filled)
    assert filled.problems() == []
    assert filled.fetch(filled.handle(1), "lost+found", contents=True)["contents"] == [message("mine")]


def test_what_only_the_queue_holds_is_nobodys_loss(filled):
    queue = QueueDriver(filled)
    queue.accept("far@example.net", octets=message("out"))
    assert mend(filled) == set()
    change(filled, "blob", counters(BLOB, 0))
    assert mend(filled) == {"content-references"}
    assert filled.problems() == []
    assert "lost+found" not in names(filled)


def test_a_sound_store_is_left_alone(filled):
    assert mend(filled) == set()


def test_damage_that_cannot_be_mended_is_said_and_nothing_is_made_worse(filled):
    change(filled, "blob", counters(BLOB, 4))
    change(filled, "cache", lambda _: None)
    filled.wait(filled.store.repair())
    assert set(filled.problems()) <= {"content-damaged", "cache-row"}
