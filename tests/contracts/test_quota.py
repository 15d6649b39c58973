"""Quotas of accounts, domains and the store: exact however many ask at once, and told of before they are reached."""

from __future__ import annotations

import email
import email.policy
import errno
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import globalLogPublisher

from livemail.interfaces.quota import IQuotaStore
from livemail.interfaces.storage import AppendItem, Delivered, Delivery
from livemail.interfaces.transfer import ImportItem
from livemail.mail.errors import LimitReached, NoSuchAccount, OverQuota
from livemail.mail.ids import UIDSet
from livemail.storage.placement import PlacementSettings
from tests.contracts.rig import DURABLE, RIGS

ALL = UIDSet.all()
EVERYBODY = 40


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the log is told of quotas."""
    lines: list[str] = []

    def observe(event):
        text = event.get("text", "")
        if "of its quota" in text:
            lines.append(f"{event['log_level'].name}: {text}")

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def table(name, **fields):
    return PlacementSettings(name=name, **fields)


def quiet(make_rig, **settings):
    """A rig whose warnings do not fill mailboxes."""
    return make_rig(quota_warning_percent=0, **settings)


def uses(rig, name=""):
    return {use.name or use.kind: use for use in rig.wait(rig.store.quotas(name))}


def at_once(rig, *calls):
    """Begin calls one after the other, none waiting for another; return their results."""

    async def all_of_them():
        return await gatherResults([Deferred.fromCoroutine(call) for call in calls], consumeErrors=True)

    return rig.wait(all_of_them())


async def refused_or_done(call):
    try:
        return await call
    except OverQuota as refusal:
        return refusal


def one_each(rig, accounts, octets):
    """One delivery to each account, all distinct, all at once."""
    return [
        rig.store.deliver([Delivery(account.id, "INBOX", rig.content(octets % number))])
        for number, account in zip(itertools.count(100), accounts, strict=False)
    ]


# ---------------------------------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize(
    ("settings", "fit"),
    [
        ({"account_quota": 1000}, 10),
        ({"account_messages": 7}, 7),
        ({"store_quota": 1299}, 12),
        ({"store_messages": 3}, 3),
        ({"domain": (table("localhost", quota_total=1000),)}, 10),
        ({"domain": (table("localhost", messages_total=9, quota=700),)}, 7),
        ({"domain": (table("localhost", quota=300),), "account": (table("one@localhost", quota=500),)}, 5),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_as_many_as_fit_are_taken_when_all_come_at_once(make_rig, settings, fit):
    rig = quiet(make_rig, **settings)
    account = rig.new_account("one@localhost")
    answers = at_once(rig, *one_each(rig, [account] * EVERYBODY, b"x" * 97 + b"%d"))
    taken = [answer for (answer,) in answers if isinstance(answer, Delivered)]
    assert len(taken) == fit
    assert {answer.enhanced for (answer,) in answers if answer not in taken} == {"5.2.2"}
    assert rig.info(account).exists == fit


def test_the_total_of_a_domain_is_shared_by_its_accounts_and_by_nobody_else(make_rig):
    rig = quiet(make_rig, domain=(table("example.org", quota_total=1000),), store_messages=30)
    ours = [rig.new_account(f"a{n}@example.org") for n in range(4)]
    other = rig.new_account("b@example.net")
    answers = at_once(rig, *one_each(rig, [*ours, other] * 8, b"x" * 97 + b"%d"))
    taken = [answer.account for (answer,) in answers if isinstance(answer, Delivered)]
    assert len(taken) == 18
    assert taken.count(other.id) == 8
    use = uses(rig)
    assert (use["example.org"].octets, use["example.org"].percent) == (1000, 100)
    assert (use["example.net"].octets, use["store"].messages, use["store"].percent) == (800, 18, 60)


def test_one_recipient_over_quota_costs_the_others_nothing(make_rig):
    rig = quiet(make_rig, account=(table("full@localhost", messages=1),))
    full, empty = rig.new_account("full@localhost"), rig.new_account("empty@localhost")
    rig.deliver(full)
    content = rig.content()
    results = rig.wait(rig.store.deliver([Delivery(each.id, "INBOX", content) for each in (full, empty)]))
    assert isinstance(results[0], OverQuota)
    assert isinstance(results[1], Delivered)
    assert (results[0].code, results[0].enhanced, results[0].temporary) == (552, "5.2.2", False)


def test_over_quota_may_be_refused_for_now_instead(make_rig):
    rig = quiet(make_rig, account_messages=1, over_quota="try_later")
    account = rig.new_account()
    rig.deliver(account)
    refusal = rig.deliver(account)
    assert (refusal.code, refusal.enhanced, refusal.temporary) == (452, "4.2.2", True)
    assert refusal.condition == "OVERQUOTA"


@pytest.mark.parametrize(
    "settings", [{"account_messages": 3}, {"store_messages": 3}, {"domain": (table("localhost", messages_total=3),)}]
)
def test_append_copy_and_import_count_and_a_move_is_free(make_rig, settings):
    rig = quiet(make_rig, **settings)
    account = rig.new_account()
    rig.append(account, "INBOX", b"one", b"two")
    box = rig.info(account).id
    with pytest.raises(OverQuota):
        rig.append(account, "Sent", b"three", b"four")
    with pytest.raises(OverQuota):
        rig.wait(account.copy(box, ALL, "Sent"))
    items = [ImportItem(rig.content(b"%d" % n), bytes([n]) * 16) for n in (3, 4)]
    with pytest.raises(OverQuota):
        rig.wait(account.import_messages("Sent", "elsewhere", items))
    rig.wait(account.import_messages("Sent", "elsewhere", items[:1]))
    # What came before needs no room.
    assert list(rig.wait(account.import_messages("Sent", "elsewhere", items[:1]))) == [0]
    assert len(rig.wait(account.move(box, ALL, "Archive")).target) == 2
    assert isinstance(rig.deliver(account), OverQuota)
    rig.wait(account.expunge(rig.info(account, "Sent").id, None, only_deleted=False))
    assert isinstance(rig.deliver(account), Delivered)


def test_what_goes_makes_room_in_every_total(make_rig):
    rig = quiet(make_rig, store_quota=1000, domain=(table("localhost", messages_total=10),))
    one, other = rig.new_account("one@localhost"), rig.new_account("other@localhost")
    rig.wait(one.create_mailbox("box"))
    for name in ("box", "INBOX"):
        rig.append(one, name, *(b"x" * 100 for _ in range(5)))
    assert isinstance(rig.deliver(other, octets=b"y"), OverQuota)
    rig.wait(one.delete_mailbox("box"))
    assert isinstance(rig.deliver(other, octets=b"y" * 501), OverQuota)
    assert isinstance(rig.deliver(other, octets=b"y" * 500), Delivered)
    rig.wait(rig.store.remove_account("one@localhost"))
    rig.append(other, "INBOX", *(b"z" * 50 for _ in range(9)))
    assert isinstance(rig.deliver(other, octets=b"z"), OverQuota)
    assert uses(rig)["store"].octets == 950


def test_deliveries_and_expunges_at_once_leave_every_total_true(make_rig):
    rig = quiet(make_rig, store_messages=25, domain=(table("localhost", messages_total=20),))
    accounts = [rig.new_account() for _ in range(4)]
    boxes = [rig.info(account).id for account in accounts]
    there_are = 0
    refused = 0
    for first in range(1, 30, 3):
        calls = []
        for account, box in zip(accounts, boxes, strict=True):
            calls += one_each(rig, [account] * 6, b"x%d")
            calls.append(account.expunge(box, UIDSet([(first, first + 2)]), only_deleted=False))
            calls.append(refused_or_done(account.append("Sent", [AppendItem(rig.content(b"sent"))])))
        # The writer takes them in the order in which they were asked, so each answer says what was there before it.
        for answer in at_once(rig, *calls):
            one = answer[0] if isinstance(answer, list) else answer
            if isinstance(one, UIDSet):
                there_are -= len(one)
                continue
            assert isinstance(one, OverQuota) == (there_are == 20)
            refused += isinstance(one, OverQuota)
            there_are += not isinstance(one, OverQuota)
        use = uses(rig)
        assert use["store"].messages == use["localhost"].messages == there_are
    assert refused > 20
    if rig.is_durable:
        rig.reopen()
    there = rig.handle(accounts[0].id)
    there_are -= len(rig.wait(there.expunge(boxes[0], None, only_deleted=False)))
    room = [rig.deliver(there, octets=b"x") for _ in range(20 - there_are + 1)]
    assert [isinstance(each, OverQuota) for each in room] == [False] * (20 - there_are) + [True]


def test_mailboxes_are_limited_by_the_accounts_own_table_and_a_new_account_is_always_whole(make_rig):
    rig = make_rig(domain=(table("localhost", mailboxes=2),), account=(table("many@localhost", mailboxes=9),))
    few, many = rig.new_account("few@localhost"), rig.new_account("many@localhost")
    made = len(rig.wait(few.mailboxes()).mailboxes)
    assert made == len(rig.wait(many.mailboxes()).mailboxes) > 2
    with pytest.raises(LimitReached):
        rig.wait(few.create_mailbox("more"))
    for n in range(9 - made):
        rig.wait(many.create_mailbox(f"more{n}"))
    with pytest.raises(LimitReached):
        rig.wait(many.create_mailbox("last"))
    assert uses(rig)["many@localhost"].mailboxes == uses(rig)["many@localhost"].mailboxes_limit == 9


@pytest.mark.parametrize("kind", DURABLE)
def test_a_transaction_that_is_thrown_away_counts_for_nothing(kind):
    from tests.storage.lmdb_rig import Once

    rig = RIGS[kind](quota_warning_percent=0, store_messages=4, domain=(table("localhost", quota_total=40),))
    try:
        account = rig.new_account()
        with Once("txn-filled", lambda: RuntimeError("thrown away"), times=3):
            for _ in range(3):
                with pytest.raises(RuntimeError):
                    rig.deliver(account, octets=b"0123456789")
        taken = [isinstance(rig.deliver(account, octets=b"0123456789"), Delivered) for _ in range(6)]
        assert taken == [True] * 4 + [False] * 2
    finally:
        rig.close()


def test_the_writers_process_counts_as_well():
    rig = RIGS["lmdb"](writer="process", store_messages=12, account_messages=10)
    try:
        accounts = [rig.new_account(), rig.new_account()]
        answers = at_once(rig, *one_each(rig, accounts * 10, b"%d"))
        # One of the two got nine, which is 90 % of ten, or none did; the warnings count, but are not refused.
        taken = sum(isinstance(answer, Delivered) for (answer,) in answers)
        use = uses(rig)["store"]
        assert taken == 12
        assert use.messages == taken + sum(rig.info(each).exists for each in accounts) - 12
        rig.reopen()
        assert uses(rig)["store"].messages == use.messages
        assert isinstance(rig.deliver(rig.handle(accounts[0].id)), OverQuota)
    finally:
        rig.close()


# ----------------------------------------------------------------------------------------------------------- warnings


def warnings_in(rig, account):
    found = []
    inbox = rig.info(account).id
    for row in rig.rows(account):
        octets = rig.read(account, inbox, row[0])
        if octets.startswith(b"From: Postmaster"):
            found.append(email.message_from_bytes(octets, policy=email.policy.default))
    return found


def test_the_owner_is_told_once_in_plain_words_when_it_gets_full(make_rig, said):
    rig = make_rig(account_quota=10_000, account_messages=100)
    account = rig.new_account("ann@example.org")
    rig.append(account, "Sent", b"x" * 8999)
    assert warnings_in(rig, account) == []
    rig.append(account, "Sent", b"x")
    (warning,) = warnings_in(rig, account)
    assert warning["from"] == "Postmaster <postmaster@example.org>"
    assert warning["to"] == "ann@example.org"
    assert warning["subject"] == "Your mailbox is 90 % full"
    assert warning["auto-submitted"] == "auto-generated"
    assert warning["date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
    assert warning["message-id"].endswith("@example.org>")
    text = warning.get_content()
    for words in (
        "8.8 KiB of 9.8 KiB are used",
        "2 of 100 messages are there",
        "is returned to its sender",
        "To make room",
    ):
        assert words in text
    assert said == ["warn: ann@example.org has reached 90 % of its quota: 9,000 of 10,000 octets, 2 of 100 messages"]
    size = rig.rows(account)[0][4 + 2]
    rig.append(account, "Sent", b"y")
    assert rig.info(account).exists == 1
    assert len(said) == 1
    assert uses(rig)["ann@example.org"].octets == 9001 + rig.info(account).size
    assert size == rig.info(account).size


def test_it_is_told_again_only_after_there_was_room(make_rig, said):
    rig = make_rig(account_messages=10)
    account = rig.new_account()
    for _ in range(12):
        rig.deliver(account, octets=b"x")
    assert rig.info(account).exists == 10
    assert len(warnings_in(rig, account)) == 1
    rig.wait(account.expunge(rig.info(account).id, UIDSet([(1, 2)]), only_deleted=False))
    assert [line.split(": ")[0] for line in said] == ["warn", "info"]
    rig.deliver(account, octets=b"x")
    assert [line.split(": ")[0] for line in said] == ["warn", "info", "warn"]
    assert len(warnings_in(rig, account)) == 2


def test_no_quota_refuses_the_warning_itself(make_rig):
    rig = make_rig(account_messages=1, store_messages=1, domain=(table("localhost", messages_total=1),))
    account = rig.new_account()
    assert isinstance(rig.deliver(account), Delivered)
    assert rig.info(account).exists == 2
    assert len(warnings_in(rig, account)) == 1
    assert uses(rig)["store"].messages == 2


def test_everybody_who_gets_full_in_one_commit_is_told(make_rig):
    rig = make_rig(account_messages=1)
    accounts = [rig.new_account() for _ in range(5)]
    content = rig.content()
    rig.wait(rig.store.deliver([Delivery(each.id, "INBOX", content) for each in accounts]))
    assert [len(warnings_in(rig, each)) for each in accounts] == [1] * 5


def test_domain_and_store_are_told_to_the_log_up_and_down(make_rig, said):
    rig = make_rig(store_messages=4, domain=(table("localhost", quota_total=100),), quota_warning_percent=50)
    account = rig.new_account()
    rig.append(account, "Sent", b"x" * 49)
    assert said == []
    rig.append(account, "Sent", b"x")
    rig.append(account, "Sent", b"x")
    assert sorted(said) == [
        "warn: the domain localhost has reached 50 % of its quota: 50 of 100 octets, 2 messages",
        "warn: the store has reached 50 % of its quota: 50 octets, 2 of 4 messages",
    ]
    assert rig.info(account).exists == 0
    del said[:]
    rig.wait(account.expunge(rig.info(account, "Sent").id, None, only_deleted=False))
    assert [line.partition(" of its")[0] for line in sorted(said)] == [
        "info: the domain localhost is below 50 %",
        "info: the store is below 50 %",
    ]


def test_with_0_percent_nobody_is_told(make_rig, said):
    rig = quiet(make_rig, account_messages=1, store_messages=1)
    account = rig.new_account()
    rig.deliver(account)
    assert rig.info(account).exists == 1
    assert said == []


def test_the_warning_comes_with_the_commit_that_made_it_or_not_at_all():
    from tests.storage.lmdb_rig import Once

    rig = RIGS["lmdb"](account_messages=1, segment_octets=1 << 20, memory_content_limit=4 << 20)
    try:
        account = rig.new_account()
        with Once("txn-filled", lambda: RuntimeError("thrown away")), pytest.raises(RuntimeError):
            rig.deliver(account)
        assert rig.info(account).exists == 0
        rig.deliver(account, octets=b"x" * (2 << 20))
        assert len(warnings_in(rig, account)) == 1
        rig.reopen()
        assert len(warnings_in(rig, rig.handle(account.id))) == 1
        assert rig.wait(rig.store.check()).problems == ()
        # Behind the large one in the same segment, though that is over its size: a commit begins one segment at most.
        assert len(list((Path(rig._folder) / "store" / "shard-00" / "seg").glob("*.seg"))) == 1
    finally:
        rig.close()


def test_a_disk_too_full_for_the_warning_does_what_was_asked_and_tells_the_log(said):
    from tests.storage.lmdb_rig import Once

    rig = RIGS["lmdb"](account_messages=10)
    try:
        account = rig.new_account()
        rig.append(account, "Sent", *(b"%d" % n for n in range(5)))
        with Once("segment-sync", lambda: OSError(errno.ENOSPC, "full")) as steps:
            rig.wait(account.copy(rig.info(account, "Sent").id, UIDSet([(1, 4)]), "Archive"))
        assert "segment-sync" in steps.seen
        assert rig.info(account, "Archive").exists == 4
        assert rig.info(account).exists == 0
        assert said == ["warn: user1@localhost has reached 90 % of its quota: 9 octets, 9 of 10 messages"]
        assert rig.wait(rig.store.check()).problems == ()
    finally:
        rig.close()


# ------------------------------------------------------------------------------------------------------------- report


def test_what_is_used_is_told_of_one_account_or_of_all(make_rig):
    rig = quiet(make_rig, account_quota=1000, account=(table("b@example.org", messages=4),))
    assert IQuotaStore.providedBy(rig.store)
    one, other = rig.new_account("a@localhost"), rig.new_account("b@example.org")
    rig.append(one, "Sent", b"x" * 255)
    rig.append(other, "Sent", b"x", b"y", b"z")
    listed = [(use.kind, use.name) for use in rig.wait(rig.store.quotas())]
    assert listed == [
        ("account", "a@localhost"), ("account", "b@example.org"), ("domain", "localhost"), ("domain", "example.org"),
        ("store", ""),
    ]  # fmt: skip
    use = uses(rig, "b@example.org")
    assert list(use) == ["b@example.org", "example.org", "store"]
    assert (use["b@example.org"].percent, use["b@example.org"].messages_limit) == (75, 4)
    assert (use["store"].octets, use["store"].messages, use["store"].percent) == (258, 4, 0)
    assert uses(rig, "a@localhost")["a@localhost"].percent == 25
    with pytest.raises(NoSuchAccount):
        uses(rig, "nobody@localhost")
