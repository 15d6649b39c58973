import errno
import shutil
import socket
import stat
import tempfile
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from livemail.net.listen import BindError, bind_tcp, listen_unix


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def test_a_taken_port_says_who_to_ask() -> None:
    port = free_port()
    with bind_tcp("127.0.0.1", port, 5), pytest.raises(BindError, match="in use by another program") as caught:
        bind_tcp("127.0.0.1", port, 5)
    assert caught.value.errno == errno.EADDRINUSE
    assert f"sport = :{port}" in str(caught.value)


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(BindError, match="no such address"):
        bind_tcp("192.0.2.1", 2525, 5)


def test_every_address_means_both_families() -> None:
    port = free_port()
    with bind_tcp("::", port, 5):
        socket.create_connection(("127.0.0.1", port), 5).close()


class UnixSockets(TestCase):
    def test_an_abandoned_unix_socket_is_replaced_and_a_living_one_is_not(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        path = str(folder / "s")
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(path)
        dead.close()
        port = listen_unix(reactor, path, Factory(), 5)
        self.addCleanup(port.stopListening)
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o660
        with pytest.raises(BindError, match="in use"):
            listen_unix(reactor, path, Factory(), 5)
        (folder / "file").write_text("mail")
        with pytest.raises(BindError, match="not a socket"):
            listen_unix(reactor, str(folder / "file"), Factory(), 5)
        assert (folder / "file").read_text() == "mail"
        with pytest.raises(BindError, match="No such file"):
            listen_unix(reactor, str(folder / "none" / "s"), Factory(), 5)
