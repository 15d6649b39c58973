"""What the chain costs: the server's CPU seconds a message with no filters, and with ten of them that do nothing; what a body holds.

Each server is measured in turn, run by run, by the CPU time of its own processes, so that what else the machine does meets all alike.  The
cost of the chain where it is empty is what its calls take by themselves, beside what a message costs the server altogether.
"""

from __future__ import annotations

import os
import smtplib
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

from bench.ground import BenchError, Process, say, tree_cpu, wait_for

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent
CONNECTIONS = 8

CHAINS = {
    "no filters": None,
    "ten that override nothing": "NoOp",
    "ten at one stage": "Willing",
    "ten at every stage": "Everywhere",
}


class Server:
    """One server with its own configuration."""

    def __init__(self, folder: Path, port: int, kind: str | None) -> None:
        data = folder / f"data-{port}"
        data.mkdir(mode=0o700)
        config = folder / f"{port}.toml"
        filters = "".join(f'[[filter]]\nuse = "bench.noop:{kind}"\nname = "f{n}"\n' for n in range(10)) if kind else ""
        config.write_text(
            f'data = "{data}"\nhostname = "localhost"\n[[listen]]\nservice = "smtp"\naddress = "127.0.0.1:{port}"\n'
            f"[smtp]\nmax_errors = 100\n{filters}"
        )
        self.place = ("127.0.0.1", port)
        self.process = Process(
            [str(BIN / "twistd"), "--nodaemon", "--pidfile=", "livemail", "run", "--config", str(config)],
            folder / f"{port}.log",
            {"PYTHONPATH": str(ROOT)},
        )
        wait_for(self.place, self.process, f"livemail on {port}")
        subprocess.run(
            [str(BIN / "livemail"), "--config", str(config), "account", "add", "you", "--password-stdin"],
            input="secret\n", text=True, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def cpu(self) -> float:
        """Seconds of the server's processes, its writer included: what ingest costs."""
        return tree_cpu(self.process.child.pid)


def _send(place: tuple[str, int], count: int, octets: bytes) -> None:
    """One connection, pipelined: the client is not what is measured."""
    with smtplib.SMTP(*place) as client:
        client.ehlo()
        for _ in range(count):
            client.send(b"MAIL FROM:<a@bench.test>\r\nRCPT TO:<you@localhost>\r\nDATA\r\n")
            for _ in range(3):
                code, said = client.getreply()
                if code >= 400:
                    raise BenchError(f"{code} {said!r}")
            client.send(octets)
            code, said = client.getreply()
            if code != 250:
                raise BenchError(f"{code} {said!r}")


def _run(server: Server, count: int, octets: bytes) -> float:
    before = server.cpu()
    clients = [
        threading.Thread(target=_send, args=(server.place, count // CONNECTIONS, octets)) for _ in range(CONNECTIONS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return (server.cpu() - before) / (count // CONNECTIONS * CONNECTIONS)


def empty_chain() -> float:
    """Seconds one message's calls of an empty chain take."""
    from livemail.filters.chain import FilterChain
    from livemail.interfaces.filter import ConnectionInfo
    from livemail.mail.address import Address
    from livemail.mail.address import Path as MailPath
    from livemail.mail.envelope import Envelope, Recipient, ReversePath

    def finish(coroutine: Any) -> Any:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        raise BenchError("suspended")

    sender, you = ReversePath(MailPath(Address("a", "b.test"))), Recipient(MailPath(Address("you", "localhost")))
    _, state = finish(FilterChain(()).connect(ConnectionInfo("s", "smtp", "192.0.2.1")))
    envelope, content, count = Envelope(sender, [you]), object(), 20_000
    best = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(count):
            finish(state.mail(sender))
            finish(state.rcpt(you))
            finish(state.data(envelope))
            finish(state.message(content, envelope))
            state.reset()
        best.append((time.process_time() - began) / count)
    return min(best)


def body_memory(folder: Path, octets: int) -> tuple[int, float]:
    """(peak of octets Python holds while a body filter reads a message of this size, seconds)."""
    from twisted.internet.threads import deferToThread

    from bench.noop import Sums
    from livemail.alone import in_reactor
    from livemail.filters.chain import FilterChain, FilterSpec
    from livemail.filters.once import Circumstances, run_once
    from livemail.storage.lmdb import LMDBStore
    from livemail.storage.settings import StorageSettings

    async def main(reactor: Any) -> tuple[int, float]:
        run_blocking: Any = deferToThread
        store = await LMDBStore.open(
            folder / "body", StorageSettings(writer="thread", reserve_octets=0, reserve_percent=0, reserve_file=0),
            call_from_thread=reactor.callFromThread, run_blocking=run_blocking, create=True,
        )  # fmt: skip
        sink = store.new_content()
        sink.write(b"Subject: large\r\n\r\n")
        line = b"x" * 998 + b"\r\n"
        for _ in range(octets // 64_000):
            sink.write(line * 64)
        content = await sink.finish()
        chain = FilterChain([FilterSpec("sums", Sums)], store, reactor)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        began = time.perf_counter()
        await run_once(chain, content, Circumstances())
        seconds = time.perf_counter() - began
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        await store.close()
        return peak, seconds

    return in_reactor(main)


def measure(folder: Path, *, runs: int, count: int, size: int) -> list[str]:
    """The table."""
    octets = b"Subject: bench\r\n\r\n" + (b"x" * 70 + b"\r\n") * (size // 72) + b".\r\n"
    servers = {name: Server(folder, 2601 + at, kind) for at, (name, kind) in enumerate(CHAINS.items())}
    figures: dict[str, list[float]] = {name: [] for name in CHAINS}
    try:
        for number in range(runs + 1):
            for name, server in servers.items():
                seconds = _run(server, count, octets)
                say(f"bench: {name} run {number}: {seconds * 1e6:,.1f} us a message")
                if number:
                    figures[name].append(seconds)
    finally:
        for server in servers.values():
            server.process.stop()
    none = statistics.median(figures["no filters"])
    alone = empty_chain()
    lines = [f"Cost of the filter chain, {size} octets, {CONNECTIONS} connections, CPU of the server's processes"]
    lines.append(
        f"  the empty chain's own calls      {alone * 1e6:8.1f} us a message  {alone / none:7.1%} of ingest (at most 5 %)"
    )
    for name, values in figures.items():
        median = statistics.median(values)
        spread = (max(values) - min(values)) / median
        bound = " (at most 15 %)" if "nothing" in name or "one stage" in name else ""
        lines.append(
            f"  {name:32} {median * 1e6:8.1f} us a message  {median / none - 1:+7.1%} ±{spread / 2:.1%}{bound}"
        )
    peak, seconds = body_memory(folder, 200_000_000)
    lines.append(
        f"  body filter, 200 MB              {peak / 1024:8,.0f} KiB held at most, {seconds:.2f} s traced (at most 1,024 KiB)"
    )
    return lines
