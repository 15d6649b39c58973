"""Where blocking is allowed, and the alarm for when it happened where it is not."""

from __future__ import annotations

import queue
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from livemail.net.coroutines import run

P = ParamSpec("P")
T = TypeVar("T")

BEAT: Final = 0.05
"""Seconds between two heartbeats of the reactor: a stall is noticed up to this much late."""


class Threads:
    """The crossing between our thread and the ones that may block.

    call: what other threads use to have something called in ours.  blocking: runs a function in one of a few threads
    (`livemail.interfaces.runtime.RunBlocking`).  Both work without a reactor while `wait` runs a coroutine to its end: so
    a server that starts opens its store before the first connection and reports what is wrong by an exception, and the
    command does its work on a store nobody serves.  `hand_over` gives the calls to the reactor, for good.
    """

    def __init__(self, threads: int) -> None:
        """threads: at most so many functions run at once; the others wait their turn."""
        self._executor = ThreadPoolExecutor(threads, "livemail")
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._forward: Callable[..., object] | None = None

    def call(self, function: Callable[..., object], *args: object, **kwargs: object) -> None:
        """Have a function called in our thread; for any thread."""
        with self._lock:
            if self._forward is None:
                self._calls.put(lambda: function(*args, **kwargs))
            else:
                self._forward(function, *args, **kwargs)

    def hand_over(self, call_from_thread: Callable[..., object]) -> None:
        """From now on, and for what was not called yet, calls go to the reactor's ``callFromThread``."""
        with self._lock:
            self._forward = call_from_thread
            while not self._calls.empty():
                call_from_thread(self._calls.get())

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; return its result or raise its exception.  Not after `hand_over`."""
        ended: list[tuple[T | None, BaseException | None]] = []
        run(coroutine, lambda result, error: ended.append((result, error)))
        while not ended:
            self._calls.get()()
        result, error = ended[0]
        if error is not None:
            raise error
        return cast(T, result)

    def blocking(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Await the function's result; its exception is raised here."""
        answer: Deferred[T] = Deferred()

        def done(future: Future[T]) -> None:
            if future.cancelled():
                self.call(answer.cancel)
                return
            error = future.exception()
            if error is None:
                self.call(answer.callback, future.result())
            else:
                self.call(answer.errback, error)

        self._executor.submit(function, *args, **kwargs).add_done_callback(done)
        return answer

    def stop(self) -> None:
        """Wait for the functions that run, forget those that do not yet, and end the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)


class StallAlarm:
    """Logs every turn of the reactor over a limit, with the stack it was caught in.

    The reactor beats every 50 ms; a thread looks whether a beat is overdue and then takes the stack of the reactor's
    thread.  Twenty timer calls a second cost less than a tenth of a percent of one core.
    """

    log = Logger()

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
