"""The storage contract, by a state machine: random commands on a store and on the model, compared after every step."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from livemail.interfaces.storage import EMAIL_ID, AppendItem, Delivery
from livemail.mail.flags import FlagChange
from livemail.mail.ids import UIDSet
from tests.contracts.model import Model
from tests.contracts.rig import EXAMPLES, RIGS
from tests.contracts.stores import fetch_all, message
from tests.contracts.view import View

names = st.sampled_from(["INBOX", "Sent", "a", "a/b", "a/b/c", "b", "INBOX/x", "ä/ö", "a b"])
flags = st.integers(0, 31)
keywords = st.sets(st.sampled_from(["work", "Work", "$Junk", "x", "y"]), max_size=2)
uid_sets = st.one_of(
    st.just([(1, 2**32 - 1)]),
    st.lists(st.tuples(st.integers(1, 15), st.integers(1, 15)), max_size=3),
)
bodies = st.one_of(
    st.binary(max_size=40), st.sampled_from([message("x"), message("y", message_id="<y@x>"), b"\r\n" * 9])
)


def members(ranges):
    return {uid for a, b in ranges for uid in range(min(a, b), min(max(a, b), 500) + 1)}


class StoreMachine(RuleBasedStateMachine):
    """rig: set by the test; one store for all examples, an account for each."""

    rig = None

    @initialize()
    def begin(self):
        self.account = self.rig.new_account()
        self.model = Model()
        self.view = View()
        self.watch = self.rig.wait(self.view.start(self.account))
        self.uid_validities = {}
        self.emails = {}
        self.stamp()

    def teardown(self):
        if hasattr(self, "account"):
            self.watch.stop()
            self.rig.wait(self.rig.store.remove_account(self.account.name))

    def info(self, name):
        return self.rig.info(self.account, name)

    def both(self, coroutine, method, *args, **kwargs):
        """Run a command on both sides; return (result, expected), None when both refuse it alike."""
        expected = self.model.outcome(method, *args, **kwargs)
        if isinstance(expected, type):
            with pytest.raises(expected):
                self.rig.wait(coroutine)
            return None
        result = self.rig.wait(coroutine)
        self.stamp()
        return result, expected

    def stamp(self):
        """Take the new ModSeqs from the store, in their order."""
        listed = {box.name: box for box in self.rig.wait(self.account.mailboxes()).mailboxes}
        assert sorted(listed) == sorted(self.model.boxes) == list(listed)
        moved = [box for name, box in listed.items() if box.highest_modseq != self.model.boxes[name].highest]
        for box in sorted(moved, key=lambda each: each.highest_modseq):
            self.model.stamp(self.model.boxes[box.name], box.highest_modseq)
        assert all(m.modseq for m in self.model.touched), "a change without ModSeq"
        assert all(uid in {gone for gone, _ in box.gone} for box, uid in self.model.expunged), (
            "an expunge without ModSeq"
        )
        self.model.done()

    # ----------------------------------------------------------------------------------------------------- mailboxes

    @rule(name=names)
    def create(self, name):
        made = self.both(self.account.create_mailbox(name), "create", name)
        if made:
            assert made[0].name == name

    @rule(name=names)
    def delete(self, name):
        self.both(self.account.delete_mailbox(name), "delete", name)

    @rule(old=names, new=names)
    def rename(self, old, new):
        self.both(self.account.rename_mailbox(old, new), "rename", old, new)

    @rule(name=names, wish=st.booleans())
    def subscribe(self, name, wish):
        self.both(self.account.subscribe(name, wish), "subscribe", name, wish)

    # ------------------------------------------------------------------------------------------------------ messages

    @rule(
        name=names,
        octets=st.lists(bodies, min_size=1, max_size=3),
        flags=flags,
        keywords=keywords,
        zone=st.integers(-720, 840),
    )
    def append(self, name, octets, flags, keywords, zone):
        contents = [self.rig.content(each) for each in octets]
        items = [AppendItem(each, flags, tuple(sorted(keywords)), zone * 1000, zone) for each in contents]
        call = self.account.append(name, items)
        if name not in self.model.boxes:
            self.both(call, "box", name)
            return
        expected = [self.model.add(name, each, flags, keywords, zone * 1000, zone) for each in octets]
        appended = self.rig.wait(call)
        self.stamp()
        assert (list(appended.uids), appended.mailbox) == (expected, self.info(name).id)

    @rule(
        name=names,
        others=st.lists(names, max_size=2),
        octets=bodies,
        prefix=st.sampled_from([b"", b"P: q\r\n"]),
        flags=flags,
    )
    def deliver(self, name, others, octets, prefix, flags):
        made = self.rig.content(octets)
        for each in [name, *others]:
            if each not in self.model.boxes:
                self.model.create(each)
        batch = [Delivery(self.account.id, each, made, prefix, flags, 77) for each in [name, *others]]
        uids = [self.model.add(each, prefix + octets, flags, set(), 77, 0) for each in [name, *others]]
        results = self.rig.wait(self.rig.store.deliver(batch))
        assert [each.uid for each in results] == uids
        # The copies of one batch may have one ModSeq or one each: the rows say which.
        listed = {box.name: box for box in self.rig.wait(self.account.mailboxes()).mailboxes}
        for added in self.model.touched:
            box = next(box for box in self.model.boxes.values() if added in box.messages)
            (row,) = self.rig.rows(self.account, box.name, UIDSet.of([added.uid]))
            assert self.model.highest < row[3] <= listed[box.name].highest_modseq
            added.modseq = row[3]
        kept, self.model.touched = self.model.touched, []
        self.stamp()
        assert max(m.modseq for m in kept) <= self.model.highest

    @rule(
        name=names,
        ranges=uid_sets,
        op=st.sampled_from(["add", "remove", "replace"]),
        flags=flags,
        keywords=keywords,
        back=st.one_of(st.none(), st.none(), st.integers(0, 6)),
    )
    def store(self, name, ranges, op, flags, keywords, back):
        if name not in self.model.boxes:
            return
        since = None if back is None else max(0, self.model.highest - back)
        box = self.info(name).id
        call = self.account.store(box, UIDSet(ranges), FlagChange(op, flags, tuple(sorted(keywords))), since)
        stored, (allowed, refused) = self.both(call, "store", name, members(ranges), op, flags, keywords, since)
        assert [each[0] for each in stored.changed] == allowed
        assert set(stored.modified) == refused

    @rule(name=names, ranges=uid_sets, to=names, is_move=st.booleans())
    def transfer(self, name, ranges, to, is_move):
        if name not in self.model.boxes:
            return
        box = self.info(name).id
        call = (self.account.move if is_move else self.account.copy)(box, UIDSet(ranges), to)
        outcome = self.both(call, "transfer", name, members(ranges), to, is_move=is_move)
        if outcome:
            copied, pairs = outcome
            assert list(zip(copied.source, copied.target, strict=True)) == pairs

    @rule(name=names, ranges=st.one_of(st.none(), uid_sets), only_deleted=st.booleans())
    def expunge(self, name, ranges, only_deleted):
        if name not in self.model.boxes:
            return
        chosen = None if ranges is None else members(ranges)
        call = self.account.expunge(self.info(name).id, None if ranges is None else UIDSet(ranges), only_deleted)
        removed, expected = self.both(call, "expunge", name, chosen, only_deleted=only_deleted)
        assert set(removed) == expected

    @rule(pick=st.integers(0, 9), count=st.integers(1, 3), into=names)
    def undelete(self, pick, count, into):
        kept = self.rig.wait(self.account.deleted())
        assert Counter(
            (each.mailbox, each.uid, each.flags, frozenset(word.lower() for word in each.keywords), each.size)
            for each in kept
        ) == Counter((name, m.uid, m.flags, m.keywords, len(m.octets)) for name, m in self.model.kept)
        if not kept:
            return
        chosen = kept[pick % len(kept) :][:count]
        back = self.rig.wait(self.account.undelete([each.key for each in chosen], into))
        assert [key for key, _ in back] == [each.key for each in chosen]
        for (_, uid), each in zip(back, chosen, strict=True):
            (row,) = self.rig.rows(self.account, into, UIDSet.of([uid]))
            (one,) = [
                (name, m)
                for name, m in self.model.kept
                if (name, m.uid, self.emails[m.origin]) == (each.mailbox, each.uid, row[EMAIL_ID])
            ]
            assert self.model.take_back(one, into) == uid
        self.stamp()

    # --------------------------------------------------------------------------------------------------- looking

    @rule(name=names, claims=st.booleans())
    def select(self, name, claims):
        if name not in self.model.boxes:
            return
        selected = self.rig.wait(self.account.select(name, claims))
        box = self.model.boxes[name]
        assert list(selected.uids) == [m.uid for m in box.messages]
        assert selected.info.recent_from == box.recent_from
        assert selected.first_unseen == next((at for at, m in enumerate(box.messages, 1) if not m.flags & 1), 0)
        if claims:
            box.recent_from = box.uid_next

    @rule(name=names, back=st.integers(0, 12))
    def changes(self, name, back):
        if name not in self.model.boxes:
            return
        since = max(0, self.model.highest - back)
        found = self.rig.wait(self.account.changes(self.info(name).id, since))
        assert (set(found.changed), set(found.vanished)) == self.model.changes(name, since)

    @precondition(lambda self: self.rig is not None and self.rig.is_durable)
    @rule()
    def reopen(self):
        self.rig.reopen()
        self.account = self.rig.handle(self.account.id)
        self.view = View()
        self.watch = self.rig.wait(self.view.start(self.account))

    @invariant()
    def store_and_model_agree(self):
        if not hasattr(self, "model"):
            return
        listed = self.rig.wait(self.account.mailboxes())
        assert listed.subscribed == self.model.subscribed
        origins = {}
        for info in listed.mailboxes:
            box = self.model.boxes[info.name]
            assert (info.exists, info.unseen, info.deleted, info.size) == box.counters()
            assert (info.uid_next, info.recent_from, info.special_use) == (
                box.uid_next,
                box.recent_from,
                box.special_use,
            )
            assert info.highest_modseq == box.highest
            assert self.uid_validities.setdefault(info.id, info.uid_validity) == info.uid_validity
            columns = self.rig.wait(fetch_all(self.account, info.id, contents=True))
            names = [name.lower() for name in columns.get("keywords", ())]
            assert len(set(names)) == len(names)
            assert [
                (r[0], r[1], frozenset(n for bit, n in enumerate(names) if r[2] >> bit & 1), *r[3:7])
                for r in columns["rows"]
            ] == [(m.uid, m.flags, m.keywords, m.modseq, m.date, m.zone, len(m.octets)) for m in box.messages]
            assert columns.get("contents", []) == [m.octets for m in box.messages]
            for row, m in zip(columns["rows"], box.messages, strict=True):
                assert origins.setdefault(m.origin, row[9]) == row[9]
        assert len(set(origins.values())) == len(origins)
        self.emails |= origins
        assert len(set(self.uid_validities.values())) == len(self.uid_validities)
        assert self.rig.wait(self.view.differences(self.account)) == []


@pytest.mark.parametrize("name", RIGS)
def test_a_store_agrees_with_the_model(name):
    rig = RIGS[name]()
    machine = type("Machine", (StoreMachine,), {"rig": rig})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES or (60 if name == "memory" else 25),
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )
        report = rig.wait(rig.store.check())
    finally:
        rig.close()
    assert report.problems == ()
    assert report.messages == 0
