"""The real server: ``twistd -n livemail run`` in a process group of its own, met only through what a user sees."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
import tomli_w

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent.parent
LOCAL_PORTS = (2525, 2587, 2465, 2424, 2143, 2993, 2110, 2995)
IN_CI = os.environ.get("CI") == "true"


def program(name: str) -> str:
    """The path of a Debian program; where it is missing the test is left out by name, with CI=true it fails."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        message = f"{name} is not installed; tests/debian-packages.txt lists its package"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    return found


def needs_root(what: str) -> None:
    """Leave a test out by name where we are not root and it needs to be."""
    if os.geteuid() != 0:
        pytest.skip(f"{what} wants root")


def run(arguments: Sequence[str | Path], *, seconds: float = 60, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a foreign program to its end, output captured as text."""
    return subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


_steps = itertools.count(1)


def free_offset() -> int:
    """An offset at which all ports of the local profile are free, below the ephemeral range; each time another one.

    Another one, because ports that were just in use wait for stragglers; by process, because suites run side by side.
    """
    for step in itertools.islice(_steps, 250):
        offset = 3000 + (os.getpid() * 37 + step * 101) % 26000
        if all(_is_free(port + offset) for port in LOCAL_PORTS):
            return offset
    raise AssertionError("no free ports")


class Server:
    """One data folder and the server on it."""

    def __init__(self, data: Path, *, arguments: Sequence[str] = (), environment: dict[str, str] | None = None) -> None:
        self.data = data
        self.log = data.parent / f"{data.name}.log"
        self.arguments = list(arguments)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LIVEMAIL_")},
            "LIVEMAIL_DATA": str(data),
            "LIVEMAIL_PORT_OFFSET": str(free_offset()),
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.facts: dict[str, str] = {}

    def start(self, *, seconds: float = 30, under: Sequence[str] = ()) -> float:
        """Start and wait until every listener greets; returns the seconds it took."""
        began = time.monotonic()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*under, str(BIN / "twistd"), "--nodaemon", "--pidfile=", "livemail", "run", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self.environment,
                cwd=self.data.parent,
            )
        deadline = began + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.output()}")
            with contextlib.suppress(OSError, KeyError, ConnectionError):
                lines = (self.data / "first-run.txt").read_text(errors="replace").splitlines()
                self.facts = dict(line.split(": ", 1) for line in lines if ": " in line)
                with socket.create_connection(self.address("imap"), 2) as connection:
                    connection.settimeout(5)
                    if connection.recv(1):
                        return time.monotonic() - began
            time.sleep(0.02)
        raise AssertionError(f"the server did not greet in {seconds} s:\n{self.output()}")

    def output(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def address(self, service: str) -> tuple[str, int]:
        host, _, port = self.facts[service].rpartition(":")
        return host.strip("[]"), int(port)

    def port(self, service: str) -> int:
        return self.address(service)[1]

    def authority(self) -> bytes:
        """The certificate of the local authority, PEM."""
        return Path(self.facts["ca"]).read_bytes()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self, *, seconds: float = 30) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def processes(self) -> list[int]:
        """The server's process and all that it has started, the writer's for one."""
        found, new = [], [self.pid]
        while new:
            found.append(new.pop())
            for children in Path(f"/proc/{found[-1]}/task").glob("*/children"):
                with contextlib.suppress(OSError):  # a thread that has just ended
                    new += map(int, children.read_text().split())
        return found

    def processor_seconds(self) -> float:
        """What the server's processes have used of the processors so far."""
        ticks = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self, word: str) -> int:
        """VmRSS or VmHWM in KiB, of all the server's processes together."""
        total = 0
        for pid in self.processes():
            found = re.search(rf"{word}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            assert found is not None
            total += int(found[1])
        return total

    def forget_peak(self) -> None:
        """Let VmHWM begin again at VmRSS.  proc(5) clear_refs."""
        for pid in self.processes():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def livemail(
        self, *arguments: str, seconds: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The livemail command on this server's data."""
        return subprocess.run(
            [str(BIN / "livemail"), "--data", str(self.data), *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            input=stdin,
            env=self.environment,
            check=False,
        )

    def configure(self, **sections: dict[str, object]) -> None:
        """Let the next start read a file: what the local profile is, with these keys changed."""
        shown = self.livemail("config", "show")
        assert shown.returncode == 0, shown.stderr
        table = tomllib.loads(shown.stdout)
        for section, keys in sections.items():
            assert keys.keys() <= table[section].keys(), f"[{section}] has no such key"
            table[section] |= keys
        file = self.data.parent / f"{self.data.name}.toml"
        file.write_text(tomli_w.dumps(table))
        self.arguments = ["--config", str(file)]

    def add_account(self, name: str, password: str) -> None:
        done = self.livemail("account", "add", name, "--password-stdin", stdin=password + "\n")
        assert done.returncode == 0, done.stderr + done.stdout
