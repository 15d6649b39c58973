"""From what a job came to, to what the queue is told and what the sender is."""

from __future__ import annotations

from typing import Final

import msgspec

from livemail.delivery.queue.schedule import Schedule
from livemail.interfaces.queue import Concerned, Outcome, QueuedMessage, QueuedRecipient
from livemail.interfaces.relay import Reply

EXPIRED: Final = "4.4.7"
"""Delivery time expired.  RFC 3463 §3.5."""

LEAST: Final = 1.0
"""Seconds between two attempts, however near the expiry: what is given up in less is given up now."""

NO_ANSWER: Final = Reply(451, "4.4.0", "no answer", "connect", is_remote=False)


class Verdicts:
    """Outcomes of one job, and whom they concern."""

    def __init__(self, schedule: Schedule, message: QueuedMessage, now: float) -> None:
        self._schedule = schedule
        self._message = message
        self._now = now
        self._jitter = 0.0
        self.outcomes: list[Outcome] = []
        self.concerned: list[Concerned] = []

    def delivered(self, one: QueuedRecipient, reply: Reply, host: str, *, is_final: bool, is_reported: bool) -> None:
        """The next hop took it.  is_final: into a mailbox; is_reported: the next hop took the duty to report as well."""
        self.outcomes.append(Outcome(one.number, "delivered", reply, host))
        if not is_reported and "SUCCESS" in one.recipient.notify:
            self._concern(one, "delivered" if is_final else "relayed", reply, host)

    def failed(self, one: QueuedRecipient, reply: Reply, host: str = "", *, was_tried: bool = True) -> None:
        """It will never be delivered."""
        self.outcomes.append(Outcome(one.number, "failed", reply, host, was_tried=was_tried))
        self._concern(one, "failed", reply, host)

    def deferred(self, one: QueuedRecipient, reply: Reply, host: str = "", *, was_tried: bool = True) -> None:
        """Not now: later, or never when its time is over."""
        now, message, schedule = self._now, self._message, self._schedule
        expiry = schedule.expiry(message, one)
        if expiry - now < LEAST:
            days = (now - message.created) / 86400
            text = f"given up after {days:.1f} days; last: {reply.text}"[:512]
            self.failed(one, msgspec.structs.replace(reply, enhanced=EXPIRED, text=text), host, was_tried=was_tried)
            return
        # What failed together keeps together: one transaction for all recipients of a message the next time, too.
        self._jitter = self._jitter or schedule.jitter()
        wait = schedule.next_attempt(now, message, one, was_tried=was_tried) - now
        following = min(now + max(LEAST, wait * self._jitter), expiry)
        is_told = schedule.is_delay_due(now, message, one)
        if is_told:
            self._concern(one, "delayed", reply, host, expiry)
        self.outcomes.append(
            Outcome(
                one.number,
                "deferred",
                reply,
                host,
                next_attempt=following,
                is_delay_reported=is_told,
                was_tried=was_tried,
            )
        )

    def moved(self, one: QueuedRecipient, destination: str) -> None:
        """Its way is another now, or it could not be tried: as it was, at once."""
        self.outcomes.append(Outcome(one.number, "moved", destination=destination, was_tried=False))

    def take_back(self, following: float) -> None:
        """No report can be made about them: those that would be over without one wait."""
        self.concerned = []
        self.outcomes = [
            msgspec.structs.replace(each, fate="deferred", next_attempt=following) if each.fate == "failed" else each
            for each in self.outcomes
        ]

    def _concern(self, one: QueuedRecipient, action: str, reply: Reply, host: str, retry_until: float = 0.0) -> None:
        self.concerned.append(Concerned(one, action, reply, host, self._now, retry_until))  # type: ignore[arg-type]
