"""What an administrator may choose about the queue."""

from __future__ import annotations

from collections.abc import Iterator

from livemail.interfaces.settings import Count, Duration, Settings


class QueueSettings(Settings, frozen=True, kw_only=True):
    """The section ``[queue]``; times in seconds.

    lifetime: a message that was not delivered after this time goes back to its sender; report_lifetime: likewise a report of ours,
    or any other message with the null reverse-path.  delay_report: the sender hears of a delay after this time, 0 for never.
    retry_first, retry_most: the least and most time between two attempts of a recipient; in between the time grows with
    the message's age.  down_first, down_most: how long a destination that cannot be reached is left alone: at first, and
    at most; each failure doubles it.  jitter: share by which these times vary at random, so that what failed together is not
    tried together.
    connections: attempts at the same time; destination_connections: of them to one destination;
    destination_first: to one of which nothing is known yet.  probe_share: of the connections, for destinations that were
    found down.  recipients: of one message in one attempt.
    lease: an attempt that does not say for so long that it is alive is taken to be dead.  stop_time: attempts get this long to
    finish when the server stops.
    """

    lifetime: Duration = 5 * 86400.0
    report_lifetime: Duration = 5 * 86400.0
    delay_report: float = 4 * 3600.0
    retry_first: Duration = 300.0
    retry_most: Duration = 2 * 3600.0
    down_first: Duration = 60.0
    down_most: Duration = 3600.0
    jitter: float = 0.2
    connections: Count = 200
    destination_connections: Count = 20
    destination_first: Count = 5
    probe_share: float = 0.25
    recipients: Count = 100
    lease: Duration = 600.0
    stop_time: float = 10.0

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong with it and what to write instead) for every fault."""
        if self.delay_report < 0:
            yield "delay_report", f"is {self.delay_report}; write a time, or 0 for no report about delays"
        if self.retry_first > self.retry_most:
            yield "retry_first", f"is longer than retry_most ({self.retry_most}); write a shorter time"
        if self.down_first > self.down_most:
            yield "down_first", f"is longer than down_most ({self.down_most}); write a shorter time"
        if not 0 <= self.jitter < 1:
            yield "jitter", f"is {self.jitter}; write a share such as 0.2"
        if not 0 < self.probe_share <= 1:
            yield "probe_share", f"is {self.probe_share}; write a share above 0, at most 1"
        if self.lease < 30:
            yield "lease", f"is {self.lease}; write at least 30 seconds"
        if self.stop_time < 0:
            yield "stop_time", f"is {self.stop_time}; write a time, or 0"
