"""kill -9 while mail is accepted and sent on: nothing acknowledged is lost, and twice goes only what a peer took just before.

The window of a duplicate is stated in `livemail.delivery.queue.runner`: from the peer's 250 to the commit of the settlement, at
most for the attempts that ran.  LIVEMAIL_TEST_QUEUE_KILLS sets the rounds (default 3; the acceptance run uses 20).
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import smtplib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.rig import ROOT, Server, free_offset

ROUNDS = int(os.environ.get("LIVEMAIL_TEST_QUEUE_KILLS", "3"))
CLIENTS = 6
CONNECTIONS = 20
"""[queue] connections: as many attempts may be between the peer's 250 and our commit."""

USER, PASSWORD = "queue@localhost", "kill minus nine"


class Load(threading.Thread):
    """One client that submits until the connection breaks."""

    def __init__(self, server: Server, name: str) -> None:
        super().__init__(daemon=True)
        self.server, self.name_ = server, name
        self.acknowledged: list[tuple[str, str]] = []

    def run(self) -> None:
        with contextlib.suppress(OSError, EOFError, smtplib.SMTPException):
            client = smtplib.SMTP(*self.server.address("submission"), timeout=20)
            client.login(USER, PASSWORD)
            for serial in range(100_000):
                mark = f"{self.name_}.{serial}"
                recipients = [f"u{number}@sink.example" for number in range(1 + serial % 3)]
                client.sendmail(USER, recipients, f"Subject: {mark}\r\n\r\n{'x' * 500}\r\n")
                self.acknowledged += [(mark, one) for one in recipients]


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    port = free_offset() + 2525
    log = tmp_path / "sink.log"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.system.sink", str(port), str(log)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield port, log
        process.kill()


def taken(log: Path) -> collections.Counter[tuple[str, str]]:
    pairs = (line.split() for line in log.read_text().splitlines()) if log.exists() else ()
    return collections.Counter((mark, recipient) for mark, recipient in pairs)


def queued(server: Server) -> int:
    told = server.livemail("queue", "stats", "--json")
    assert told.returncode == 0, told.stderr
    return int(json.loads(told.stdout)["messages"])


def test_nothing_accepted_for_others_is_lost_by_kill_minus_nine(fresh: Server, sink: tuple[int, Path]) -> None:
    port, log = sink
    fresh.start()
    fresh.add_account(USER, PASSWORD)
    fresh.stop()
    fresh.configure(
        delivery={"capture_outbound": False},
        relay={"smarthost": f"127.0.0.1:{port}"},
        queue={"connections": CONNECTIONS, "destination_connections": CONNECTIONS},
    )
    fresh.arguments = ["--config", str(fresh.data.parent / f"{fresh.data.name}.toml")]
    chance = random.Random(int(os.environ.get("LIVEMAIL_TEST_SEED", "4")))
    loads: list[Load] = []
    for round_ in range(ROUNDS):
        fresh.start()
        running = [Load(fresh, f"{round_}.{number}") for number in range(CLIENTS)]
        for load in running:
            load.start()
        time.sleep(chance.uniform(0.3, 2.0))
        fresh.kill()
        for load in running:
            load.join(30)
        loads += running
        report = fresh.livemail("store", "check", "--json")
        assert report.returncode == 0, report.stdout + report.stderr
    fresh.start()
    deadline = time.monotonic() + 120
    while queued(fresh) and time.monotonic() < deadline:
        time.sleep(0.2)
    wanted = [each for load in loads for each in load.acknowledged]
    seen = taken(log)
    assert len(wanted) > 20 * ROUNDS
    assert [each for each in wanted if not seen[each]] == [], "lost"
    doubled = sum(count - 1 for count in seen.values())
    print(f"{len(wanted)} recipients in {ROUNDS} rounds, {doubled} doubled")  # noqa: T201
    # A job has up to three recipients here.
    assert doubled <= ROUNDS * CONNECTIONS * 3
    fresh.stop()
