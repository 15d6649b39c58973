"""``twistd livemail milter`` in one process: what it is told, and our own milter client at its socket."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.python import usage
from twisted.trial.unittest import TestCase

from livemail.app import StartError
from livemail.config import load
from livemail.milter import codes
from livemail.milter.client import Client, Times
from livemail.milter.grammar import Peer, ReplyCode
from livemail.milter.link import open_link
from livemail.milter.place import parse_place
from livemail.milter_service import MilterServer, Serving
from livemail.tap import MilterOptions, Options
from tests.app.test_app import free_ports

CONFIGURATION = """
data = "data"
hostname = "mx.example"
[storage]
reserve_octets = 0
reserve_percent = 0
[[filter]]
use = "limits"
max_recipients = {recipients}
"""


class MilterService(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.umask = os.umask(0o077)
        self.addCleanup(os.umask, self.umask)
        self.folder = Path(tempfile.mkdtemp())
        (self.folder / "data").mkdir()
        self.file = self.folder / "livemail.toml"
        self.write(1)

    def write(self, recipients: object) -> None:
        self.file.write_text(CONFIGURATION.format(recipients=recipients))

    def make(self, socket: str) -> MilterServer:
        def read() -> Any:
            return load(self.file, is_server=False)

        serving = Serving(parse_place(socket), "smtp", "")
        return MilterServer(read(), serving, reactor, read_config=read)

    async def start(self, socket: str) -> MilterServer:
        server = self.make(socket)
        server.privilegedStartService()
        server.startService()
        self.addCleanup(server.stopService)
        return server

    async def second_recipient(self, socket: str) -> ReplyCode | None:
        client = Client(await open_link(reactor, parse_place(socket), 10), Times(), 1000)
        await client.negotiate()
        assert client.options.version == 6
        await client.connect(Peer("[192.0.2.1]", "192.0.2.1", 25), {})
        await client.helo("client.example", {})
        await client.mail(b"<a@b.example>", [], {})
        assert (await client.rcpt(b"<c@d.example>", [], {})).command == codes.CONTINUE
        answer = await client.rcpt(b"<e@f.example>", [], {})
        client.quit()
        return answer.reply

    async def test_filters_are_served_on_tcp_and_read_again_and_a_mistake_changes_nothing(self) -> None:
        socket = f"inet:{free_ports(1)[0]}@127.0.0.1"
        server = await self.start(socket)
        refusal = await self.second_recipient(socket)
        assert refusal is not None
        assert refusal.code // 100 in {4, 5}
        for recipients in (5, '"many"'):
            self.write(recipients)
            server.reload()
            assert await self.second_recipient(socket) is None

    async def test_filters_are_served_on_a_unix_socket_with_a_spool_of_its_own(self) -> None:
        socket = f"unix:{self.folder}/milter.sock"
        await self.start(socket)
        assert await self.second_recipient(socket) is not None
        (spool,) = (self.folder / "data" / "milter").iterdir()
        assert spool.stat().st_mode & 0o077 == 0

    def test_a_socket_in_use_is_told(self) -> None:
        socket = f"inet:{free_ports(1)[0]}@127.0.0.1"
        server = self.make(socket)
        server.privilegedStartService()
        other = self.make(socket)
        with pytest.raises(StartError, match="in use by another program"):
            other.privilegedStartService()
        server._release()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "--listen"),
        (["--listen", "inet:1@127.0.0.1"], "--config FILE with [[filter]] tables, or --filter NAME"),
        (["--listen", "8899", "--filter", "limits"], "inet:PORT@HOST"),
        (["--listen", "inet:1@127.0.0.1", "--filter", "limits", "--service", "imap"], "smtp, submission"),
    ],
)
def test_what_is_missing_is_told(words: list[str], text: str) -> None:
    with pytest.raises(usage.UsageError) as caught:
        Options().parseOptions(["milter", *words])
    assert text in str(caught.value)


def test_a_filter_that_is_not_there_ends_with_the_configurations_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(["milter", "--listen", "inet:1@127.0.0.1", "--filter", "limitz"])
    assert caught.value.code == 78
    assert 'did you mean "limits"?' in capsys.readouterr().err


def test_a_configuration_of_filters_alone_needs_no_listeners(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(CONFIGURATION.format(recipients=3))
    options = Options()
    options.parseOptions(["milter", "--listen", "inet:1@127.0.0.1", "--config", str(file), "--filter", "limits"])
    assert isinstance(options.subOptions, MilterOptions)
    assert options.subOptions.serving.only == "limits"
