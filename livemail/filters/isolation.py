"""A filter in a process of its own: the server's side.

    server: Worker, one for each configured filter            process (`livemail.filters.worker`)
    Begin: class, configuration, memory ────────────────────► Ready; then limits its memory, imports, Filter.start
    Ask, for any transaction, many at a time ───────────────► runs the stage
       ◄──────────────────────────────────── Told: verdict, edits, or the exception with its line
       ◄─────────── a question for content, answered at once  Message.read of a large message

What goes wrong                          what happens
    the filter raises, MemoryError       the answer is an error: a failure like any other
    no answer within the timeout         the process writes its stack, which the log gets, and is killed
    the process ends                     every stage that waits fails, and every later stage of the objects it had; the next
                                         transaction gets a new process, at most one a second
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import PurePath
from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from livemail.filters import exchange
from livemail.filters.asking import FilterTimeout
from livemail.filters.author import Filter, Server, Transaction
from livemail.filters.edits import EditError, Edits
from livemail.filters.exchange import Ask, Begin, Close, ContentInfo, Fault, Frames, Ready, Told
from livemail.filters.message import Message
from livemail.interfaces.filter import Verdict
from livemail.mail.content import Content
from livemail.mail.envelope import Recipient, ReversePath

STACK_SECONDS: Final = 0.3
"""For which a process that hangs may write its stack before it is killed."""
START_SECONDS: Final = 30.0
"""How long a process may take to begin, whatever its filter's timeout: a busy machine is no fault of the filter."""
RESTART_SECONDS: Final = 1.0
STOP_SECONDS: Final = 5.0
_PROGRAM: Final = "from livemail.filters.worker import main; main()"
_FRAME: Final = re.compile(r'File "([^"]+)", line (\d+)')
_MAX_STDERR: Final = 16 * 1024


class ProcessLost(Exception):
    """The filter's process ended, or cannot be started."""


class FailedElsewhere(Exception):
    """What the filter raised in its process."""

    def __init__(self, text: str, line: str) -> None:
        super().__init__(text)
        self.filter_line = line


class _Process(ProcessProtocol):
    """One run of the process."""

    log = Logger()

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._frames = Frames()
        self._questions = bytearray()
        self._stderr = ""
        self.contents: dict[int, Content] = {}
        self.is_alive = True
        self.is_ready = False
        self._is_stopping = False

    def send(self, value: msgspec.Struct) -> None:
        """Queue a frame."""
        if self.is_alive and not self._is_stopping and self.transport is not None:
            self.transport.writeToChild(exchange.COMMANDS, exchange.frame(value))

    def stop(self) -> None:
        """Let it end by itself."""
        if self.is_alive and self.transport is not None:
            self._is_stopping = True
            self.transport.closeChildFD(exchange.COMMANDS)

    def signal(self, number: int) -> None:
        """Send a signal if it still runs."""
        if self.is_alive and self.transport is not None:
            try:
                self.transport.signalProcess(number)
            except ProcessExitedAlready:
                return

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == exchange.QUESTIONS:
            self._answer(data)
        elif childFD == exchange.ANSWERS:
            try:
                for octets in self._frames.feed(data):
                    self._worker.heard(self, exchange.decode_answer(octets))
            except (ValueError, msgspec.DecodeError) as error:
                self.log.warn(
                    "the process of filter {name} makes no sense: {error}", name=self._worker.name, error=error
                )
                self.signal(signal.SIGKILL)
        else:
            self._stderr = (self._stderr + data.decode("utf-8", "replace"))[-_MAX_STDERR:]

    def _answer(self, data: bytes) -> None:
        assert self.transport is not None
        self._questions += data
        while len(self._questions) >= exchange.READ.size:
            handle, offset, length = exchange.READ.unpack_from(self._questions)
            del self._questions[: exchange.READ.size]
            content = self.contents.get(handle)
            octets = content.read(offset, length) if content is not None else b""
            self.transport.writeToChild(exchange.CONTENTS, exchange.LENGTH.pack(len(octets)) + octets)

    def stack_line(self, file: str) -> str:
        """The innermost line of a file in the last stack the process wrote."""
        for name, line in _FRAME.findall(self._stderr):
            if PurePath(name).name == PurePath(file).name:
                return f"{PurePath(name).name}:{line}"
        return ""

    def processEnded(self, reason: Failure) -> None:
        self.is_alive = False
        self.contents.clear()
        said = self._stderr.strip()
        if said:
            self.log.warn("the process of filter {name} said: {said}", name=self._worker.name, said=said)
        self._worker.lost(self, reason.getErrorMessage())


class Worker:
    """The process of one configured filter."""

    log = Logger()

    def __init__(self, spec: Any, config: msgspec.Struct, server: Server) -> None:
        """spec: a `livemail.filters.plan.FilterSpec`."""
        self.name = spec.name
        self._filter: type[Filter] = spec.filter
        self._timeout: float = spec.timeout
        self._server = server
        self._begin = Begin(
            f"{spec.filter.__module__}:{spec.filter.__qualname__}",
            msgspec.to_builtins(config, builtin_types=(bytes,)),
            spec.memory,
            server.hostname,
            server.folder,
            spec.name,
        )
        self._process: _Process | None = None
        self._pending: dict[int, tuple[_Process, Deferred[Told]]] = {}
        self._calls: dict[int, IDelayedCall] = {}
        self._objects = 0
        self._requests = 0
        self._remotes: dict[int, RemoteFilter] = {}
        self._died_at: float | None = None
        self._killing: Any = None
        self.stopped: Deferred[None] | None = None
        self._why = ""

    @property
    def pid(self) -> int:
        """Of the process, 0 when none runs."""
        process = self._process
        return int(process.transport.pid or 0) if process is not None and process.transport is not None else 0

    def make(self) -> RemoteFilter:
        """Make the stand-in of a new object."""
        self._objects += 1
        remote = RemoteFilter(self, self._objects)
        self._remotes[self._objects] = remote
        return remote

    def process(self) -> _Process:
        """The process that runs, started when none does.  Raises ProcessLost."""
        if self._process is not None:
            return self._process
        reactor = self._server.reactor
        if self._died_at is not None and reactor.seconds() - self._died_at < RESTART_SECONDS:
            raise ProcessLost(f"its process ended just now ({self._why}); the next is started in a second")
        started = _Process(self)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        descriptors: dict[int, Any] = {0: "w", 1: "r", 2: "r", 3: "w", 4: "r", 5: "r", 6: "w"}
        reactor.spawnProcess(
            started, sys.executable, [sys.executable, "-c", _PROGRAM], env=environment, childFDs=descriptors
        )
        self._process = started
        started.send(self._begin)
        return started

    def ask(self, process: _Process, question: Ask) -> Deferred[Told]:
        """Ask; fails with ProcessLost or FilterTimeout."""
        self._requests += 1
        request = question.request = self._requests
        answer: Deferred[Told] = Deferred(lambda _: None)
        self._pending[request] = (process, answer)
        reactor = self._server.reactor
        self._calls[request] = reactor.callLater(self._timeout, self._hangs, process, request)

        def over(result: Any) -> Any:
            call = self._calls.pop(request)
            if call.active():
                call.cancel()
            self._pending.pop(request, None)
            return result

        answer.addBoth(over)
        process.send(question)
        return answer

    def _hangs(self, process: _Process, request: int, waited: float = 0.0) -> None:
        """No answer: have the process say where it is, then kill it.

        A process that has not begun yet would die of the question itself, and the filter is not to blame: it gets more time.
        """
        waited += self._timeout
        if not process.is_ready and waited < START_SECONDS:
            self._calls[request] = self._server.reactor.callLater(self._timeout, self._hangs, process, request, waited)
            return
        if not process.is_ready:
            self._kill(process, request)
            return
        process.signal(signal.SIGUSR1)
        self._server.reactor.callLater(STACK_SECONDS, self._kill, process, request)

    def _kill(self, process: _Process, request: int) -> None:
        pending = self._pending.get(request)
        process.signal(signal.SIGKILL)
        if pending is not None and not pending[1].called:
            error = FilterTimeout(f"no verdict after {self._timeout:g} s; its process was killed")
            file = sys.modules[self._filter.__module__].__file__ or ""
            error.filter_line = process.stack_line(file)  # type: ignore[attr-defined]
            pending[1].errback(error)

    def heard(self, process: _Process, answer: Ready | Told | Fault) -> None:
        """A frame came."""
        if isinstance(answer, Ready):
            process.is_ready = True
        elif isinstance(answer, Told) and answer.request == exchange.NOBODY:
            self.log.critical(
                "filter {filter} failed at closed, {line}: {error}",
                filter=self.name,
                line=answer.line,
                error=answer.error,
            )
        elif isinstance(answer, Told):
            pending = self._pending.get(answer.request)
            if pending is not None and not pending[1].called:
                pending[1].callback(answer)
        else:
            remote = self._remotes.get(answer.object)
            if remote is not None:
                remote.spoil(answer.text)

    def lost(self, process: _Process, why: str) -> None:
        """The process has ended."""
        if self._process is process:
            self._process = None
            self._died_at = self._server.reactor.seconds()
            self._why = why
        if self._killing is not None and self._killing.active():
            self._killing.cancel()
        for owner, answer in list(self._pending.values()):
            if owner is process and not answer.called:
                answer.errback(ProcessLost(f"its process ended: {why}"))
        if self.stopped is not None and not self.stopped.called:
            self.stopped.callback(None)

    def forget(self, remote: RemoteFilter) -> None:
        """An object is not needed any more."""
        self._remotes.pop(remote.number, None)

    def stop(self) -> None:
        """Let the process end; ``stopped`` fires when it has, None when there is none."""
        if self._process is not None:
            process, self._process = self._process, None
            self.stopped = Deferred()
            process.stop()
            self._killing = self._server.reactor.callLater(STOP_SECONDS, process.signal, signal.SIGKILL)


class RemoteFilter(Filter):
    """Stands for an object in the process."""

    def __init__(self, worker: Worker, number: int) -> None:
        super().__init__(msgspec.Struct())
        self.number = number
        self._worker = worker
        self._process: _Process | None = None
        self._edits: Edits | None = None

    async def connect(self, tx: Transaction) -> Verdict:
        return await self._ask("connect", tx)

    async def helo(self, tx: Transaction, name: str) -> Verdict:
        return await self._ask("helo", tx, name=name)

    async def mail(self, tx: Transaction, reverse_path: ReversePath) -> Verdict:
        return await self._ask("mail", tx, new_path=reverse_path)

    async def rcpt(self, tx: Transaction, recipient: Recipient) -> Verdict:
        return await self._ask("rcpt", tx, recipient=recipient)

    async def data(self, tx: Transaction) -> Verdict:
        return await self._ask("data", tx)

    async def headers(self, tx: Transaction, message: Message) -> Verdict:
        return await self._ask("headers", tx, message)

    async def body(self, tx: Transaction, chunk: bytes) -> Verdict:
        return await self._ask("body", tx, chunk=chunk)

    async def message(self, tx: Transaction, message: Message) -> Verdict:
        return await self._ask("message", tx, message)

    async def _ask(self, stage: str, tx: Transaction, message: Message | None = None, **more: Any) -> Verdict:
        if self._process is None:
            self._process = self._worker.process()
        elif not self._process.is_alive:
            raise ProcessLost("the process that had this transaction's object ended")
        process = self._process
        state = tx.state
        question = Ask(
            0,
            self.number,
            stage,
            state.connection,
            state.helo,
            state.reverse_path,
            state.recipients,
            state.scores,
            **more,
        )
        if message is not None and self._edits is None:
            content = message.content
            small = content.size <= exchange.SMALL
            question.content = ContentInfo(
                content.size, content.summary, content.read(0, content.size) if small else b"", self.number
            )
            if not small:
                process.contents[self.number] = content
        self._edits = tx.edits
        told = await self._worker.ask(process, question)
        return self._taken(told, tx)

    def _taken(self, told: Told, tx: Transaction) -> Verdict:
        if told.error:
            raise FailedElsewhere(told.error, told.line)
        edits = self._edits
        if edits is not None:
            edits.take(told.headers, told.envelope, told.body)
        for points, reason in told.scores:
            tx.add_score(points, reason)
        assert told.verdict is not None
        return exchange.heard(told.verdict)

    def spoil(self, text: str) -> None:
        """The object made an edit that cannot be."""
        if self._edits is not None:
            self._edits.fault = self._edits.fault or EditError(text)

    def closed(self) -> None:
        self._worker.forget(self)
        if self._process is not None:
            self._process.contents.pop(self.number, None)
            self._process.send(Close(self.number))
