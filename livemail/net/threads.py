"""Where blocking is allowed, and the alarm for when it happened where it is not."""

from __future__ import annotations

import contextlib
import queue
import selectors
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from livemail.interfaces.runtime import Descriptor
from livemail.net.coroutines import run
from livemail.net.turns import Turns

P = ParamSpec("P")
T = TypeVar("T")

BEAT: Final = 0.05
"""Seconds between two heartbeats of the reactor: a stall is noticed up to this much late."""


@implementer(IReadWriteDescriptor)
class _Watched:
    """A descriptor as the reactor wants it."""

    log = Logger()

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor

    def logPrefix(self) -> str:
        return type(self._descriptor).__name__

    def fileno(self) -> int:
        return self._descriptor.fileno()

    def doRead(self) -> None:
        self._call(self._descriptor.readable)

    def doWrite(self) -> None:
        self._call(self._descriptor.writable)

    def _call(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:  # The reactor would let go of the descriptor, and whoever waits for it would wait for ever.
            self.log.failure("{prefix} failed", prefix=self.logPrefix())

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the other end gone: what reads it is told by the next read."""
        self.doRead()


class Threads:
    """The crossing between our thread and the ones that may block, and other processes.

    call: what other threads use to have something called in ours.  blocking: runs a function in one of a few threads
    (`livemail.interfaces.runtime.RunBlocking`).  watch, forget: `livemail.interfaces.runtime.IWatcher`.  All work
    without a reactor while `wait` runs a coroutine to its end: so a server that starts opens its store before the first
    connection and reports what is wrong by an exception, and the command does its work on a store nobody serves.
    `hand_over` gives them to the reactor, for good.
    """

    def __init__(self, threads: int) -> None:
        """threads: at most so many functions run at once; the others wait their turn."""
        self._executor = ThreadPoolExecutor(threads, "livemail")
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._reactor: Any = None
        self._selector = selectors.DefaultSelector()
        self._woken, self._wakes = socket.socketpair()
        self._woken.setblocking(False)
        self._wakes.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._watched: dict[Descriptor, _Watched] = {}
        self._turns: Turns | None = None

    def call(self, function: Callable[..., object], *args: object, **kwargs: object) -> None:
        """Have a function called in our thread; for any thread."""
        with self._lock:
            if self._reactor is None:
                self._calls.put(lambda: function(*args, **kwargs))
                with contextlib.suppress(BlockingIOError):  # Full: it will wake up.
                    self._wakes.send(b"\0")
            else:
                self._reactor.callFromThread(function, *args, **kwargs)

    def after_turn(self, call: Callable[[], object]) -> None:
        """Have it called when the reactor has served all that is ready; for our thread."""
        if self._turns is None:
            self.call(call)
        else:
            self._turns.after(call)

    def watch(self, descriptor: Descriptor, *, writing: bool = False) -> None:
        """See `IWatcher.watch`."""
        watched = self._watched.get(descriptor)
        is_new = watched is None
        if watched is None:
            watched = self._watched[descriptor] = _Watched(descriptor)
        if self._reactor is None:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
            (self._selector.register if is_new else self._selector.modify)(descriptor, events, descriptor)
            return
        if is_new:
            self._reactor.addReader(watched)
        (self._reactor.addWriter if writing else self._reactor.removeWriter)(watched)

    def forget(self, descriptor: Descriptor) -> None:
        """See `IWatcher.forget`."""
        watched = self._watched.pop(descriptor, None)
        if watched is None:
            return
        if self._reactor is None:
            self._selector.unregister(descriptor)
        else:
            self._reactor.removeReader(watched)
            self._reactor.removeWriter(watched)

    def hand_over(self, reactor: Any, turns: Turns | None = None) -> None:
        """From now on the reactor does it, what was not called yet and what is watched already included."""
        with self._lock:
            self._reactor = reactor
            self._turns = turns
            while not self._calls.empty():
                reactor.callFromThread(self._calls.get())
        for descriptor, watched in self._watched.items():
            reactor.addReader(watched)
            if self._selector.get_key(descriptor).events & selectors.EVENT_WRITE:
                reactor.addWriter(watched)
            self._selector.unregister(descriptor)

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; return its result or raise its exception.  Not after `hand_over`."""
        ended: list[tuple[T | None, BaseException | None]] = []
        run(coroutine, lambda result, error: ended.append((result, error)))
        while not ended:
            self._turn()
        result, error = ended[0]
        if error is not None:
            raise error
        return cast(T, result)

    def _turn(self) -> None:
        for key, events in self._selector.select():
            if key.data is None:
                self._woken.recv(4096)
                while not self._calls.empty():
                    self._calls.get()()
                continue
            if events & selectors.EVENT_READ:
                key.data.readable()
            if events & selectors.EVENT_WRITE and key.data in self._watched:
                key.data.writable()

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
        self._selector.close()
        self._woken.close()
        self._wakes.close()


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
