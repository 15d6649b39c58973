"""Where blocking is allowed, and the alarm for when it happened where it is not."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Final, ParamSpec, TypeVar, cast

from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")

BEAT: Final = 0.05
"""Seconds between two heartbeats of the reactor: a stall is noticed up to this much late."""


class BlockingPool:
    """A small pool of threads; calling it runs a function there (`livemail.interfaces.runtime.RunBlocking`)."""

    def __init__(self, reactor: Any, threads: int) -> None:
        """threads: at most so many functions run at once; the others wait their turn."""
        self._reactor = reactor
        self._pool = ThreadPool(0, threads, "livemail")

    def start(self) -> None:
        """Allow work.  Functions given before wait."""
        self._pool.start()

    def stop(self) -> None:
        """Wait for the functions that run, forget those that do not yet, and end the threads."""
        if not self._pool.joined and self._pool.started:
            self._pool.stop()

    def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Await the function's result; its exception is raised here."""
        return cast("Awaitable[T]", deferToThreadPool(self._reactor, self._pool, function, *args, **kwargs))


class StallAlarm:
    """Logs every turn of the reactor over a limit, with the stack it was caught in.

    The reactor beats every 50 ms; a thread looks whether a beat is overdue and then takes the stack of the reactor's
    thread.  Twenty timer calls a second cost less than a tenth of a percent of one core.
    """

    log = Logger(namespace="livemail.stall")

    def __init__(self, reactor: Any, limit: float) -> None:
        """limit: seconds."""
        self._reactor = reactor
        self._time = cast(IReactorTime, reactor)
        self._limit = limit
        self._due = 0.0
        self._call: Any = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._watched = 0
        self._stack = ""

    def start(self) -> None:
        """Begin; call it in the reactor's thread."""
        self._watched = threading.get_ident()
        self._beat()
        self._thread = threading.Thread(target=self._watch, name="livemail-stall", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and the beats."""
        self._stop.set()
        if self._call is not None and self._call.active():
            self._call.cancel()
        if self._thread is not None:
            self._thread.join()

    def _beat(self) -> None:
        late = self._time.seconds() - self._due
        if self._due and late > self._limit:
            stack, self._stack = self._stack or "(over before the stack was taken)\n", ""
            self.log.warn(
                "the event loop stood still for {seconds:.3f} s; work like this belongs in a thread:\n{stack}",
                seconds=late,
                stack=stack.rstrip(),
            )
        self._due = self._time.seconds() + BEAT
        self._call = self._time.callLater(BEAT, self._beat)

    def _watch(self) -> None:
        seen = 0.0
        while not self._stop.wait(BEAT):
            due = self._due
            if due != seen and self._time.seconds() - due > self._limit:
                seen = due
                frame = sys._current_frames().get(self._watched)  # noqa: SLF001 (the documented way to another thread's stack)
                self._stack = "".join(traceback.format_stack(frame)[-12:]) if frame else ""


def in_reactor(reactor: Any, function: Callable[..., object], *args: object) -> None:
    """Call a function in the reactor's thread, from a signal's or another thread."""
    cast(IReactorFromThreads, reactor).callFromThread(function, *args)
