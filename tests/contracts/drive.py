"""Running coroutines to their end in a plain synchronous test, without a reactor.

hypothesis drives its state machines synchronously, and so do the contract tests: a provider gets the world outside
injected (`call_from_thread`, `run_blocking`), so a queue that the waiting test empties stands in for the reactor.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

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

    def call_from_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """As `reactor.callFromThread`."""
        self._calls.put((function, args, kwargs))

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
        """Run the next call another thread has asked for.  Raises AssertionError when none comes."""
        try:
            function, args, kwargs = self._calls.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError("nothing happens any more, and the coroutine still waits") from None
        function(*args, **kwargs)

    def drain(self) -> None:
        """Run every call that is waiting."""
        while not self._calls.empty():
            self.turn()
