"""kill -9 during load: every acknowledged message is there exactly once, none is torn, the store is clean, start is quick.

Killed is in turn everything at once, the server alone, whose writer then finishes by itself, and the writer alone, which the
server replaces.  LIVEMAIL_TEST_KILLS sets the rounds (default 4; the acceptance run uses 20).
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import re
import signal
import statistics
import threading
import time

from tests.system.mail import deliver, digest, fetch_all, imap, smtp
from tests.system.rig import Server

ROUNDS = int(os.environ.get("LIVEMAIL_TEST_KILLS", "4"))
CLIENTS = 6
ACCOUNTS = [f"kill{number}@localhost" for number in range(3)]
PASSWORD = "kill minus nine"


class Load(threading.Thread):
    """One client that sends until the connection breaks; notes what was sent and what was acknowledged."""

    def __init__(self, server: Server, number: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.server, self.chance, self.name_ = server, random.Random(seed), f"{seed}.{number}"
        self.acknowledged: list[tuple[str, str]] = []
        self.in_flight: tuple[str, str] | None = None
        self.sent: dict[str, str] = {}

    def run(self) -> None:
        with contextlib.suppress(OSError, EOFError, Exception):
            client = smtp(self.server)
            client.ehlo()
            for serial in range(100_000):
                mark = f"{self.name_}.{serial}"
                body = b"Subject: %b\r\n\r\n%b\r\n" % (
                    mark.encode(),
                    b"0123456789" * self.chance.choice((3, 40, 400, 40_000)),
                )
                account = ACCOUNTS[serial % len(ACCOUNTS)]
                self.sent[mark] = digest(body)
                self.in_flight = (account, mark)
                code, _ = deliver(client, account, body)
                if code == 250:
                    self.acknowledged.append((account, mark))
                self.in_flight = None


def _verify(server: Server, loads: list[Load]) -> int:
    """Every acknowledged message once, every message whole; returns how many there are."""
    sent = {mark: wanted for load in loads for mark, wanted in load.sent.items()}
    total = 0
    for account in ACCOUNTS:
        session = imap(server, account, PASSWORD)
        seen: collections.Counter[str] = collections.Counter()
        for octets in fetch_all(session).values():
            found = re.search(rb"^Subject: (\S+)\r\n", octets, re.MULTILINE)
            assert found is not None
            mark = found[1].decode()
            seen[mark] += 1
            assert digest(octets[found.start() :]) == sent[mark], f"{mark} is torn"
        session.logout()
        wanted = [mark for load in loads for to, mark in load.acknowledged if to == account]
        assert [mark for mark in wanted if seen[mark] != 1] == []
        total += sum(seen.values())
    return total


def _kill(server: Server, victim: str) -> None:
    if victim == "server":
        os.kill(server.pid, signal.SIGKILL)
        assert server.process is not None
        server.process.wait()
        return
    if victim == "writer":
        [writer] = [pid for pid in server.processes() if pid != server.pid]
        os.kill(writer, signal.SIGKILL)
        time.sleep(0.5)  # for some more load on the one that takes its place
        # The whole log: under load the end of it is about deliveries.
        assert f"the writer process {writer} was killed by signal 9" in server.log.read_text(errors="replace")
    server.kill()


def test_nothing_acknowledged_is_lost_or_doubled_by_kill_minus_nine(fresh: Server) -> None:
    fresh.start()
    for account in ACCOUNTS:
        fresh.add_account(account, PASSWORD)
    loads: list[Load] = []
    restarts: list[tuple[float, float]] = []
    chance = random.Random(int(os.environ.get("LIVEMAIL_TEST_SEED", "20")))
    for round_ in range(ROUNDS):
        running = [Load(fresh, number, round_) for number in range(CLIENTS)]
        for load in running:
            load.start()
        time.sleep(chance.uniform(0.3, 1.5))
        _kill(fresh, ("everything", "server", "writer")[round_ % 3])
        for load in running:
            load.join(30)
        loads += running
        report = fresh.livemail("store", "check", "--json")
        assert report.returncode == 0, report.stdout + report.stderr
        assert json.loads(report.stdout)["problems"] == []
        restarts.append((fresh.start(), fresh.processor_seconds()))
        count = _verify(fresh, loads)
        assert count >= sum(len(load.acknowledged) for load in loads) > 0
    assert not list(fresh.data.glob("**/spool/*")), "spool files were left behind"
    acknowledged = sum(len(load.acknowledged) for load in loads)
    print(acknowledged, "acknowledged,", count, "there; restarts by the clock and in the processors:", restarts)  # noqa: T201
    # By the processors' time: how long others make it wait says nothing about the program.
    assert statistics.median(used for _, used in restarts) < 2, restarts
