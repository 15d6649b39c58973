from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from livemail.net.connection import Connection
from livemail.net.coroutines import run
from livemail.net.server import TOO_MANY, TOO_MANY_OF_YOURS, ConnectionFactory, Limits, network_of


class LineWire:
    def __init__(self) -> None:
        self.buffer = b""

    @property
    def pending(self) -> int:
        return len(self.buffer)

    def feed(self, octets: bytes) -> None:
        self.buffer += octets

    def line(self) -> bytes | None:
        line, end, rest = self.buffer.partition(b"\n")
        if not end:
            return None
        self.buffer = rest
        return line


class Echo(Connection):
    """Answers each line; ``wait`` suspends, ``open`` and ``close`` bracket a transaction, ``bug`` and ``crash`` fail."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self.wire = LineWire()
        self.waiting: Deferred[None] | None = None
        self.cleanups = 0
        self.in_transaction = False

    def greet(self) -> Coroutine[Any, Any, None]:
        return self.say(b"hello")

    async def say(self, line: bytes) -> None:
        if line == b"bug":
            raise RuntimeError("secret")
        if line == b"wait":
            self.waiting = Deferred()
            await self.waiting
        self.in_transaction = line == b"open" or (self.in_transaction and line != b"close")
        self.write(line + b"\n")

    def next_step(self) -> Coroutine[Any, Any, None] | None:
        line = self.wire.line()
        if line == b"crash":
            raise RuntimeError("secret")
        return None if line is None else self.say(line)

    def failed(self, error: BaseException) -> None:
        self.write(b"failed\n")

    def farewell(self, reason: str) -> bytes:
        return b"bye " + reason.encode() + b"\n"

    @property
    def may_drain(self) -> bool:
        return not self.in_transaction

    def cleanup(self) -> None:
        self.cleanups += 1


class Transport(StringTransport):
    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()


def factory(limits: Limits | None = None) -> ConnectionFactory:
    return ConnectionFactory("echo", Echo, Clock(), limits or Limits(10, 2))


def connect(made_by: ConnectionFactory, peer: str = "192.0.2.1") -> tuple[Echo, Transport]:
    from twisted.internet.address import IPv4Address

    connection = made_by.buildProtocol(None)
    transport = Transport(peerAddress=IPv4Address("TCP", peer, 4000))
    connection.makeConnection(transport)
    assert isinstance(connection, Echo)
    return connection, transport


def lose(connection: Echo) -> None:
    from twisted.internet.error import ConnectionDone
    from twisted.python.failure import Failure

    connection.connectionLost(Failure(ConnectionDone()))


def test_networks_are_what_one_client_is() -> None:
    assert network_of("192.0.2.7") == "192.0.2.7"
    assert network_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("127.0.0.1") == network_of("::1") == network_of("") == network_of("::ffff:127.0.0.1") == ""


def test_one_client_has_its_limit_over_all_services_and_gets_it_back() -> None:
    limits = Limits(10, 2)
    one, two = factory(limits), factory(limits)
    first, _ = connect(one)
    connect(two)
    refused, transport = connect(two)
    assert transport.value() == f"bye {TOO_MANY_OF_YOURS}\n".encode()
    assert transport.disconnecting
    lose(refused)
    assert limits.open == 2
    connect(two, "192.0.2.2")
    lose(first)
    assert connect(one)[1].value() == b"hello\n"
    for _ in range(5):
        assert connect(one, "127.0.0.1")[1].value() == b"hello\n"


def test_the_total_is_limited() -> None:
    limits = Limits(3, 100)
    made_by = factory(limits)
    for _ in range(3):
        connect(made_by, "127.0.0.1")
    assert connect(made_by, "127.0.0.1")[1].value() == f"bye {TOO_MANY}\n".encode()


def test_draining_says_goodbye_at_once_where_nothing_is_cut_off() -> None:
    made_by = factory()
    connection, transport = connect(made_by)
    gone = made_by.drain()
    assert transport.value() == b"hello\nbye shutdown\n"
    assert not gone.called
    lose(connection)
    assert gone.called
    assert made_by.drain().called


def test_draining_lets_a_transaction_and_a_waiting_step_end() -> None:
    made_by = factory()
    busy, busy_transport = connect(made_by)
    open_, open_transport = connect(made_by)
    busy.dataReceived(b"wait\nafter\n")
    open_.dataReceived(b"open\n")
    made_by.drain()
    assert not busy_transport.disconnecting
    assert not open_transport.disconnecting
    assert busy.waiting is not None
    busy.waiting.callback(None)
    assert busy_transport.value() == b"hello\nwait\nbye shutdown\n"
    open_.dataReceived(b"close\n")
    assert open_transport.value() == b"hello\nopen\nclose\nbye shutdown\n"


def test_who_connects_while_draining_is_refused_and_who_stays_is_aborted() -> None:
    made_by = factory()
    connection, transport = connect(made_by)
    connection.dataReceived(b"open\n")
    made_by.drain()
    assert connect(made_by)[1].disconnecting
    assert made_by.abort() == 1
    assert transport.aborted


def test_cleanup_happens_once_when_a_waiting_step_is_lost() -> None:
    connection, _ = connect(factory())
    connection.dataReceived(b"wait\n")
    lose(connection)
    assert connection.cleanups == 1
    idle, _ = connect(factory())
    lose(idle)
    assert idle.cleanups == 1


def test_input_is_bounded_while_a_step_waits_and_while_the_peer_does_not_read() -> None:
    for stop in (lambda c: c.dataReceived(b"wait\n"), lambda c: c.pauseProducing()):
        connection, transport = connect(factory())
        stop(connection)
        connection.dataReceived(b"x\n" * (connection.input_limit // 2 + 1))
        assert transport.producerState == "paused"
        if connection.waiting is not None:
            connection.waiting.callback(None)
        else:
            connection.resumeProducing()
        assert transport.producerState == "producing"
        assert connection.wire.pending == 0


def test_a_step_that_fails_is_answered_and_the_session_goes_on() -> None:
    connection, transport = connect(factory())
    connection.dataReceived(b"bug\nok\n")
    assert transport.value() == b"hello\nfailed\nok\n"
    assert not transport.disconnecting


def test_a_wire_that_fails_is_answered_and_closed() -> None:
    connection, transport = connect(factory())
    connection.dataReceived(b"crash\nnever\n")
    assert transport.value() == b"hello\nfailed\n"
    assert transport.disconnecting


def test_replies_keep_the_order_of_commands_fed_octet_by_octet() -> None:
    connection, transport = connect(factory())
    for octet in b"a\nwait\nb\n":
        connection.dataReceived(bytes([octet]))
    assert transport.value() == b"hello\na\n"
    assert connection.waiting is not None
    connection.waiting.callback(None)
    assert transport.value() == b"hello\na\nwait\nb\n"


def test_an_idle_peer_is_told_and_one_that_does_not_go_is_aborted() -> None:
    made_by = factory()
    connection, transport = connect(made_by)
    clock: Any = made_by.clock
    clock.advance(connection.idle_timeout - 1)
    connection.dataReceived(b"a\n")
    clock.advance(1)
    assert not transport.disconnecting
    clock.advance(connection.idle_timeout)
    assert transport.value().endswith(b"bye timeout\n")
    clock.advance(connection.linger)
    assert transport.aborted


def test_a_step_that_waits_for_us_is_not_idle_and_a_deadline_holds_however_busy() -> None:
    made_by = factory()
    connection, transport = connect(made_by)
    clock: Any = made_by.clock
    connection.dataReceived(b"wait\n")
    clock.advance(connection.idle_timeout * 3)
    assert not transport.disconnecting
    busy, busy_transport = connect(made_by)
    busy.set_deadline(60.0)
    for _ in range(7):
        busy.dataReceived(b"a\n")
        clock.advance(10.0)
    assert busy_transport.disconnecting


def test_octets_behind_starttls_drop_the_connection() -> None:
    connection, transport = connect(factory())
    connection.wire.feed(b"EHLO x\n")
    results: list[object] = []
    run(connection.start_tls(), lambda result, error: results.append((result, error)))
    assert results == [(False, None)]
    assert transport.aborted
