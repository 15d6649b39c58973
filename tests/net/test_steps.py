"""Steps that never suspend: taken at once, failed at once, lost in the middle."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from livemail.net.connection import TAKEN, Step
from livemail.net.coroutines import Run
from livemail.net.server import ConnectionFactory, Limits
from tests.net.test_server import Echo, Transport


class Plain(Echo):
    """As Echo; ``plain`` is dealt with in `next_step`, ``lost`` and ``lostwait`` lose the connection inside the step."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self.seen: list[str] = []

    def next_step(self) -> Step:
        line = self.wire.line()
        if line is None:
            return None
        if line == b"plain":
            self.write(b"taken\n")
            return TAKEN
        if line == b"plainclose":
            self.close()
            return TAKEN
        if line.startswith(b"lost"):
            return self.lose(waits=line == b"lostwait")
        return self.say(line)

    async def lose(self, *, waits: bool) -> None:
        self.connectionLost()
        self.seen.append(f"cleanups {self.cleanups}")
        if waits:
            self.waiting = Deferred()
            try:
                await self.waiting
            except CancelledError:
                self.seen.append("cancelled")
                raise


def connected() -> tuple[Plain, Transport]:
    factory = ConnectionFactory("smtp", Plain, Clock(), Limits(10, 10))
    connection = factory.buildProtocol(None)
    assert isinstance(connection, Plain)
    transport = Transport()
    connection.makeConnection(transport)
    transport.clear()
    return connection, transport


def test_events_taken_at_once_keep_their_order_among_steps():
    connection, transport = connected()
    connection.dataReceived(b"plain\na\nplain\nwait\nplain\n")
    assert transport.value() == b"taken\na\ntaken\n"
    assert connection.waiting is not None
    connection.waiting.callback(None)
    assert transport.value() == b"taken\na\ntaken\nwait\ntaken\n"


def test_nothing_is_taken_behind_an_event_that_closed():
    connection, transport = connected()
    connection.dataReceived(b"plain\nplainclose\nplain\n")
    assert transport.value() == b"taken\n"


def test_a_step_that_fails_at_once_does_not_end_the_loop():
    connection, transport = connected()
    connection.dataReceived(b"bug\nplain\n")
    assert transport.value() == b"failed\ntaken\n"


def test_a_connection_lost_inside_a_step_is_cleaned_up_behind_it():
    connection, transport = connected()
    connection.dataReceived(b"lost\nplain\n")
    assert connection.seen == ["cleanups 0"]
    assert connection.cleanups == 1
    assert transport.value() == b""


def test_a_step_that_waits_after_the_loss_is_cancelled_and_then_cleaned_up():
    connection, _ = connected()
    connection.dataReceived(b"lostwait\n")
    assert connection.seen == ["cleanups 0", "cancelled"]
    assert connection.cleanups == 1


def test_a_run_goes_on_from_a_suspension_the_caller_met():
    ended: list[tuple[Any, BaseException | None]] = []
    gate: Deferred[int] = Deferred()

    async def adds() -> int:
        return 1 + await gate

    coroutine: Coroutine[Any, Any, int] = adds()
    Run(coroutine, lambda result, error: ended.append((result, error))).wait(coroutine.send(None))
    assert ended == []
    gate.callback(2)
    assert ended == [(3, None)]
