import socket
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
    threads.hand_over(ForwardingReactor(forwarded))
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
    threads.hand_over(ForwardingReactor(calls))
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


class End:
    """A descriptor: one end of a socket pair."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.got: list[bytes] = []
        self.written = 0

    def fileno(self) -> int:
        return self.connection.fileno()

    def readable(self) -> None:
        self.got.append(self.connection.recv(100))

    def writable(self) -> None:
        self.written += 1


def test_a_descriptor_is_served_without_a_reactor_and_by_the_reactor_after_the_hand_over() -> None:
    threads = Threads(1)
    mine, other = socket.socketpair()
    end = End(mine)
    threads.watch(end, writing=True)
    other.send(b"before")

    async def until_read() -> None:
        while not (end.got and end.written):
            await threads.blocking(int)

    threads.wait(until_read())
    assert end.got == [b"before"]
    reactor = FDSet()
    threads.hand_over(reactor)
    assert {kind for kind, _ in reactor.watched} == {"read", "write"}
    threads.watch(end)
    [(kind, watched)] = reactor.watched
    other.send(b"behind")
    watched.doRead()
    assert (kind, end.got) == ("read", [b"before", b"behind"])
    threads.forget(end)
    threads.forget(end)
    assert reactor.watched == set()
    mine.close()
    other.close()
    threads.stop()


def test_a_descriptor_that_fails_stays_watched_and_the_log_says_so() -> None:
    threads = Threads(1)
    mine, other = socket.socketpair()
    end = End(mine)
    reactor = FDSet()
    threads.hand_over(reactor)
    threads.watch(end)
    [(_, watched)] = reactor.watched
    end.readable = lambda: 1 / 0  # type: ignore[method-assign]
    events: list = []
    globalLogPublisher.addObserver(events.append)
    try:
        watched.doRead()
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert [event["log_failure"].type for event in events] == [ZeroDivisionError]
    assert reactor.watched == {("read", watched)}
    mine.close()
    other.close()
    threads.stop()


class FDSet:
    """A reactor's set of descriptors."""

    def __init__(self) -> None:
        self.watched: set = set()

    def addReader(self, one):
        self.watched.add(("read", one))

    def addWriter(self, one):
        self.watched.add(("write", one))

    def removeReader(self, one):
        self.watched.discard(("read", one))

    def removeWriter(self, one):
        self.watched.discard(("write", one))


class ForwardingReactor:
    """Notes what it is asked to call."""

    def __init__(self, calls: list) -> None:
        self.calls = calls

    def callFromThread(self, function, *args):
        self.calls.append((function, args))


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
