"""Who listens to which account, and telling them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TypeVar

from twisted.logger import Logger
from zope.interface import implementer

from livemail.interfaces.storage import IChangeListener, IWatch
from livemail.mail.ids import AccountId
from livemail.storage.lmdb.operations.group import Event

_log = Logger()


@implementer(IWatch)
class Watch:
    """One listener's subscription."""

    def __init__(self, feed: ChangeFeed, account: AccountId, listener: IChangeListener) -> None:
        self.listener: IChangeListener | None = listener
        self.account = account
        self._feed = feed

    def stop(self) -> None:
        """No call after this."""
        if self.listener is not None:
            self.listener = None
            self._feed.forget(self.account, self)


W = TypeVar("W", bound=Watch)


class ChangeFeed:
    """All subscriptions of a store.  The reactor's thread only."""

    def __init__(self) -> None:
        self._watches: dict[AccountId, tuple[Watch, ...]] = {}

    def watch(self, account: AccountId, listener: IChangeListener, kind: type[W] = Watch) -> W:  # type: ignore[assignment]
        """Subscribe.  kind: of subscription."""
        watch = kind(self, account, listener)
        self._watches[account] = (*self._watches.get(account, ()), watch)
        return watch

    def forget(self, account: AccountId, watch: Watch) -> None:
        """Drop a subscription."""
        left = tuple(other for other in self._watches.get(account, ()) if other is not watch)
        if left:
            self._watches[account] = left
        else:
            self._watches.pop(account, None)

    def publish(self, events: Sequence[Event]) -> None:
        """Tell every listener what is durable now; the changes of one command in one call."""
        for (account, modseq, _), together in groupby(events, lambda one: (one.account, one.modseq, id(one.origin))):
            watches = self._watches.get(AccountId(account))
            if not watches:
                continue
            some = list(together)
            changes = [event.finished() for event in some]
            for watch in watches:
                if watch.listener is None:
                    continue
                try:
                    watch.listener.changed(modseq, some[0].origin, changes)
                except Exception:
                    _log.failure("a listener of account {account} failed", account=account)
