from __future__ import annotations

import pytest

from livemail.admin.explain import Explain, in_words
from livemail.admin.operations import Refused
from livemail.filters import CONTINUE, Filter, Quarantine, Reject
from livemail.filters.chain import FilterSpec
from livemail.interfaces.filter import ConnectionInfo
from livemail.interfaces.queue import (
    Addressed,
    Choice,
    ClaimLimits,
    Drop,
    Filing,
    Outcome,
    Outgoing,
    Settlement,
    queue_id_text,
)
from livemail.interfaces.relay import Attempt, Reply
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Envelope, Recipient, ReversePath
from livemail.mail.ids import UIDSet
from livemail.smtp.story import Teller
from tests.smtp.rig import NOW, Rig, finish

MAIL = b"Message-ID: <one@b.example>\r\nSubject: one\r\n\r\nbody\r\n"


class Tagger(Filter):
    async def rcpt(self, tx, recipient):
        return Reject("5.7.1", "not him") if "third" in str(recipient.path) else CONTINUE

    async def message(self, tx, message):
        message.add_header("X-Tag", "1")
        return Quarantine("odd")


def explain(rig, wanted):
    return finish(Explain(rig.store)({"id": wanted}, lambda *_: None))


@pytest.fixture
def sent():
    rig = Rig(filters=[FilterSpec("tagger", Tagger)])
    client = rig.connect(tls="TLSv1.3 X")
    client.say("MAIL FROM:<a@b.example>")
    client.say("RCPT TO:<you@localhost>")
    client.say("RCPT TO:<third@localhost>")
    client.say("DATA")
    return rig, client.feed(MAIL + b".\r\n").split()[-1]


def test_a_message_is_found_by_every_name_it_has(sent):
    rig, transaction = sent
    for wanted in (transaction, "<one@b.example>", "one@b.example", transaction.rpartition(".")[0]):
        (told,) = explain(rig, wanted)
        assert told["transaction"] == transaction
    for wanted in ("<two@b.example>", "6553f100-99.1", "Q99"):
        with pytest.raises(Refused, match="nothing is known of"):
            explain(rig, wanted)


def test_the_whole_story_in_words(sent):
    rig, transaction = sent
    (told,) = explain(rig, transaction)
    lines = in_words(told).splitlines()
    assert lines[0] == f"{transaction}  2023-11-14 22:13:20 UTC  taken, quarantined"
    text = "\n".join(lines[1:])
    assert "from <a@b.example>," in text
    assert "Message-ID <one@b.example>" in text
    assert "client      192.168.1.1 port " in text
    assert "by smtp, named itself client.example, TLSv1.3 X, not logged in" in text
    assert "recipient   <you@localhost>: taken" in text
    assert "recipient   <third@localhost>: 550 5.7.1 not him" in text
    assert "filter      tagger at rcpt: reject 550 5.7.1 not him, " in text
    assert "filter      tagger at message: quarantine (odd) add-header X-Tag, " in text
    assert "delivered   you@localhost, Junk, UID 1" in text


def test_a_copy_that_was_removed_or_whose_account_is_gone_is_said_so(sent):
    rig, transaction = sent
    account = finish(rig.store.account(rig.records[0].id))
    junk = finish(account.mailbox("Junk"))
    finish(account.expunge(junk.id, UIDSet.of([1]), only_deleted=False))
    assert "UID 1 (not there any more)" in in_words(explain(rig, transaction)[0])
    finish(rig.store.remove_account("you@localhost"))
    assert "a removed mailbox" in in_words(explain(rig, transaction)[0])


def test_what_waits_in_the_queue_is_told_with_its_attempts_and_what_left_is_said_to_have_left():
    rig = Rig()
    content = sink_of(rig)
    reverse_path, far = ReversePath(Path(Address("you", "localhost"))), Recipient(Path(Address("ann", "far.example")))
    teller = Teller(rig.store, "6553f100-7.1", NOW, ConnectionInfo("6553f100-7", "submission", "192.0.2.1"), "client")
    teller.committing(content, Envelope(reverse_path, [far]), [], is_junk=False)
    outgoing = Outgoing(content, reverse_path, (Addressed(far, "far.example"),), transaction="6553f100-7.1")
    [queue_id] = finish(rig.store.queue.accept(Filing(outgoing=(outgoing,)))).queued
    claimed = finish(rig.store.queue.claim(ClaimLimits(1, {}), 60)).jobs[0]
    reply = Reply(451, "4.7.1", "come back later", "rcpt")
    attempt = Attempt(NOW, 1.5, "mx.far.example", "192.0.2.9", "TLSv1.3 X", reply)
    outcome = Outcome(0, "deferred", reply, "mx.far.example", next_attempt=NOW + 600)
    finish(rig.store.queue.settle([Settlement(claimed.message.id, (outcome,), (attempt,))]))
    for wanted in (queue_id_text(queue_id), "6553f100-7.1", "<one@b.example>"):
        text = in_words(explain(rig, wanted)[0])
        name = queue_id_text(queue_id)
        assert (
            f"queue       {name} for <ann@far.example>: deferred, 1 attempts, last: mx.far.example said 451 4.7.1 come back later"
            in text
        )
        assert "1.5 s, mx.far.example 192.0.2.9, TLSv1.3 X: 451 4.7.1 come back later" in text
    finish(rig.store.queue.change(Choice(), Drop()))
    assert "nothing of it waits here any more" in in_words(explain(rig, "6553f100-7.1")[0])


def sink_of(rig):
    sink = rig.store.new_content()
    sink.write(MAIL)
    return finish(sink.finish())
