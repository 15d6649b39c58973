"""The queue's contract, by example, on every back end."""

from __future__ import annotations

import pytest

from livemail.interfaces.queue import (
    MAX_HISTORY,
    Choice,
    ClaimLimits,
    DestinationNews,
    Drop,
    Edit,
    Fail,
    Filing,
    Hold,
    Outcome,
    Release,
    Retry,
    Settlement,
)
from livemail.interfaces.relay import Attempt
from livemail.interfaces.storage import Delivered, Delivery
from livemail.mail.address import Path
from livemail.mail.envelope import ReversePath
from livemail.mail.errors import LimitReached, NoSuchAccount
from tests.contracts.queue_rig import NEVER, NOT_NOW, OK, REFUSED, SENDER, Attending, QueueDriver, addresses, recipient
from tests.contracts.stores import message


@pytest.fixture
def queue(rig):
    return QueueDriver(rig)


def attempt(number: int = 0) -> Attempt:
    return Attempt(float(number), 1.0, "mx.example.net", "192.0.2.1", "", NOT_NOW)


# ------------------------------------------------------------------------------------------------------------ accepting


def test_what_was_accepted_is_due_at_once_and_reads_as_it_came(queue, rig):
    octets = message("hello")
    id_ = queue.accept("b@b.example", octets=octets, prefix=b"Received: x\r\n", transaction="t1", priority=3)
    seen = queue.message(id_)
    assert (seen.reverse_path, seen.size, seen.transaction, seen.priority) == (SENDER, len(octets) + 13, "t1", 3)
    assert (seen.created, seen.expires, seen.open) == (rig.clock.seconds, 0.0, 1)
    assert [(one.recipient, one.state, one.next_attempt) for one in seen.recipients] == [
        (recipient("b@b.example"), "queued", rig.clock.seconds)
    ]
    assert queue.read(id_) == b"Received: x\r\n" + octets
    assert queue.counts() == {"queued": 1}


def test_one_commit_files_copies_and_queues_the_rest(queue, rig, account):
    content = rig.content()
    filing = Filing(
        (Delivery(account.id, "INBOX", content, b"Return-Path: <>\r\n"),),
        (queue.outgoing("b@b.example"), queue.outgoing("c@c.example", reverse_path=ReversePath(Path.null))),
    )
    filed = rig.wait(queue.queue.accept(filing))
    assert isinstance(filed.delivered[0], Delivered)
    assert rig.info(account).exists == 1
    assert [queue.message(id_).reverse_path.path.is_null for id_ in filed.queued] == [False, True]


def test_a_mailbox_that_refuses_its_copy_keeps_nothing_from_the_queue(queue, rig):
    filing = Filing((Delivery(4711, "INBOX", rig.content()),), (queue.outgoing("b@b.example"),))
    filed = rig.wait(queue.queue.accept(filing))
    assert isinstance(filed.delivered[0], NoSuchAccount)
    assert len(filed.queued) == 1
    assert queue.counts() == {"queued": 1}


def test_the_octets_stay_while_the_queue_needs_them_whoever_else_lets_go(queue, rig, account):
    octets = message("shared", body="x" * 5000)
    id_ = queue.accept("b@b.example", octets=octets)
    rig.deliver(account, octets=octets)
    rig.wait(account.expunge(rig.info(account).id, None, only_deleted=False))
    rig.wait(account.forget_deleted([each.key for each in rig.wait(account.deleted())]))
    assert queue.read(id_) == octets
    queue.settle(queue.claim()[0], "delivered")
    assert queue.message(id_) is None
    assert queue.read(id_) is None
    assert rig.wait(rig.store.check()).contents == 0


def test_a_full_queue_refuses_for_now_and_takes_reports_all_the_same(make_rig):
    rig = make_rig(queue_recipients=2)
    queue = QueueDriver(rig)
    queue.accept("a@a.example", "b@b.example")
    with pytest.raises(LimitReached) as refused:
        queue.accept("c@c.example")
    assert (refused.value.code, refused.value.temporary) == (452, True)
    claimed = queue.claim(rooms={"b.example": 0})[0]
    queue.settle(claimed, "failed", report=Filing((), (queue.outgoing("ann@example.org", "post@example.org"),)))
    assert queue.counts() == {"queued": 3}


def test_mail_with_a_later_release_is_not_due_before(queue, rig):
    queue.accept("b@b.example", not_before=rig.clock.seconds + 60)
    claims = queue.claims()
    assert (claims.jobs, claims.next_due) == ((), rig.clock.seconds + 60)
    rig.clock.seconds += 60
    assert len(queue.claim()) == 1


def test_the_queue_says_what_became_due(queue, rig):
    attending = Attending()
    woken = attending.woken
    queue.queue.attend(attending)
    queue.accept("b@b.example")
    queue.accept("b@b.example", not_before=rig.clock.seconds + 60)
    queue.settle(queue.claim()[0], "deferred", next_attempt=rig.clock.seconds + 30)
    assert woken == [rig.clock.seconds, rig.clock.seconds + 60, rig.clock.seconds + 30]
    queue.queue.attend(None)
    queue.accept("b@b.example")
    assert len(woken) == 3


# ------------------------------------------------------------------------------------------------------------- claiming


def test_a_job_has_the_recipients_of_one_message_and_one_destination(queue):
    queue.accept("a@one.example", "b@two.example", "c@one.example")
    queue.accept("d@one.example")
    assert sorted(addresses(queue.claim())) == [
        ["a@one.example", "c@one.example"],
        ["b@two.example"],
        ["d@one.example"],
    ]
    assert queue.claim() == ()
    assert queue.counts() == {"claimed": 4}


def test_a_job_has_no_more_recipients_than_asked_for(queue):
    queue.accept(*(f"u{n}@one.example" for n in range(5)))
    assert [len(each) for each in addresses(queue.claim(recipients=2))] == [2, 2, 1]


def test_the_destination_served_longest_ago_comes_first(queue, rig):
    for number in range(3):
        queue.accept(f"u{number}@big.example")
    rig.clock.seconds += 1
    queue.accept("x@small.example")
    served = []
    for _ in range(4):
        rig.clock.seconds += 1
        served += [each.destination for each in queue.claim(jobs=1)]
    assert served == ["big.example", "small.example", "big.example", "big.example"]


def test_a_destination_gets_no_more_than_its_room(queue):
    for number in range(5):
        queue.accept(f"u{number}@a.example")
        queue.accept(f"u{number}@b.example")
    jobs = queue.claim(rooms={"a.example": 2, "b.example": 0})
    assert [each.destination for each in jobs] == ["a.example", "a.example"]


def test_more_urgent_mail_for_a_destination_goes_first(queue, rig):
    for priority in (0, -9, 9, 0):
        queue.accept(f"p{priority}@a.example", priority=priority)
        rig.clock.seconds += 1
    assert [each.message.priority for each in queue.claim()] == [9, 0, 0, -9]


def test_urgent_mail_that_is_not_due_keeps_none_of_the_rest(queue, rig):
    queue.accept("later@a.example", priority=9, not_before=rig.clock.seconds + 60)
    queue.accept("now@a.example", priority=-9)
    claims = queue.claims()
    assert addresses(claims.jobs) == [["now@a.example"]]
    assert claims.next_due == rig.clock.seconds + 60


def test_a_claim_that_runs_out_is_due_again_and_cannot_be_settled(queue, rig):
    queue.accept("b@b.example")
    (first,) = queue.claim()
    rig.clock.seconds += 599
    assert rig.wait(queue.queue.reclaim()) == 0
    rig.wait(queue.queue.renew([(first.message.id, [0])], 600.0))
    rig.clock.seconds += 599
    assert rig.wait(queue.queue.reclaim()) == 0
    rig.clock.seconds += 1
    assert rig.wait(queue.queue.reclaim()) == 1
    report = Filing((), (queue.outgoing("ann@example.org"),))
    assert not queue.settle(first, "failed", report=report).is_done
    assert queue.counts() == {"queued": 1}
    assert len(queue.claim()) == 1


# ------------------------------------------------------------------------------------------------------------- settling


def test_a_message_goes_with_its_last_recipient(queue):
    id_ = queue.accept("a@a.example", "b@b.example")
    first, second = queue.claim()
    assert queue.settle(first, "delivered").is_removed is False
    seen = queue.message(id_)
    assert (seen.recipients[0].state, seen.recipients[0].last, seen.open) == ("delivered", OK, 1)
    assert queue.find() == ["b@b.example"]
    assert queue.settle(second, "failed").is_removed is True
    assert queue.message(id_) is None
    assert queue.stats().messages == queue.stats().destinations == 0


def test_what_is_deferred_remembers_its_latest_attempts(queue, rig):
    id_ = queue.accept("a@a.example")
    for number in range(MAX_HISTORY + 2):
        assert len(queue.claim()) == 1
        outcome = Outcome(0, "deferred", NOT_NOW, "mx", rig.clock.seconds + 300, is_delay_reported=number == 1)
        rig.wait(queue.queue.settle([Settlement(id_, (outcome,), (attempt(number),))]))
        assert queue.claim() == ()
        rig.clock.seconds += 300
    one = queue.message(id_).recipients[0]
    assert (one.state, one.attempts, one.last, one.host) == ("deferred", MAX_HISTORY + 2, NOT_NOW, "mx")
    assert [each.started for each in one.history] == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert one.is_delay_reported


def test_what_was_not_tried_counts_no_attempt(queue, rig):
    id_ = queue.accept("a@a.example")
    queue.settle(queue.claim()[0], "deferred", was_tried=False, reply=REFUSED)
    one = queue.message(id_).recipients[0]
    assert (one.state, one.attempts, one.last) == ("deferred", 0, REFUSED)


def test_a_recipient_whose_way_changed_waits_under_the_new_destination(queue):
    id_ = queue.accept("a@a.example")
    queue.settle(queue.claim()[0], "moved", destination="smarthost:25")
    assert queue.state(id_) == "queued"
    assert [each.destination for each in queue.claim()] == ["smarthost:25"]


def test_a_report_is_filed_with_what_it_reports(queue, rig, account):
    id_ = queue.accept("a@a.example", "b@b.example")
    report = Filing(
        (Delivery(account.id, "INBOX", rig.content()),),
        (queue.outgoing("ann@far.example", reverse_path=ReversePath(Path.null)),),
    )
    settled = queue.settle(queue.claim(rooms={"b.example": 0})[0], "failed", report=report)
    assert isinstance(settled.filed.delivered[0], Delivered)
    assert queue.message(settled.filed.queued[0]).recipients[0].destination == "far.example"
    assert rig.info(account).exists == 1
    assert queue.state(id_) == "failed"


def test_a_settlement_that_is_not_ours_hinders_no_other(queue):
    queue.accept("a@a.example")
    queue.accept("b@b.example")
    first, second = queue.claim()
    queue.settle(first, "delivered")
    outcome = (Outcome(0, "delivered", OK),)
    settled = queue.rig.wait(
        queue.queue.settle([Settlement(first.message.id, outcome), Settlement(second.message.id, outcome)])
    )
    assert [each.is_done for each in settled] == [False, True]


# -------------------------------------------------------------------------------------------------- destinations down


def down(rig, name: str, failures: int = 1, seconds: float = 100.0) -> DestinationNews:
    return DestinationNews(name, failures, rig.clock.seconds + seconds, REFUSED)


def test_mail_for_a_destination_that_is_down_is_handed_out_to_be_deferred(queue, rig):
    for number in range(3):
        queue.accept(f"u{number}@dead.example")
    first = queue.claim(room=1)
    queue.settle(first[0], "deferred", news=[down(rig, "dead.example")])
    swept = queue.claim(jobs=0)
    assert [(each.down, each.failures) for each in swept] == [(REFUSED, 1), (REFUSED, 1)]
    for each in swept:
        queue.settle(each, "deferred", was_tried=False, reply=REFUSED)
    assert queue.claim() == ()
    info = queue.destination("dead.example")
    assert (info.waiting, info.failures, info.not_before, info.reply) == (3, 1, rig.clock.seconds + 100, REFUSED)


def test_new_mail_for_it_waits_until_it_is_looked_at_again(queue, rig):
    queue.accept("u1@dead.example")
    queue.settle(queue.claim()[0], "deferred", news=[down(rig, "dead.example")])
    id_ = queue.accept("u2@dead.example", "v@alive.example")
    assert addresses(queue.claim()) == [["v@alive.example"]]
    assert queue.message(id_).recipients[0].next_attempt == rig.clock.seconds + 100
    queue.change(Retry(), recipient="u2@*")
    assert addresses(queue.claim()) == [["u2@dead.example"]]


def test_then_one_job_probes_it(queue, rig):
    for number in range(3):
        queue.accept(f"u{number}@dead.example")
    queue.settle(
        queue.claim(room=1)[0], "deferred", next_attempt=rig.clock.seconds + 10, news=[down(rig, "dead.example")]
    )
    rig.clock.seconds += 100
    (probe,) = queue.claim()
    assert (probe.down, probe.failures) == (None, 1)
    assert queue.claim(rooms={"dead.example": 0}) == ()
    queue.settle(probe, "delivered", news=[DestinationNews("dead.example")])
    assert len(queue.claim()) == 2


def test_probes_take_no_more_than_their_share(queue, rig):
    for number in range(20):
        queue.accept(f"u@dead{number}.example")
    for each in queue.claim():
        queue.settle(each, "deferred", next_attempt=rig.clock.seconds + 10, news=[down(rig, each.destination)])
    rig.clock.seconds += 200
    queue.accept("u@alive.example")
    jobs = queue.claim(jobs=10, probes=3)
    assert len(jobs) == 4
    assert jobs[-1].destination == "alive.example"
    # Nor do those that got none stay in front of the rest.
    rig.clock.seconds += 10
    assert {each.destination for each in queue.claim(probes=17)}.isdisjoint(each.destination for each in jobs)


def test_many_dead_destinations_keep_none_of_the_living_waiting(queue, rig):
    filing = Filing((), tuple(queue.outgoing(f"u@dead{number}.example") for number in range(600)))
    rig.wait(queue.queue.accept(filing))
    claims = queue.claim(jobs=600)
    news = [down(rig, each.destination, seconds=0) for each in claims]
    outcome = (Outcome(0, "deferred", NOT_NOW, next_attempt=rig.clock.seconds),)
    rig.wait(queue.queue.settle([Settlement(each.message.id, outcome) for each in claims], news))
    rig.clock.seconds += 1
    queue.accept("u@alive.example")
    assert [each.destination for each in queue.claim(jobs=5, probes=0)] == ["alive.example"]


def test_a_destination_without_mail_is_forgotten(queue, rig):
    queue.accept("u@dead.example")
    queue.settle(queue.claim()[0], "failed", news=[down(rig, "dead.example")])
    assert queue.destination("dead.example") is None
    queue.accept("u@dead.example")
    assert queue.claim()[0].failures == 0


# ------------------------------------------------------------------------------------------------------------- changing


def test_what_is_held_waits_until_it_is_released_and_expires_later(queue, rig):
    id_ = queue.accept("a@a.example", "b@a.example")
    assert queue.change(Hold("spam?"), recipient="a@*").changed == 1
    assert (queue.state(id_), queue.message(id_).recipients[0].note) == ("held", "spam?")
    assert addresses(queue.claim()) == [["b@a.example"]]
    rig.clock.seconds += 1000
    assert queue.change(Hold(), recipient="a@*").changed == 0
    assert queue.change(Release()).changed == 1
    one = queue.message(id_).recipients[0]
    assert (one.state, one.next_attempt, one.extended, one.note) == ("queued", rig.clock.seconds, 1000.0, "")
    assert addresses(queue.claim()) == [["a@a.example"]]


def test_retry_makes_due_what_waits_and_looks_at_its_destination_again(queue, rig):
    id_ = queue.accept("a@a.example")
    queue.accept("c@a.example")
    queue.settle(queue.claim(room=1)[0], "deferred", news=[down(rig, "a.example", seconds=9000)])
    assert queue.change(Retry(), ids=frozenset([id_])).changed == 1
    (probe,) = queue.claim()
    assert (probe.message.id, probe.down) == (id_, None)


def test_drop_removes_without_a_word(queue):
    id_ = queue.accept("a@a.example", "b@b.example", "c@c.example")
    queue.change(Hold(), recipient="b@b.example")
    assert queue.change(Drop(), domain="a.example").changed == 1
    assert queue.change(Drop(), states=frozenset(["held"])).changed == 1
    assert queue.find() == ["c@c.example"]
    assert queue.change(Drop()).changed == 1
    assert queue.message(id_) is None


def test_what_is_failed_by_hand_is_handed_out_to_be_reported(queue):
    id_ = queue.accept("a@a.example", "b@b.example")
    queue.change(Hold(), recipient="a@*")
    assert queue.change(Fail(NEVER)).changed == 2
    assert queue.counts() == {"failing": 2}
    (claimed,) = queue.claim(jobs=0)
    assert claimed.is_decided
    assert [one.verdict for one in claimed.message.recipients] == [NEVER, NEVER]
    queue.settle(claimed, "deferred", was_tried=False)
    assert queue.counts() == {"failing": 2}
    queue.rig.clock.seconds += 300
    queue.settle(queue.claim(jobs=0)[0], "failed")
    assert queue.message(id_) is None


@pytest.mark.parametrize(
    ("change", "after"), [(Hold("h"), "held"), (Drop(), None), (Fail(NEVER), "failing")], ids=["hold", "drop", "fail"]
)
def test_a_change_during_an_attempt_happens_when_the_attempt_settles_nothing(queue, change, after):
    id_ = queue.accept("a@a.example")
    (claimed,) = queue.claim()
    assert queue.change(change).changed == 1
    assert queue.state(id_) == "claimed"
    queue.settle(claimed, "deferred")
    assert (queue.message(id_) and queue.state(id_)) == after


@pytest.mark.parametrize("change", [Hold(), Drop(), Fail(NEVER)], ids=["hold", "drop", "fail"])
def test_an_attempt_that_delivers_wins_over_a_change(queue, change):
    id_ = queue.accept("a@a.example")
    (claimed,) = queue.claim()
    queue.change(change)
    assert queue.settle(claimed, "delivered").is_removed
    assert queue.message(id_) is None


def test_a_change_that_cannot_wait_for_the_attempt_says_so(queue):
    queue.accept("a@a.example")
    queue.claim()
    for change in (Retry(), Edit(recipient=recipient("b@b.example"), destination="b.example"), Release()):
        assert (queue.change(change).changed, queue.change(change).busy) == (0, 1)


def test_edit_rewrites_recipient_reverse_path_priority_and_expiry(queue, rig):
    id_ = queue.accept("a@a.example", "b@b.example")
    other = ReversePath(Path.null)
    edit = Edit(recipient("x@x.example"), "x.example", other, 7, rig.clock.seconds + 5)
    assert queue.change(edit, recipient="a@a.example").changed == 1
    seen = queue.message(id_)
    assert (seen.reverse_path, seen.priority, seen.expires) == (other, 7, rig.clock.seconds + 5)
    assert sorted(addresses(queue.claim())) == [["b@b.example"], ["x@x.example"]]


def test_a_change_goes_through_a_long_queue_in_pieces(queue, rig):
    for number in range(10):
        queue.accept(f"u{number}@a.example")
    changes = [rig.wait(queue.queue.change(Choice(), Hold(), limit=4))]
    while changes[-1].after is not None:
        changes.append(rig.wait(queue.queue.change(Choice(), Hold(), changes[-1].after, 4)))
    assert [each.changed for each in changes] == [4, 4, 2]


# ------------------------------------------------------------------------------------------------------------- choosing


def test_a_choice_names_sender_recipient_domain_age_state_and_id(queue, rig):
    start = rig.clock.seconds
    first = queue.accept("a@one.example", "b@two.example", transaction="t1")
    rig.clock.seconds += 100
    queue.accept("c@one.example", reverse_path=ReversePath(Path.null))
    queue.change(Hold(), recipient="b@*")
    assert queue.find() == ["a@one.example", "b@two.example", "c@one.example"]
    assert queue.find(sender="ANN@*") == ["a@one.example", "b@two.example"]
    assert queue.find(sender="<>") == ["c@one.example"]
    assert queue.find(domain="*.EXAMPLE", states=frozenset(["held"])) == ["b@two.example"]
    assert queue.find(domain="one.example", created_before=start + 1) == ["a@one.example"]
    assert queue.find(created_after=start + 1) == ["c@one.example"]
    assert queue.find(ids=frozenset([first]), destination="two.example") == ["b@two.example"]
    assert queue.find(transaction="t1", recipient="a@one.example") == ["a@one.example"]
    assert queue.find(recipient="a@one") == []


def test_the_list_goes_on_where_the_last_piece_ended(queue, rig):
    for number in range(10):
        queue.accept(f"u{number}@a.example")
    first = rig.wait(queue.queue.find(Choice(), limit=7))
    second = rig.wait(queue.queue.find(Choice(), first.after, 7))
    assert [len(first.messages), len(second.messages), second.after] == [7, 3, None]


def test_destinations_are_listed_by_name(queue, rig):
    queue.accept("a@b.example", "a@a.example", "b@a.example")
    queue.change(Fail(NEVER), domain="b.example")
    listed = rig.wait(queue.queue.destinations())
    assert [(each.destination, each.waiting) for each in listed] == [("a.example", 2)]
    assert rig.wait(queue.queue.destinations("a.example")) == []
    assert queue.stats().destinations == 1


def test_stats_count(queue, rig):
    queue.accept("a@a.example", "b@b.example", octets=message())
    rig.clock.seconds += 10
    queue.accept("c@c.example", not_before=rig.clock.seconds + 50)
    queue.change(Hold(), recipient="b@*")
    stats = queue.stats()
    assert (stats.messages, stats.destinations) == (2, 3)
    assert stats.oldest == rig.clock.seconds - 10
    assert stats.next_attempt == rig.clock.seconds - 10
    assert queue.counts() == {"queued": 2, "held": 1}


def test_claims_are_bounded_however_much_is_due(queue, rig):
    filing = Filing((), tuple(queue.outgoing(f"u{n}@d{n % 7}.example") for n in range(300)))
    rig.wait(queue.queue.accept(filing))
    claims = rig.wait(queue.queue.claim(ClaimLimits(20, room=3), 600.0))
    assert len(claims.jobs) == 20
