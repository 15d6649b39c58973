"""Fixtures for pytest: ``mail_server``, and ``make_mail_server`` for one with arguments.

    def test_a_new_user_gets_mail(mail_server):
        my_program.invite("you@localhost", smtp=mail_server.smtp)
        (message,) = mail_server.wait_for("you@localhost", subject="Welcome")
        assert "your password" in message.text

    def test_the_disk_is_full(make_mail_server):
        server = make_mail_server(accounts={"ann@localhost": "secret"})
        server.faults.fail("deliver", times=-1)

The reactor runs in a thread of its own, so tests may block.  Where it runs already in the test's own thread (trial,
pytest-twisted), use `livemail.testing.TestServer` and await its methods instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest


class ReactorThread:
    """The reactor in a thread, started once."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def start(self) -> Any:
        """Return the running reactor."""
        from twisted.internet import reactor

        chosen: Any = reactor
        if chosen.running and self._thread is None:
            raise RuntimeError(
                "the reactor runs already in this program; use livemail.testing.TestServer and await its methods"
            )
        if self._thread is None:
            ready = threading.Event()
            chosen.callWhenRunning(ready.set)
            self._thread = threading.Thread(
                target=lambda: chosen.run(installSignalHandlers=False), name="reactor", daemon=True
            )
            self._thread.start()
            ready.wait(10)
        return chosen

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a coroutine function in the reactor's thread; return its result."""
        from twisted.internet.defer import Deferred
        from twisted.internet.threads import blockingCallFromThread

        return blockingCallFromThread(self.start(), lambda: Deferred.fromCoroutine(function()))


_reactor = ReactorThread()


class BlockingServer:
    """A `livemail.testing.TestServer` whose methods wait.  Everything else is the server's own."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def _call(self, name: str, *arguments: Any, **more: Any) -> Any:
        return _reactor.call(lambda: getattr(self._server, name)(*arguments, **more))

    def send(self, message: Any, **more: Any) -> None:
        """Hand a message in; see `TestServer.send`."""
        self._server.send_here(message, **more)

    def mail(self, *arguments: Any, **more: Any) -> Any:
        """Every message in a mailbox."""
        return self._call("mail", *arguments, **more)

    def wait_for(self, *arguments: Any, **more: Any) -> Any:
        """Wait for messages."""
        return self._call("wait_for", *arguments, **more)

    def add_account(self, *arguments: Any, **more: Any) -> None:
        """Make an account."""
        self._call("add_account", *arguments, **more)

    def add_filter(self, *arguments: Any, **more: Any) -> None:
        """Append a filter."""
        self._call("add_filter", *arguments, **more)

    def clear_filters(self) -> None:
        """Have no filters."""
        self._call("clear_filters")

    def advance(self, seconds: float) -> None:
        """Let the server's time pass."""
        self._call("advance", seconds)

    def cut_connections(self) -> int:
        """Drop every connection."""
        return int(self._call("cut_connections"))


@pytest.fixture
def make_mail_server() -> Iterator[Callable[..., BlockingServer]]:
    """Start mail servers with `TestServer`'s arguments; they are stopped after the test."""
    from livemail.testing import TestServer

    started: list[Any] = []

    def make(**more: Any) -> BlockingServer:
        async def begin() -> Any:
            server = TestServer(**more)
            started.append(server)
            return await server.start()

        return BlockingServer(_reactor.call(begin))

    yield make
    for server in started:
        _reactor.call(server.stop)


@pytest.fixture
def mail_server(make_mail_server: Callable[..., BlockingServer]) -> BlockingServer:
    """A mail server with the account you@localhost, password secret."""
    return make_mail_server()
