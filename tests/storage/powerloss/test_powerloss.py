"""The power fails at any step: what a disk may then hold is built, opened and compared with what was acknowledged.

A real workload runs once under a recorder of its writes, flushes and names (`record.c`); states of the disk are built from the
record by rules that promise less than file systems do (`states`), each is opened as at a start and judged (`judge`).  Before
the first acknowledgement there is nothing to lose, but the store must open all the same.

LIVEMAIL_TEST_CRASH_STATES: how many different states, over all (3000); LIVEMAIL_TEST_CRASH_SEED: of workload and choice (1).
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import pytest

from tests.storage.powerloss.judge import complaints, lay_out
from tests.storage.powerloss.record import compiler, make_library, record
from tests.storage.powerloss.states import Disk

STATES = int(os.environ.get("LIVEMAIL_TEST_CRASH_STATES", "3000"))
SEED = int(os.environ.get("LIVEMAIL_TEST_CRASH_SEED", "1"))
AT_A_MOMENT = 2

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler (cc): the recorder cannot be made")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return make_library(tmp_path_factory.mktemp("recorder"))


@pytest.fixture
def memory(tmp_path) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of states are written and flushed."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared, prefix="livemail-test-") as folder:
        yield Path(folder)


def recorded(library: Path, folder: Path, kind: str, *, rounds: int = 12, broken: str = "-", seed: int = SEED) -> Disk:
    """Let the store work; the tree it left stays in ``folder / "left"``."""
    root = folder / "data"
    root.mkdir()
    acks = folder / "acks"
    arguments = ["tests.storage.powerloss.child", str(root), str(seed), str(rounds), kind, broken, str(acks)]
    disk = Disk(record(library, folder, root, arguments, CRASH_WRITER="thread"), root)
    root.rename(folder / "left")
    return disk


def judged(
    disk: Disk, folder: Path, kind: str, count: int, moments: range, *, stop: bool = False
) -> tuple[int, list[str]]:
    """Build and judge ``count`` different states; return how many there were, and what was wrong.  stop: at the first wrong."""
    chosen = random.Random(SEED)
    seen: set[bytes] = set()
    wrong: list[str] = []
    root = folder / "data"
    for _ in range(20):
        for moment in chosen.sample(moments, len(moments)):
            told = disk.told(moment)
            for tree in disk.at(moment).states(AT_A_MOMENT, chosen):
                name = name_of(tree, len(told))
                if name in seen:
                    continue
                seen.add(name)
                root.mkdir()
                lay_out(tree, root)
                wrong += [
                    f"power lost at step {moment}: {what}"
                    for what in complaints(root, kind, told, goes_on=len(seen) % 8 == 0)
                ]
                shutil.rmtree(root)
                if len(seen) >= count or (wrong and stop):
                    return len(seen), wrong
    return len(seen), wrong


def name_of(tree: dict[str, bytes | None], told: int) -> bytes:
    """What tells a state from others: the tree, and how much had been acknowledged."""
    digest = blake2b(b"%d" % told, digest_size=16)
    for name, octets in sorted(tree.items()):
        digest.update(f"\0{name}\0{-1 if octets is None else len(octets)}\0".encode())
        digest.update(octets or b"")
    return digest.digest()


def tree_of(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in root.rglob("*")
        if path.name not in {"lock.mdb", "lock"}
    }


@pytest.mark.parametrize(("kind", "count"), [("lmdb", STATES * 2 // 3), ("maildir", STATES // 3)])
def test_no_state_a_disk_can_be_in_after_a_power_failure_lacks_what_was_acknowledged(library, memory, kind, count):
    disk = recorded(library, memory, kind)
    whole = disk.at(disk.moments).whole()
    # Were a call missed by the recorder, the tree built from the record would be another.
    assert {name: octets for name, octets in whole.items() if not name.endswith(("lock.mdb", "/lock"))} == tree_of(
        memory / "left"
    )
    states, wrong = judged(disk, memory, kind, count, range(disk.moments + 1))
    assert wrong == []
    assert states == count


def test_a_power_failure_while_a_store_is_made_leaves_one_that_opens(library, memory):
    disk = recorded(library, memory, "lmdb", rounds=0)
    states, wrong = judged(disk, memory, "lmdb", STATES // 2, range(disk.acknowledged[0][0] + 1))
    assert wrong == []
    assert states > 100


def test_an_index_that_is_made_in_its_place_is_noticed(library, memory):
    disk = recorded(library, memory, "lmdb", rounds=0, broken="index-made-in-place")
    states, wrong = judged(disk, memory, "lmdb", 3000, range(disk.acknowledged[0][0] + 1), stop=True)
    assert any("does not open" in what for what in wrong), f"{states} states and nothing noticed"


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        ("segment-not-flushed", "lmdb"),
        ("segment-folder-not-flushed", "lmdb"),
        ("index-before-contents", "lmdb"),
        ("spool-not-flushed", "lmdb"),
        ("maildir-file-not-flushed", "maildir"),
        ("maildir-folders-not-flushed", "maildir"),
    ],
)
def test_a_promise_that_is_broken_is_noticed(library, memory, broken, kind):
    disk = recorded(library, memory, kind, broken=broken)
    states, wrong = judged(disk, memory, kind, 600, range(disk.acknowledged[0][0] + 1, disk.moments + 1), stop=True)
    assert wrong, f"{states} states and nothing noticed"
