"""The ground the servers stand on: a scratch folder, processes that end with the run, ports, waiting for greetings."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.imap import IMAP

HERE = Path(__file__).parent
USER_COUNT = 20
"""Mailboxes that deliveries are spread over; the peers keep a lock per mailbox."""

PASSWORD = "bench-password"  # a mailbox on loopback that lives for a minute


class BenchError(Exception):
    """The measure cannot be made; the text says what to do."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def need_programs() -> None:
    """Install the peers from Debian where they are missing.  Raises BenchError where that may not be."""
    wanted = [
        line.split() for line in (HERE / "debian-packages.txt").read_text().splitlines() if line and line[0] != "#"
    ]
    missing = sorted({package for package, program in wanted if not Path(program).exists()})
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BenchError(f"Peers are missing. As root: apt-get install {' '.join(missing)}")
    say(f"bench: installing the peers from Debian: {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment, stdout=subprocess.DEVNULL)
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def scratch(keep: bool) -> Iterator[Path]:
    """A folder on the disk the data folder would be on (not a tmpfs: fsync must cost what it costs)."""
    base = Path(os.environ.get("LIVEMAIL_BENCH_DIR", "/var/tmp"))
    folder = Path(tempfile.mkdtemp(prefix="livemail-bench-", dir=base))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        if keep:
            say(f"bench: kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


class Process:
    """A program in a process group of its own, its output in a file, ended with the group."""

    def __init__(self, arguments: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self.child = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    def stop(self) -> None:
        if self.child.poll() is None:
            self.child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


def wait_for(address: tuple[str, int], process: Process | None, what: str, seconds: float = 30) -> None:
    """Wait until a server greets."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process is not None and process.child.poll() is not None:
            break
        try:
            with socket.create_connection(address, 2) as connection:
                connection.settimeout(5)
                if connection.recv(1):
                    return
        except OSError:
            time.sleep(0.05)
    log = process.log.read_text(errors="replace")[-2000:] if process else ""
    raise BenchError(f"{what} did not start on {address[0]}:{address[1]}.\n{log}")


def count_messages(imap: tuple[str, int], users: Sequence[str]) -> int:
    """How many messages are in the INBOXes, by STATUS."""
    total = 0
    for user in users:
        with IMAP(imap, user, PASSWORD) as session:
            total += session.status("INBOX")
    return total


def busy_elsewhere(seconds: float = 0.5) -> float:
    """Cores that other programs keep busy now, while ours wait."""
    ticks = []
    for wait in (seconds, 0.0):
        columns = [int(column) for column in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        ticks.append((sum(columns), columns[3] + columns[4]))  # all, and those of idle and iowait
        time.sleep(wait)
    (all_before, idle_before), (all_after, idle_after) = ticks
    busy = 1 - (idle_after - idle_before) / max(1, all_after - all_before)
    return busy * (os.cpu_count() or 1)


def children_cpu() -> float:
    """CPU seconds of ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def tree_cpu(root: int) -> float:
    """CPU seconds of a process, its children and theirs, those that have ended included (their parents have waited for them)."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            parents[int(entry.parent.name)] = int(fields[1])
            ticks[int(entry.parent.name)] = sum(map(int, fields[11:15]))
    wanted = {root}
    while more := {pid for pid, parent in parents.items() if parent in wanted} - wanted:
        wanted |= more
    return sum(ticks.get(pid, 0) for pid in wanted) / os.sysconf("SC_CLK_TCK")
