"""The connection of the relay client: the only module here that knows the transport.

`RelayConnection.run` drives one dialogue at a time and returns a Deferred, the only one a message costs.  Between two
dialogues the connection rests; whatever the peer says then is the end of it.

Time is one timer, looked after when it fires: a reply has the seconds of the stage it answers, counted from the moment the one
before it was complete, however many octets come in between (RFC 5321 §4.5.3.2); a block of content has `block_timeout` to be
taken; everything together has `attempt_timeout`.

Output goes out in one write for each group of commands.  While the peer does not read, the dialogue stands still at its `Write`, so
what is in memory of a message is a block and what the transport holds of the one before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, cast

from twisted.internet import interfaces as net
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection as TCPConnection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from livemail.interfaces.relay import Reply
from livemail.interfaces.storage import IContentReader
from livemail.mail.errors import MailError
from livemail.net.connection import send_at_once
from livemail.net.coroutines import Run
from livemail.net.tls_client import ClientTLS, Handshake, UntrustedPeer
from livemail.net.tls_stream import TLSBroken, TLSStream
from livemail.smtp.relay.dialogue import Dialogue, Session, T, reply_of, told_stage
from livemail.smtp.relay.needs import Broken, Kind, Read, Secure, Turn, Write
from livemail.smtp.relay.settings import RelaySettings
from livemail.smtp.relay.state import Stage
from livemail.smtp.relay.wire import Replies, ReplyError, Said

_BREATH_OCTETS: Final = 1024 * 1024
"""Octets of content after which the reactor gets a turn, however fast the peer reads."""

_UNASKED_OCTETS: Final = 128 * 1024
"""Octets of replies that are kept while nobody waits for them."""

_WORDS: Final[dict[Kind, tuple[str, str]]] = {
    "lost": ("4.4.2", "The connection was lost"),
    "timeout": ("4.4.2", "The host took too long"),
    "garbage": ("4.5.0", "The host sent {detail}"),
    "doubtful": ("4.5.0", "The host gave more replies than there were commands"),
    "early": ("4.5.0", "The host replied before it was asked"),
    "tls": ("4.7.5", "TLS failed: {detail}"),
    "content": ("4.3.0", "The message could not be read"),
    "stopped": ("4.3.2", "The server is stopping"),
}


@implementer(net.IPushProducer)
class RelayConnection(Protocol):
    """One connection to one host.  address: what was connected to.  tls: makes the client's side of TLS."""

    log = Logger()

    def __init__(
        self, address: str, session: Session, settings: RelaySettings, clock: IReactorTime, tls: ClientTLS
    ) -> None:
        self.address = address
        self.session = session
        self.is_lost = False
        self.rested_since = 0.0
        self.on_lost: Any = None  # told once when the connection ends while it rests
        self._settings = settings
        self._clock = clock
        self._tls = tls
        self._timeouts: dict[str, float] = {
            "greeting": settings.greeting_timeout,
            "mail": settings.mail_timeout,
            "rcpt": settings.rcpt_timeout,
            "data": settings.data_timeout,
            "chunk": settings.end_timeout,
            "content": settings.end_timeout,
            "quit": settings.quit_timeout,
        }
        self._replies = Replies()
        self._dialogue: Dialogue[Any] | None = None
        self._done: Deferred[Any] | None = None
        self._content: IContentReader | None = None
        self._due: deque[Stage] = deque()
        self._stage: str = "connect"
        self._turn: Turn | None = None
        self._said: list[Said] = []
        self._waits_to_write = False
        self._handshake: Handshake | None = None
        self._stream: TLSStream | None = None
        self._is_paused = False
        self._is_tcp = False
        self._is_stepping = False
        self._read: Run[bytes] | None = None
        self._breath: Any = None
        self._breath_octets = 0
        self._timer: Any = None
        self._timer_at = 0.0
        self._deadline = 0.0
        self._last = 0.0  # when the whole attempt must be over

    # ------------------------------------------------------------------------------------------ for pool and relay

    @property
    def is_reusable(self) -> bool:
        """Whether another dialogue may begin."""
        return not (self.is_lost or self._dialogue or self._due or self._replies.pending)

    @property
    def is_busy(self) -> bool:
        """Whether a dialogue runs."""
        return self._dialogue is not None

    def run(self, dialogue: Dialogue[T], content: IContentReader | None = None) -> Deferred[T]:
        """Drive a dialogue to its end.  The Deferred fires with its result, or fails with what it raised.

        Cancelling it breaks the connection.  content: what `Read` reads; stays the caller's.
        """
        assert self._dialogue is None
        done = self._done = Deferred(self._cancelled)
        self._dialogue = dialogue
        self._content = content
        self._last = self._clock.seconds() + self._settings.attempt_timeout
        if self.is_lost:
            self._fail("lost")
        else:
            self._step(None, None)
        return done

    def stop(self) -> None:
        """We are closing down: break off, unless the peer may just have taken the message."""
        if self._dialogue is not None and not self.session.in_window:
            self._fail("stopped")

    def break_off(self) -> None:
        """The same, whatever the peer may have taken."""
        if self._dialogue is not None:
            self._fail("stopped")

    def abort(self) -> None:
        """Drop the connection at once."""
        if not self.is_lost:
            cast(Any, self.transport).abortConnection()

    def close(self) -> None:
        """Close, once what was written is out."""
        if not self.is_lost:
            transport = cast(Any, self.transport)
            transport.unregisterProducer()
            if self._stream is not None:
                self._send(self._stream.close())
            transport.loseConnection()
            self._disarm()
            self._timer = self._clock.callLater(self._settings.quit_timeout, self._cut)

    def _cut(self) -> None:
        """The peer does not take our last octets."""
        self._timer = None
        self.abort()

    def _cancelled(self, done: Deferred[Any]) -> None:
        self._end_with(CancelledError())
        self.abort()

    # ------------------------------------------------------------------------------------------ the dialogue

    def _step(self, value: Any, error: Broken | None) -> None:
        """Go on with the dialogue until it waits for something."""
        if self._is_stepping or self._dialogue is None:
            return
        self._is_stepping = True
        try:
            while self._dialogue is not None:
                try:
                    need = self._dialogue.throw(error) if error is not None else self._dialogue.send(value)
                except StopIteration as stop:
                    # Whoever waits may begin the next dialogue at once.
                    self._is_stepping = False
                    self._finish(stop.value)
                    return
                except BaseException as raised:
                    self._is_stepping = False
                    self._end_with(raised)
                    return
                value = error = None
                try:
                    answer = self._serve(need)
                except Broken as broken:
                    error = broken
                    continue
                if answer is _WAIT:
                    return
                value = answer
        finally:
            self._is_stepping = False

    def _serve(self, need: Any) -> Any:
        """Do what the dialogue asks; returns the answer, or `_WAIT`.  Raises Broken."""
        if self.is_lost:
            raise self._broken("lost")
        if isinstance(need, Turn):
            self._check_silence()
            if need.octets:
                self._write(need.octets)
            self._due.extend(need.stages)
            self._turn = need
            self._said = []
            if self._due:
                self._stage = self._due[0]
                self._set_deadline(self._seconds_for(self._stage))
                if not self._replies.pending and len(self._due) > need.leave:
                    return _WAIT
            return self._take_replies()
        if isinstance(need, Write):
            self._stage = "content"
            self._check_silence()
            self._write(need.octets)
            self._set_deadline(self._settings.block_timeout)
            return self._take_breath(len(need.octets))
        if isinstance(need, Read):
            return self._begin_read(need)
        assert isinstance(need, Secure)
        return self._secure()

    def _check_silence(self) -> None:
        """Nothing may have come that we have not asked for: it would pass for the answer to what we ask next.

        Raises Broken, with the reply where it is a whole one.
        """
        if self._due or not self._replies.pending:
            return
        said = self._next_reply()
        if said is None:
            raise self._broken("early")
        if said.code == 421:
            raise Broken("closing", reply_of(said, cast(Stage, self._stage)))
        raise self._broken("early", [said])

    def _next_reply(self) -> Said | None:
        try:
            return self._replies.next()
        except ReplyError as error:
            raise self._broken("garbage", detail=str(error)) from None

    def _take_replies(self) -> Any:
        """Take what is here of the replies the turn waits for; returns all of them, or `_WAIT`.  Raises Broken."""
        turn = self._turn
        assert turn is not None
        due, replies = self._due, self._replies
        is_new = False
        while len(due) > turn.leave:
            self._stage = stage = due[0]
            try:
                said = replies.next()
            except ReplyError as error:
                raise self._broken("garbage", detail=str(error)) from None
            if said is None:
                if is_new:
                    # From the reply before it: that one is complete now.
                    self._set_deadline(self._seconds_for(stage))
                return _WAIT
            if said.code == 421:
                raise Broken("closing", reply_of(said, stage), self._said)
            due.popleft()
            self._said.append(said)
            is_new = True
        if is_new and due:
            self._set_deadline(self._seconds_for(due[0]))
        self._turn = None
        said_all, self._said = self._said, []
        if turn.is_whole and self._replies.pending:
            raise self._broken("doubtful")
        return said_all

    def _seconds_for(self, stage: Stage) -> float:
        return self._timeouts.get(stage, self._settings.command_timeout)

    def _begin_read(self, need: Read) -> Any:
        """Read content.  It hardly ever suspends, and then costs no Deferred."""
        assert self._content is not None
        coroutine: Coroutine[Any, Any, bytes] = self._content.read(need.offset, need.length)
        try:
            awaited = coroutine.send(None)
        except StopIteration as stop:
            octets: bytes = stop.value
        except BaseException as error:
            raise self._unreadable(error) from None
        else:
            self._read = Run(coroutine, lambda octets, error: self._read_done(need, octets, error))
            self._set_deadline(self._settings.block_timeout)
            self._read.wait(awaited)
            return _WAIT
        return self._checked(need, octets)

    def _read_done(self, need: Read, octets: bytes | None, error: BaseException | None) -> None:
        if self._read is None:
            return  # Not wanted any more.
        self._read = None
        if error is not None or octets is None:
            self._step(None, self._unreadable(error))
            return
        try:
            self._step(self._checked(need, octets), None)
        except Broken as broken:
            self._step(None, broken)

    def _checked(self, need: Read, octets: bytes) -> bytes:
        if len(octets) != need.length:
            self.log.error("{address}: content ends before its size", address=self.address)
            raise self._broken("content")
        return octets

    def _unreadable(self, error: BaseException | None) -> Broken:
        if not isinstance(error, MailError) and error is not None:
            self.log.failure("{address}: content cannot be read", failure=Failure(error), address=self.address)
        broken = self._broken("content")
        if isinstance(error, MailError):
            reply = broken.reply
            return Broken("content", Reply(reply.code, error.enhanced, reply.text, reply.stage, is_remote=False))
        return broken

    def _take_breath(self, count: int) -> Any:
        """Whether content may go on at once."""
        self._breath_octets += count
        if self._is_paused:
            self._waits_to_write = True
            return _WAIT
        if self._breath_octets >= _BREATH_OCTETS:
            self._breath_octets = 0
            self._breath = self._clock.callLater(0, self._breathed)
            return _WAIT
        return None

    def _breathed(self) -> None:
        self._breath = None
        self._step(None, None)

    def _finish(self, value: Any) -> None:
        done, self._done = self._done, None
        self._forget()
        self.rested_since = self._clock.seconds()
        if done is not None:
            done.callback(value)

    def _end_with(self, error: BaseException) -> None:
        done, self._done = self._done, None
        if self._dialogue is not None and not self._is_stepping:
            self._dialogue.close()
        self._forget()
        if isinstance(error, Broken):
            self._disarm()
            self.abort()
        if done is not None and not done.called:
            done.errback(Failure(error))

    def _forget(self) -> None:
        self._dialogue = None
        self._content = None
        self._turn = None
        self._waits_to_write = False
        if self._breath is not None:
            self._breath.cancel()
            self._breath = None
        read, self._read = self._read, None
        if read is not None:
            read.cancel()

    def _fail(self, kind: Kind, detail: str = "") -> None:
        """Tell the dialogue that the connection is of no more use."""
        said, self._said = self._said, []
        self._turn = None
        self._waits_to_write = False
        self._handshake = None
        if self._breath is not None:
            self._breath.cancel()
            self._breath = None
        read, self._read = self._read, None
        broken = self._broken(kind, said, detail)
        if read is not None:
            # What it was to read is not wanted any more: `_read_done` finds the dialogue gone.
            self._step(None, broken)
            read.cancel()
        else:
            self._step(None, broken)

    def _broken(self, kind: Kind, said: list[Said] | None = None, detail: str = "") -> Broken:
        enhanced, words = _WORDS[kind]
        if kind == "garbage":
            said, self._said = said or self._said, []
        text = words.format(detail=detail)
        return Broken(kind, Reply(451, enhanced, text, told_stage(self._stage), is_remote=False), said)

    # ------------------------------------------------------------------------------------------ transport's callbacks

    def connectionMade(self) -> None:
        transport = cast(Any, self.transport)
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        self._is_tcp = isinstance(transport, TCPConnection)
        transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if self._stream is None:
            self._received(data)
            return
        stream = self._stream
        try:
            plain = stream.receive(data)
        except TLSBroken as broken:
            self._send(stream.take_output())
            self._end_tls(str(broken))
            return
        if self._handshake is not None:
            self._send(stream.take_output())
            if stream.is_established:
                self._secured()
        if plain:
            self._received(plain)
        if stream.is_ended:
            self._end_tls("the host closed the connection in the handshake")

    def _received(self, data: bytes) -> None:
        if self._dialogue is None:
            self.abort()  # Nobody asked: it is a goodbye, or worse.
            return
        self._replies.feed(data)
        if self._replies.size > _UNASKED_OCTETS:
            self._fail("garbage", "more than it was asked for")
            return
        if self._turn is not None:
            try:
                answer = self._take_replies()
            except Broken as broken:
                self._step(None, broken)
                return
            if answer is not _WAIT:
                self._step(answer, None)
        elif self._waits_to_write or self._breath is not None:
            # The peer speaks while it should read: it will not read the rest.
            self._waits_to_write = False
            if self._breath is not None:
                self._breath.cancel()
                self._breath = None
            try:
                self._check_silence()
            except Broken as broken:
                self._step(None, broken)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        if self._dialogue is not None:
            if self._handshake is not None:
                self._fail("tls", self._handshake.problem or "the host closed the connection in the handshake")
            else:
                self._fail("lost")
        self._disarm()
        told, self.on_lost = self.on_lost, None
        if told is not None:
            told(self)

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False
        if self._waits_to_write:
            self._waits_to_write = False
            self._step(None, None)

    def stopProducing(self) -> None:
        """The transport is going down; connectionLost follows."""

    def _write(self, octets: bytes) -> None:
        if self._stream is not None:
            try:
                octets = self._stream.protect(octets)
            except TLSBroken as broken:
                raise self._broken("tls", detail=str(broken)) from None
        self._send(octets)

    def _send(self, octets: bytes) -> None:
        """Send octets as they are."""
        if self.is_lost or not octets:
            return
        transport = cast(Any, self.transport)
        if self._is_tcp:
            octets = send_at_once(transport, octets)
        if octets:
            transport.write(octets)

    # ------------------------------------------------------------------------------------------ TLS

    def _secure(self) -> Any:
        """Begin the handshake.  RFC 3207 §4.2: what came before it in the clear is never taken for something said inside."""
        self._stage = "tls"
        if self._replies.pending:
            raise self._broken("early")
        self._replies = Replies()
        self._handshake = self._tls.handshake(self.session.hop)
        self._set_deadline(self._settings.tls_timeout)
        self._stream = TLSStream(self._handshake.connection())
        try:
            self._send(self._stream.begin())
        except TLSBroken as broken:
            raise self._broken("tls", detail=str(broken)) from None
        return _WAIT

    def _secured(self) -> None:
        """The handshake is complete."""
        handshake, self._handshake = self._handshake, None
        assert handshake is not None
        assert self._stream is not None
        try:
            handshake.check(self._stream.connection)
        except UntrustedPeer as error:
            self._fail("tls", str(error))
            return
        self._step(self._stream.how, None)

    def _end_tls(self, words: str) -> None:
        """The peer's side of TLS has ended, or never was what it should be."""
        if self._dialogue is None:
            self.abort()
        elif self._handshake is not None:
            self._fail("tls", self._handshake.problem or words)
        else:
            self._fail("lost")

    # ------------------------------------------------------------------------------------------ time

    def _set_deadline(self, seconds: float) -> None:
        """Something must have happened within so many seconds."""
        self._deadline = deadline = min(self._clock.seconds() + seconds, self._last)
        # The timer is left alone where it fires before that: it looks again.
        if self._timer is None or deadline < self._timer_at:
            self._wake_at(deadline)

    def _wake_at(self, moment: float) -> None:
        self._disarm()
        self._timer_at = moment
        self._timer = self._clock.callLater(max(0.0, moment - self._clock.seconds()), self._look)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._dialogue is None:
            return
        if self._clock.seconds() >= self._deadline:
            self._fail("timeout")
        else:
            self._wake_at(self._deadline)


class _Wait:
    """The dialogue goes on when something happens."""


_WAIT: Final = _Wait()
