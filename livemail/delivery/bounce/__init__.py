"""Bounces: reports on what became of a message, as messages.  RFC 3464, RFC 6522, RFC 6533.

    reports = await reporter.compose(Original.of_reader(…), [Outcome(recipient, "failed", reply, host, now)])

Each report is an envelope and at most about a megabyte of octets, to be filed in the same transaction that settles the recipients.
"""

from livemail.delivery.bounce.notice import Action, Original, Outcome, Report, is_wanted
from livemail.delivery.bounce.queued import QueueReporter
from livemail.delivery.bounce.reporter import Reporter
from livemail.delivery.bounce.settings import BounceSettings

__all__ = ["Action", "BounceSettings", "Original", "Outcome", "QueueReporter", "Report", "Reporter", "is_wanted"]
