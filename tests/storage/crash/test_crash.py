"""kill -9 at every step of the write path, and at random: what was acknowledged is there once, whole, and nothing is torn.

A process's death loses no page the kernel has; that the order of the flushes is right as well is what
`test_the_index_commits_only_after_its_contents_are_flushed` looks at.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from livemail.interfaces.storage import Delivery
from livemail.storage import failpoints
from tests.contracts.drive import Pump
from tests.contracts.stores import content, fetch_all
from tests.storage.crash.child import octets_of, open_store

ROOT = Path(__file__).parents[3]
PREFIX = b"Return-Path: <>\r\n"


IN_SEGMENTS = [name for name in failpoints.NAMES if name != "folders-synced"]
IN_FILES = [name for name in failpoints.NAMES if not name.startswith("segment-")]
KINDS = [*((name, "lmdb") for name in IN_SEGMENTS), *((name, "maildir") for name in IN_FILES)]


def start(
    folder: Path, seed: int, point: str = "-", skip: int = 0, rounds: int = 100, kind: str = "lmdb"
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.storage.crash.child", folder / "data", folder / "log", str(seed), str(rounds), point,
         str(skip)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CRASH_STORE": kind},
    )  # fmt: skip


def subject_of(octets: bytes) -> str:
    return octets.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode()


def compare(folder: Path) -> int:
    """Open what the child left and compare it with the log; return how many messages there are."""
    pump = Pump()
    store = open_store(pump, str(folder / "data"))
    try:
        record = pump.wait(store.account_named("a@localhost"))
        assert record is not None
        account = pump.wait(store.account(record.id))
        # In a Maildir the folder may be ahead of the index; it is compared before anybody sees the mailboxes.
        pump.wait(account.mailboxes())
        report = pump.wait(store.check())
        assert report.problems == ()
        inbox = pump.wait(account.mailbox("INBOX"))
        contents = pump.wait(fetch_all(account, inbox.id, contents=True, contents_up_to=1 << 20)).get("contents", [])
    finally:
        pump.wait(store.close())
    found = Counter()
    for octets in contents:
        assert octets.startswith(PREFIX)
        subject = subject_of(octets)
        assert octets[len(PREFIX) :] == octets_of(subject)
        found[subject] += 1
    last = dict(reversed(line.split()) for line in (folder / "log").read_text().splitlines())
    assert {subject for subject, count in found.items() if count > 1} == set()
    assert {subject for subject, what in last.items() if what in {"add", "came"}} - found.keys() == set()
    assert {subject for subject, what in last.items() if what == "gone"} & found.keys() == set()
    assert list((folder / "data" / "store" / "spool").iterdir()) == []
    return len(contents)


@pytest.mark.parametrize(("point", "kind"), KINDS)
def test_a_death_at_any_step_loses_nothing_that_was_acknowledged(tmp_path, point, kind):
    (tmp_path / "log").touch()
    for seed, skip in ((1, 0), (2, 5)):
        child = start(tmp_path, seed, point, skip, kind=kind)
        out, _ = child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL
        # Were the step never reached, the child would have come to its end and said so.
        assert out.split() == [b"working"], point
        compare(tmp_path)


@pytest.mark.parametrize("kind", ["lmdb", "maildir"])
def test_a_death_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path, kind):
    (tmp_path / "log").touch()
    moments = random.Random(7)
    messages = 0
    for seed in range(6):
        child = start(tmp_path, 100 + seed, rounds=100_000, kind=kind)
        assert child.stdout is not None
        assert child.stdout.readline() == b"working\n"
        # Where it dies is the one thing here that is left to the wall clock.
        time.sleep(moments.uniform(0.05, 0.5))
        child.kill()
        child.communicate()
        messages = compare(tmp_path)
    assert messages > 10


def test_the_index_commits_only_after_its_contents_are_flushed(tmp_path):
    seen: list[str] = []
    pump = Pump()
    store = open_store(pump, str(tmp_path))
    (record,) = pump.wait(store.add_accounts([("a@localhost", "")]))
    failpoints.install(seen.append)
    try:
        for number in (1, 7):
            made = pump.wait(content(store, octets_of(f"m-{number}")))
            pump.wait(store.deliver([Delivery(record.id, "INBOX", made)]))
            made.close()
        pump.wait(store.close())
    finally:
        failpoints.install(None)
    first = [name for name in seen if not name.startswith("spool")]
    assert first[: first.index("group-answered") + 1] == [
        "group-begin", "segment-created", "segment-written", "segment-sync", "txn-begun", "txn-operation", "txn-filled",
        "segment-synced", "txn-committed", "segments-removed", "group-answered",
    ]  # fmt: skip
    assert seen.index("spool-sync") < seen.index("segment-renamed")
    assert seen.index("segment-renamed") < len(seen) - 1 - seen[::-1].index("txn-begun")
