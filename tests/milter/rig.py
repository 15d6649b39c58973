"""A milter session in memory: the real connection, session, chain and memory store; a transport made of bytes."""

from __future__ import annotations

from twisted.internet.task import Clock

from livemail.filters.chain import FilterChain, FilterSpec
from livemail.milter import codes, grammar
from livemail.milter.grammar import Options, Peer
from livemail.milter.protocol import MilterConnection
from livemail.milter.session import Site
from livemail.milter.wire import Wire, packet, strings
from livemail.storage.memory.store import MemoryStore
from tests.smtp.rig import Transport

ALL = Options(6, 0x1FF, 0x1FFFFF)


class Owner:
    def __init__(self, clock):
        self.clock = clock
        self.closed_connections = 0

    def opened(self, connection):
        return ""

    def closed(self, connection):
        self.closed_connections += 1

    def after_turn(self, call):
        call()

    def tls_options(self):
        return None


class MTA:
    """An MTA whose milter we are.  Each call sends packets and returns what came back."""

    def __init__(self, *filters, options=ALL, max_message=1 << 20, max_recipients=5, store=None):
        self.clock = Clock()
        specs = [each if isinstance(each, FilterSpec) else FilterSpec(each.__name__, each) for each in filters]
        self.store = store or MemoryStore()
        chain = FilterChain(specs, self.store, self.clock)
        site = Site(chain, "smtp", self.store.new_content, max_message, max_recipients, "mx.example", lambda: 0.0)
        self.owner = Owner(self.clock)
        self.connection = MilterConnection(self.owner, site)
        self.transport = Transport()
        self.transport.connection = self.connection
        self.connection.makeConnection(self.transport)
        self.options = None
        self._wire = Wire(1 << 20)
        if options is not None:
            ((command, data),) = self.say((codes.OPTNEG, grammar.render_options(options)))
            assert command == codes.OPTNEG
            self.options = grammar.parse_options(data)

    def feed(self, octets):
        self.connection.dataReceived(octets)
        while self.connection._run is not None:
            self.clock.advance(0)  # the chain lets the reactor have a turn where it has been at it for long
        return self.answers()

    def answers(self):
        self._wire.feed(self.transport.value())
        self.transport.clear()
        found = []
        while (event := self._wire.packet()) is not None:
            found.append(event)
        return found

    def say(self, *packets):
        return self.feed(b"".join(packet(*each) for each in packets))

    @property
    def is_closed(self):
        return self.transport.is_lost

    def connect(self, address="192.0.2.9", helo=b"client.example"):
        said = self.say((codes.CONNECT, grammar.render_connect(Peer("[192.0.2.9]", address, 1234))))
        return said + self.say((codes.HELO, strings(helo)))

    def envelope(self, *recipients, reverse_path=b"<ann@example.org>", macros=()):
        said = self.say(*macros, (codes.MAIL, strings(reverse_path)))
        for each in recipients or (b"<ben@example.net>",):
            said += self.say((codes.RCPT, strings(each)))
        return said + self.say((codes.DATA,))

    def content(self, octets, *, leading_space=True):
        """Header, body and end of message; what came back, edits parsed."""
        header, _, body = octets.partition(b"\r\n\r\n")
        packets = []
        for raw in header.replace(b"\r\n ", b"\n ").split(b"\r\n"):
            name, _, value = raw.partition(b":")
            packets.append((codes.HEADER, strings(name, value if leading_space else value.removeprefix(b" "))))
        packets.append((codes.EOH,))
        packets += [(codes.BODY, body[at : at + 1000]) for at in range(0, len(body), 1000)]
        return self.edits(self.say(*packets, (codes.BODYEOB,)), leading_space=leading_space)

    def edits(self, answers, *, leading_space=True):
        *edits, last = answers
        edits = [each for each in edits if each[0] != codes.CONTINUE]  # answers to header and body
        return [grammar.parse_edit(*each, leading_space=leading_space) for each in edits], last

    def message(self, octets, *recipients):
        self.connect()
        self.envelope(*recipients)
        return self.content(octets)
