"""The view: what one client has been told, and when it may be told more."""

from __future__ import annotations

from array import array

import pytest

from livemail.imap.sequence import SequenceSet
from livemail.imap.view import View
from livemail.interfaces.storage import MailboxInfo, Selected
from livemail.mail.changes import Added, Expunged, FlagsChanged, MailboxDeleted, MailboxRenamed
from livemail.mail.errors import WireError
from livemail.mail.flags import DELETED, FLAGGED, SEEN
from livemail.mail.ids import AccountId, MailboxId, UIDSet

BOX = MailboxId(7)
assert AccountId


def make_view(uids=(1, 2, 3, 5, 8), *, recent_from=100, uid_next=None, read_only=False, claim=None):
    info = MailboxInfo(
        id=BOX, name="INBOX", special_use="", uid_validity=1, uid_next=uid_next or (uids[-1] + 1 if uids else 1),
        exists=len(uids), unseen=0, deleted=0, size=0, highest_modseq=10, recent_from=recent_from, keywords=("old",),
    )  # fmt: skip
    return View(Selected(info=info, uids=array("I", uids), first_unseen=0), read_only=read_only, claim=claim)


def flush(view, *, expunge=True, condstore=False):
    out = []
    view.flush(out.append, expunge=expunge, condstore=condstore)
    assert len(out) <= 1, "one write"
    return b"".join(out).decode().splitlines()


def of(*uids):
    return UIDSet.of(uids)


def test_nothing_new_is_nothing_said():
    view = make_view()
    assert flush(view) == []


def test_new_messages_are_told_by_one_exists_and_as_recent():
    view = make_view()
    view.notice([Added(BOX, 11, (9,)), Added(BOX, 12, (10, 11))], own=False)
    assert view.sequence_number(9) is None, "not before the client was told"
    assert flush(view, expunge=False) == ["* 8 EXISTS", "* 3 RECENT"]
    assert view.sequence_number(11) == 8


def test_expunge_waits_until_it_is_allowed_and_numbers_stay_meanwhile():
    view = make_view()
    view.notice([Expunged(BOX, 11, of(2, 5)), Added(BOX, 12, (9,))], own=False)
    assert flush(view, expunge=False) == ["* 6 EXISTS", "* 1 RECENT"]
    assert view.sequence_number(8) == 5
    assert flush(view) == ["* 4 EXPUNGE", "* 2 EXPUNGE"]
    assert list(view.uids) == [1, 3, 8, 9]
    assert flush(view) == []


def test_many_expunges_renumber_as_few_do():
    view = make_view(tuple(range(1, 101)))
    view.notice([Expunged(BOX, 11, UIDSet([(10, 60), (99, 99)]))], own=False)
    lines = flush(view)
    told = list(range(1, 101))
    for line in lines:
        del told[int(line.split()[1]) - 1]
    assert told == list(view.uids) == [*range(1, 10), *range(61, 99), 100]


def test_a_message_that_came_and_went_unseen_is_never_told():
    view = make_view()
    view.notice([Added(BOX, 11, (9, 10)), Expunged(BOX, 12, of(9, 10))], own=False)
    assert flush(view) == []


def test_flags_are_told_once_with_the_last_value():
    view = make_view()
    rows = [
        FlagsChanged(BOX, 11, ((2, SEEN, 0),), ("old",)),
        FlagsChanged(BOX, 12, ((2, SEEN | FLAGGED, 1),), ("old",)),
    ]
    view.notice(rows, own=False)
    assert flush(view, condstore=True) == [r"* 2 FETCH (UID 2 FLAGS (\Flagged \Seen old) MODSEQ (12))"]
    assert flush(view) == []


def test_flags_of_a_message_not_told_yet_follow_its_exists():
    view = make_view()
    view.notice([Added(BOX, 11, (9,)), FlagsChanged(BOX, 12, ((9, SEEN, 0),), ("old",))], own=False)
    assert flush(view) == ["* 6 EXISTS", "* 1 RECENT", r"* 6 FETCH (UID 9 FLAGS (\Seen \Recent))"]


def test_a_new_keyword_is_announced_before_it_is_used():
    view = make_view()
    view.notice([FlagsChanged(BOX, 11, ((1, 0, 2),), ("old", "new"))], own=False)
    lines = flush(view)
    assert lines[0] == r"* FLAGS (\Answered \Flagged \Deleted \Seen \Draft old new)"
    assert lines[1].startswith(r"* OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft old new \*)]")
    assert lines[2] == "* 1 FETCH (UID 1 FLAGS (new))"


def test_silence_hides_the_own_change_but_not_somebody_elses():
    view = make_view()
    view.notice([FlagsChanged(BOX, 11, ((1, FLAGGED, 0),), ("old",))], own=False)
    view.notice([FlagsChanged(BOX, 12, ((1, FLAGGED | SEEN, 0), (2, SEEN, 0)), ("old",))], own=True)
    view.silence([1, 2], 12)
    assert flush(view) == [r"* 1 FETCH (UID 1 FLAGS (\Flagged \Seen))"]


def test_silence_does_not_reach_later_changes():
    view = make_view()
    view.notice(
        [FlagsChanged(BOX, 12, ((1, SEEN, 0),), ("old",)), FlagsChanged(BOX, 13, ((1, DELETED, 0),), ())], own=True
    )
    view.silence([1], 12)
    assert flush(view) == [r"* 1 FETCH (UID 1 FLAGS (\Deleted))"]


def test_changes_the_snapshot_holds_already_are_ignored():
    view = make_view()
    view.notice([Added(BOX, 10, (8,)), FlagsChanged(BOX, 9, ((1, SEEN, 0),), ()), Expunged(BOX, 3, of(1))], own=False)
    assert flush(view) == []


def test_changes_told_twice_do_nothing_the_second_time():
    view = make_view()
    for _ in range(2):
        view.notice([Added(BOX, 11, (9,)), Expunged(BOX, 12, of(1))], own=False)
        flush(view)
    assert list(view.uids) == [2, 3, 5, 8, 9]


def test_other_mailboxes_are_not_this_ones_business():
    view = make_view()
    view.notice([Added(MailboxId(8), 11, (9,)), MailboxDeleted(MailboxId(8), 12, "x")], own=False)
    assert flush(view) == []
    assert not view.is_gone


def test_a_deleted_mailbox_empties_and_a_renamed_one_stays():
    view = make_view()
    view.notice([MailboxRenamed(BOX, 11, "INBOX", "other")], own=False)
    assert view.name == "other"
    view.notice([Added(BOX, 12, (9,)), MailboxDeleted(BOX, 13, "other")], own=False)
    assert flush(view, expunge=False) == []
    assert flush(view) == [f"* {n} EXPUNGE" for n in (5, 4, 3, 2, 1)]
    assert view.is_gone


@pytest.mark.parametrize(
    ("text", "uids"),
    [
        (b"1:3", (1, 2, 3)), (b"3:4", (3, 5)), (b"*", (8,)), (b"2:*", (2, 3, 5, 8)), (b"*:4", (5, 8)),
        (b"5,1,5", (1, 8)), (b"4:1", (1, 2, 3, 5)),
    ],
)  # fmt: skip
def test_sequence_numbers_resolve_to_told_messages(text, uids):
    view = make_view()
    found = view.uid_set(SequenceSet.parse(text), uid=False)
    assert tuple(found.select(view.uids)) == uids


@pytest.mark.parametrize("text", [b"6", b"1:6", b"6:*", b"4294967295"])
def test_a_number_above_the_last_message_is_bad(text):
    with pytest.raises(WireError):
        make_view().uid_set(SequenceSet.parse(text), uid=False)
    with pytest.raises(WireError):
        make_view(()).uid_set(SequenceSet.parse(b"*"), uid=False)


def test_search_ignores_numbers_above_the_last_message():
    found = make_view().uid_set(SequenceSet.parse(b"4:9,12"), uid=False, strict=False)
    assert tuple(found.select(make_view().uids)) == (5, 8)
    assert not make_view(()).uid_set(SequenceSet.parse(b"1:*"), uid=False, strict=False)


@pytest.mark.parametrize(
    ("text", "uids"),
    [(b"1:*", (1, 2, 3, 5, 8)), (b"4", ()), (b"9:*", (8,)), (b"*:9", (8,)), (b"9:12", ()), (b"4:4294967295", (5, 8)),
     (b"*", (8,))],
)  # fmt: skip
def test_uids_resolve_and_those_not_told_are_left_out(text, uids):
    view = make_view()
    view.notice([Added(BOX, 11, (9,))], own=False)
    found = view.uid_set(SequenceSet.parse(text), uid=True)
    assert 9 not in found
    assert tuple(found.select(view.uids)) == uids
    assert not make_view(()).uid_set(SequenceSet.parse(text), uid=True)


def test_a_contiguous_batch_gets_its_numbers_as_a_range():
    view = make_view()
    assert view.numbers([2, 3, 5]) == range(2, 5)
    assert view.numbers([1, 2, 3, 5, 8]) == range(1, 6)
    assert view.numbers([2, 5]) is None
    assert view.numbers([5, 8, 9]) is None


def test_recent_is_claimed_when_messages_are_told():
    asked = []
    view = make_view(recent_from=5, uid_next=12, claim=lambda view, up_to: asked.append(up_to))
    assert view.recent == 2
    assert view.recent_in(1, 3) is False
    assert view.recent_in(5, 8) is True
    assert view.recent_in(3, 5) is None
    view.notice([Added(BOX, 11, (12, 13))], own=False)
    assert asked == []
    assert flush(view) == ["* 7 EXISTS"]
    assert asked == [14]
    view.claimed(13, 14)  # another session had the 12
    assert flush(view) == ["* 3 RECENT"]
    assert view.is_recent(13)
    assert not view.is_recent(12)


def test_expunging_a_recent_message_does_not_say_recent_again():
    view = make_view(recent_from=5)
    view.notice([Expunged(BOX, 11, of(8))], own=False)
    assert flush(view) == ["* 5 EXPUNGE"]
    assert view.recent == 1
    assert flush(view) == []
