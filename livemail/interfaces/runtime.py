"""What the world outside gives: time, randomness, threads.  Injected, so that a test decides them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Now = Callable[[], float]
"""Seconds since the epoch, UTC.  May step; nothing that must not go back may depend on it alone."""


class RunBlocking(Protocol):
    """Runs a function where blocking is allowed."""

    def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Await the function's result; its exception is raised here."""
