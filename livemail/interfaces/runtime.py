"""What the world outside gives: time, randomness, threads, descriptors.  Injected, so that a test decides them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Now = Callable[[], float]
"""Seconds since the epoch, UTC.  May step; nothing that must not go back may depend on it alone."""


class RunBlocking(Protocol):
    """Runs a function where blocking is allowed."""

    def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Await the function's result; its exception is raised here."""


class Running(Protocol):
    """A coroutine on its way, without a Deferred for it."""

    def start(self) -> None:
        """Run up to the first suspension, or to the end."""

    def cancel(self) -> None:
        """Cancel what is waited for; CancelledError is raised inside the coroutine."""


class MakeRunning(Protocol):
    """Makes a `Running`, which is not started yet."""

    def __call__(
        self, coroutine: Coroutine[Any, Any, None], on_done: Callable[[None, BaseException | None], None], /
    ) -> Running:
        """on_done: called once, inside `Running.start` when the coroutine never suspends."""


class Descriptor(Protocol):
    """Something with a file descriptor that does not block."""

    def fileno(self) -> int:
        """The same number as long as it is watched."""

    def readable(self) -> None:
        """There is something to read, or the other end is gone."""

    def writable(self) -> None:
        """There is room to write, or the other end is gone."""


class IWatcher(Protocol):
    """Calls descriptors back in the reactor's thread; of an exception of theirs nobody else hears."""

    def watch(self, descriptor: Descriptor, *, writing: bool = False) -> None:
        """Call it when it can be read, and if ``writing`` also when it can be written.  Again, to change ``writing``."""

    def forget(self, descriptor: Descriptor) -> None:
        """Call it no more."""
