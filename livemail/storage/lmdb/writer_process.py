"""The committer in a process of its own, and its carrier.

    server                                              writer process (`main`, its socket's descriptor as argument)
    WriterProcess: settings, folder, tail ────────────► opens the index, makes a Committer
    carry: works, pickled ────────────────────────────► Committer.commit
           answers, pickled ◄──────────────────────────
    close, or the server's end: end of file ──────────► finishes the groups sent before, ends

Both ends of the socket are this program under the same user, which is what makes pickle safe here.

The process holds the store's lock together with the server (one open file description): after a kill -9 of the
server alone nobody opens the store until the writer has finished its last group and let go.  It ignores the signals a
terminal sends to the whole group; only the server's end ends it.  When it dies itself (the kernel ran out of memory), the
requests under way are refused for now, the tail is recovered as at a start, and another process takes its place; what it
acknowledged is on disk.  When that fails, or happens five times without an answer in between, the shard takes no more
writes until the server is started again.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from twisted.internet.defer import ensureDeferred

from livemail.interfaces.runtime import IWatcher, RunBlocking
from livemail.mail.errors import MailError, StorageFailed
from livemail.storage.disk import Disk, ReserveFile
from livemail.storage.lmdb.committer import Answer, Committer, Work
from livemail.storage.lmdb.frames import FrameStream, receive, send
from livemail.storage.lmdb.schema import open_environment
from livemail.storage.lmdb.segments import Tail
from livemail.storage.lmdb.writer import IReceiver
from livemail.storage.quota import Quotas
from livemail.storage.settings import StorageSettings
from livemail.storage.spool import SpooledContent

_PROTOCOL: Final = pickle.HIGHEST_PROTOCOL
END_SECONDS: Final = 60.0
MAX_DEATHS: Final = 5
_IGNORED: Final = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
_PROGRAM: Final = "import sys; from livemail.storage.lmdb.writer_process import main; sys.exit(main(sys.argv[1:]))"


class Begin(msgspec.Struct, frozen=True):
    """What the process needs to begin.  tail: number, size and next number of the recovered tail.  hash_key: of the digests."""

    store: str
    shard: str
    segments: str
    settings: StorageSettings
    tail: tuple[int, int, int]
    quotas: Quotas
    hash_key: bytes


class WriterProcess:
    """Carries groups to the process and its answers back (`livemail.storage.lmdb.writer.ICarrier`)."""

    def __init__(
        self,
        begin: Begin,
        lock: int,
        watcher: IWatcher,
        run_blocking: RunBlocking,
        recover: Callable[[], tuple[int, int, int]],
    ) -> None:
        """lock: descriptor of the store's lock, which the process holds too.

        recover: run in a thread when the process has died; returns the tail for the next one.
        """
        self._lock = lock
        self._watcher = watcher
        self._run_blocking = run_blocking
        self._recover = recover
        self._receiver: IReceiver | None = None
        self._is_closing = self._is_replacing = False
        self._deaths = 0
        self._start(begin)

    def _start(self, begin: Begin) -> None:
        self._begin = begin
        mine, other = socket.socketpair()
        # Blocked here and now, so that there is no moment at which one of them could end the process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
        try:
            with other:
                self._child = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-c", _PROGRAM, str(other.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(other.fileno(), self._lock),
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._stream = FrameStream(mine, self._watcher, self._arrived, self._gone)
        self._stream.send(pickle.dumps(begin, _PROTOCOL))

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    def begin(self, receiver: IReceiver) -> None:
        """See `ICarrier.begin`."""
        self._receiver = receiver

    def carry(self, works: Sequence[Work], now: int) -> None:
        """See `ICarrier.carry`."""
        self._stream.send(pickle.dumps((works, now), _PROTOCOL))

    def close(self) -> None:
        """See `ICarrier.close`."""
        self._is_closing = True
        if self._stream.is_open:
            self._stream.finish()
        elif not self._is_replacing:
            ensureDeferred(self._end())

    def _arrived(self, frame: bytes) -> None:
        assert self._receiver is not None
        answers: list[Answer] = pickle.loads(frame)  # noqa: S301 - our own process
        self._deaths = 0
        self._receiver.answered(answers)

    def _gone(self) -> None:
        """The process has closed its end: it was told to, or it died."""
        if self._is_closing:
            ensureDeferred(self._end())
        else:
            self._is_replacing = True
            ensureDeferred(self._replace())

    async def _end(self) -> None:
        assert self._receiver is not None
        await self._run_blocking(self._wait)
        self._receiver.failed("the writer process has ended")
        self._receiver.ended()

    async def _replace(self) -> None:
        """Start another process, and tell what became of this one.  What is carried meanwhile is lost with the rest."""
        assert self._receiver is not None
        self._deaths += 1
        try:
            status = await self._run_blocking(self._wait)
            pid = self._child.pid
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            if self._deaths < MAX_DEATHS:
                tail = await self._run_blocking(self._recover)
                self._start(msgspec.structs.replace(self._begin, tail=tail))
        except Exception as error:  # Sessions must not wait for ever.
            self._is_replacing = False
            self._receiver.failed(f"the writer process has died and cannot be replaced: {error!r}")
        else:
            self._is_replacing = False
            if self._stream.is_open:
                self._receiver.lost(f"the writer process {pid} {how}; {self._child.pid} has taken its place")
            else:
                self._receiver.failed(f"the writer process {pid} {how}, as {MAX_DEATHS - 1} before it")
        if self._is_closing:
            self.close()

    def _wait(self) -> int:
        """Wait until the process has ended; return its status."""
        try:
            return self._child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait()


def _packed(answers: list[Answer]) -> bytes:
    """Pack answers; an error of a kind that cannot cross becomes one that says the same."""
    for answer in answers:
        answer.results = [(index, result, _crossing(error)) for index, result, error in answer.results]
    return pickle.dumps(answers, _PROTOCOL)


def _crossing(error: BaseException | None) -> BaseException | None:
    if error is None or isinstance(error, MailError):
        return error
    return StorageFailed(reason=f"in the writer process: {error!r}")


def serve(connection: socket.socket) -> None:
    """Commit groups until the server ends."""
    begin: Begin = pickle.loads(receive(connection))  # noqa: S301
    environment, tables = open_environment(Path(begin.shard), begin.settings)
    tail = Tail(Path(begin.segments), *begin.tail, begin.settings.segment_octets)
    disk = Disk(Path(begin.store), begin.settings)
    reserve = ReserveFile(Path(begin.shard) / "reserve", begin.settings.reserve_file)
    committer = Committer(environment, tables, tail, begin.settings, disk, reserve, begin.quotas, begin.hash_key)
    try:
        while True:
            group: Sequence[Work]
            group, now = pickle.loads(receive(connection))  # noqa: S301
            send(connection, _packed(committer.commit(group, now)))
            _let_go(group)
            del group
            committer.keep_house()
    except (EOFError, ConnectionError):
        pass  # The server has ended; what was in hand is committed.
    finally:
        committer.close()
        environment.close()


def _let_go(group: Sequence[Work]) -> None:
    for work in group:
        for content in work.contents:
            if isinstance(content, SpooledContent):
                content.close_descriptor()


def main(arguments: Sequence[str]) -> int:
    """Run as the writer process."""
    os.umask(0o077)
    with socket.socket(fileno=int(arguments[0])) as connection:
        serve(connection)
    return 0
