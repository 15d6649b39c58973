"""Mail out: from SMTP in, through the queue, to the last message at a sink; and the first half of that alone, accepting into the queue.

Client: Postfix's smtp-source; sink: Postfix's smtp-sink, behind stunnel (STARTTLS) where TLS is measured.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.ground import BenchError, Process, children_cpu, say, tree_cpu, wait_for
from bench.ours import Relaying
from bench.peers import DOMAIN, RelayingPostfix, users
from bench.table import Figures, render

PATIENCE = 300.0
SINK_PORT, TLS_PORT, NO_PORT = 11825, 11826, 11827

STUNNEL = """
foreground = yes
pid =
debug = err
[sink]
accept = 127.0.0.1:{accept}
connect = 127.0.0.1:{connect}
cert = {certificate}
key = {key}
protocol = smtp
"""


class Sink:
    """smtp-sink, and TLS in front of it; counts what it has taken."""

    def __init__(self, folder: Path, *, tls: bool) -> None:
        self.log = folder / "sink.log"
        self.processes = [Process(["smtp-sink", "-u", "nobody", "-c", f"127.0.0.1:{SINK_PORT}", "1000"], self.log)]
        wait_for(("127.0.0.1", SINK_PORT), self.processes[0], "smtp-sink")
        self.port = SINK_PORT
        if tls:
            self.port = TLS_PORT
            certificate, key = folder / "sink.pem", folder / "sink-key.pem"
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                 "-subj", "/CN=sink.example", "-keyout", str(key), "-out", str(certificate)],
                check=True, capture_output=True,
            )  # fmt: skip
            configuration = folder / "stunnel.conf"
            configuration.write_text(
                STUNNEL.format(accept=TLS_PORT, connect=SINK_PORT, certificate=certificate, key=key)
            )
            self.processes.append(Process(["stunnel", str(configuration)], folder / "stunnel.log"))
            wait_for(("127.0.0.1", TLS_PORT), self.processes[1], "stunnel")

    def count(self) -> int:
        """Messages taken so far."""
        found = re.findall(rb"mesg=(\d+)", self.log.read_bytes()[-400:])
        return int(found[-1]) if found else 0

    def stop(self) -> None:
        for process in self.processes:
            process.stop()


def send(smtp: tuple[str, int], domain: str, count: int, size: int) -> int:
    """Send messages over one kept connection per user; return how many."""
    names = users()
    each = count // len(names)
    clients = [
        subprocess.Popen(
            ["smtp-source", "-4", "-s", "1", "-d", "-m", str(each), "-l", str(size), "-M", "bench.test",
             "-f", "sender@bench.test", "-t", f"{name}@{domain}", f"{smtp[0]}:{smtp[1]}"],
            stderr=subprocess.PIPE, text=True,
        )
        for name in names
    ]  # fmt: skip
    for client in clients:
        _, errors = client.communicate()
        if client.returncode:
            raise BenchError(f"smtp-source: {errors}")
    return each * len(names)


def one_run(
    smtp: tuple[str, int], domain: str, count: int, size: int, taken: Callable[[], int]
) -> tuple[int, float, float]:
    """Send, and wait until as many were taken; return (messages, seconds, client's CPU seconds)."""
    before, cpu, began = taken(), children_cpu(), time.monotonic()
    sent = send(smtp, domain, count, size)
    cpu = children_cpu() - cpu
    wanted = before + sent
    while (seen := taken()) < wanted:
        if time.monotonic() - began > PATIENCE:
            raise BenchError(f"{wanted - seen} of {count} messages never arrived")
        time.sleep(0.01)
    elapsed = time.monotonic() - began
    if seen != wanted:
        raise BenchError(f"{seen - before} messages arrived, {wanted - before} were sent")
    return sent, elapsed, cpu


class Costs:
    """CPU seconds of some processes since they were last asked."""

    def __init__(self, **pids: Sequence[int]) -> None:
        self._pids = pids
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        return {who: sum(tree_cpu(pid) for pid in pids) for who, pids in self._pids.items()}

    def since(self) -> dict[str, float]:
        """Return them by whom, and begin anew."""
        now = self._read()
        costs = {who: cpu - self._before[who] for who, cpu in now.items()}
        self._before = now
        return costs


def measure(folder: Path, *, runs: int, count: int, size: int, tls: bool) -> list[str]:
    """Both servers in turn, relaying to the same sink."""
    peer, ours = Figures("Postfix"), Figures("livemail")
    with contextlib.ExitStack() as running:
        sink = Sink(folder, tls=tls)
        running.callback(sink.stop)
        postfix = RelayingPostfix(folder, sink.port, tls=tls)
        running.callback(postfix.stop)
        livemail = Relaying(folder, sink.port, tls=tls)
        running.callback(livemail.stop)
        pids = [process.child.pid for process in sink.processes]
        turns = (
            (peer, postfix.smtp, "sink.example", count // 4, Costs(server=[postfix.pid], sink=pids)),
            (ours, livemail.smtp, DOMAIN, count, Costs(server=[livemail.pid], sink=pids)),
        )
        for number in range(runs + 1):
            for figures, smtp, domain, messages, costs in turns:
                costs.since()
                sent, seconds, client = one_run(smtp, domain, messages, size, sink.count)
                say(f"bench: {figures.name} run {number}: {sent / seconds:,.0f} messages/s")
                if number:  # the first run warms up
                    figures.add(sent, seconds, client, costs.since())
    title = f"Relay to a sink, {size} octets, {len(users())} connections in, TLS {'on' if tls else 'off'}"
    return render(title, "messages/s", ours, peer, 3.0 if size == 4096 else None)


def measure_queue(folder: Path, *, runs: int, count: int, size: int) -> list[str]:
    """Both servers in turn, accepting into the queue; nothing leaves: Postfix defers it all, our next hop does not answer."""
    peer, ours = Figures("Postfix"), Figures("livemail")
    with contextlib.ExitStack() as running:
        postfix = RelayingPostfix(folder, NO_PORT, tls=False, sends=False)
        running.callback(postfix.stop)
        livemail = Relaying(folder, NO_PORT, tls=False)
        running.callback(livemail.stop)
        turns = (
            (peer, postfix.smtp, "sink.example", count // 4, postfix.queued, Costs(server=[postfix.pid])),
            (ours, livemail.smtp, DOMAIN, count, livemail.queued, Costs(server=[livemail.pid])),
        )
        for number in range(runs + 1):
            for figures, smtp, domain, messages, queued, costs in turns:
                before, cpu, began = queued(), children_cpu(), time.monotonic()
                costs.since()
                sent = send(smtp, domain, messages, size)
                seconds = time.monotonic() - began
                cpu = children_cpu() - cpu
                server = costs.since()
                if queued() - before != sent:
                    raise BenchError(f"{queued() - before} messages are queued, {sent} were accepted")
                say(f"bench: {figures.name} run {number}: {messages / seconds:,.0f} messages/s")
                if number:
                    figures.add(sent, seconds, cpu, server)
    title = f"Accept to queue, {size} octets, {len(users())} connections"
    return render(title, "messages/s", ours, peer, 4.0 if size == 4096 else None)
