"""The provider of `IRelay`: hosts in their order, addresses of each, and what became of every recipient.

What is "try another host"
    No connection, a greeting or EHLO that refuses, TLS or AUTH that fails, 421, nonsense, silence, a connection lost before
    all content was out; and 4yz to MAIL, RCPT, DATA or content.  At most `max_addresses` are tried and `max_sessions` may
    answer and refuse.  Whoever has no better answer at the end is deferred with the last one.
What is not
    2yz and 5yz for a recipient; a connection lost with all content out (`livemail.smtp.relay.dialogue`, the window); what we
    find ourselves: the message is larger than the host takes, or cannot be made fit for it.
521 from every host that could be connected to means that mail will never be taken there (RFC 7504 §3): failed.

A connection that has rested may be dead without our knowing.  When it breaks before its content went, the message gets another,
and nobody is the wiser.  TLS that fails under "may" is remembered for a while, so that each message does not fail at it anew; the
host gets its mail in the clear meanwhile, as RFC 7435 has it.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Any, Final, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from livemail.interfaces.relay import Attempt, Attempted, Hops, IRelay, Job, NextHop, RecipientResult, Reply
from livemail.interfaces.runtime import Now
from livemail.net.tls_client import ClientTLS
from livemail.smtp.relay.dial import NobodyAnswers, Unreached, dial
from livemail.smtp.relay.dialogue import HostRefused, Outcome, Session
from livemail.smtp.relay.needs import Broken
from livemail.smtp.relay.pool import Key, Pool, key_of
from livemail.smtp.relay.protocol import RelayConnection
from livemail.smtp.relay.settings import RelaySettings

_HESITATE: Final = 1.0
"""Seconds of rest after which a connection is asked before content is sent with the envelope."""

_REMEMBERED_SECONDS: Final = 600.0
_REMEMBERED_HOSTS: Final = 1000


@implementer(IRelay)
class Relay:
    """See the module's text."""

    log = Logger()

    def __init__(self, reactor: Any, settings: RelaySettings, hostname: str, now: Now, tls: ClientTLS) -> None:
        """hostname: what we call ourselves where the settings do not say."""
        self.reactor = reactor
        self.settings = settings
        self.hello_name = settings.hello_name or hostname
        self.now = now
        self.tls = tls
        self.pool = Pool(settings, reactor)
        self.busy: set[RelayConnection] = set()
        self._is_closing = False
        self._idle: Deferred[None] | None = None
        self._no_tls = _Memory(reactor)
        self._cannot_count = _Memory(reactor)

    async def attempt(self, hops: Hops, job: Job) -> Attempted:
        """See `IRelay.attempt`."""
        if self._is_closing:
            raise CancelledError
        trial = _Trial(self, hops, job)
        try:
            await trial.run()
        except CancelledError:
            raise
        except Exception:
            self.log.failure("{message}: relaying failed by a bug", message=job.id)
            trial.note(Reply(451, "4.3.0", "Internal error", "connect", is_remote=False))
        return trial.result()

    async def close(self) -> None:
        """See `IRelay.close`.  Who waits for the answer to a whole message may get it for `quit_timeout` seconds."""
        self._is_closing = True
        for connection in list(self.busy):
            connection.stop()
        if self.busy:
            self._idle = Deferred()
            patience = self.reactor.callLater(self.settings.quit_timeout, self._cut_off)
            await self._idle
            if patience.active():
                patience.cancel()
        await self.pool.close()

    def _cut_off(self) -> None:
        for connection in list(self.busy):
            connection.break_off()

    def begin(self, connection: RelayConnection) -> None:
        """A connection is in use."""
        self.busy.add(connection)

    def end(self, connection: RelayConnection) -> None:
        """It is not any more."""
        self.busy.discard(connection)
        if self._idle is not None and not self.busy:
            idle, self._idle = self._idle, None
            idle.callback(None)

    def session(self, hop: NextHop, address: str) -> Session:
        """Make the session of a new connection."""
        return Session(
            hop,
            self.hello_name,
            self.settings.recipients_per_transaction,
            may_say_password=self.settings.allow_cleartext_auth or bool(hop.path) or _is_loopback(address),
            without_tls=self._no_tls.has(address, hop.port),
        )

    def tls_failed(self, hop: NextHop, address: str) -> None:
        """Leave TLS alone there for a while."""
        self._no_tls.add(address, hop.port)

    def cannot_count(self, hop: NextHop, address: str) -> None:
        """Send content there only after its envelope was answered, for a while."""
        self._cannot_count.add(address, hop.port)

    def is_careful_with(self, hop: NextHop, connection: RelayConnection) -> bool:
        """Whether `cannot_count` was said of it."""
        return self._cannot_count.has(connection.address, hop.port)


class _Memory:
    """Addresses with their port that are remembered for a while; the oldest go first when there are too many."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._until: OrderedDict[tuple[str, int], float] = OrderedDict()

    def add(self, address: str, port: int) -> None:
        """Remember one."""
        self._until[address, port] = self._clock.seconds() + _REMEMBERED_SECONDS
        self._until.move_to_end((address, port))
        if len(self._until) > _REMEMBERED_HOSTS:
            self._until.popitem(last=False)

    def has(self, address: str, port: int) -> bool:
        """Whether one is remembered."""
        return self._until.get((address, port), 0.0) > self._clock.seconds()


class _Trial:
    """One `Relay.attempt`."""

    def __init__(self, relay: Relay, hops: Hops, job: Job) -> None:
        self._relay = relay
        self._hops = hops
        self._job = job
        self._results: list[RecipientResult | None] = [None] * len(job.recipients)
        self._left = list(range(len(job.recipients)))
        self._last: dict[int, tuple[Reply, str]] = {}
        self._attempts: list[Attempt] = []
        self._addresses = relay.settings.max_addresses
        self._sessions = relay.settings.max_sessions
        self._is_over = False
        self._is_down = True
        self._goodbyes: list[bool] = []  # whether each host that answered said 521

    async def run(self) -> None:
        """Try the hosts until everybody has an answer, or enough was tried.  Raises CancelledError."""
        for hop in self._hops.hops:
            if self._is_finished:
                return
            await self._try_host(hop)

    @property
    def _is_finished(self) -> bool:
        return self._is_over or not self._left or self._addresses <= 0 or self._sessions <= 0

    def result(self) -> Attempted:
        """Everybody's result; who has none is deferred."""
        is_never = bool(self._goodbyes) and all(self._goodbyes)
        nothing = Reply(451, "4.4.4", "The next host has no address", "connect", is_remote=False)
        for position in self._left:
            reply, host = self._last.get(position, (nothing, ""))
            self._results[position] = RecipientResult(
                self._job.recipients[position],
                "failed" if is_never and reply.code == 521 else "deferred",
                reply,
                host if reply.is_remote else "",
            )
        is_down = self._is_down and bool(self._left) and not is_never
        return Attempted(tuple(each for each in self._results if each), tuple(self._attempts), is_down)

    def note(self, reply: Reply, host: str = "") -> None:
        """Keep an answer for all who have no better one."""
        for position in self._left:
            self._last[position] = (reply, host)

    # ------------------------------------------------------------------------------------------ one host

    async def _try_host(self, hop: NextHop) -> None:
        relay = self._relay
        key = key_of(self._hops.destination, hop)
        addresses = [hop.path] if hop.path else list(hop.addresses)
        is_first = True
        while addresses and not self._is_finished:
            # Behind an answer that sends us elsewhere, a connection that rests would lead to the same place.
            connection = await relay.pool.take(key, fresh=not is_first)
            is_reused = connection is not None
            if connection is None:
                try:
                    connection = await self._dial(hop, addresses[: self._addresses])
                except BaseException:
                    relay.pool.free(key)
                    raise
                if connection is None:
                    relay.pool.free(key)
                    return
                addresses = addresses[addresses.index(connection.address) + 1 :]
                self._addresses -= 1
            elif connection.address in addresses:
                addresses.remove(connection.address)
            again = await self._use(connection, key, is_reused=is_reused)
            if again:
                addresses.insert(0, again)
                self._addresses += not is_reused
            is_first = bool(again)

    async def _dial(self, hop: NextHop, addresses: list[str]) -> RelayConnection | None:
        """Connect; None when no address answers, which is noted."""
        relay = self._relay
        started, clock = relay.now(), relay.reactor.seconds()

        def build(address: str) -> RelayConnection:
            return RelayConnection(address, relay.session(hop, address), relay.settings, relay.reactor, relay.tls)

        unreached: list[Unreached]
        try:
            made, _, unreached = await dial(relay.reactor, relay.settings, hop, addresses, build)
            connection: RelayConnection | None = cast(RelayConnection, made)
        except NobodyAnswers as nobody:
            connection, unreached = None, nobody.unreached
            self.note(nobody.unreached[-1].reply)
        seconds = relay.reactor.seconds() - clock
        for each in unreached:
            self._attempts.append(Attempt(started, seconds, hop.host or hop.path, each.address, "", each.reply))
        self._addresses -= len(unreached)
        return connection

    async def _use(self, connection: RelayConnection, key: Key, *, is_reused: bool) -> str:
        """Send what is left over a connection.  Returns its address where the host is to be tried once more, else ""."""
        relay, session, hop = self._relay, connection.session, connection.session.hop
        started, clock = relay.now(), relay.reactor.seconds()
        outcomes: dict[int, Outcome] = {}
        recipients = [self._job.recipients[position] for position in self._left]
        ending: Reply | None = None
        broken: Broken | None = None
        is_refused = False
        relay.begin(connection)
        try:
            if not is_reused:
                await connection.run(session.introduce())
            hesitates = (is_reused and clock - connection.rested_since > _HESITATE) or relay.is_careful_with(
                hop, connection
            )
            await connection.run(session.send(self._job, recipients, outcomes, hesitates=hesitates), self._job.content)
        except HostRefused as refused:
            ending, is_refused = refused.reply, True
        except Broken as error:
            ending, broken = error.reply, error
        except BaseException:
            relay.end(connection)
            connection.abort()
            relay.pool.free(key)
            raise
        relay.end(connection)
        self._take(outcomes, hop, ending)
        told = ending or _telling(outcomes)
        host = hop.host or hop.path
        seconds = relay.reactor.seconds() - clock
        self._attempts.append(Attempt(started, seconds, host, connection.address, session.tls, told, is_reused))
        if broken is not None:
            relay.pool.free(key)
            return self._after_break(connection, broken, is_reused=is_reused and not outcomes)
        if is_refused:
            self._goodbyes.append(told.code == 521 and told.stage == "greeting")
            relay.pool.dismiss(key, connection)
            return ""
        relay.pool.give(key, connection)
        if len(outcomes) < len(recipients):
            return connection.address  # The host takes no more messages on this connection.
        self._sessions -= 1
        return ""

    def _after_break(self, connection: RelayConnection, broken: Broken, *, is_reused: bool) -> str:
        if broken.kind in {"content", "stopped"}:
            # No other host can help.
            self._is_over = True
            self._is_down = False
            return ""
        hop = connection.session.hop
        if broken.kind == "doubtful":
            self._relay.cannot_count(hop, connection.address)
        if broken.reply.stage == "tls" and hop.tls == "may" and not hop.implicit_tls:
            self._relay.tls_failed(hop, connection.address)
            return connection.address
        if is_reused:
            return connection.address  # It had died at rest: not a session.
        self._goodbyes.append(False)
        if broken.kind == "closing":
            self._is_down = True
        if connection.session.messages:
            self._sessions -= 1
        return ""

    def _take(self, outcomes: dict[int, Outcome], hop: NextHop, ending: Reply | None) -> None:
        """Book what was learnt; who may ask another host stays in ``_left``."""
        host = hop.host or hop.path
        left = []
        for at, position in enumerate(self._left):
            outcome = outcomes.get(at)
            if outcome is not None and outcome.verdict != "again":
                self._results[position] = RecipientResult(
                    self._job.recipients[position],
                    outcome.verdict,
                    outcome.reply,
                    host if outcome.reply.is_remote else "",
                    outcome.dsn,
                )
            else:
                left.append(position)
                reply = outcome.reply if outcome is not None else ending
                if reply is not None:
                    self._last[position] = (reply, host)
            if outcome is not None and outcome.reply.code != 421:
                self._is_down = False
                self._goodbyes.append(False)
        self._left = left


def _telling(outcomes: dict[int, Outcome]) -> Reply:
    """Of the answers on one connection, the one that tells most: what was refused, else what was taken."""
    return max((each.reply for each in outcomes.values()), key=lambda reply: reply.code)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
