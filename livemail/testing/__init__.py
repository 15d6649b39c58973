"""Mail in tests: a filter asked about a message, and a whole mail server in your test's process.

    from livemail.testing import run_filter

    def test_it():
        result = run_filter(MyFilter, b"Subject: hello\\r\\n\\r\\nbody\\r\\n", limit=3)
        assert result.verdict == CONTINUE

With pytest the fixtures ``mail_server`` and ``make_mail_server`` are there as soon as livemail is installed; with trial, or
in a program, use `TestServer` itself.  docs/testing.rst shows all of it.
"""

from livemail.filters.once import FilterResult
from livemail.testing.filters import FilterFailed, run_filter, run_filter_async
from livemail.testing.hostile import hostile_messages
from livemail.testing.resolver import TestResolver
from livemail.testing.server import Faults, ReceivedMessage, TestServer

__all__ = [
    "Faults",
    "FilterFailed",
    "FilterResult",
    "ReceivedMessage",
    "TestResolver",
    "TestServer",
    "hostile_messages",
    "run_filter",
    "run_filter_async",
]
