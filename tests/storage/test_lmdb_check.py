"""`check` sees every kind of damage, and none where there is none."""

from __future__ import annotations

import threading

import pytest

from livemail.interfaces.storage import Delivery
from livemail.mail.ids import UIDSet
from livemail.storage.lmdb.records import ACCOUNT_COUNTERS, BLOB, MAILBOX_COUNTERS, SEGMENT, Message
from tests.contracts.stores import message


@pytest.fixture
def filled(folder_rig):
    account = folder_rig.new_account()
    for number in range(3):
        folder_rig.deliver(account, octets=message(f"s{number}"))
    folder_rig.wait(account.copy(folder_rig.info(account).id, UIDSet([(1, 1)]), "Sent"))
    assert folder_rig.problems() == []
    return folder_rig


def change(rig, table, edit, at=0):
    """Replace a row behind the store's back; ``edit`` returns the new value, None to delete it."""
    environment, tables = rig.store._environment, rig.store._tables
    with environment.begin(write=True) as txn:
        cursor = txn.cursor(getattr(tables, table))
        cursor.first()
        for _ in range(at):
            cursor.next()
        key, value = cursor.item()
        new = edit(value)
        if new is None:
            cursor.delete()
        else:
            txn.put(key, new, db=getattr(tables, table))


def counters(struct, at, by=1):
    def edit(value):
        fields = list(struct.unpack(value))
        fields[at] += by
        return struct.pack(*fields)

    return edit


def record(**fields):
    return lambda value: Message.unpack(value)._replace(**fields).pack()


@pytest.mark.parametrize(("at", "where"), [(0, "mailbox 1, UID 1"), (1, "mailbox 1, UID 2"), (3, "mailbox 3, UID 1")])
def test_a_message_of_another_size_than_its_content_is_named(filled, at, where):
    change(filled, "msg", record(size=1), at)
    found = [each for each in filled.wait(filled.store.check()).problems if each.kind == "message-size"]
    assert [each.where for each in found] == [f"account 1, {where}"]


@pytest.mark.parametrize(
    ("table", "edit", "kinds"),
    [
        ("mcnt", counters(MAILBOX_COUNTERS, 2), {"mailbox-counters"}),
        ("mcnt", counters(MAILBOX_COUNTERS, 3), {"mailbox-counters"}),
        ("mcnt", counters(MAILBOX_COUNTERS, 4), {"mailbox-counters"}),
        ("mcnt", counters(MAILBOX_COUNTERS, 5), {"mailbox-counters"}),
        ("mcnt", counters(MAILBOX_COUNTERS, 0, -1), {"message-uid"}),
        ("mcnt", counters(MAILBOX_COUNTERS, 1, -1), {"message-modseq"}),
        ("mcnt", lambda _: None, {"mailbox-counters", "message-orphan", "account-counters", "content-references"}),
        ("acnt", counters(ACCOUNT_COUNTERS, 1), {"account-counters"}),
        ("acnt", counters(ACCOUNT_COUNTERS, 2), {"account-counters"}),
        ("acnt", counters(ACCOUNT_COUNTERS, 0, -2), {"account-modseq"}),
        ("acnt", lambda _: None, {"account-counters"}),
        ("user", lambda _: None, {"account-name"}),
        ("mname", lambda _: None, {"mailbox-name"}),
        ("mbox", lambda _: None, {"mailbox-counters", "message-orphan", "account-counters", "content-references"}),
        ("msg", record(uid=9), {"message-uid"}),
        ("msg", record(keywords=1), {"message-keywords"}),
        ("msg", record(modseq=0), {"message-modseq"}),
        (
            "msg",
            lambda value: value[:-1],
            {"message-row", "mailbox-counters", "account-counters", "content-references"},
        ),
        ("cache", lambda value: value + b"x", {"cache-row"}),
        ("cache", lambda _: None, {"cache-row"}),
        ("blob", counters(BLOB, 0), {"content-references"}),
        ("blob", counters(BLOB, 4), {"content-damaged"}),
        ("blob", counters(BLOB, 1, 7), {"segment-missing", "segment-totals", "segment-row"}),
        ("blob", lambda _: None, {"content-missing", "segment-totals"}),
        ("seg", counters(SEGMENT, 1), {"segment-totals"}),
        ("seg", counters(SEGMENT, 0), {"segment-totals", "segment-tail"}),
    ],
)
def test_a_changed_row_is_found(filled, table, edit, kinds):
    change(filled, table, edit)
    assert set(filled.problems()) == kinds


def test_a_lost_segment_is_found(filled):
    (path,) = (filled.shard / "seg").glob("*.seg")
    filled.wait(filled.store.close())
    path.unlink()
    filled.store = filled.open()
    assert set(filled.problems()) == {"segment-missing"}


def test_it_tells_how_far_it_is(filled):
    told = []
    report = filled.wait(filled.store.check(lambda done, total, what: told.append((done, total, what))))
    assert told == [(4, 4, "messages"), (3, 3, "contents")]
    assert (report.accounts, report.mailboxes, report.messages, report.contents) == (1, 6, 4, 3)
    assert report.octets == sum(len(message(f"s{number}")) for number in range(3))


def test_what_changes_while_it_runs_is_no_problem(filled):
    account = filled.handle(1)
    inbox = filled.info(account)
    large = b"subject: large\r\n\r\n" + b"x" * 600_000
    filled.deliver(account, octets=large)
    went_on = threading.Event()

    async def meanwhile(what):
        if what == "messages" and not went_on.is_set():
            went_on.set()
            await account.expunge(inbox.id, UIDSet([(2, 4)]), only_deleted=False)
            await filled.store.deliver([Delivery(account.id, "INBOX", filled.content(message("new")))])

    calls = []

    def progress(done, total, what):
        calls.append(what)
        if what == "messages":
            # Driven to its end here: the check goes on only when this returns.
            filled.pump.wait(meanwhile(what))

    report = filled.wait(filled.store.check(progress))
    assert went_on.is_set()
    assert report.problems == ()
    assert (report.messages, report.contents) == (5, 1)
    assert filled.problems() == []


def test_a_store_closed_under_a_check_waits_for_its_slice(filled):
    from livemail.mail.errors import StorageFailed

    outcomes = filled.pump.settle([filled.store.check(), filled.store.close()])
    assert isinstance(outcomes[0], StorageFailed)
    assert outcomes[1] is None
    filled.store = filled.open()
    assert filled.problems() == []
