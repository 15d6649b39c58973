"""The reactor's turns: what may wait until all that was ready has been served.

A turn is one look at the descriptors and the calls for those that are ready.  Work that is cheaper in one go is put off
to its end: the replies of a turn leave one behind the other, when the processes that wait for them find our core busy instead of
taking turns with us, and what many sessions submit to the writer goes as one group.

A program of its own has its turns taken here (`Turns.take_over`) instead of by Twisted's epoll reactor: the same descriptors and the
same calls, without the log context that Twisted sets up around each.  We have no use for it, and it was a twentieth of
what a message cost.  Inside another's program, or with another reactor, turns end by `callLater`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.logger import Logger

_log: Final = Logger()

MAX_PUT_OFF: Final = 16
"""So many calls wait at most: behind them the first would wait too long."""


class Turns:
    """Calls what was put off to the end of a turn, in order."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._calls: list[Callable[[], object]] = []
        self._is_ours = False

    def take_over(self) -> None:
        """From now on turns are taken here; where the reactor is not exactly Twisted's epoll reactor all stays as it was."""
        if type(self._reactor) is EPollReactor:
            self._is_ours = True
            setattr(self._reactor, "doIteration", self._iterate)  # noqa: B010 - a method, for mypy

    def after(self, call: Callable[[], object]) -> None:
        """Call it when this turn ends; in the reactor's thread only.  What it raises is logged."""
        if not self._calls and not self._is_ours:
            self._reactor.callLater(0, self._end)
        self._calls.append(call)
        if len(self._calls) >= MAX_PUT_OFF:
            self._end()

    def _end(self) -> None:
        while self._calls:
            calls, self._calls = self._calls, []
            for call in calls:
                try:
                    call()
                except Exception:
                    _log.failure("what was put off to the end of a turn failed")

    def _iterate(self, timeout: float | None) -> None:
        """Do as `EPollReactor.doPoll` does."""
        if self._calls:  # Put off by a timed call.
            self._end()
        reactor = self._reactor
        selectables = reactor._selectables  # noqa: SLF001
        serve = reactor._doReadOrWrite  # noqa: SLF001 - logs what is raised, and drops who raised it
        for descriptor, event in reactor._poller.poll(-1 if timeout is None else timeout, len(selectables)):  # noqa: SLF001
            selectable = selectables.get(descriptor)
            if selectable is not None:
                serve(selectable, descriptor, event)
        if self._calls:
            self._end()
