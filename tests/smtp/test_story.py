from __future__ import annotations

import pytest

from livemail.filters import CONTINUE, Defer, Discard, Filter, Quarantine, Reject
from livemail.filters.chain import FilterSpec
from livemail.interfaces.story import decode_story
from livemail.mail.errors import OverQuota
from tests.smtp.rig import NOW, Rig, finish

MAIL = b"Message-ID: <one@b.example>\r\nSubject: one\r\n\r\nbody\r\n"


def story(rig, transaction):
    kept = finish(rig.store.story(transaction))
    return (decode_story(kept.story), kept.places) if kept is not None else (None, ())


def only(rig):
    (kept,) = finish(rig.store.find_stories(b"", 10))
    return decode_story(kept.story), kept.places


class Judge(Filter):
    verdicts = {}  # noqa: RUF012

    async def rcpt(self, tx, recipient):
        return self.verdicts.get("rcpt", CONTINUE)

    async def data(self, tx):
        return self.verdicts.get("data", CONTINUE)

    async def message(self, tx, message):
        message.add_header("X-Seen", "1")
        return self.verdicts.get("message", CONTINUE)


def judge(**verdicts):
    class Judging(Judge):
        pass

    Judging.verdicts = verdicts
    return Rig(filters=[FilterSpec("judge", Judging)])


def test_a_message_that_was_taken_is_told_with_who_sent_it_what_filters_said_and_where_it_went():
    rig = judge()
    client = rig.connect(tls="TLSv1.3 X")
    reply = client.send(MAIL, "you@localhost", "me@localhost")
    transaction = reply.split()[-1]
    told, places = story(rig, transaction)
    assert (told.transaction, told.time, told.service, told.peer) == (transaction, NOW, "smtp", "192.168.1.1")
    assert (told.helo, told.tls, told.authcid) == ("client.example", "TLSv1.3 X", "")
    assert (told.reverse_path, told.message_id) == ("<stranger@else.example>", b"<one@b.example>")
    assert [(each.path, each.code) for each in told.recipients] == [("<you@localhost>", 0), ("<me@localhost>", 0)]
    assert (told.outcome, told.code, told.count, told.is_junk) == ("taken", 250, 2, False)
    assert [(each.filter, each.stage, each.verdict) for each in told.filters] == [
        ("judge", "rcpt", "continue"), ("judge", "data", "continue"), ("judge", "message", "continue")
    ]  # fmt: skip
    assert told.filters[0].count == 2
    assert told.filters[-1].edits == ("add-header X-Seen",)
    assert [(place.account, place.uid) for place in places] == [(rig.records[0].id, 1), (rig.records[1].id, 1)]


@pytest.mark.parametrize(
    ("verdicts", "outcome", "code", "recipients"),
    [
        ({"message": Reject("5.7.1", "no", "score 9")}, "refused", 550, [550]),
        ({"message": Defer("4.7.1", "later", "busy")}, "refused", 451, [451]),
        ({"message": Discard("spam")}, "discarded", 250, [0]),
        ({"message": Quarantine("odd")}, "taken", 250, [0]),
        ({"data": Reject("5.7.1", "no data")}, "refused", 550, [0]),
        ({"rcpt": Reject("5.7.1", "not you")}, "refused", 554, [550]),
    ],
)
def test_whatever_is_said_is_told(verdicts, outcome, code, recipients):
    rig = judge(**verdicts)
    client = rig.connect()
    client.say("MAIL FROM:<a@b.example>")
    client.say("RCPT TO:<you@localhost>")
    if client.say("DATA").startswith("354"):
        client.feed(MAIL + b".\r\n")
    client.say("RSET")
    told, places = only(rig)
    assert (told.outcome, told.code, [each.code for each in told.recipients]) == (outcome, code, recipients)
    assert bool(places) == (outcome == "taken")
    (stage,) = verdicts
    (record,) = [each for each in told.filters if each.stage == stage]
    assert record.verdict == type(verdicts[stage]).__name__.lower()
    if stage == "message":
        assert record.reason == verdicts[stage].reason
        assert told.message_id == b"<one@b.example>"


def test_unknown_recipients_are_told_with_those_that_were_taken_and_alone():
    rig = Rig()
    client = rig.connect()
    client.say("MAIL FROM:<a@b.example>")
    client.say("RCPT TO:<nobody@localhost>")
    client.say("RCPT TO:<you@localhost>")
    client.say("DATA")
    client.feed(MAIL + b".\r\n")
    told, _ = only(rig)
    assert [(each.path, each.code) for each in told.recipients] == [("<you@localhost>", 0), ("<nobody@localhost>", 550)]
    client.say("MAIL FROM:<a@b.example>")
    client.say("RCPT TO:<nobody@localhost>")
    client.say("RSET")
    kept = finish(rig.store.find_stories(b"", 10))
    assert decode_story(kept[0].story).outcome == "refused"
    assert len(kept) == 2


def test_a_client_that_only_looks_leaves_no_story():
    rig = Rig()
    client = rig.connect()
    client.say("MAIL FROM:<a@b.example>")
    client.say("RCPT TO:<you@localhost>")
    client.say("RSET")
    client.say("QUIT")
    assert not finish(rig.store.find_stories(b"", 10))


def test_a_refusal_by_the_store_replaces_what_was_told_before_the_commit():
    rig = Rig()

    async def deliver(batch):
        return [OverQuota(reason="full")] * len(batch)

    rig.store.deliver = deliver
    reply = rig.connect().send(MAIL)
    assert reply.startswith("552")
    told, places = only(rig)
    assert (told.outcome, told.code, told.reason, told.recipients[0].code) == ("refused", 552, "full", 552)
    assert not places


def test_a_story_is_bounded_whatever_the_filters_and_recipients_were():
    class Talker(Filter):
        async def rcpt(self, tx, recipient):
            tx.add_score(1, "x")
            return Quarantine("y" * 5000)

    accounts = tuple(f"u{n}" for n in range(120))
    rig = Rig(filters=[FilterSpec("talker", Talker)], accounts=("you", *accounts))
    rig.connect().send(MAIL, *(f"{name}@localhost" for name in accounts))
    kept = finish(rig.store.find_stories(b"", 10))[0]
    told = decode_story(kept.story)
    assert (told.count, len(told.recipients), len(told.filters)) == (120, 50, 60)
    assert len(kept.story) < 64 * 1024
