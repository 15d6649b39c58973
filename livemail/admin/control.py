"""The control socket: one request per connection, as lines of JSON over a Unix socket in the data folder.

    C: {"do": "account.add", "with": {"accounts": [["ann", "secret"]]}}
    S: {"progress": [64, 128, "accounts"]}          as often as there is something to tell
    S: {"result": …}    or    {"error": "…", "status": 67}

The socket is mode 0600, and the kernel is asked who is at the other end (SO_PEERCRED): only the server's own user and root
are answered.  What arrives here includes passwords, so requests are never logged; their names are.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from twisted.internet.interfaces import IReactorFromThreads, IReactorUNIX, ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger

from livemail.admin.operations import EX_NO_PERMISSION, EX_PROBLEMS, EX_UNAVAILABLE, Operations, Refused
from livemail.interfaces.storage import Progress
from livemail.net.coroutines import run

SOCKET: Final = "control.sock"
MAX_REQUEST_OCTETS: Final = 16 * 1024 * 1024
_ENDS_WITH_ITS_CLIENT: Final = frozenset(
    {"import", "import.batch", "export", "store.check", "store.backup", "store.restore"}
)
"""Long work that another request takes up where it was left."""

MAX_SOCKET_PATH: Final = 108
"""Octets of a Unix socket's path with its NUL; through /proc a deep folder has a short name.  unix(7)."""


class Request(msgspec.Struct, rename={"operation": "do", "arguments": "with"}):
    """What a client asks for."""

    operation: str
    arguments: dict[str, Any]


def peer_uid(handle: socket.socket) -> int:
    """The user at the other end of a Unix socket, as the kernel knows him."""
    credentials = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


class Abandoned(Exception):
    """Whoever asked is not there any more."""


class ControlConnection(Protocol):
    """One request and its answer."""

    log = Logger()

    def __init__(self, operations: Operations, reactor: IReactorFromThreads) -> None:
        self._operations = operations
        self._reactor = reactor
        self._buffer = bytearray()
        self._asked = False
        self._gone = False
        self._can_end = False

    def connectionMade(self) -> None:
        uid = peer_uid(cast(Any, self.transport).getHandle())
        if uid not in {0, os.geteuid()}:
            self.log.warn("control socket: user {uid} was turned away", uid=uid)
            self._end(
                {"error": "only the server's own user and root may use its control socket", "status": EX_NO_PERMISSION}
            )

    def dataReceived(self, data: bytes) -> None:
        if self._asked:
            return
        self._buffer += data
        end = self._buffer.find(b"\n", max(0, len(self._buffer) - len(data)))
        if end < 0 and len(self._buffer) <= MAX_REQUEST_OCTETS:
            return
        self._asked = True
        try:
            request = msgspec.json.decode(self._buffer[:end] if end >= 0 else b"", type=Request)
        except msgspec.DecodeError:
            self._end({"error": "not a request this server understands", "status": EX_UNAVAILABLE})
            return
        finally:
            self._buffer.clear()
        self._can_end = request.operation in _ENDS_WITH_ITS_CLIENT
        self.log.info("control socket: {operation}", operation=request.operation)
        run(self._operations.perform(request.operation, request.arguments, self._progress), self._done)

    def _progress(self, done: int, total: int, what: str) -> None:
        """May be called in any thread.  Raises Abandoned when nobody waits for work that can be taken up again."""
        if self._gone and self._can_end:
            raise Abandoned
        self._reactor.callFromThread(self._tell, {"progress": [done, total, what]})

    def _done(self, result: Any, error: BaseException | None) -> None:
        if error is None:
            self._end({"result": result})
        elif isinstance(error, Abandoned):
            self.log.info("control socket: the client has gone, and the work was left where it was")
        elif isinstance(error, Refused):
            self._end({"error": error.text, "status": error.status})
        else:
            self.log.error("control socket: {error!r}", error=error)
            self._end({"error": "the server failed at this; its log says why", "status": EX_PROBLEMS})

    def _tell(self, answer: Mapping[str, Any]) -> None:
        if not self._gone:
            cast(ITransport, self.transport).write(msgspec.json.encode(answer) + b"\n")

    def _end(self, answer: Mapping[str, Any]) -> None:
        self._asked = True
        self._tell(answer)
        cast(ITransport, self.transport).loseConnection()

    def connectionLost(self, reason: object = None) -> None:
        self._gone = True


class ControlFactory(Factory):
    """Makes control connections."""

    noisy = False

    def __init__(self, operations: Operations, reactor: IReactorFromThreads) -> None:
        self._operations = operations
        self._reactor = reactor

    def buildProtocol(self, addr: object) -> ControlConnection:
        return ControlConnection(self._operations, self._reactor)


def listen(reactor: IReactorUNIX, folder: Path, operations: Operations) -> Any:
    """Open the control socket of a data folder and return its port.  Whoever holds the store's lock may call this.

    Raises CannotListenError.
    """
    path = folder / SOCKET
    # The store is locked, so nobody listens on a socket that lies here: it is a dead server's.
    path.unlink(missing_ok=True)
    factory = ControlFactory(operations, cast(IReactorFromThreads, reactor))
    if len(os.fsencode(path)) >= MAX_SOCKET_PATH:
        # The descriptor stays open as long as the process: the name goes through it.
        path = Path(f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_DIRECTORY)}/{SOCKET}")
    return reactor.listenUNIX(os.fspath(path), factory, mode=0o600)


def ask(folder: Path, operation: str, arguments: Mapping[str, Any], progress: Progress) -> Any:
    """Have the server that runs on a data folder do something.  Blocks.

    Raises ConnectionRefusedError or FileNotFoundError when none runs, Refused when it says no.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        _connect(connection, folder)
        connection.sendall(json.dumps({"do": operation, "with": arguments}).encode() + b"\n")
        with connection.makefile("rb") as lines:
            for line in lines:
                answer = json.loads(line)
                if "progress" in answer:
                    progress(*answer["progress"])
                elif "error" in answer:
                    raise Refused(answer["error"], answer["status"])
                else:
                    return answer["result"]
    raise Refused("the server closed the control socket without an answer; its log may say why", EX_UNAVAILABLE)


def _connect(connection: socket.socket, folder: Path) -> None:
    path = folder / SOCKET
    if len(os.fsencode(path)) < MAX_SOCKET_PATH:
        connection.connect(os.fspath(path))
        return
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{descriptor}/{SOCKET}")
    finally:
        os.close(descriptor)
