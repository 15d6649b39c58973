"""A reactor whose time a test may move: real sockets, real seconds, and as many more as `advance` adds."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock, LoopingCall

TICK = 0.01
"""Seconds between two looks at the real clock."""


class MovableReactor:
    """Everything of a reactor, but its timers and `seconds` follow a clock of their own.

    That clock goes with the real one from `start` to `stop`, and jumps when `advance` says so: five days of retries pass in a call.
    """

    def __init__(self, reactor: Any, epoch: float) -> None:
        """epoch: the time `now` begins with, seconds since the epoch."""
        self._reactor = reactor
        self._epoch = epoch
        self._clock = Clock()
        self._seen = reactor.seconds()
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def start(self) -> None:
        """Follow the real time."""
        self._seen = self._reactor.seconds()
        self._ticking.start(TICK)

    def stop(self) -> None:
        """Follow it no longer; timers that are left never fire."""
        if self._ticking.running:
            self._ticking.stop()

    def _tick(self) -> None:
        now = self._reactor.seconds()
        passed, self._seen = now - self._seen, now
        self._clock.advance(max(0.0, passed))

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._clock.advance(seconds)

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._epoch + self._clock.seconds()

    def seconds(self) -> float:
        """See `IReactorTime.seconds`."""
        return self._clock.seconds()

    def callLater(self, delay: float, callable: Any, *args: Any, **kw: Any) -> Any:  # noqa: A002 - the interface's word
        """See `IReactorTime.callLater`."""
        return self._clock.callLater(delay, callable, *args, **kw)

    def getDelayedCalls(self) -> Any:
        """See `IReactorTime.getDelayedCalls`."""
        return self._clock.getDelayedCalls()
