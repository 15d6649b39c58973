"""New mail that is claimed by the commit that brings it, on every back end."""

from __future__ import annotations

import msgspec
import pytest
from twisted.internet.defer import CancelledError, Deferred

from livemail.interfaces.queue import DestinationNews, Filing
from livemail.mail.errors import LimitReached
from tests.contracts.queue_rig import LEASE, REFUSED, Attending, QueueDriver, addresses
from tests.contracts.stores import message


@pytest.fixture
def queue(rig):
    return QueueDriver(rig)


def test_new_mail_is_claimed_in_the_commit_that_brings_it_where_there_is_room(queue, rig):
    attending = Attending(**{"b.example": 1})
    queue.queue.attend(attending, LEASE)
    octets = message("hello")
    id_ = queue.accept(
        "a@b.example", "c@c.example", "d@b.example", octets=octets, prefix=b"Received: x\r\n", priority=2
    )
    [claimed] = attending.begun
    assert (claimed.destination, claimed.failures, claimed.down, claimed.is_decided) == ("b.example", 0, None, False)
    seen = queue.message(id_)
    assert claimed.message == msgspec.structs.replace(seen, recipients=(seen.recipients[0], seen.recipients[2]))
    assert [one.state for one in seen.recipients] == ["claimed", "queued", "claimed"]
    assert rig.wait(claimed.content.read(0, claimed.content.size)) == b"Received: x\r\n" + octets
    assert (claimed.content.prefix_size, attending.rooms, attending.woken) == (
        13,
        {"b.example": 0, "c.example": 0},
        [rig.clock.seconds],
    )
    assert addresses(queue.claim()) == [["c@c.example"]]
    assert queue.settle(claimed, "delivered").is_done
    assert queue.state(id_, 0) == "delivered"


def test_nobody_is_woken_for_what_is_claimed_already(queue):
    attending = Attending(**{"b.example": 2})
    queue.queue.attend(attending, LEASE)
    ids = [queue.accept("b@b.example"), queue.accept("b@b.example")]
    assert ([each.message.id for each in attending.begun], attending.woken) == (ids, [])
    assert queue.claim() == ()
    for each in attending.begun:
        assert queue.settle(each, "delivered").is_removed
    assert queue.counts() == {}


def test_new_mail_does_not_overtake_what_is_due(queue, rig):
    first = queue.accept("b@b.example")
    attending = Attending(**{"b.example": 1})
    queue.queue.attend(attending, LEASE)
    second = queue.accept("b@b.example")
    assert (attending.begun, attending.rooms, len(attending.woken)) == ([], {"b.example": 1}, 1)
    assert [each.message.id for each in queue.claim()] == [first, second]
    queue.accept("b@b.example")
    assert len(attending.begun) == 1


def test_nor_what_the_same_commit_leaves_waiting(queue, rig):
    queue.accept("z@b.example", not_before=rig.clock.seconds + 60)
    attending = Attending()
    answers = iter((False, True))
    attending.keep_room = lambda *_: next(answers)
    attending.rooms["b.example"] = 0
    queue.queue.attend(attending, LEASE)
    rig.wait(queue.queue.accept(Filing((), (queue.outgoing("a@b.example"), queue.outgoing("b@b.example")))))
    assert (attending.begun, attending.rooms) == ([], {"b.example": 1})


def test_it_passes_what_is_not_due(queue, rig):
    attending = Attending(**{"b.example": 2})
    queue.queue.attend(attending, LEASE)
    queue.accept("b@b.example", not_before=rig.clock.seconds + 60)
    assert attending.begun == []
    queue.accept("b@b.example")
    assert len(attending.begun) == 1
    rig.clock.seconds += 60
    queue.accept("b@b.example")
    assert len(attending.begun) == 1


def test_new_mail_for_a_destination_that_is_down_is_not_claimed(queue, rig):
    queue.accept("b@b.example")
    news = DestinationNews("b.example", 1, rig.clock.seconds + 60, REFUSED)
    queue.settle(queue.claim()[0], "deferred", news=[news])
    attending = Attending(**{"b.example": 1})
    queue.queue.attend(attending, LEASE)
    queue.accept("b@b.example")
    assert (attending.begun, attending.rooms) == ([], {"b.example": 1})


def test_room_is_given_back_when_nothing_is_accepted(make_rig):
    rig = make_rig(queue_recipients=1)
    queue = QueueDriver(rig)
    queue.accept("a@a.example")
    attending = Attending(**{"b.example": 1})
    queue.queue.attend(attending, LEASE)
    with pytest.raises(LimitReached):
        queue.accept("b@b.example")
    assert (attending.begun, attending.rooms) == ([], {"b.example": 1})


def test_it_is_begun_although_whoever_brought_it_has_gone(queue, rig):
    attending = Attending(**{"b.example": 1})
    queue.queue.attend(attending, LEASE)
    bringing = Deferred.fromCoroutine(queue.queue.accept(Filing((), (queue.outgoing("b@b.example"),))))
    bringing.addErrback(lambda failure: failure.trap(CancelledError))
    bringing.cancel()
    rig.wait(queue.queue.stats())
    while not attending.begun:
        rig.wait(queue.queue.reclaim())
    assert queue.settle(attending.begun[0], "delivered").is_done


def test_a_claim_made_when_it_was_accepted_runs_out_as_any_other(queue, rig):
    attending = Attending(**{"b.example": 1})
    queue.queue.attend(attending, LEASE)
    queue.accept("b@b.example")
    rig.clock.seconds += LEASE
    assert rig.wait(queue.queue.reclaim()) == 1
    assert not queue.settle(attending.begun[0], "delivered").is_done
    assert addresses(queue.claim()) == [["b@b.example"]]


def test_a_large_content_is_not_handed_over(queue):
    attending = Attending(**{"b.example": 1})
    queue.queue.attend(attending, LEASE)
    queue.accept("b@b.example", octets=b"Subject: x\r\n\r\n" + b"x" * 70 * 1024)
    assert [each.content for each in attending.begun] == [None]
