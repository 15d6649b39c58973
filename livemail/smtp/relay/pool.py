"""Connections to other hosts: how many there are, and those that rest between two messages.

A connection belongs to a key: the destination and everything of the next hop that decides what is said on it (name, port, TLS, login,
source).  `take` gives one that rests, or room for a new one; where neither is to be had it waits its turn, first come first
served, per key.  `give` puts a connection to rest, or hands it to who waits; `free` gives back the room of one that is
gone.  A connection that rests is closed with QUIT after `connection_idle_timeout`, after `messages_per_connection`, or when its
room is needed for another host.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from livemail.interfaces.relay import NextHop
from livemail.smtp.relay.protocol import RelayConnection
from livemail.smtp.relay.settings import RelaySettings

Key = tuple[object, ...]


def key_of(destination: str, hop: NextHop) -> Key:
    """What connections to a hop have in common."""
    return (
        destination, hop.host, hop.port, hop.path, hop.protocol, hop.tls, hop.implicit_tls, hop.login, hop.password,
        hop.source, hop.reference,
    )  # fmt: skip


class _Host:
    """What is known of a key."""

    __slots__ = ("open", "resting", "waiting")

    def __init__(self) -> None:
        self.open = 0
        self.resting: list[RelayConnection] = []
        self.waiting: deque[Deferred[RelayConnection | None]] = deque()

    @property
    def is_forgettable(self) -> bool:
        return not (self.open or self.resting or self.waiting)


class Pool:
    """See the module's text."""

    def __init__(self, settings: RelaySettings, clock: IReactorTime) -> None:
        self.settings = settings
        self._clock = clock
        self._hosts: dict[Key, _Host] = {}
        self._open = 0
        self._resting: OrderedDict[RelayConnection, Key] = OrderedDict()  # the one that rests longest first
        self._starved: OrderedDict[Key, None] = OrderedDict()  # keys that wait for room in all, the next first
        self._timer: Any = None
        self._is_closed = False
        self._saying_goodbye: set[RelayConnection] = set()
        self._emptied: list[Deferred[None]] = []

    async def take(self, key: Key, *, fresh: bool = False) -> RelayConnection | None:
        """Return a connection that rests, or None and with it the room to make one.  Raises CancelledError.

        fresh: make one even where another rests.
        """
        host = self._hosts.get(key)
        if host is None:
            host = self._hosts[key] = _Host()
        if fresh and host.resting and host.open >= self.settings.connections_per_host:
            del self._resting[host.resting[0]]
            self._retire(host.resting[0], key)
        while host.resting and not fresh:
            connection = host.resting.pop()
            del self._resting[connection]
            connection.on_lost = None
            if connection.is_reusable:
                return connection
            connection.abort()
            self._count(key, host, -1)
        if self._make_room(key, host):
            return None
        waiter: Deferred[RelayConnection | None] = Deferred(lambda it: self._give_up(key, it))
        host.waiting.append(waiter)
        self._hosts[key] = host
        if host.open < self.settings.connections_per_host:
            self._starved[key] = None
        return await waiter

    def _give_up(self, key: Key, waiter: Deferred[RelayConnection | None]) -> None:
        """Who waited does not wait any more."""
        host = self._hosts[key]
        host.waiting.remove(waiter)
        if host.is_forgettable:
            del self._hosts[key]

    def _make_room(self, key: Key, host: _Host) -> bool:
        """Whether one more connection may be made; then it is counted."""
        if host.open >= self.settings.connections_per_host:
            return False
        if self._open >= self.settings.max_connections:
            if not self._resting:
                return False
            oldest, of = self._resting.popitem(last=False)
            self._retire(oldest, of)
        self._count(key, host, 1)
        return True

    def _count(self, key: Key, host: _Host, change: int) -> None:
        host.open += change
        self._open += change
        if host.is_forgettable:
            self._hosts.pop(key, None)
        else:
            self._hosts[key] = host  # which may have been forgotten a moment ago

    def give(self, key: Key, connection: RelayConnection) -> None:
        """A message is done with: the connection rests, or goes to who waits for it."""
        session = connection.session
        is_good = connection.is_reusable and not session.is_spent and not self._is_closed
        if not is_good or session.messages >= self.settings.messages_per_connection:
            self.dismiss(key, connection)
            return
        host = self._hosts[key]
        if host.waiting:
            host.waiting.popleft().callback(connection)
            return
        connection.on_lost = lambda lost: self._lost(key, lost)
        host.resting.append(connection)
        self._resting[connection] = key
        if self._timer is None:
            self._timer = self._clock.callLater(self.settings.connection_idle_timeout, self._look)
        self._feed()  # Who waits for room in all may have this one's.

    def dismiss(self, key: Key, connection: RelayConnection) -> None:
        """A connection is to be closed, with QUIT where it can still hear it."""
        self._say_goodbye(connection)
        self.free(key)

    def free(self, key: Key) -> None:
        """A connection, or the room for one, is no longer used: who waits gets the room."""
        host = self._hosts.get(key)
        assert host is not None
        self._count(key, host, -1)
        if host.waiting:
            self._starved[key] = None
        self._feed()

    def _feed(self) -> None:
        """Give what room there is to who waits for it, a connection for each key in turn."""
        while self._starved:
            key = next(iter(self._starved))
            host = self._hosts.get(key)
            if host is None or not host.waiting or host.open >= self.settings.connections_per_host:
                del self._starved[key]
            elif self._make_room(key, host):
                self._starved.move_to_end(key)
                host.waiting.popleft().callback(None)
            else:
                return

    def _lost(self, key: Key, connection: RelayConnection) -> None:
        """The peer closed a connection that rested."""
        if self._resting.pop(connection, None) is not None:
            self._hosts[key].resting.remove(connection)
            self.free(key)

    # ------------------------------------------------------------------------------------------ goodbye

    def _retire(self, connection: RelayConnection, key: Key) -> None:
        """Close a connection that rested.  Its room is free at once; `_resting` has forgotten it."""
        host = self._hosts[key]
        host.resting.remove(connection)
        connection.on_lost = None
        self._say_goodbye(connection)
        self._count(key, host, -1)

    def _say_goodbye(self, connection: RelayConnection) -> None:
        if not connection.is_reusable:
            connection.abort()
            return
        self._saying_goodbye.add(connection)
        connection.run(connection.session.farewell()).addBoth(self._said_goodbye, connection)

    def _said_goodbye(self, _: object, connection: RelayConnection) -> None:
        connection.close()
        self._saying_goodbye.discard(connection)
        if not self._saying_goodbye:
            waiters, self._emptied = self._emptied, []
            for waiter in waiters:
                waiter.callback(None)

    def _look(self) -> None:
        """Close what has rested long enough."""
        self._timer = None
        long_ago = self._clock.seconds() - self.settings.connection_idle_timeout
        while self._resting:
            connection, key = next(iter(self._resting.items()))
            if connection.rested_since > long_ago:
                wait = connection.rested_since - long_ago
                self._timer = self._clock.callLater(wait, self._look)
                return
            del self._resting[connection]
            self._retire(connection, key)

    async def close(self) -> None:
        """Say QUIT on what rests, and refuse who waits.  Returns when the goodbyes are said, or their time is over."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for host in list(self._hosts.values()):
            while host.waiting:
                host.waiting[0].cancel()
        while self._resting:
            connection, key = self._resting.popitem(last=False)
            self._retire(connection, key)
        if self._saying_goodbye:
            emptied: Deferred[None] = Deferred()
            self._emptied.append(emptied)
            await emptied
