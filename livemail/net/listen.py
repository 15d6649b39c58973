"""Binding sockets, apart from serving them: bound while privileged, adopted by the reactor later, in whatever process."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any, Final

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorUNIX

SOCKET_MODE: Final = 0o660
"""Of a Unix socket: the server's user and group."""


class BindError(Exception):
    """A socket could not be bound.  errno: the system's reason; the text says what to do."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.errno = number


def bind_tcp(host: str, port: int, backlog: int) -> socket.socket:
    """Listen on a TCP address; ``::`` means every address of both families.  Raises BindError."""
    try:
        return _bound(socket.AF_INET6 if ":" in host else socket.AF_INET, host, port, backlog)
    except OSError as error:
        if host == "::" and error.errno == errno.EAFNOSUPPORT:
            return bind_tcp("0.0.0.0", port, backlog)  # noqa: S104 (asked for)
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise BindError(_explained(place, port, error), error.errno or 0) from None


def _bound(family: socket.AddressFamily, host: str, port: int, backlog: int) -> socket.socket:
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        listening.setblocking(False)
        listening.bind((host, port))
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return listening


def _explained(place: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{place} is in use by another program (`ss -ltnp 'sport = :{port}'` names it)"
    if error.errno == errno.EACCES:
        return (
            f"{place} is not permitted: ports below 1024 are root's."
            "  Start as root with `twistd --uid USER --gid GROUP livemail run`, which gives up root after binding"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{place}: this machine has no such address (`ip address` lists them)"
    return f"{place}: {error.strerror}"


def listen_unix(reactor: IReactorUNIX, path: str, factory: Any, backlog: int) -> Any:
    """Serve on a Unix socket and return the port; one that a dead server left is replaced.  Raises BindError.

    Not apart from serving, as with TCP: it belongs to whoever binds it, so it is bound once root is given up.
    """
    try:
        if _is_abandoned(path):
            Path(path).unlink()
        return reactor.listenUNIX(path, factory, backlog, SOCKET_MODE)
    except CannotListenError as error:
        reason = error.socketError
        if getattr(reason, "errno", 0) == errno.EADDRINUSE:
            raise BindError(f"{path} is in use by another program, or is not a socket", errno.EADDRINUSE) from None
        raise BindError(
            f"{path}: {getattr(reason, 'strerror', None) or reason}", getattr(reason, "errno", 0) or 0
        ) from None
    except OSError as error:
        raise BindError(f"{path}: {error.strerror}", error.errno or 0) from None


def _is_abandoned(path: str) -> bool:
    """Whether a socket lies there that nobody listens on."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX) as trial:
        return trial.connect_ex(path) == errno.ECONNREFUSED
