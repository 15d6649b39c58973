"""A filter in a process of its own: that process.  `livemail.filters.isolation` has the picture."""

from __future__ import annotations

import faulthandler
import importlib
import os
import resource
import signal
import sys
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from livemail.filters import exchange
from livemail.filters.asking import checked, raised_at, told
from livemail.filters.author import Filter, Server, Transaction, TransactionState
from livemail.filters.edits import Edits
from livemail.filters.exchange import Ask, Begin, Close, ContentInfo, Fault, Frames, Ready, Told
from livemail.filters.message import Message
from livemail.filters.plan import CONTENT_STAGES
from livemail.interfaces.filter import Continue, Verdict
from livemail.mail.message.outline import Outlined
from livemail.mail.message.summary import Summary


class RemoteContent:
    """A message's content, read from the server piece by piece when it is large."""

    digest = b""

    def __init__(self, info: ContentInfo) -> None:
        self.size = info.size
        self._data = info.data
        self._summary = info.summary
        self._handle = info.handle

    @property
    def summary(self) -> Summary:
        """What the one pass over the octets found."""
        return self._summary

    @property
    def outline(self) -> Outlined:
        """See `livemail.mail.content.Content.outline`."""
        return self._summary

    def read(self, offset: int, length: int) -> bytes:
        """Return the octets [offset, offset+length), fewer at the end."""
        if len(self._data) == self.size:
            return self._data[offset : offset + length]
        pieces = []
        end = min(self.size, offset + max(0, length))
        while offset < end:
            octets = _question(self._handle, offset, min(end - offset, exchange.SMALL))
            if not octets:
                raise OSError("the content is gone")
            pieces.append(octets)
            offset += len(octets)
        return b"".join(pieces)

    def close(self) -> None:
        """The content is the server's."""


def _question(handle: int, offset: int, length: int) -> bytes:
    os.write(exchange.QUESTIONS, exchange.READ.pack(handle, offset, length))
    (count,) = exchange.LENGTH.unpack(_exactly(exchange.LENGTH.size))
    return _exactly(count)


def _exactly(count: int) -> bytes:
    pieces = []
    while count:
        octets = os.read(exchange.CONTENTS, count)
        if not octets:
            raise EOFError("the server has ended")
        pieces.append(octets)
        count -= len(octets)
    return b"".join(pieces)


class _Edits(Edits):
    """Tells the server of what cannot be, whenever it is tried."""

    __slots__ = ("_tell",)

    def __init__(self, tell: Any) -> None:
        super().__init__()
        self._tell = tell

    def _spoil(self, why: str) -> None:
        self._tell(why)
        super()._spoil(why)


class _Object:
    """One filter object with its transaction."""

    def __init__(self, filter_: Filter, ask: Ask) -> None:
        self.filter = filter_
        self.state = TransactionState(ask.connection, ask.helo)
        self.tx = Transaction(self.state)
        self.edits: Edits | None = None
        self.message: Message | None = None

    def follow(self, ask: Ask) -> None:
        """Know what the server knows."""
        state = self.state
        state.connection, state.helo, state.reverse_path = ask.connection, ask.helo, ask.reverse_path
        state.recipients, state.scores = ask.recipients, ask.scores


class Served(Protocol):
    """The server's end of the pipes."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._frames = Frames()
        self._objects: dict[int, _Object] = {}
        self._class: type[Filter] = Filter
        self._config: Any = None
        self._server = Server()
        self._shared: Any = None

    def dataReceived(self, data: bytes) -> None:
        for octets in self._frames.feed(data):
            command = exchange.decode_command(octets)
            if isinstance(command, Begin):
                self._begin(command)
            elif isinstance(command, Ask):
                self._ask(command)
            else:
                self._close(command)

    def connectionLost(self, reason: Any = None) -> None:
        os._exit(0)

    def _send(self, value: msgspec.Struct) -> None:
        assert self.transport is not None
        self.transport.write(exchange.frame(value))

    def _begin(self, begin: Begin) -> None:
        module, _, name = begin.filter.partition(":")
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        self._class = found
        self._config = msgspec.convert(begin.config, found.Config)
        pool = self._reactor.getThreadPool()
        self._server = Server(
            hostname=begin.hostname,
            reactor=self._reactor,
            now=time.time,
            run_blocking=partial(deferToThreadPool, self._reactor, pool),
            folder=begin.folder,
        )
        resource.setrlimit(resource.RLIMIT_AS, (begin.memory, begin.memory))
        self._shared = found.start(self._config, self._server)

    def _ask(self, ask: Ask) -> None:
        try:
            known = self._objects.get(ask.object)
            if known is None:
                made = self._class(self._config)
                made.server, made.shared = self._server, self._shared
                known = self._objects[ask.object] = _Object(made, ask)
            known.follow(ask)
            scores = len(known.state.scores)
            if ask.stage in CONTENT_STAGES and known.edits is None:
                known.edits = _Edits(lambda why: self._send(Fault(ask.object, why)))
                known.tx.begin_edits(known.edits)
            if ask.content is not None:
                known.message = Message(RemoteContent(ask.content), known.edits)
            running = Deferred.fromCoroutine(self._run(known, ask))
        except BaseException as error:
            self._failed(ask, error)
            return

        def ended(result: Any) -> None:
            try:
                if isinstance(result, Failure):
                    self._failed(ask, result.value or RuntimeError("failed without an exception"))
                else:
                    self._tell(known, ask, result, scores)
            except BaseException as error:
                self._failed(ask, error)

        running.addBoth(ended)

    async def _run(self, known: _Object, ask: Ask) -> Any:
        stage = getattr(known.filter, ask.stage)
        arguments: dict[str, tuple[Any, ...]] = {
            "helo": (ask.name,),
            "mail": (ask.new_path,),
            "rcpt": (ask.recipient,),
            "headers": (known.message,),
            "body": (ask.chunk,),
            "message": (known.message,),
        }
        coroutine = stage(known.tx, *arguments.get(ask.stage, ()))
        if self._class.blocking:
            assert self._server.run_blocking is not None
            return await self._server.run_blocking(_drive, coroutine)
        return await coroutine

    def _tell(self, known: _Object, ask: Ask, verdict: Verdict, scores: int) -> None:
        verdict = checked(verdict, ask.stage)
        edits = known.edits
        last = [stage for stage in CONTENT_STAGES if getattr(self._class, stage) is not getattr(Filter, stage)][-1:]
        answer = Told(ask.request, exchange.spoken(verdict), scores=known.state.scores[scores:])
        if edits is not None:
            answer.headers, answer.envelope, answer.body = list(edits.headers), list(edits.envelope), edits.body
            if [ask.stage] == last or not isinstance(verdict, Continue):
                edits.close()
        self._send(answer)

    def _failed(self, ask: Ask, error: BaseException) -> None:
        self._send(Told(ask.request, error=told(error), line=raised_at(self._class, ask.stage, error)))

    def _close(self, command: Close) -> None:
        known = self._objects.pop(command.object, None)
        if known is None:
            return
        try:
            known.filter.closed()
        except BaseException as error:
            self._send(Told(exchange.NOBODY, error=told(error), line=raised_at(self._class, "closed", error)))


def _drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("a blocking filter must not await")


def main() -> None:
    """Run as a filter's process."""
    from twisted.internet import reactor

    os.umask(0o077)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # At once, not with the reactor's first turn: a filter that spins in it would never be asked where it is.
    os.write(exchange.ANSWERS, exchange.frame(Ready()))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    pipes: Any = StandardIO
    pipes(Served(reactor), stdin=exchange.COMMANDS, stdout=exchange.ANSWERS)
    chosen: Any = reactor
    try:
        chosen.run(installSignalHandlers=False)
    except BaseException:
        sys.stderr.write(Failure().getTraceback())
        raise
