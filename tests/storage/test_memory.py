"""What only the memory back end promises: no suspension, no disk."""

from __future__ import annotations

import pytest

from livemail.interfaces.storage import AppendItem, Delivery, FetchWant
from livemail.mail.errors import NoSuchAccount, NoSuchMailbox, OverQuota, StorageFailed, TooBig
from livemail.mail.flags import DELETED, FlagChange
from livemail.mail.ids import AccountId, UIDSet
from livemail.storage.memory import MemoryStore
from livemail.storage.settings import StorageSettings
from tests.contracts.drive import finish
from tests.contracts.stores import content, fetch_all, message, read_whole


def with_account(**settings):
    store = MemoryStore(now=lambda: 1_700_000_000.5, settings=StorageSettings(**settings))
    (record,) = finish(store.add_accounts([("a@localhost", "")]))
    return store, finish(store.account(record.id)), record


def test_a_message_goes_in_and_comes_back_without_suspending():
    store, account, record = with_account()
    octets = message("hello")
    (delivered,) = finish(
        store.deliver([Delivery(record.id, "INBOX", finish(content(store, octets)), prefix=b"X: y\r\n")])
    )
    assert finish(read_whole(account, delivered.mailbox, delivered.uid, piece=7)) == b"X: y\r\n" + octets
    assert finish(fetch_all(account, delivered.mailbox, contents=True))["contents"] == [b"X: y\r\n" + octets]


def test_one_body_serves_all_copies_and_goes_with_the_last():
    store, account, record = with_account(undelete=0.0)
    made = finish(content(store, message()))
    finish(store.deliver([Delivery(record.id, "INBOX", made), Delivery(record.id, "Archive", made)]))
    again = finish(content(store, message()))
    finish(account.append("Sent", [AppendItem(again)]))
    made.close()
    again.close()
    assert finish(store.check()).contents == 1
    for name in ("INBOX", "Archive", "Sent"):
        finish(account.expunge(finish(account.mailbox(name)).id, None, only_deleted=False))
    assert finish(store.check()).contents == 0


def test_an_open_reader_survives_the_expunge():
    store, account, record = with_account()
    (there,) = finish(store.deliver([Delivery(record.id, "INBOX", finish(content(store, message())))]))
    reader = finish(account.open_content(there.mailbox, there.uid))
    finish(account.expunge(there.mailbox, None, only_deleted=False))
    assert finish(reader.read(0, 1000)) == message()
    assert finish(account.open_content(there.mailbox, there.uid)) is None


def test_a_fetch_whose_mailbox_goes_between_two_batches_says_so():
    store, account, _record = with_account()
    items = [AppendItem(finish(content(store, message())))] * 1001
    finish(account.create_mailbox("x"))
    box = finish(account.append("x", items)).mailbox
    batches = account.fetch(box, UIDSet.all(), FetchWant())
    assert len(finish(anext(batches)).rows) == 1000
    finish(account.delete_mailbox("x"))
    with pytest.raises(NoSuchMailbox):
        finish(anext(batches))


def test_what_is_expunged_between_two_batches_is_left_out():
    store, account, _record = with_account()
    box = finish(account.append("INBOX", [AppendItem(finish(content(store, message())))] * 1003)).mailbox
    batches = account.fetch(box, UIDSet.all(), FetchWant())
    finish(anext(batches))
    finish(account.store(box, UIDSet.of([1, 1001, 1003]), FlagChange("add", DELETED)))
    finish(account.expunge(box, None))
    assert [row[0] for row in finish(anext(batches)).rows] == [1002]


def test_limits_refuse_before_anything_is_done():
    store, account, record = with_account(message_size_limit=200, account_quota=250)
    with pytest.raises(TooBig):
        store.new_content(201)
    with pytest.raises(TooBig):
        finish(_write(store, b"x" * 201))
    made = finish(content(store, message(body="x" * 80)))
    assert 125 < made.size < 200
    finish(account.append("INBOX", [AppendItem(made)]))
    with pytest.raises(OverQuota):
        finish(account.append("INBOX", [AppendItem(made)]))
    (refused,) = finish(store.deliver([Delivery(record.id, "new", made)]))
    assert isinstance(refused, OverQuota)
    with pytest.raises(NoSuchMailbox):
        finish(account.mailbox("new"))
    assert finish(account.mailbox("INBOX")).exists == 1


async def _write(store, octets):
    sink = store.new_content()
    try:
        sink.write(octets)
    finally:
        sink.abort()


def test_check_finds_a_counter_that_is_wrong_and_octets_that_changed():
    store, account, record = with_account()
    made = finish(content(store, message()))
    finish(account.append("INBOX", [AppendItem(made)]))
    assert finish(store.check()).problems == ()
    mailbox = store._by_id[record.id].by_name["INBOX"]
    mailbox.unseen += 1
    mailbox.messages[1].body.octets = b"other"
    assert {problem.kind for problem in finish(store.check()).problems} == {"counter", "content"}


def test_after_close_everything_fails_as_storage():
    store, account, _record = with_account()
    finish(store.close())
    for call in (store.accounts(), store.account(AccountId(1)), account.mailboxes(), account.select("INBOX", True)):
        with pytest.raises(StorageFailed):
            finish(call)
    with pytest.raises(StorageFailed):
        store.new_content()


def test_a_removed_account_answers_nothing_more():
    store, account, record = with_account()
    finish(store.remove_account("a@localhost"))
    with pytest.raises(NoSuchAccount):
        finish(account.mailboxes())
    with pytest.raises(NoSuchAccount):
        finish(store.account(record.id))
