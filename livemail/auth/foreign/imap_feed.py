"""The change feed and the ModSeq of one session on a foreign account."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zope.interface import implementer

from livemail.interfaces.storage import IChangeListener, IWatch
from livemail.mail.changes import Change
from livemail.mail.ids import ModSeq


@implementer(IWatch)
class _Watch:
    def __init__(self, feed: Feed, listener: IChangeListener) -> None:
        self.listener: IChangeListener | None = listener
        self._feed = feed

    def stop(self) -> None:
        if self.listener is not None:
            self.listener = None
            self._feed.stopped(self)


class Feed:
    """now: seconds since the epoch.  on_last_stop: called when nobody watches any more."""

    def __init__(self, now: Callable[[], float], on_last_stop: Callable[[], None]) -> None:
        self.modseq: ModSeq = 0
        self._now = now
        self._on_last_stop = on_last_stop
        self._watches: list[_Watch] = []

    def next_modseq(self) -> ModSeq:
        """Return a ModSeq above all before it, in this session and, as far as the clock is right, in earlier ones."""
        self.modseq = max(self.modseq + 1, int(self._now() * 1_000_000))
        return self.modseq

    def publish(self, origin: object, changes: Sequence[Change]) -> None:
        """Tell every watch."""
        for watch in tuple(self._watches):
            if watch.listener is not None:
                watch.listener.changed(self.modseq, origin, changes)

    def watch(self, listener: IChangeListener) -> IWatch:
        """See `IAccount.watch`."""
        self._watches.append(_Watch(self, listener))
        return self._watches[-1]

    def stopped(self, watch: _Watch) -> None:
        """A watch was stopped."""
        self._watches.remove(watch)
        if not self._watches:
            self._on_last_stop()
