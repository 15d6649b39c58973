"""The storage contract: messages in and out, flags, copies, expunges, what is recent."""

from __future__ import annotations

import pytest

from livemail.interfaces.storage import (
    DATE,
    EMAIL_ID,
    FLAGS,
    HEADER_SIZE,
    KEYWORDS,
    MODSEQ,
    SAVED,
    SIZE,
    THREAD_ID,
    ZONE,
    AppendItem,
    Delivered,
    Delivery,
    FetchWant,
)
from livemail.mail.errors import LimitReached, NoSuchMailbox, OverQuota, TooBig
from livemail.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, MAX_KEYWORDS, SEEN, FlagChange
from livemail.mail.ids import MAX_UID, UIDSet
from livemail.mail.message.summary import decode_parts
from tests.contracts.stores import message

ALL = UIDSet.all()


# ------------------------------------------------------------------------------------------------------------- content


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\r\n",
        b"x",
        b"X: y\r\n",
        b"no header at all\r\n\r\nbody",
        bytes(range(256)) * 20,
        message(body="z" * 600_000),
    ],
    ids=["empty", "newline", "x", "header only", "odd", "all octets", "large"],
)
def test_every_octet_comes_back(rig, account, octets):
    there = rig.deliver(account, octets=octets)
    copy = rig.append(account, "Sent", octets)
    assert rig.read(account, there.mailbox, there.uid, piece=100_000) == octets
    assert rig.read(account, copy.mailbox, copy.uids[0]) == octets
    assert rig.fetch(account, contents=True, contents_up_to=1 << 20)["contents"] == [octets]
    assert rig.rows(account)[0][SIZE] == len(octets) == rig.info(account).size


def test_a_sink_refuses_what_is_over_the_limit_and_forgets_when_aborted(make_rig):
    rig = make_rig(message_size_limit=1000)
    with pytest.raises(TooBig):
        rig.store.new_content(1001)
    sink = rig.store.new_content(5)
    sink.write(b"x" * 999)
    sink.write(b"x")
    assert sink.size == 1000
    with pytest.raises(TooBig):
        sink.write(b"x")
    sink.abort()
    sink.abort()
    made = rig.content(b"a" * 1000)
    assert (made.size, len(made.digest), made.summary.size) == (1000, 16, 1000)
    assert made.read(998, 10) == b"aa"
    assert made.read(1000, 10) == b""
    assert rig.content(b"a" * 1000).digest == made.digest != rig.content(b"b" * 1000).digest
    done = rig.store.new_content()
    kept = rig.wait(done.finish())
    done.abort()
    assert kept.size == 0
    kept.close()
    kept.close()


def test_the_prefix_is_the_recipients_own_and_counts_everywhere(rig, account):
    other, made = rig.new_account(), rig.content(message("s"))
    results = rig.wait(
        rig.store.deliver(
            [
                Delivery(account.id, "INBOX", made, prefix=b"Delivered-To: a\r\n", internal_date=7),
                Delivery(other.id, "INBOX", made, prefix=b"Delivered-To: bb\r\n"),
            ]
        )
    )
    for whose, there, prefix in zip(
        (account, other), results, (b"Delivered-To: a\r\n", b"Delivered-To: bb\r\n"), strict=True
    ):
        whole = prefix + message("s")
        assert rig.read(whose, there.mailbox, there.uid, piece=11) == whole
        columns = rig.fetch(whose, envelopes=True, structures=True, fields=True, parts=True, contents=True)
        (row,) = columns["rows"]
        assert (row[SIZE], row[HEADER_SIZE]) == (len(whole), whole.index(b"\r\n\r\n") + 4)
        assert columns["prefixes"] == [prefix]
        assert columns["contents"] == [whole]
        assert columns["envelopes"] == [made.summary.envelope]
        assert columns["structures"] == [made.summary.structure]
        assert columns["fields"] == [made.summary.fields]
        assert decode_parts(columns["parts"][0]) == decode_parts(made.summary.parts)
        assert rig.info(whose).size == len(whole)
        reader = rig.wait(whose.open_content(there.mailbox, there.uid))
        assert (reader.size, reader.prefix_size) == (len(whole), len(prefix))
        assert rig.wait(reader.read(len(prefix) - 2, 6)) == whole[len(prefix) - 2 :][:6]
        assert rig.wait(reader.read(len(whole), 6)) == b""
        reader.close()
        reader.close()
    assert rig.wait(rig.store.check()).contents == (1 if rig.is_single_instance else 2)


def test_it_does_not_matter_whether_somebody_has_asked_for_the_summary(rig, account):
    """Where nobody has, it is the writer that reads the message."""
    other = rig.new_account()
    octets = message("s") + b"one\r\ntwo\r\n"
    asked, unasked = rig.content(octets), rig.content(octets + b"three\r\n")
    assert asked.summary.size == len(octets)
    there = rig.wait(rig.store.deliver([Delivery(whose.id, "INBOX", asked) for whose in (account, other)]))
    here = rig.wait(rig.store.deliver([Delivery(whose.id, "INBOX", unasked) for whose in (account, other)]))
    assert all(isinstance(one, Delivered) for one in (*there, *here))
    for whose in (account, other):
        columns = rig.fetch(whose, envelopes=True, structures=True, fields=True, parts=True)
        for name, of in (
            ("envelopes", "envelope"),
            ("structures", "structure"),
            ("fields", "fields"),
            ("parts", "parts"),
        ):
            assert columns[name] == [getattr(one.summary, of) for one in (asked, unasked)]
        assert [row[HEADER_SIZE] for row in columns["rows"]] == [asked.outline.header_size] * 2


def test_columns_come_only_when_wanted(rig, account):
    rig.deliver(account)
    assert set(rig.fetch(account)) == {"rows", "keywords"}
    assert set(rig.fetch(account, fields=True)) == {"rows", "keywords", "prefixes", "fields"}
    assert rig.fetch(account, contents=True, contents_up_to=5)["contents"] == [None]


def test_fields_too_large_for_the_cache_are_none(rig, account):
    rig.deliver(account, octets=message("x" * 1500))
    assert rig.fetch(account, fields=True)["fields"] == [None]


def test_a_message_stays_readable_for_who_opened_it(rig, account):
    there = rig.deliver(account, octets=message("keep"))
    reader = rig.wait(account.open_content(there.mailbox, there.uid))
    rig.wait(account.expunge(there.mailbox, None, only_deleted=False))
    assert rig.wait(account.open_content(there.mailbox, there.uid)) is None
    assert rig.wait(reader.read(0, 10_000)) == message("keep")
    reader.close()


def test_what_was_never_there_cannot_be_opened(rig, account):
    there = rig.deliver(account)
    for uid in (2, MAX_UID):
        assert rig.wait(account.open_content(there.mailbox, uid)) is None


# ----------------------------------------------------------------------------------------------- append and deliver


def test_append_keeps_flags_keywords_and_date_and_gives_ascending_uids(rig, account):
    items = [
        AppendItem(rig.content(message("1")), SEEN | DRAFT, ("$Forwarded", "Work"), -5, -720),
        AppendItem(rig.content(message("2")), DELETED, ("work",), None, 840),
    ]
    appended = rig.wait(account.append("Sent", items))
    sent = rig.info(account, "Sent")
    assert (appended.mailbox, appended.uid_validity, appended.uids) == (sent.id, sent.uid_validity, (1, 2))
    one, two = rig.rows(account, "Sent")
    assert (one[FLAGS], one[KEYWORDS], one[DATE], one[ZONE], one[SAVED]) == (SEEN | DRAFT, 3, -5, -720, 1_700_000_000)
    assert (two[FLAGS], two[KEYWORDS], two[DATE], two[ZONE]) == (DELETED, 2, 1_700_000_000, 840)
    assert one[MODSEQ] == two[MODSEQ] == sent.highest_modseq
    assert one[EMAIL_ID] != two[EMAIL_ID]
    assert (sent.exists, sent.unseen, sent.deleted, sent.keywords) == (2, 1, 1, ("$Forwarded", "Work"))
    empty = rig.wait(account.append("Sent", []))
    assert empty.uids == ()
    assert rig.info(account, "Sent") == sent


def test_append_is_all_or_none(make_rig):
    rig = make_rig(account_quota=1000)
    account = rig.new_account()
    before = rig.info(account)
    with pytest.raises(OverQuota):
        rig.append(account, "INBOX", b"x" * 600, b"y" * 600)
    too_many = tuple(f"k{at}" for at in range(MAX_KEYWORDS + 1))
    with pytest.raises(LimitReached):
        rig.append(account, "INBOX", b"x", keywords=too_many)
    with pytest.raises(NoSuchMailbox):
        rig.append(account, "nowhere", b"x")
    assert rig.info(account) == before
    assert rig.wait(rig.store.check()).contents == 0


def test_the_quota_counts_what_is_there(make_rig):
    rig = make_rig(account_quota=1000)
    account = rig.new_account()
    rig.append(account, "Sent", b"x" * 600)
    assert isinstance(rig.deliver(account, octets=b"y" * 395, prefix=b"z" * 6), OverQuota)
    assert isinstance(rig.deliver(account, octets=b"y" * 394, prefix=b"z" * 6), Delivered)
    sent = rig.info(account, "Sent").id
    with pytest.raises(OverQuota):
        rig.wait(account.copy(sent, ALL, "INBOX"))
    assert len(rig.wait(account.move(sent, ALL, "INBOX")).target) == 1
    rig.wait(account.expunge(rig.info(account).id, None, only_deleted=False))
    assert isinstance(rig.deliver(account, octets=b"y" * 1000), Delivered)


def test_a_delivery_makes_its_mailbox_and_fails_alone(rig, account):
    made = rig.content()
    results = rig.wait(
        rig.store.deliver(
            [Delivery(account.id, name, made, flags=FLAGGED) for name in ("x/y", "a//b", "x/y", "INBOX", "x/y")]
        )
    )
    box = rig.info(account, "x/y")
    assert [(each.mailbox, each.uid, each.uid_validity) for each in results if isinstance(each, Delivered)] == [
        (box.id, 1, box.uid_validity),
        (box.id, 2, box.uid_validity),
        (rig.info(account).id, 1, rig.info(account).uid_validity),
        (box.id, 3, box.uid_validity),
    ]
    assert [row[FLAGS] for row in rig.rows(account, "x/y")] == [FLAGGED] * 3
    assert rig.info(account, "x").exists == 0
    assert rig.wait(rig.store.deliver([])) == []


def test_a_reply_is_in_the_thread_of_what_it_answers(rig, account):
    for octets in (
        message("1", message_id="<one@x>"),
        message("other", message_id="<other@x>"),
        message("re", message_id="<two@x>", in_reply_to="<one@x>"),
        message("re re", message_id="<three@x>", references="<unknown@x> <two@x>"),
        message("no id"),
    ):
        rig.deliver(account, octets=octets)
    one, other, two, three, none = (row[THREAD_ID] for row in rig.rows(account))
    assert one == two == three
    assert len({one, other, none}) == 3


# -------------------------------------------------------------------------------------------------------------- fetch


def test_fetch_gives_the_messages_of_the_set_in_order(rig, account):
    rig.append(account, "INBOX", *[message(str(at)) for at in range(8)])
    rig.wait(account.expunge(rig.info(account).id, UIDSet.of([3]), only_deleted=False))
    wanted = UIDSet([(7, 100), (2, 4), (6, 6)])
    columns = rig.fetch(account, uids=wanted, contents=True)
    assert [row[0] for row in columns["rows"]] == [2, 4, 6, 7, 8]
    assert columns["contents"] == [message(str(at)) for at in (1, 3, 5, 6, 7)]
    assert rig.rows(account, uids=UIDSet.of([3, 9])) == []
    assert rig.rows(account, uids=UIDSet()) == []


def test_fetch_comes_in_bounded_batches(rig, account):
    made = rig.content(message())
    rig.wait(account.append("INBOX", [AppendItem(made)] * 2500))
    box = rig.info(account).id

    async def sizes(want):
        return [len(batch.rows) async for batch in account.fetch(box, ALL, want)]

    counts = rig.wait(sizes(FetchWant()))
    assert sum(counts) == 2500
    assert max(counts) <= 1100
    large = rig.content(message(body="x" * 60_000))
    rig.wait(account.append("Sent", [AppendItem(large)] * 60))
    box = rig.info(account, "Sent").id
    counts = rig.wait(sizes(FetchWant(contents=True)))
    assert sum(counts) == 60
    assert max(counts) <= 20


def test_fetch_of_a_deleted_mailbox_says_so(rig, account):
    made = rig.wait(account.create_mailbox("x"))
    rig.wait(account.delete_mailbox("x"))

    async def fetch():
        return [batch async for batch in account.fetch(made.id, ALL, FetchWant())]

    with pytest.raises(NoSuchMailbox):
        rig.wait(fetch())


def test_changed_since_leaves_out_what_did_not_change(rig, account):
    rig.append(account, "INBOX", b"1", b"2", b"3")
    before = rig.info(account)
    rig.wait(account.store(before.id, UIDSet.of([2]), FlagChange("add", SEEN)))
    assert [row[0] for row in rig.rows(account, changed_since=before.highest_modseq)] == [2]
    assert [row[0] for row in rig.rows(account, changed_since=before.highest_modseq - 1)] == [1, 2, 3]
    assert rig.rows(account, changed_since=rig.info(account).highest_modseq) == []


# ------------------------------------------------------------------------------------------------------------ store


def test_store_adds_removes_and_replaces(rig, account):
    rig.append(account, "INBOX", b"1", flags=SEEN, keywords=("a",))
    rig.append(account, "INBOX", b"2", flags=FLAGGED | DELETED)
    box = rig.info(account).id

    def store(op, flags, *keywords):
        stored = rig.wait(account.store(box, ALL, FlagChange(op, flags, keywords)))
        states = [
            (flags, {name for bit, name in enumerate(stored.keywords) if bits >> bit & 1})
            for _, flags, bits in stored.changed
        ]
        assert [row[:3] for row in rig.rows(account)] == list(stored.changed)
        assert stored.modified == UIDSet()
        info = rig.info(account)
        assert info.highest_modseq == max(row[MODSEQ] for row in rig.rows(account))
        assert info.unseen == sum(not flags & SEEN for flags, _ in states)
        assert info.deleted == sum(bool(flags & DELETED) for flags, _ in states)
        return states

    assert store("add", ANSWERED, "A", "b") == [
        (SEEN | ANSWERED, {"a", "b"}),
        (FLAGGED | DELETED | ANSWERED, {"a", "b"}),
    ]
    assert store("remove", SEEN | DELETED, "B", "unknown") == [(ANSWERED, {"a"}), (FLAGGED | ANSWERED, {"a"})]
    assert store("replace", SEEN, "C") == [(SEEN, {"C"})] * 2
    assert store("replace", 0) == [(0, set())] * 2
    assert rig.info(account).keywords == ("a", "b", "C")


def test_a_message_whose_flags_stay_equal_keeps_its_modseq(rig, account):
    rig.append(account, "INBOX", b"1", flags=SEEN)
    rig.append(account, "INBOX", b"2")
    box, before = rig.info(account).id, rig.rows(account)
    stored = rig.wait(account.store(box, ALL, FlagChange("add", SEEN)))
    assert [each[0] for each in stored.changed] == [1, 2]
    after = rig.rows(account)
    assert after[0] == before[0]
    assert after[1][MODSEQ] == stored.modseq == rig.info(account).highest_modseq > before[1][MODSEQ]
    again = rig.wait(account.store(box, ALL, FlagChange("add", SEEN)))
    assert (again.modseq, len(again.changed)) == (0, 2)
    assert rig.rows(account) == after


def test_unchanged_since_refuses_what_changed_since(rig, account):
    rig.append(account, "INBOX", b"1", b"2", b"3")
    box, then = rig.info(account).id, rig.info(account).highest_modseq
    rig.wait(account.store(box, UIDSet.of([2]), FlagChange("add", FLAGGED)))
    stored = rig.wait(account.store(box, ALL, FlagChange("add", SEEN), then))
    assert stored.modified == UIDSet.of([2])
    assert stored.changed == ((1, SEEN, 0), (3, SEEN, 0))
    assert [row[FLAGS] for row in rig.rows(account)] == [SEEN, FLAGGED, SEEN]
    none = rig.wait(account.store(box, UIDSet([(1, 2)]), FlagChange("remove", SEEN), 0))
    assert (none.modified, none.changed, none.modseq) == (UIDSet([(1, 2)]), (), 0)
    assert rig.wait(account.store(box, UIDSet.of([9]), FlagChange("add", SEEN), 0)).modified == UIDSet()


def test_a_mailbox_has_sixty_four_keywords_and_a_refused_store_does_nothing(rig, account):
    rig.append(account, "INBOX", b"1")
    box = rig.info(account).id
    for at in range(0, MAX_KEYWORDS, 8):
        rig.wait(account.store(box, ALL, FlagChange("add", 0, tuple(f"k{n}" for n in range(at, at + 8)))))
    before = rig.rows(account)
    assert before[0][KEYWORDS] == (1 << MAX_KEYWORDS) - 1
    with pytest.raises(LimitReached):
        rig.wait(account.store(box, ALL, FlagChange("add", SEEN, ("one-more",))))
    assert rig.rows(account) == before
    rig.wait(account.store(box, ALL, FlagChange("remove", 0, ("K63",))))
    assert rig.rows(account)[0][KEYWORDS] == (1 << 63) - 1
    assert rig.wait(account.copy(box, ALL, "Sent")).target == (1,)


# -------------------------------------------------------------------------------------------- copy, move, expunge


def test_a_copy_keeps_everything_but_uid_modseq_and_save_date(rig, account):
    rig.append(account, "Sent", b"z", keywords=("other",))
    rig.append(account, "INBOX", b"1", flags=SEEN, keywords=("a", "b"), internal_date=5, zone=60)
    rig.deliver(account, octets=message(), prefix=b"P: q\r\n")
    rig.clock.seconds += 100
    box, sent = rig.info(account), rig.info(account, "Sent")
    copied = rig.wait(account.copy(box.id, ALL, "Sent"))
    assert copied == type(copied)(sent.id, sent.uid_validity, (1, 2), (2, 3))
    sources, copies = rig.rows(account), rig.rows(account, "Sent")[1:]
    for source, copy in zip(sources, copies, strict=True):
        assert copy[FLAGS] == source[FLAGS]
        assert copy[DATE : HEADER_SIZE + 1] == source[DATE : HEADER_SIZE + 1]
        assert copy[EMAIL_ID:] == source[EMAIL_ID:]
        assert copy[MODSEQ] == rig.info(account, "Sent").highest_modseq > source[MODSEQ]
        assert copy[SAVED] == source[SAVED] + 100
    assert rig.info(account, "Sent").keywords == ("other", "a", "b")
    assert copies[0][KEYWORDS] == 0b110
    assert rig.fetch(account, "Sent", contents=True)["contents"] == [b"z", b"1", b"P: q\r\n" + message()]
    assert rig.info(account) == box


def test_copying_within_a_mailbox_doubles_it(rig, account):
    rig.append(account, "INBOX", b"1", b"2")
    assert rig.wait(account.copy(rig.info(account).id, ALL, "INBOX")).target == (3, 4)
    assert rig.fetch(account, contents=True)["contents"] == [b"1", b"2", b"1", b"2"]


def test_a_copy_of_nothing_is_nothing(rig, account):
    rig.append(account, "INBOX", b"1")
    box, before = rig.info(account).id, rig.wait(account.mailboxes())
    for call in (account.copy(box, UIDSet.of([5]), "Sent"), account.move(box, UIDSet(), "Sent")):
        copied = rig.wait(call)
        assert (copied.mailbox, copied.source, copied.target) == (rig.info(account, "Sent").id, (), ())
    assert rig.wait(account.mailboxes()) == before


def test_a_move_leaves_the_source_and_gives_new_uids(rig, account):
    rig.append(account, "INBOX", b"1", b"2", b"3", flags=DELETED, keywords=("k",))
    before, box = rig.rows(account), rig.info(account).id
    moved = rig.wait(account.move(box, UIDSet.of([1, 3]), "Trash"))
    assert (moved.source, moved.target) == ((1, 3), (1, 2))
    assert [row[0] for row in rig.rows(account)] == [2]
    after = rig.rows(account, "Trash")
    assert [row[EMAIL_ID] for row in after] == [before[0][EMAIL_ID], before[2][EMAIL_ID]]
    assert [row[FLAGS] for row in after] == [DELETED] * 2
    inbox, trash = rig.info(account), rig.info(account, "Trash")
    assert (inbox.exists, inbox.deleted, inbox.uid_next, inbox.size) == (1, 1, 4, 1)
    assert (trash.exists, trash.deleted, trash.size, trash.keywords) == (2, 2, 2, ("k",))
    assert inbox.highest_modseq == trash.highest_modseq == after[0][MODSEQ]


def test_a_move_into_the_same_mailbox_gives_new_uids(rig, account):
    rig.append(account, "INBOX", b"1", b"2", b"3")
    moved = rig.wait(account.move(rig.info(account).id, UIDSet([(1, 2)]), "INBOX"))
    assert (moved.source, moved.target) == ((1, 2), (4, 5))
    assert rig.fetch(account, contents=True)["contents"] == [b"3", b"1", b"2"]
    assert (rig.info(account).exists, rig.info(account).size, rig.info(account).unseen) == (3, 3, 3)


def test_expunge_removes_what_is_deleted_or_everything(rig, account):
    rig.append(account, "INBOX", *[b"x"] * 6)
    box = rig.info(account).id
    rig.wait(account.store(box, UIDSet.of([1, 2, 5]), FlagChange("add", DELETED)))
    assert rig.wait(account.expunge(box, UIDSet([(2, 4)]))) == UIDSet.of([2])
    assert rig.wait(account.expunge(box, None)) == UIDSet.of([1, 5])
    quiet = rig.info(account)
    assert rig.wait(account.expunge(box, None)) == UIDSet()
    assert rig.info(account) == quiet
    assert rig.wait(account.expunge(box, UIDSet([(4, 9)]), only_deleted=False)) == UIDSet.of([4, 6])
    assert rig.wait(account.expunge(box, None, only_deleted=False)) == UIDSet.of([3])
    assert (rig.info(account).exists, rig.info(account).deleted, rig.info(account).uid_next) == (0, 0, 7)
    assert rig.append(account, "INBOX", b"y").uids == (7,)


# ------------------------------------------------------------------------------------------------ select and \Recent


def test_select_is_one_snapshot(rig, account):
    rig.append(account, "INBOX", b"1", b"2", flags=SEEN)
    rig.append(account, "INBOX", b"3")
    rig.wait(account.expunge(rig.info(account).id, UIDSet.of([1]), only_deleted=False))
    selected = rig.wait(account.select("INBOX", False))
    assert (selected.info, list(selected.uids), selected.first_unseen) == (rig.info(account), [2, 3], 2)
    rig.append(account, "INBOX", b"4")
    assert list(selected.uids) == [2, 3]
    rig.wait(account.store(selected.info.id, ALL, FlagChange("add", SEEN)))
    assert rig.wait(account.select("INBOX", False)).first_unseen == 0
    empty = rig.wait(account.select("Sent", False))
    assert (list(empty.uids), empty.first_unseen) == ([], 0)


def test_recent_is_claimed_once(rig, account):
    rig.append(account, "INBOX", b"1", b"2")
    assert rig.wait(account.select("INBOX", False)).info.recent_from == 1
    assert rig.wait(account.select("INBOX", True)).info.recent_from == 1
    assert rig.wait(account.select("INBOX", True)).info.recent_from == 3
    rig.append(account, "INBOX", b"3", b"4")
    box = rig.info(account).id
    before = rig.info(account).highest_modseq
    assert rig.wait(account.claim_recent(box, 4)) == 3
    assert rig.info(account).recent_from == 4
    assert rig.wait(account.claim_recent(box, 2)) == 4
    assert rig.wait(account.claim_recent(box, MAX_UID)) == 4
    assert rig.info(account).recent_from == 5
    assert rig.info(account).highest_modseq == before


# ------------------------------------------------------------------------------------------------------------- threads


def mail(name: str, *references: str) -> bytes:
    """A message with a Message-ID, and References farthest first."""
    pointing = f"References: {' '.join(references)}\r\n" if references else ""
    return f"Message-ID: {name}\r\n{pointing}\r\nx\r\n".encode()


def threads(rig, account, *octets: bytes) -> list[int]:
    """Deliver in this order; the thread ids."""
    for content in octets:
        rig.deliver(account, octets=content)
    return [row[THREAD_ID] for row in rig.rows(account)]


def test_a_reply_joins_the_nearest_message_known(rig, account):
    one, two, reply = threads(rig, account, mail("<1@x>"), mail("<2@x>"), mail("<3@x>", "<1@x>", "<2@x>"))
    assert one != two
    assert reply == two


def test_a_second_copy_joins_the_first(rig, account):
    first, second = threads(rig, account, mail("<same@x>"), mail("<same@x>"))
    assert first == second


def test_two_replies_to_a_message_that_never_came_are_one_thread_and_it_joins_them(rig, account):
    one, two, late, other = threads(
        rig, account, mail("<a@x>", "<lost@x>"), mail("<b@x>", "<lost@x>"), mail("<lost@x>"), mail("<c@x>")
    )
    assert one == two == late
    assert other != one
