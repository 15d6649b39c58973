"""The committer in a process of its own, and its stub.

    server                                              writer process (`main`, its socket's descriptor as argument)
    RemoteCommitter: settings, folder, tail ──────────► opens the index, makes a Committer
    commit: works, pickled ───────────────────────────► Committer.commit
            answers, pickled ◄─────────────────────────
    close, or the server's end: end of file ──────────► finishes the group in hand, ends

Both ends of the socket are this program under the same user, which is what makes pickle safe here.  A frame is its length, u64
big-endian, and its octets.

The process holds the store's lock together with the server (one open file description): after a kill -9 of the
server alone nobody opens the store until the writer has finished its last group and let go.  It ignores the signals a
terminal sends to the whole group; only the server's end ends it.  When it dies itself (the kernel ran out of memory), the
requests in hand are refused for now, the tail is recovered as at a start, and another process takes its place; what it
acknowledged is on disk.  When that fails, or happens five times without a group in between, the shard takes no more writes
until the server is started again.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from struct import Struct
from typing import Final

import msgspec

from livemail.mail.errors import MailError, StorageFailed
from livemail.storage.disk import Disk, ReserveFile
from livemail.storage.lmdb.committer import Answer, Committer, GroupLost, Work
from livemail.storage.lmdb.schema import open_environment
from livemail.storage.lmdb.segments import Tail
from livemail.storage.settings import StorageSettings
from livemail.storage.spool import SpooledContent

_LENGTH: Final = Struct(">Q")
_PROTOCOL: Final = pickle.HIGHEST_PROTOCOL
END_SECONDS: Final = 60.0
MAX_DEATHS: Final = 5
_IGNORED: Final = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
_PROGRAM: Final = "import sys; from livemail.storage.lmdb.writer_process import main; sys.exit(main(sys.argv[1:]))"


class Begin(msgspec.Struct, frozen=True):
    """What the process needs to begin.  tail: number, size and next number of the recovered tail."""

    store: str
    shard: str
    segments: str
    settings: StorageSettings
    tail: tuple[int, int, int]


class RemoteCommitter:
    """Stands for the committer in the other process; for the writer's thread."""

    def __init__(self, begin: Begin, lock: int, recover: Callable[[], tuple[int, int, int]]) -> None:
        """lock: descriptor of the store's lock, which the process holds too.

        recover: called in the writer's thread when the process has died; returns the tail for the next one.
        """
        self._lock = lock
        self._recover = recover
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
        self._socket = mine
        with contextlib.suppress(OSError):  # A process that ended at once is met at the first group.
            _send(mine, pickle.dumps(begin, _PROTOCOL))

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    def commit(self, group: Sequence[Work], now: int) -> list[Answer]:
        """Have a group committed.

        Raises GroupLost when the process has died and another has taken its place, OSError or EOFError when none could.
        """
        frame = pickle.dumps((group, now), _PROTOCOL)
        try:
            _send(self._socket, frame)
            answers: list[Answer] = pickle.loads(_receive(self._socket))  # noqa: S301 - our own process
        except (OSError, EOFError) as error:
            self._deaths += 1
            if self._deaths >= MAX_DEATHS:
                raise
            raise GroupLost(self._replace()) from error
        self._deaths = 0
        return answers

    def _replace(self) -> str:
        """Start another process; return what became of this one."""
        self._socket.close()
        try:
            status = self._child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            status = self._child.wait()
        pid = self._child.pid
        self._start(msgspec.structs.replace(self._begin, tail=self._recover()))
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"the writer process {pid} {how}; {self._child.pid} has taken its place"

    def keep_house(self) -> None:
        """The process does it by itself."""

    def close(self) -> None:
        """Let the process end, and wait for it."""
        self._socket.close()
        try:
            self._child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def _send(connection: socket.socket, frame: bytes) -> None:
    if len(frame) < 65536:
        connection.sendall(_LENGTH.pack(len(frame)) + frame)
    else:
        connection.sendall(_LENGTH.pack(len(frame)))
        connection.sendall(frame)


def _receive(connection: socket.socket) -> bytes:
    """Return the next frame.  Raises EOFError at the end."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    got = connection.recv(count, socket.MSG_WAITALL)
    while len(got) < count:
        more = connection.recv(count - len(got), socket.MSG_WAITALL)
        if not more:
            raise EOFError("the other process has ended")
        got += more
    return got


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
    begin: Begin = pickle.loads(_receive(connection))  # noqa: S301
    environment, tables = open_environment(Path(begin.shard), begin.settings)
    tail = Tail(Path(begin.segments), *begin.tail, begin.settings.segment_octets)
    disk = Disk(Path(begin.store), begin.settings)
    reserve = ReserveFile(Path(begin.shard) / "reserve", begin.settings.reserve_file)
    committer = Committer(environment, tables, tail, begin.settings, disk, reserve)
    try:
        while True:
            group: Sequence[Work]
            group, now = pickle.loads(_receive(connection))  # noqa: S301
            _send(connection, _packed(committer.commit(group, now)))
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
