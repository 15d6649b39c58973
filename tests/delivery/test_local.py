from __future__ import annotations

import pytest

from livemail.delivery.local import LocalDelivery
from livemail.delivery.settings import DeliverySettings
from livemail.interfaces.delivery import Submitter
from livemail.interfaces.directory import LocalAccount
from livemail.interfaces.storage import FetchWant
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Envelope, Recipient, ReversePath
from livemail.mail.errors import MailError, NoSuchMailbox, StorageFull
from livemail.mail.flags import SEEN
from livemail.mail.ids import UIDSet
from tests.smtp.rig import Rig, finish

STRANGER = Submitter("smtp")
SENDER = ReversePath(Path(Address("a", "b.example")))


def content(rig, octets=b"Subject: x\r\n\r\nhello\r\n"):
    sink = rig.store.new_content()
    sink.write(octets)
    return finish(sink.finish())


def path(text):
    local, _, domain = text.rpartition("@")
    return Path(Address(local, domain))


class Deliver:
    """Delivers to recipients and keeps what the store was given."""

    def __init__(self, **settings):
        self.rig = Rig()
        self.calls = []
        deliver = self.rig.store.deliver

        async def counted(batch):
            self.calls.append(batch)
            return await deliver(batch)

        self.rig.store.deliver = counted
        self.target = LocalDelivery(self.rig.store, self.rig.directory, DeliverySettings(**settings))

    def __call__(
        self, *recipients, octets=b"Subject: x\r\n\r\nhello\r\n", junk=False, submitter=STRANGER, sender=SENDER
    ):
        transaction = finish(self.target.begin(sender, submitter))
        accepted = [Recipient(path(text)) for text in recipients]
        for recipient in accepted:
            finish(transaction.add_recipient(recipient))
        return finish(transaction.commit(content(self.rig, octets), Envelope(sender, accepted), junk=junk))

    @property
    def account(self):
        return self.rig.records[0]


def test_a_message_is_one_call_of_the_store_however_many_recipients():
    deliver = Deliver()
    assert list(deliver("you@localhost", "me@localhost", "third@localhost")) == [None] * 3
    assert [len(batch) for batch in deliver.calls] == [3]
    assert deliver.rig.mail(account=2) == [
        b"Return-Path: <a@b.example>\r\nDelivered-To: third@localhost\r\nSubject: x\r\n\r\nhello\r\n"
    ]


def test_an_account_gets_one_copy_by_whatever_names():
    deliver = Deliver()
    you = LocalAccount(deliver.account.id, deliver.account.name)
    me = LocalAccount(deliver.rig.records[1].id, "me@localhost")
    deliver.rig.directory.aliases = {"both": (you, me), "again": (you,)}
    assert list(deliver("again@localhost", "you@localhost", "both@localhost", "you@localhost")) == [None] * 4
    assert len(deliver.rig.mail()) == len(deliver.rig.mail(account=1)) == 1
    assert b"Delivered-To: you@localhost\r\nX-Original-To: again@localhost\r\n" in deliver.rig.mail()[0]


def test_plus_detail_names_a_mailbox_that_exists_and_never_makes_one():
    deliver = Deliver()
    account = finish(deliver.rig.store.account(deliver.account.id))
    finish(account.create_mailbox("lists"))
    deliver("you+lists@localhost", "you+nothing@localhost", "you+../x@localhost", "you@localhost")
    assert len(deliver.rig.mail("lists")) == 1
    assert len(deliver.rig.mail()) == 1
    with pytest.raises(NoSuchMailbox):
        deliver.rig.mail("nothing")


def test_quarantine_goes_to_junk():
    deliver = Deliver()
    deliver("you+lists@localhost", junk=True)
    assert len(deliver.rig.mail("Junk")) == 1
    assert not deliver.rig.mail()


def test_postmaster_is_somebody():
    deliver = Deliver()
    deliver("postmaster@localhost", "postmaster@")
    assert len(deliver.rig.mail()) == 1


@pytest.mark.parametrize(
    ("recipient", "code", "enhanced"), [("nobody@localhost", 550, "5.1.1"), ("x@other.example", 550, "5.7.1")]
)
def test_strangers_reach_our_recipients_only(recipient, code, enhanced):
    with pytest.raises(MailError) as raised:
        Deliver()(recipient)
    assert (raised.value.code, raised.value.enhanced) == (code, enhanced)


@pytest.mark.parametrize("padding", [b"", b"X-Padding: " + b"x" * 2000 + b"\r\n" + b"To: " + b"y" * 1500 + b"\r\n"])
def test_row_23_our_own_delivered_to_is_a_loop(padding):
    deliver = Deliver()
    octets = padding + b"delivered-to:  You@Localhost \r\nSubject: x\r\n\r\nDelivered-To: me@localhost\r\n"
    results = list(deliver("you@localhost", "me@localhost", octets=octets))
    assert (results[0].code, results[0].enhanced) == (554, "5.4.6")
    assert results[1] is None
    assert (len(deliver.rig.mail()), len(deliver.rig.mail(account=1))) == (0, 1)


def submit(deliver):
    return {"submitter": Submitter("submission", deliver.account), "sender": ReversePath(path("you@localhost"))}


def test_what_a_submitter_sends_elsewhere_is_captured_once_in_his_own_mailbox():
    deliver = Deliver(capture_outbound=True)
    results = deliver("x@other.example", "me@localhost", "y@third.example", "x@other.example", **submit(deliver))
    assert list(results) == [None] * 4
    assert len(deliver.calls) == 1
    (captured,) = deliver.rig.mail("Outbox (captured)")
    assert captured.startswith(
        b"Return-Path: <you@localhost>\r\nX-Envelope-To: x@other.example,\r\n\ty@third.example\r\nSubject: x\r\n"
    )
    assert b"other.example" not in deliver.rig.mail(account=1)[0]

    async def flags():
        account = await deliver.rig.store.account(deliver.account.id)
        info = await account.mailbox("Outbox (captured)")
        return [row[1] async for batch in account.fetch(info.id, UIDSet.all(), FetchWant()) for row in batch.rows]

    assert finish(flags()) == [SEEN]


def test_without_capture_a_submitter_is_told_that_nothing_is_relayed():
    deliver = Deliver()
    with pytest.raises(MailError) as raised:
        deliver("x@other.example", **submit(deliver))
    assert (raised.value.code, raised.value.enhanced) == (550, "5.3.3")


def test_a_strangers_mail_is_not_captured_for_anybody_through_an_alias():
    deliver = Deliver(capture_outbound=True)
    deliver.rig.directory.aliases = {"out": (Address("x", "other.example"),)}
    with pytest.raises(MailError):
        deliver("out@localhost")
    assert list(deliver("out@localhost", **submit(deliver))) == [None]


def test_a_submitter_sends_as_himself():
    deliver = Deliver(capture_outbound=True)
    submitter = Submitter("submission", deliver.account)
    for sender in ("me@localhost", "nobody@localhost", "x@other.example"):
        with pytest.raises(MailError) as raised:
            finish(deliver.target.begin(ReversePath(path(sender)), submitter))
        assert (raised.value.code, raised.value.enhanced) == (550, "5.7.1")
    deliver.rig.directory.aliases = {"sales": (LocalAccount(deliver.account.id, deliver.account.name),)}
    for sender in ("you@localhost", "You+x@LOCALHOST".lower(), "sales@localhost"):
        finish(deliver.target.begin(ReversePath(path(sender)), submitter))
    finish(deliver.target.begin(ReversePath(Path.null), submitter))
    free = Deliver(check_sender=False)
    finish(free.target.begin(ReversePath(path("x@other.example")), Submitter("submission", free.account)))


def test_a_copy_that_is_refused_fails_its_recipients_alone():
    deliver = Deliver()
    you = LocalAccount(deliver.account.id, deliver.account.name)
    me = LocalAccount(deliver.rig.records[1].id, "me@localhost")
    deliver.rig.directory.aliases = {"both": (you, me)}
    transaction = finish(deliver.target.begin(SENDER, STRANGER))
    recipients = [Recipient(path(text)) for text in ("both@localhost", "you@localhost", "me@localhost")]
    for recipient in recipients:
        finish(transaction.add_recipient(recipient))
    finish(deliver.rig.store.remove_account("me@localhost"))
    results = finish(transaction.commit(content(deliver.rig), Envelope(SENDER, recipients)))
    assert [result and result.enhanced for result in results] == ["5.1.1", None, "5.1.1"]
    assert len(deliver.rig.mail()) == 1


def test_a_recipient_that_a_filter_added_is_routed_as_any_other():
    deliver = Deliver()
    transaction = finish(deliver.target.begin(SENDER, STRANGER))
    recipients = [Recipient(path(text)) for text in ("you@localhost", "x@other.example", "nobody@localhost")]
    finish(transaction.add_recipient(recipients[0]))
    results = finish(transaction.commit(content(deliver.rig), Envelope(SENDER, recipients)))
    assert [result and result.enhanced for result in results] == [None, "5.7.1", "5.1.1"]


def test_a_full_disk_takes_nothing_for_anybody():
    deliver = Deliver()

    async def full(_):
        raise StorageFull

    deliver.rig.store.deliver = full
    with pytest.raises(StorageFull):
        deliver("you@localhost")
