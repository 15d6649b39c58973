import threading
import time

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from livemail.net.threads import StallAlarm, Threads


def test_a_coroutine_runs_to_its_end_without_a_reactor() -> None:
    threads = Threads(2)
    here = threading.get_ident()

    async def work() -> list[int]:
        there = await threads.blocking(threading.get_ident)
        assert there != here
        assert threading.get_ident() == here
        return [await threads.blocking(pow, 2, 5), await threads.blocking(int, "12")]

    assert threads.wait(work()) == [32, 12]
    threads.stop()


def test_an_exception_of_the_thread_is_raised_where_it_is_awaited() -> None:
    threads = Threads(1)

    async def work() -> None:
        with pytest.raises(ValueError, match="invalid literal"):
            await threads.blocking(int, "x")
        raise KeyError("y")

    with pytest.raises(KeyError):
        threads.wait(work())
    threads.stop()


def test_after_the_hand_over_calls_go_to_the_reactor_in_their_order() -> None:
    threads = Threads(1)
    seen: list[int] = []
    forwarded: list[tuple] = []
    threads.call(seen.append, 1)
    threads.hand_over(lambda f, *args: forwarded.append((f, args)))
    threads.call(seen.append, 2)
    for function, args in forwarded:
        function(*args)
    assert seen == [1, 2]
    threads.stop()


def test_stop_waits_for_what_runs_and_forgets_the_rest() -> None:
    threads = Threads(1)
    begun, go = threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        go.wait(10)

    running = threads.blocking(first)
    waiting = threads.blocking(lambda: None)
    assert begun.wait(10)
    calls: list = []
    threads.hand_over(lambda f, *args: calls.append((f, args)))
    stopper = threading.Thread(target=threads.stop)
    stopper.start()
    go.set()
    stopper.join(10)
    for function, args in calls:
        function(*args)
    failed: list = []
    assert isinstance(running, Deferred)
    assert isinstance(waiting, Deferred)
    running.addErrback(failed.append)
    waiting.addErrback(failed.append)
    assert len(failed) <= 1
    assert running.called


class FakeReactor:
    """Real time, and beats when the test says so."""

    def __init__(self) -> None:
        self.calls: list = []

    def seconds(self) -> float:
        return time.monotonic()

    def callLater(self, delay: float, function, *args):
        self.calls.append(function)
        return type("Call", (), {"active": lambda self: False, "cancel": lambda self: None})()


def stand_still_here(seconds: float, alarm: StallAlarm) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not alarm._stack:
        pass


def test_a_turn_that_stands_still_is_logged_with_its_stack() -> None:
    reactor = FakeReactor()
    alarm = StallAlarm(reactor, 0.1)
    events: list = []
    globalLogPublisher.addObserver(events.append)
    try:
        alarm.start()
        stand_still_here(20.0, alarm)
        reactor.calls[-1]()
    finally:
        globalLogPublisher.removeObserver(events.append)
        alarm.stop()
    told = [event for event in events if event.get("log_namespace") == "livemail.net.threads.StallAlarm"]
    assert len(told) == 1
    assert "stand_still_here" in told[0]["stack"]
    assert told[0]["seconds"] > 0.1
