"""When something is tried again, and when it is given up.  RFC 5321 §4.5.4.1.

A recipient waits as long again as its message is old: 5, 10, 20 … minutes after it came, from ``retry_first`` to ``retry_most``.
That asks for no counter, so that a recipient which was only passed over because its destination was down keeps the same
rhythm as one that was tried.  The last attempt is at the expiry itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from livemail.delivery.queue.settings import QueueSettings
from livemail.interfaces.queue import QueuedMessage, QueuedRecipient

_DOUBLINGS: Final = 30  # Beyond every configurable time, and short of an overflow.


class Schedule:
    """The queue's times.  Seconds since the epoch."""

    def __init__(self, settings: QueueSettings, random: Callable[[], float]) -> None:
        """random: in [0, 1)."""
        self._settings = settings
        self._random = random

    def expiry(self, message: QueuedMessage, recipient: QueuedRecipient) -> float:
        """Return when a recipient is given up."""
        settings = self._settings
        lifetime = settings.report_lifetime if message.reverse_path.path.is_null else settings.lifetime
        return (message.expires or message.created + lifetime) + recipient.extended

    def next_attempt(self, now: float, message: QueuedMessage, recipient: QueuedRecipient, *, was_tried: bool) -> float:
        """Return when a recipient that was deferred is due, without the jitter of its job."""
        settings = self._settings
        age = now - message.created
        # What was sent late (held, or for a later release) begins as anything new.
        is_first = was_tried and not recipient.attempts
        wait = settings.retry_first if is_first else min(max(age, settings.retry_first), settings.retry_most)
        return now + wait

    def is_delay_due(self, now: float, message: QueuedMessage, recipient: QueuedRecipient) -> bool:
        """Whether the sender is to be told now that a recipient takes long."""
        after = self._settings.delay_report
        if not after or recipient.is_delay_reported or message.reverse_path.path.is_null:
            return False
        return now - message.created - recipient.extended >= after

    def back_off(self, failures: int) -> float:
        """Return how long a destination is left alone that was found down ``failures`` times in a row."""
        settings = self._settings
        wait: float = settings.down_first * 2.0 ** min(failures - 1, _DOUBLINGS)
        return min(wait, settings.down_most) * self.jitter()

    def jitter(self) -> float:
        """Return a factor around 1."""
        share = self._settings.jitter
        return 1 - share + 2 * share * self._random()
