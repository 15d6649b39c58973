"""The whole server in one process: started on free ports, spoken to, stopped."""

import ast
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from twisted.internet import reactor, threads
from twisted.trial.unittest import TestCase

import livemail
from livemail.__main__ import main
from livemail.app import MailServer, StartError
from livemail.auth.settings import AuthSettings
from livemail.config import Config, Listen, local_profile

CHEAP = AuthSettings(argon2_time=1, argon2_memory=64)


def free_ports(count: int) -> list[int]:
    trials = [socket.socket() for _ in range(count)]
    for trial in trials:
        trial.bind(("127.0.0.1", 0))
    ports = [trial.getsockname()[1] for trial in trials]
    for trial in trials:
        trial.close()
    return ports


def profile(folder: Path) -> Config:
    config = local_profile(folder, {})
    ports = free_ports(len(config.listen))
    listen = tuple(
        Listen(service=e.service, address=f"127.0.0.1:{p}") for e, p in zip(config.listen, ports, strict=True)
    )
    net = msgspec.structs.replace(config.net, drain_time=1.0, stall_time=0.0)
    return msgspec.structs.replace(config, listen=listen, auth=CHEAP, net=net)


def dial(config: Config, service: str) -> socket.socket:
    [place] = [each.place for each in config.listen if each.service == service]
    return socket.create_connection((place.host, place.port), 10)


class WholeServer(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.umask = os.umask(0o022)
        self.interval = sys.getswitchinterval()
        above = Path(tempfile.mkdtemp())  # not mktemp(): under pytest that is a folder of the checkout
        self.addCleanup(shutil.rmtree, above)
        self.folder = above / "data"
        self.config = profile(self.folder)
        self.shown = io.StringIO()
        self.server = self.make(self.config)

    def tearDown(self) -> None:
        os.umask(self.umask)
        sys.setswitchinterval(self.interval)

    def make(self, config: Config) -> MailServer:
        return MailServer(config, reactor, is_local_profile=True, show=self.shown.write)

    def start(self, server: MailServer) -> None:
        server.privilegedStartService()
        server.startService()

    def in_thread(self, function: Callable[[], object]):
        return threads.deferToThread(function)

    async def test_it_starts_greets_on_every_port_and_stops(self) -> None:
        self.start(self.server)
        try:
            greetings = await self.in_thread(self.greet_everywhere)
            assert greetings == {
                "smtp": b"220", "submission": b"220", "submissions": b"220", "lmtp": b"220",
                "imap": b"* OK", "imaps": b"* OK", "pop3": b"+OK", "pop3s": b"+OK",
            }  # fmt: skip
            assert "you@localhost" in self.shown.getvalue()
        finally:
            await self.server.stopService()
        for each in self.config.listen:
            with self.assertRaises(ConnectionRefusedError):
                dial(self.config, each.service)
        assert not (self.folder / "control.sock").exists()

    def greet_everywhere(self) -> dict[str, bytes]:
        authority = ssl.create_default_context(cafile=str(self.folder / "tls" / "ca.pem"))
        heard = {}
        for each in self.config.listen:
            with dial(self.config, each.service) as plain:
                secure = each.service in {"submissions", "imaps", "pop3s"}
                with authority.wrap_socket(plain, server_hostname="localhost") if secure else plain as connection:
                    octets = connection.recv(4)
                    heard[each.service] = octets if octets.startswith(b"* OK") else octets[:3]
        return heard

    async def test_a_container_without_the_privileged_step_gets_listeners_too(self) -> None:
        self.server.startService()
        try:
            assert len(await self.in_thread(self.greet_everywhere)) == 8
        finally:
            await self.server.stopService()

    async def test_stopping_says_goodbye_to_who_is_connected(self) -> None:
        self.start(self.server)
        connections = {service: dial(self.config, service) for service in ("smtp", "imap", "pop3")}
        try:
            await self.in_thread(lambda: [connection.recv(512) for connection in connections.values()])
        finally:
            await self.server.stopService()
        last = {service: connection.recv(512) for service, connection in connections.items()}
        for connection in connections.values():
            connection.close()
        assert last["smtp"].startswith(b"421 ")
        assert last["imap"].startswith(b"* BYE")
        assert last["pop3"] == b"" or last["pop3"].startswith(b"-ERR")

    async def test_a_second_start_keeps_the_account_and_does_not_show_the_password(self) -> None:
        self.start(self.server)
        await self.server.stopService()
        password = dict(line.split(": ", 1) for line in (self.folder / "first-run.txt").read_text().splitlines())[
            "password"
        ]
        assert password in self.shown.getvalue()
        self.shown.truncate(0)
        again = self.make(self.config)
        self.start(again)
        await again.stopService()
        assert password not in self.shown.getvalue()
        assert "first-run.txt" in self.shown.getvalue()

    async def test_every_taken_port_is_told_and_nothing_is_kept(self) -> None:
        taken = []
        for each in self.config.listen[:2]:
            blocker = socket.socket()
            blocker.bind((each.place.host, each.place.port))
            blocker.listen()
            taken.append(blocker)
        with self.assertRaises(StartError) as caught:
            self.start(self.server)
        for blocker in taken:
            blocker.close()
        told = str(caught.exception)
        assert self.config.listen[0].address in told
        assert self.config.listen[1].address in told
        assert "LIVEMAIL_PORT_OFFSET" in told
        self.start(self.server)
        await self.server.stopService()

    async def test_a_second_server_on_the_same_data_is_told_who_has_it(self) -> None:
        self.start(self.server)
        other = profile(self.folder)
        try:
            with self.assertRaises(StartError) as caught:
                self.start(self.make(other))
        finally:
            await self.server.stopService()
        assert str(os.getpid()) in str(caught.exception)

    def test_a_configured_data_folder_that_is_missing_is_an_error(self) -> None:
        server = MailServer(self.config, reactor)
        with self.assertRaises(StartError) as caught:
            self.start(server)
        assert "does not exist; make it" in str(caught.exception)
        assert not self.folder.exists()

    async def test_the_command_works_beside_the_server_and_without_it(self) -> None:
        self.start(self.server)
        try:
            status, out = await self.in_thread(
                lambda: self.command("account", "add", "ann", "--password-stdin", stdin="p\n")
            )
            assert (status, out["added"]) == (0, ["ann@localhost"])
        finally:
            await self.server.stopService()
        status, out = self.command("account", "list")
        assert [each["name"] for each in out] == ["ann@localhost", "you@localhost"]
        assert self.command("store", "check")[0] == 0
        assert self.command("account", "show", "nobody")[0] == 67
        assert self.command("account", "remove", "ann")[0] == 64
        assert self.command("account", "remove", "ann", "--yes")[0] == 0
        assert self.command("account", "add", "bob", "--password-stdin", stdin="\n")[0] == 65

    def command(self, *words: str, stdin: str = "") -> tuple[int, object]:
        ran = subprocess.run(
            [sys.executable, "-m", "livemail", "--data", str(self.folder), "--json", *words],
            input=stdin, capture_output=True, text=True, timeout=50, check=False, cwd=Path(livemail.__file__).parents[1],
        )  # fmt: skip
        return ran.returncode, json.loads(ran.stdout) if ran.stdout else json.loads(ran.stderr)


def test_a_missing_store_has_its_own_exit_status(tmp_path, capsys) -> None:
    assert main(["--data", str(tmp_path / "none"), "account", "list"]) == 66
    assert "no mail store" in capsys.readouterr().err


def test_a_wrong_configuration_ends_every_command_with_78(tmp_path, capsys) -> None:
    path = tmp_path / "c.toml"
    path.write_text("data = 3\nx = 1\n")
    assert main(["--config", str(path), "config", "check"]) == 78
    assert capsys.readouterr().err.count(str(path)) == 3
    assert main(["--json", "--config", str(path), "config", "check"]) == 78
    assert len(json.loads(capsys.readouterr().err)["errors"]) == 3


def test_nothing_imports_the_reactor_when_it_is_imported_itself() -> None:
    wrong = []
    for path in Path(livemail.__file__).parent.rglob("*.py"):
        functions: set[ast.AST] = set()
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.update(ast.walk(node))
        for node in ast.walk(tree):
            names = [f"{node.module}.{a.name}" for a in node.names] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if "twisted.internet.reactor" in names and node not in functions:
                wrong.append(str(path))
    assert wrong == []


def test_twistd_says_what_is_wrong_and_ends_with_78(tmp_path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("data = 3\n")
    root = Path(livemail.__file__).parents[1]
    for word in ("check", "run"):
        program = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
        ran = subprocess.run(
            [sys.executable, "-c", program, "-n", "--pidfile=", "livemail", word, "--config", str(path)],
            capture_output=True, text=True, timeout=50, check=False, cwd=root,
        )  # fmt: skip
        assert ran.returncode == 78
        assert f"{path}:1: `data` cannot be 3" in ran.stderr
        assert ran.stderr.count("\n") == 2
        assert "Traceback" not in ran.stderr
