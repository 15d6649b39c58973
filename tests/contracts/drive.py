"""Running coroutines to their end in a plain synchronous test, without a reactor.

hypothesis drives its state machines synchronously, and so do the contract tests: a provider gets the world outside
injected (`call_from_thread`, `run_blocking`, `watch`), so a queue that the waiting test empties stands in for the reactor.
"""

from __future__ import annotations

import contextlib
import queue
import selectors
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from livemail.interfaces.runtime import Descriptor
from livemail.net.coroutines import run

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds without any sign of life from other threads after which a wait is a failure."""


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that finishes without suspending; its exception is raised here."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("the coroutine suspended")


class Pump:
    """Stands in for the reactor: what other threads hand to `call_from_thread` runs in the thread that waits."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = queue.SimpleQueue()
        self._selector: selectors.BaseSelector | None = None  # when a descriptor was watched
        self._wakes: socket.socket | None = None

    def call_from_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """As `reactor.callFromThread`."""
        self._calls.put((function, args, kwargs))
        if self._wakes is not None:
            with contextlib.suppress(BlockingIOError):
                self._wakes.send(b"\0")

    def watch(self, descriptor: Descriptor, *, writing: bool = False) -> None:
        """As `livemail.net.threads.Threads.watch`."""
        if self._selector is None:
            self._selector = selectors.DefaultSelector()
            woken, self._wakes = socket.socketpair()
            woken.setblocking(False)
            self._wakes.setblocking(False)
            self._selector.register(woken, selectors.EVENT_READ)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        is_known = descriptor.fileno() in self._selector.get_map()
        (self._selector.modify if is_known else self._selector.register)(descriptor, events, descriptor)

    def forget(self, descriptor: Descriptor) -> None:
        """As `livemail.net.threads.Threads.forget`."""
        assert self._selector is not None
        self._selector.unregister(descriptor)

    def run_blocking(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Deferred[T]:
        """As `deferToThread`: run the function in a thread of its own, fire in the waiting one."""
        done: Deferred[T] = Deferred()

        def work() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException:
                self.call_from_thread(done.errback, Failure())
            else:
                self.call_from_thread(done.callback, result)

        threading.Thread(target=work, daemon=True).start()
        return done

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the coroutine's result, or raise its exception."""
        return self.gather([coroutine])[0]

    def gather(self, coroutines: list[Coroutine[Any, Any, T]]) -> list[T]:
        """Run coroutines at the same time; return all results, or raise the first exception."""
        outcomes = self.settle(coroutines)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return outcomes  # type: ignore[return-value]

    def settle(self, coroutines: list[Coroutine[Any, Any, T]]) -> list[T | BaseException]:
        """Run coroutines at the same time; return the result or the exception of each."""
        outcomes: dict[int, T | BaseException] = {}

        def finished(at: int, result: T | None, error: BaseException | None) -> None:
            outcomes[at] = error if error is not None else result  # type: ignore[assignment]

        for at, coroutine in enumerate(coroutines):
            run(coroutine, lambda result, error, at=at: finished(at, result, error))  # type: ignore[misc]
        while len(outcomes) < len(coroutines):
            self.turn()
        return [outcomes[at] for at in range(len(coroutines))]

    def turn(self) -> None:
        """Run the next call another thread has asked for, or serve what is watched.  Raises AssertionError when none comes."""
        try:
            function, args, kwargs = self._calls.get(timeout=0 if self._selector else PATIENCE)
        except queue.Empty:
            if self._selector is None or not self._serve():
                raise AssertionError("nothing happens any more, and the coroutine still waits") from None
            return
        function(*args, **kwargs)

    def _serve(self) -> bool:
        """Wait until a descriptor that is watched is ready, or another thread calls."""
        assert self._selector is not None
        ready = self._selector.select(PATIENCE)
        for key, events in ready:
            if key.data is None:
                key.fileobj.recv(4096)
            elif events & selectors.EVENT_READ:
                key.data.readable()
            elif events & selectors.EVENT_WRITE:
                key.data.writable()
        return bool(ready)

    def drain(self) -> None:
        """Run every call that is waiting."""
        while not self._calls.empty():
            self.turn()
