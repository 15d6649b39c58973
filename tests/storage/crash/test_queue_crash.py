"""kill -9 at every step of the write path, and at random, with a queue at work.

What was accepted is queued or has ended; what has ended is not queued; a report is there if and only if its failure is recorded; what
was claimed is due again; the copies in the mailbox and the messages in the queue are of the same commits.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from livemail.interfaces.queue import START, Choice
from livemail.storage import failpoints
from tests.contracts.drive import Pump
from tests.storage.crash.child import octets_of, open_store

ROOT = Path(__file__).parents[3]


def start(folder: Path, seed: int, point: str = "-", skip: int = 0, rounds: int = 60) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.storage.crash.queue_child", folder / "data", folder / "log", str(seed), str(rounds),
         point, str(skip)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


async def read_queue(store) -> dict[int, tuple[str, dict[int, str]]]:
    """Subject and state by recipient of every message."""
    every = frozenset(["queued", "deferred", "claimed", "held", "failing", "delivered", "failed"])
    found: dict[int, tuple[str, dict[int, str]]] = {}
    after: Any = START
    while after is not None:
        page = await store.queue.find(Choice(states=every), after, 1000)
        for message in page.messages:
            reader = await store.queue.open_content(message.id)
            octets = await reader.read(0, reader.size)
            reader.close()
            subject = octets.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode()
            assert octets.removeprefix(b"X: y\r\n") == octets_of(subject)
            found[message.id] = (subject, {one.number: one.state for one in message.recipients})
        after = page.after
    return found


def compare(folder: Path, seed: int) -> int:
    """Open what the child left and compare it with the log; return how many messages had been accepted."""
    pump = Pump()
    store = open_store(pump, str(folder / "data"))
    try:
        assert pump.wait(store.check()).problems == ()
        there = pump.wait(read_queue(store))
        stats = pump.wait(store.queue.stats())
        record = pump.wait(store.account_named("a@localhost"))
        inbox = pump.wait(pump.wait(store.account(record.id)).mailbox("INBOX"))
    finally:
        pump.wait(store.close())
    assert stats.recipients["claimed"] == 0
    accepted: dict[int, int] = {}
    going: dict[tuple[int, int], str] = {}
    ended = set()
    for line in (folder / "log").read_text().splitlines():
        what, id_, number, *more = line.split()
        if what == "accepted":
            accepted[int(id_)] = int(number)
        elif what == "going":
            going[int(id_), int(number)] = more[0]
        else:
            ended.add((int(id_), int(number)))
    still = {
        (id_, number)
        for id_, (_, states) in there.items()
        for number, state in states.items()
        if state not in {"delivered", "failed"}
    }
    everyone = {(id_, number) for id_, count in accepted.items() for number in range(count)}
    assert everyone - still - going.keys() == set(), "lost"
    assert still & ended == set(), "would be sent again although it had been settled"
    reports = {subject for subject, _ in there.values() if subject.startswith("r")}
    for one in going.keys() - ended:
        # Nobody heard of this commit: whatever it did, it did whole.
        if going[one].startswith(f"r{seed}-") and list(going.values()).count(going[one]) == 1:
            assert (going[one] in reports) == (one not in still), "a failure without its report, or a report without it"
    assert inbox.exists >= len(accepted)
    return len(accepted)


ELSEWHERE = {"folders-synced"}
"""Steps that only Maildirs take."""


@pytest.mark.parametrize("point", [name for name in failpoints.NAMES if name not in ELSEWHERE])
def test_a_death_at_any_step_leaves_the_queue_before_or_after_it(tmp_path, point):
    (tmp_path / "log").touch()
    for seed, skip in ((1, 0), (2, 9)):
        child = start(tmp_path, seed, point, skip)
        out, _ = child.communicate(timeout=120)
        assert child.returncode == -signal.SIGKILL
        # Were the step never reached, the child would have come to its end and said so.
        assert out.split() == [b"working"], point
        compare(tmp_path, seed)


def test_a_death_at_any_moment_leaves_the_queue_before_or_after_a_step(tmp_path):
    (tmp_path / "log").touch()
    moments = random.Random(5)
    for seed in range(6):
        child = start(tmp_path, 100 + seed, rounds=100_000)
        assert child.stdout is not None
        assert child.stdout.readline() == b"working\n"
        # Where it dies is the one thing here that is left to the wall clock.
        time.sleep(moments.uniform(0.05, 0.5))
        child.kill()
        child.communicate()
        compare(tmp_path, 100 + seed)
