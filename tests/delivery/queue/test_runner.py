"""The runner, in a simulated world."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from livemail.interfaces.queue import Choice, Fail, Filing, Hold, Release, Retry
from livemail.mail.address import Path
from livemail.mail.envelope import Recipient, ReversePath
from livemail.mail.errors import MailError, StorageFull
from tests.contracts.drive import finish
from tests.delivery.queue.world import GO_AWAY, NEVER, NO_CONNECTION, NOT_NOW, OK, START, TOO_MUCH, Host, World

HOUR, DAY = 3600.0, 86400.0


@pytest.fixture
def world():
    made = World(jitter=0.0)
    made.runner.start()
    return made


class Scripted(Host):
    """A host whose state a test sets."""

    down = None
    says = ("delivered", OK)

    def verdict(self, now):
        return self.down

    def judge(self, now, recipient):
        return self.says


def scripted(world: World, name: str = "a.example", **state) -> Scripted:
    host = world.hosts[name] = Scripted()
    for key, value in state.items():
        setattr(host, key, value)
    return host


def only(world: World):
    (message,) = finish(world.queue.find(Choice())).messages
    return message.recipients[0]


def is_empty(world: World) -> bool:
    return finish(world.queue.stats()).messages == 0


# ------------------------------------------------------------------------------------------------------------ attempts


def test_what_is_accepted_is_sent_at_once_with_all_recipients_of_a_destination(world):
    world.relay.keeps_jobs = True
    world.accept("a@a.example", "b@a.example", "c@c.example")
    world.run(2)
    assert sorted(len(job.recipients) for job in world.relay.jobs) == [1, 2]
    assert is_empty(world)
    assert world.reports() == []


def test_new_mail_is_begun_without_being_looked_for_or_read_back(world, monkeypatch):
    async def never(*_):
        raise AssertionError

    monkeypatch.setattr(world.queue, "claim", never)
    monkeypatch.setattr(world.queue, "open_content", never)
    world.relay.keeps_jobs = True
    world.accept("a@a.example", octets=b"Subject: x\r\n\r\ntext\r\n", prefix=b"Received: y\r\n")
    [job] = world.relay.jobs
    assert finish(job.content.read(0, 100)) == b"Received: y\r\nSubject: x\r\n\r\ntext\r\n"
    world.run(2)
    assert is_empty(world)


def test_no_more_is_claimed_ahead_by_accepting_than_by_looking(world):
    for number in range(40):
        world.accept(f"u{number}@a.example")
    counts = finish(world.queue.stats()).recipients
    assert (counts["claimed"], counts["queued"]) == (10, 30)
    assert world.host("a.example").active == 5
    world.run(30)
    assert is_empty(world)
    assert world.relay.delivered.total() == 40


def test_mail_with_more_recipients_than_one_attempt_may_have_is_looked_for():
    world = World(jitter=0.0, recipients=2)
    world.runner.start()
    world.relay.keeps_jobs = True
    world.accept("a@a.example", "b@a.example", "c@a.example")
    world.run(5)
    assert sorted(len(job.recipients) for job in world.relay.jobs) == [1, 2]


def test_a_runner_that_has_stopped_begins_nothing_that_is_accepted(world):
    finish(world.runner.stop())
    world.accept("a@a.example")
    assert (world.relay.active, only(world).state) == (0, "queued")


def test_what_a_peer_has_taken_and_no_commit_has_recorded_is_bounded_by_the_connections(monkeypatch):
    world = World(jitter=0.0, connections=3, destination_connections=3)
    world.runner.start()
    settle, commits = world.queue.settle, []

    async def slow(*arguments):
        commits.append(Deferred())
        await commits[-1]
        return await settle(*arguments)

    monkeypatch.setattr(world.queue, "settle", slow)
    for number in range(12):
        world.accept(f"u{number}@a.example")
    world.run(60)
    assert world.relay.delivered.total() == 3
    while commits:
        commits.pop(0).callback(None)
        world.run(2)
    assert (world.relay.delivered.total(), is_empty(world)) == (12, True)


def test_a_refusal_is_reported_once_and_ends_it(world):
    scripted(world, says=("failed", NEVER))
    id_ = world.accept("a@a.example", "b@a.example")
    world.run(2)
    assert world.reports() == [f"failed {id_} <a@a.example>", f"failed {id_} <b@a.example>"]
    assert is_empty(world)


def test_a_bounce_that_fails_makes_no_other(world):
    scripted(world, says=("failed", NEVER))
    world.accept("a@a.example", reverse_path=ReversePath(Path.null))
    world.run(2)
    assert (world.reports(), is_empty(world)) == ([], True)


def test_what_is_deferred_is_tried_after_five_minutes_and_then_as_long_again_as_it_is_old(world):
    host = scripted(world, says=("deferred", NOT_NOW))
    world.accept("a@a.example")
    times = []
    seen = 0
    for _ in range(int(3 * HOUR)):
        world.run(1)
        if host.attempts > seen:
            seen = host.attempts
            times.append(round(world.clock.seconds()) - 1)
    assert times == [pytest.approx(each, rel=0.01) for each in (0, 301, 603, 1209, 2421, 4845, 9693)]
    assert only(world).attempts == len(times)


def test_after_its_lifetime_it_goes_back_with_the_last_reply(world):
    scripted(world, says=("deferred", NOT_NOW))
    heard = []

    async def reporter(message, original, concerned):
        heard.extend((each.action, each.reply.enhanced, each.reply.text, each.retry_until) for each in concerned)
        return ()

    world.reporter = reporter
    world.accept("a@a.example")
    world.run(4 * DAY)
    assert [(action, until) for action, _, _, until in heard] == [("delayed", START + 5 * DAY)]
    world.run(DAY + 2)
    assert heard[1][:3] == ("failed", "4.4.7", "given up after 5.0 days; last: not now")
    assert is_empty(world)


def test_what_was_held_begins_anew_and_expires_later(world):
    host = scripted(world, says=("deferred", NOT_NOW))
    world.accept("a@a.example")
    world.run(2)
    finish(world.queue.change(Choice(), Hold()))
    world.run(30 * DAY)
    assert host.attempts == 1
    finish(world.queue.change(Choice(), Release()))
    world.run(2)
    assert host.attempts == 2
    assert only(world).state == "deferred"


def test_success_is_reported_where_it_was_asked_for_and_the_peer_does_not(world):
    asked = Recipient(Path(world.addressed("a@a.example").recipient.path.address), frozenset(["SUCCESS"]))
    world.addressed = lambda address: type(world_addressed(address))(asked, "a.example")  # type: ignore[method-assign]
    id_ = world.accept("a@a.example")
    world.run(2)
    assert world.reports() == [f"relayed {id_} <a@a.example>"]


def world_addressed(address):
    from tests.contracts.queue_rig import addressed

    return addressed(address)


def test_what_is_failed_by_hand_is_reported_without_an_attempt(world):
    scripted(world, down=NO_CONNECTION)
    id_ = world.accept("a@a.example")
    world.run(2)
    finish(world.queue.change(Choice(), Fail(NEVER)))
    world.run(1)
    assert world.host("a.example").attempts == 1
    assert world.reports() == [f"failed {id_} <a@a.example>"]
    assert is_empty(world)


def test_a_recipient_whose_route_changed_goes_the_new_way_without_losing_an_attempt(world):
    world.relay.keeps_jobs = True
    finish(world.runner.stop())
    world.accept("a@a.example", "b@a.example")
    world.routing.destinations["a.example"] = "smarthost:25"
    world.runner = world.new_runner()
    world.runner.start()
    world.run(2)
    assert [len(job.recipients) for job in world.relay.jobs] == [2]
    assert world.host("smarthost:25").attempts == 1
    assert is_empty(world)


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (MailError("no such domain", code=550, enhanced="5.1.2"), "failed"),
        (MailError("DNS does not answer", code=451, enhanced="4.4.3"), "deferred"),
    ],
    ids=["never", "later"],
)
def test_a_domain_without_a_way_fails_or_waits_as_routing_says(world, error, fate):
    world.routing.errors["a.example"] = error
    world.accept("a@a.example")
    world.run(2)
    if fate == "failed":
        assert [line.split()[0] for line in world.reports()] == ["failed"]
    else:
        assert only(world).last.enhanced == "4.4.3"
        (info,) = finish(world.queue.destinations())
        assert info.failures == 1


# ---------------------------------------------------------------------------------------------------- what it learns


def test_a_destination_that_is_down_gets_one_probe_now_and_then_and_opens_slowly(world):
    host = scripted(world, down=NO_CONNECTION)
    for number in range(60):
        world.accept(f"u{number}@a.example")
    world.run(3)
    assert host.attempts <= world.settings.destination_first
    waiting = finish(world.queue.stats()).recipients
    assert waiting == {"queued": 0, "deferred": 60, "claimed": 0, "held": 0, "failing": 0}
    before, host.most = host.attempts, 0
    world.run(2 * HOUR)
    assert host.most == 1
    assert host.attempts - before < 15
    host.down, host.seconds = None, 20.0
    finish(world.queue.change(Choice(), Retry()))
    widths = []
    while not is_empty(world):
        world.run(10)
        widths.append(host.active)
    assert widths[:3] == [1, 2, 2]
    assert max(widths) > 4
    assert host.most <= world.settings.destination_connections


def test_what_was_claimed_ahead_is_deferred_with_its_destination_and_counts_no_attempt(world):
    host = scripted(world, seconds=10.0)
    for number in range(60):
        world.accept(f"u{number}@a.example")
    world.run(5)
    assert (host.active, len(world.runner.limits.waiting["a.example"])) == (5, 5)
    host.down = NO_CONNECTION
    world.run(6)
    assert host.attempts == 5
    assert world.runner.limits.waiting == {}
    stats = finish(world.queue.stats()).recipients
    assert (stats["claimed"], stats["deferred"]) == (0, 60)


def test_leases_of_what_was_claimed_ahead_are_prolonged(world):
    host = scripted(world, seconds=2 * HOUR)
    for number in range(10):
        world.accept(f"u{number}@a.example")
    world.run(HOUR)
    assert finish(world.queue.stats()).recipients["claimed"] == 10
    assert host.attempts == 5
    world.run(5 * HOUR)
    assert is_empty(world)
    assert len(world.relay.delivered) == sum(world.relay.delivered.values()) == 10


def test_the_back_off_of_a_destination_doubles_up_to_its_most(world):
    scripted(world, down=GO_AWAY)
    world.accept("a@a.example")
    seen = []
    for _ in range(12):
        world.run(2)
        (info,) = finish(world.queue.destinations())
        seen.append(round(info.not_before - world.now()) + 1)
        finish(world.queue.change(Choice(), Retry()))
    assert seen[:4] == [60, 120, 240, 480]
    assert seen[-1] == 3600


def test_a_host_that_says_not_so_much_gets_less(world):
    host = scripted(world, says=("deferred", TOO_MUCH), seconds=10.0)
    for number in range(30):
        world.accept(f"u{number}@a.example")
    world.run(5)
    assert host.active == 5
    world.run(30)
    assert host.active == 1


def test_no_more_attempts_than_allowed_and_a_slow_destination_leaves_room_for_others():
    world = World(connections=10, destination_connections=6, destination_first=6)
    slow = scripted(world, "slow.example", seconds=1000.0)
    for number in range(50):
        world.accept(f"u{number}@slow.example")
    for number in range(20):
        world.accept(f"u{number}@fast{number}.example")
    world.runner.start()
    world.run(20)
    assert (slow.most, world.relay.most) == (6, 10)
    assert finish(world.queue.stats()).destinations == 1


def test_dead_destinations_take_no_more_than_their_share():
    world = World(connections=20, probe_share=0.25, down_first=1.0, jitter=0.0, retry_first=5.0, retry_most=5.0)
    for number in range(100):
        scripted(world, f"dead{number}.example", down=NO_CONNECTION, seconds=300.0)
        world.accept(f"u@dead{number}.example")
    world.runner.start()
    world.run(3000)
    world.relay.most = 0
    world.run(300)
    assert world.relay.most == 5


# -------------------------------------------------------------------------------------------------------- misfortunes


def test_when_the_disk_is_full_what_was_delivered_is_settled_later_and_not_sent_again(world):
    settle = world.queue.settle
    refusals = [StorageFull(), StorageFull()]

    async def refusing(*arguments):
        if refusals:
            raise refusals.pop()
        return await settle(*arguments)

    world.queue.settle = refusing
    id_ = world.accept("a@a.example")
    world.run(20)
    assert not is_empty(world)
    world.run(20)
    assert is_empty(world)
    assert world.relay.delivered == {f"Q{id_:X} <a@a.example>": 1}


def test_a_reporter_with_a_bug_loses_no_failure(world):
    scripted(world, says=("failed", NEVER))

    async def broken(*_):
        raise RuntimeError("a bug")

    world.reporter = broken
    id_ = world.accept("a@a.example")
    world.run(2)
    assert only(world).state == "deferred"
    world.reporter = world.report
    world.run(2 * HOUR + 2)
    assert world.reports() == [f"failed {id_} <a@a.example>"]


def test_a_relay_with_a_bug_makes_it_wait_until_the_claim_runs_out(world):
    attempt = world.relay.attempt
    bugs = [RuntimeError("a bug")]

    async def buggy(hops, job):
        if bugs:
            raise bugs.pop()
        return await attempt(hops, job)

    world.relay.attempt = buggy
    world.accept("a@a.example")
    world.run(900)
    assert is_empty(world)
    assert world.runner.limits.active == 0


def test_leases_are_prolonged_while_an_attempt_takes_long(world):
    host = scripted(world, seconds=2 * HOUR)
    world.accept("a@a.example")
    world.run(3 * HOUR)
    assert host.attempts == 1
    assert is_empty(world)


def test_stopping_lets_attempts_finish_and_begins_none(world):
    scripted(world, seconds=5.0)
    world.accept("a@a.example")
    world.run(1)
    stopped = Deferred.fromCoroutine(world.runner.stop())
    world.accept("b@a.example")
    world.run(3)
    assert not stopped.called
    world.run(3)
    assert stopped.called
    assert world.relay.is_closed
    assert finish(world.queue.stats()).recipients["queued"] == 1


def test_what_is_cut_off_at_the_stop_is_sent_by_the_next_runner(world):
    host = scripted(world, seconds=500.0)
    world.accept("a@a.example")
    world.run(1)
    stopped = Deferred.fromCoroutine(world.runner.stop())
    world.run(20)
    assert stopped.called
    host.seconds = 1.0
    world.runner = world.new_runner()
    world.runner.start()
    world.run(900)
    assert is_empty(world)


def test_a_report_that_cannot_go_anywhere_hinders_nothing(world):
    scripted(world, says=("failed", NEVER))

    async def nowhere(report):
        raise MailError("no such recipient", code=550)

    world.file = nowhere
    world.runner._file = nowhere
    world.accept("a@a.example")
    world.run(2)
    assert (world.reports(), is_empty(world)) == ([], True)


def test_reports_may_go_on_the_queue_themselves(world):
    from livemail.interfaces.queue import Outgoing
    from tests.contracts.queue_rig import addressed

    async def by_queue(report):
        null = ReversePath(Path.null)
        return Filing((), (Outgoing(report.content, null, (addressed("ann@far.example"),)),))

    scripted(world, says=("failed", NEVER))
    world.runner._file = by_queue
    world.accept("a@a.example")
    world.run(5)
    assert [each.split()[1] for each in world.relay.delivered] == ["<ann@far.example>"]
    assert is_empty(world)
