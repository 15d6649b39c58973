"""`store check` finds what is wrong with a queue; a long queue costs no more than a short one."""

from __future__ import annotations

import pytest

from livemail.interfaces.queue import ClaimLimits, Fail, Filing, Hold
from livemail.storage.queue.records import (
    CLAIMED,
    COUNTERS,
    COUNTERS_KEY,
    DELIVERED,
    MESSAGE_KEY,
    RECIPIENT_KEY,
    destination_key,
    pack_destination,
    pack_message,
    pack_recipient,
    unpack_destination,
    unpack_message,
    unpack_recipient,
)
from livemail.storage.queue.tables import SortedTable
from tests.contracts.queue_rig import NEVER, QueueDriver
from tests.contracts.rig import MemoryRig
from tests.storage.lmdb_rig import FolderRig


@pytest.fixture
def rig():
    made = MemoryRig()
    driver = QueueDriver(made)
    driver.accept("a@a.example", "b@b.example")
    driver.accept("c@c.example")
    driver.change(Hold(), recipient="b@*")
    driver.claim(1)
    return made


def first(table: SortedTable) -> bytes:
    return next(iter(table.scan(b"")))[0]


def replaced(table: SortedTable, key: bytes, unpack, pack, **fields) -> None:
    import msgspec

    row = table.get(key)
    assert row is not None
    table.put(key, pack(msgspec.structs.replace(unpack(row), **fields)))


TAMPER = {
    "queue-lost": lambda t: t.qdue.delete(first(t.qdue)),
    "queue-due": lambda t: t.qdue.put(first(t.qdue)[:-1] + b"\x09", b"\0"),
    "queue-lease": lambda t: t.qlea.put(RECIPIENT_KEY.pack(77, 0), t.qlea.get(first(t.qlea))),
    "queue-open": lambda t: replaced(t.qmsg, MESSAGE_KEY.pack(1), unpack_message, pack_message, open=1),
    "queue-id": lambda t: t.meta.put(COUNTERS_KEY, COUNTERS.pack(1, *COUNTERS.unpack(t.meta.get(COUNTERS_KEY))[1:])),
    "queue-counters": lambda t: t.meta.put(
        COUNTERS_KEY, COUNTERS.pack(*COUNTERS.unpack(t.meta.get(COUNTERS_KEY))[:-1], 9)
    ),
    "queue-destination": lambda t: replaced(
        t.qdst, destination_key("b.example"), unpack_destination, pack_destination, held=5
    ),
    "queue-turn": lambda t: t.qrdy.delete(first(t.qrdy)),
    "queue-recipient": lambda t: t.qrcp.put(RECIPIENT_KEY.pack(99, 0), t.qrcp.get(first(t.qrcp))),
    "queue-twice": lambda t: replaced(
        t.qrcp, RECIPIENT_KEY.pack(2, 0), unpack_recipient, pack_recipient, state=DELIVERED
    ),
    "content-references": lambda t: t.qmsg.delete(MESSAGE_KEY.pack(2)),
}


@pytest.mark.parametrize("kind", TAMPER)
def test_check_names_what_is_wrong(rig, kind):
    assert rig.wait(rig.store.check()).problems == ()
    TAMPER[kind](rig.store.queue.tables)
    assert kind in {problem.kind for problem in rig.wait(rig.store.check()).problems}


def test_check_names_a_lease_nobody_looks_after(rig):
    rig.clock.seconds += 600 + 601
    (problem,) = rig.wait(rig.store.check()).problems
    assert problem.kind == "queue-lease"
    assert "nobody took it back" in problem.detail


def test_check_names_a_lease_of_another_server(rig):
    rig.store.queue._instance += 1
    (problem,) = rig.wait(rig.store.check()).problems
    assert "a server that is gone" in problem.detail


def test_check_counts_the_queues_references_on_disk(tmp_path):
    rig = FolderRig(tmp_path)
    driver = QueueDriver(rig)
    driver.accept("a@a.example")
    driver.accept("b@b.example")
    assert rig.problems() == []
    with rig.store._environment.begin(write=True) as txn:
        txn.delete(MESSAGE_KEY.pack(1), db=rig.store._tables.qmsg)
    assert {"content-references", "queue-counters"} <= set(rig.problems())
    rig.close()


def test_a_store_opened_after_a_death_has_its_claims_due_again(tmp_path):
    rig = FolderRig(tmp_path)
    driver = QueueDriver(rig)
    driver.accept("a@a.example")
    assert len(driver.claim()) == 1
    rig.reopen()
    assert driver.counts() == {"queued": 1}
    assert len(driver.claim()) == 1
    rig.close()


def test_a_claim_looks_at_no_more_of_a_long_queue_than_of_a_short_one(monkeypatch):
    """Counted, not timed: rows that pass through `scan`."""
    looked = []
    scan = SortedTable.scan

    def counting(self, start):
        for row in scan(self, start):
            looked.append(1)
            yield row

    costs = []
    for size in (50, 5000):
        rig = MemoryRig()
        driver = QueueDriver(rig)
        content = driver.outgoing("x@x.example").content
        import msgspec

        filing = tuple(
            msgspec.structs.replace(driver.outgoing(f"u@d{number % (size // 5)}.example"), content=content)
            for number in range(size)
        )
        rig.wait(driver.queue.accept(Filing((), filing)))
        with monkeypatch.context() as patch:
            patch.setattr(SortedTable, "scan", counting)
            looked.clear()
            claims = rig.wait(driver.queue.claim(ClaimLimits(10, room=2), 600.0))
            assert len(claims.jobs) == 10
        costs.append(len(looked))
    assert costs[1] <= costs[0] + 5


def test_states_have_words():
    from livemail.storage.queue.records import STATES

    assert STATES[CLAIMED] == "claimed"
    driver = QueueDriver(MemoryRig())
    driver.accept("a@a.example")
    driver.change(Fail(NEVER))
    assert driver.counts() == {"failing": 1}
