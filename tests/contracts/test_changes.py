"""The storage contract: the change feed, and what changed since."""

from __future__ import annotations

import pytest

from livemail.interfaces.storage import AppendItem
from livemail.mail.changes import Added, Expunged, FlagsChanged
from livemail.mail.errors import CannotCalculate
from livemail.mail.flags import DELETED, SEEN, FlagChange
from livemail.mail.ids import UIDSet
from tests.contracts.stores import Recorder

ALL = UIDSet.all()


def test_listeners_hear_every_change_before_the_call_returns_with_its_origin(rig, account):
    other = rig.handle(account.id)
    heard = Recorder()
    watch = other.watch(heard)
    inbox, sent = rig.info(account), rig.info(account, "Sent")
    told: list = []

    def last():
        new = heard.calls[len(told) :]
        told.extend(new)
        assert len(new) == 1
        modseq, origin, changes = new[0]
        assert all(change.modseq == modseq for change in changes)
        return origin, [(type(c), c.mailbox, getattr(c, "uids", None) or c.rows) for c in changes]

    rig.append(account, "INBOX", b"1", b"2")
    assert last() == (account, [(Added, inbox.id, (1, 2))])
    rig.deliver(account)
    assert last() == (None, [(Added, inbox.id, (3,))])
    rig.wait(account.store(inbox.id, UIDSet.of([1, 3]), FlagChange("add", DELETED, ("k",))))
    assert last() == (account, [(FlagsChanged, inbox.id, ((1, DELETED, 1), (3, DELETED, 1)))])
    assert heard.changes[-1].keywords == ("k",)
    rig.wait(account.copy(inbox.id, UIDSet.of([1]), "Sent"))
    assert last() == (account, [(Added, sent.id, (1,))])
    rig.wait(other.move(inbox.id, UIDSet.of([1]), "Sent"))
    origin, moved = last()
    assert origin is other
    assert sorted(moved, key=str) == sorted([(Added, sent.id, (2,)), (Expunged, inbox.id, UIDSet.of([1]))], key=str)
    rig.wait(account.expunge(inbox.id, None))
    assert last() == (account, [(Expunged, inbox.id, UIDSet.of([3]))])
    modseqs = [modseq for modseq, _, _ in heard.calls]
    assert modseqs == sorted(set(modseqs))
    watch.stop()
    watch.stop()
    rig.deliver(account)
    assert len(heard.calls) == len(told)


def test_what_changes_nothing_is_not_told(rig, account):
    rig.append(account, "INBOX", b"1", flags=SEEN)
    heard = Recorder()
    account.watch(heard)
    box = rig.info(account).id
    rig.wait(account.store(box, ALL, FlagChange("add", SEEN)))
    rig.wait(account.store(box, ALL, FlagChange("add", DELETED), 0))
    rig.wait(account.expunge(box, None))
    rig.wait(account.select("INBOX", True))
    rig.wait(account.append("INBOX", []))
    rig.wait(account.subscribe("INBOX", True))
    assert heard.calls == []


def test_only_rows_that_changed_are_told(rig, account):
    rig.append(account, "INBOX", b"1", flags=SEEN)
    rig.append(account, "INBOX", b"2")
    heard = Recorder()
    account.watch(heard)
    rig.wait(account.store(rig.info(account).id, ALL, FlagChange("add", SEEN)))
    assert [change.rows for change in heard.changes] == [((2, SEEN, 0),)]


def test_a_listener_that_raises_or_stops_another_harms_nobody(rig, account):
    class Raising(Recorder):
        def changed(self, modseq, origin, changes):
            raise RuntimeError("a listener of a test")

    class Stopping(Recorder):
        def changed(self, modseq, origin, changes):
            victim.stop()

    silenced, heard = Recorder(), Recorder()
    account.watch(Stopping())
    victim = account.watch(silenced)
    account.watch(Raising())
    account.watch(heard)
    rig.deliver(account)
    assert silenced.calls == []
    assert len(heard.calls) == 1


def test_changes_names_what_changed_and_what_vanished(rig, account):
    rig.append(account, "INBOX", *[b"x"] * 5)
    box, then = rig.info(account).id, rig.info(account).highest_modseq
    rig.wait(account.store(box, UIDSet.of([2, 4]), FlagChange("add", SEEN)))
    middle = rig.info(account).highest_modseq
    rig.wait(account.expunge(box, UIDSet.of([1, 4]), only_deleted=False))
    rig.wait(account.move(box, UIDSet.of([5]), "Sent"))
    rig.deliver(account)
    found = rig.wait(account.changes(box, then))
    assert (found.changed, found.vanished) == (UIDSet.of([2, 6]), UIDSet.of([1, 4, 5]))
    found = rig.wait(account.changes(box, middle))
    assert (found.changed, found.vanished) == (UIDSet.of([6]), UIDSet.of([1, 4, 5]))
    assert found.modseq >= rig.info(account).highest_modseq
    rig.deliver(account, "Sent")
    found = rig.wait(account.changes(box, rig.info(account).highest_modseq))
    assert (found.changed, found.vanished) == (UIDSet(), UIDSet())


def test_changes_older_than_what_is_remembered_cannot_be_calculated(make_rig):
    rig = make_rig(expunge_rows=3, change_rows=3)
    account = rig.new_account()
    made, count = rig.content(b"x"), 300  # far past where a back end that forgets in bulk must have begun
    rig.wait(account.append("INBOX", [AppendItem(made)] * (count + 1)))
    box, start = rig.info(account).id, rig.info(account).highest_modseq
    rig.pump.gather([account.expunge(box, UIDSet.of([uid]), only_deleted=False) for uid in range(1, count - 1)])
    modseqs = []
    for uid in (count - 1, count):
        modseqs.append(rig.info(account).highest_modseq)
        rig.wait(account.expunge(box, UIDSet.of([uid]), only_deleted=False))
    assert rig.wait(account.changes(box, modseqs[1])).vanished == UIDSet.of([count])
    assert rig.wait(account.changes(box, modseqs[0])).vanished == UIDSet([(count - 1, count)])
    with pytest.raises(CannotCalculate):
        rig.wait(account.changes(box, start))
    then = rig.info(account).highest_modseq
    rig.wait(account.store(box, UIDSet.of([count + 1]), FlagChange("add", SEEN)))
    assert rig.wait(account.changes(box, then)).changed == UIDSet.of([count + 1])


def test_modseqs_are_one_sequence_over_all_mailboxes(rig, account):
    seen = [rig.info(account).highest_modseq]
    for name in ("INBOX", "Sent", "INBOX", "Trash"):
        rig.deliver(account, name)
        seen.append(rig.info(account, name).highest_modseq)
    seen.append(rig.wait(account.create_mailbox("new")).highest_modseq)
    assert seen == sorted(set(seen))
