"""How many attempts run at a time: in all, and to each destination.

A destination begins with ``destination_first`` attempts.  Each success opens it by one, up to ``destination_connections``; replies
that say "not so much" to every recipient halve it.  One that is down has one probe at a time, and opens from one when it
is well again, so that a host that has just come back is not met by everything that waited for it.

A claim is a commit, and connections that waited for one would idle: so as many jobs again as may run are claimed ahead and wait
here.  When their destination is found down they are deferred with it.  For mail that is being accepted room of the same kind is
kept until the commit that claims it is made.

Only destinations with attempts running, or that are narrower or wider than a new one, are remembered, the latter at most
`REMEMBERED`: what is forgotten begins anew.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Final

from livemail.delivery.queue.settings import QueueSettings
from livemail.interfaces.queue import Claimed, ClaimLimits

REMEMBERED: Final = 300

SWEPT: Final = 500
"""Recipients in hand at a time that need no connection."""


class Window:
    """One destination.  size: attempts it may have; down: when it was found down last, seconds, 0 for never."""

    __slots__ = ("active", "down", "failures", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.active = 0
        self.failures = 0
        self.down = 0.0


class Limits:
    """Counts attempts."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._windows: OrderedDict[str, Window] = OrderedDict()
        self.active = 0
        self.unsettled = 0  # attempts that have ended and whose outcomes no commit has recorded yet
        self.probes = 0
        self.swept = 0
        self.waiting: dict[str, deque[Claimed]] = {}
        self._waiting = 0
        self._first = min(settings.destination_first, settings.destination_connections)  # how wide a window begins
        self._kept: dict[str, int] = {}
        self._all_kept = 0

    @property
    def is_full(self) -> bool:
        """Whether no attempt may be claimed."""
        return self.active + self._waiting + self._all_kept >= 2 * self._settings.connections

    def keep_room(self, destination: str) -> bool:
        """Whether an attempt may be claimed for a destination that works; then its room is kept until `give_back`."""
        if self.is_full:
            return False
        window = self._windows.get(destination)
        if window is not None and (window.failures or self._room(destination, window) <= 0):
            return False
        if window is None and 2 * self._first <= self._claimed(destination):
            return False
        self._kept[destination] = self._kept.get(destination, 0) + 1
        self._all_kept += 1
        return True

    def give_back(self, destination: str) -> None:
        """Room that was kept is not any more."""
        left = self._kept[destination] - 1
        if left:
            self._kept[destination] = left
        else:
            del self._kept[destination]
        self._all_kept -= 1

    def _claimed(self, destination: str) -> int:
        """Jobs of a destination that are claimed, or about to be, and do not run."""
        return len(self.waiting.get(destination, ())) + self._kept.get(destination, 0)

    def _room(self, destination: str, window: Window) -> int:
        return (1 if window.failures else 2 * window.size) - window.active - self._claimed(destination)

    def may_begin(self, destination: str) -> bool:
        """Whether an attempt may begin now."""
        window = self._windows.get(destination)
        # Each of these may have been taken by a peer without our being able to know it after a crash.
        if self.active + self.unsettled >= self._settings.connections:
            return False
        return window is None or window.active < window.size

    def put_by(self, claimed: Claimed) -> None:
        """Keep a job until its destination has room."""
        self.waiting.setdefault(claimed.destination, deque()).append(claimed)
        self._waiting += 1

    def ready(self) -> Iterator[Claimed]:
        """Yield jobs that may begin; each must begin before the next is asked for."""
        for name in list(self.waiting):
            jobs = self.waiting[name]
            while jobs and self.may_begin(name):
                self._waiting -= 1
                yield jobs.popleft()
            if not jobs:
                del self.waiting[name]

    def take_waiting(self, destination: str) -> deque[Claimed]:
        """Give up the jobs that wait for a destination."""
        jobs = self.waiting.pop(destination, deque())
        self._waiting -= len(jobs)
        return jobs

    def for_claim(self) -> ClaimLimits:
        """Return what may be claimed now."""
        settings = self._settings
        rooms = {
            name: max(0, 2 * self._first - self._claimed(name)) for name in self._kept.keys() | self.waiting.keys()
        }
        rooms |= {name: max(0, self._room(name, window)) for name, window in self._windows.items()}
        return ClaimLimits(
            jobs=max(0, 2 * settings.connections - self.active - self._waiting - self._all_kept),
            rooms=rooms,
            room=self._first,
            probes=max(0, max(1, int(settings.connections * settings.probe_share)) - self.probes),
            recipients=settings.recipients,
            swept=max(0, SWEPT - self.swept),
        )

    def window(self, destination: str) -> Window:
        """Return a destination's window."""
        window = self._windows.get(destination)
        if window is None:
            window = Window(self._first)
            self._windows[destination] = window
        return window

    def begin(self, destination: str, failures: int) -> None:
        """An attempt begins.  failures: of the destination, as the queue knows it."""
        window = self.window(destination)
        if failures:
            window.size = 1
            self.probes += 1
        window.failures = failures
        window.active += 1
        self.active += 1

    def end(self, destination: str, failures: int) -> None:
        """An attempt that began with ``failures`` has ended."""
        window = self._windows[destination]
        window.active -= 1
        self.active -= 1
        if failures:
            self.probes -= 1
        if not window.active:
            self._windows.move_to_end(destination)
            if window.size == self._first:
                del self._windows[destination]
            while len(self._windows) > REMEMBERED + self.active:
                first = next((name for name, each in self._windows.items() if not each.active), None)
                if first is None:
                    break
                del self._windows[first]

    def went_well(self, destination: str) -> None:
        """A host of the destination was talked to, and took something."""
        window = self.window(destination)
        window.size = min(window.size + 1, self._settings.destination_connections)
        window.failures = 0

    def was_too_much(self, destination: str) -> None:
        """It said to all that was asked of it: not now."""
        window = self.window(destination)
        window.size = max(1, window.size // 2)

    def is_down(self, destination: str, started: float, now: float) -> int:
        """No host could be talked to in an attempt that began at ``started``; return the failures in a row.

        Attempts that ran side by side count once.
        """
        window = self.window(destination)
        if started > window.down or not window.failures:
            window.failures += 1
        window.down = now
        window.size = 1
        return window.failures
