"""What goes on from here, what comes back, and what the sender hears of it; over a queue that only remembers."""

from __future__ import annotations

import pytest

from livemail.delivery.bounce import Reporter
from livemail.delivery.local import LocalDelivery
from livemail.delivery.settings import DeliverySettings
from livemail.delivery.srs import Rewriter
from livemail.interfaces.delivery import Submitter
from livemail.interfaces.directory import LocalAccount, Unknown
from livemail.interfaces.queue import Filed, Report
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Envelope, Recipient, ReversePath
from livemail.mail.errors import MailError, StorageFull
from tests.delivery.strict_report import parse
from tests.smtp.rig import NOW, Rig, finish

STRANGER = Submitter("smtp")
OCTETS = b"From: a@b.example\r\nSubject: Hello\r\nMessage-ID: <m@b.example>\r\n\r\nhello\r\n"


def address(text):
    local, _, domain = text.rpartition("@")
    return Address(local, domain)


def to(text, *notify, original=""):
    return Recipient(Path(address(text)), frozenset(notify), original)


def sender(text="a@b.example", **more):
    return ReversePath(Path(address(text)) if text else Path.null, **more)


class Queue:
    """Takes everything, delivers what is local."""

    def __init__(self, store):
        self.store, self.filings, self.contents, self.error = store, [], [], None

    async def accept(self, filing):
        if self.error is not None:
            raise self.error
        self.filings.append(filing)
        self.contents += [each.prefix + each.content.read(0, each.content.size) for each in filing.outgoing]
        return Filed(tuple(await self.store.deliver(list(filing.deliveries))))

    @property
    def outgoing(self):
        return [each for filing in self.filings for each in filing.outgoing]


class Routing:
    def destination(self, domain):
        return domain.lower()


class Server:
    def __init__(self, aliases=(), **settings):
        self.rig = Rig()
        self.queue = Queue(self.rig.store)
        self.tokens = iter(f"token{count:016d}" for count in range(1000))
        self.rewriter = Rewriter([b"k" * 32], "localhost", lambda: NOW)
        self.target = LocalDelivery(
            self.rig.store,
            self.rig.directory,
            DeliverySettings(**settings),
            queue=self.queue,
            routing=Routing(),
            reporter=Reporter("mx.localhost", Address("postmaster", "localhost"), lambda: NOW, self.tokens.__next__),
            rewriter=self.rewriter,
        )
        self.rig.directory.aliases = {
            name: tuple(self.account(each) if isinstance(each, int) else address(each) for each in targets)
            for name, targets in dict(aliases).items()
        }

    def account(self, at):
        record = self.rig.records[at]
        return LocalAccount(record.id, record.name)

    def send(self, *recipients, reverse_path=None, submitter=STRANGER, octets=OCTETS):
        reverse_path = reverse_path or sender()
        transaction = finish(self.target.begin(reverse_path, submitter))
        for recipient in recipients:
            finish(transaction.add_recipient(recipient))
        sink = self.rig.store.new_content()
        sink.write(octets)
        content = finish(sink.finish())
        return list(finish(transaction.commit(content, Envelope(reverse_path, list(recipients)))))

    def refused(self, *arguments, **named):
        with pytest.raises(MailError) as raised:
            self.send(*arguments, **named)
        return raised.value.code, raised.value.enhanced


def summary(outgoing):
    return (
        str(outgoing.reverse_path.path),
        [
            (str(each.recipient.path), sorted(each.recipient.notify), each.recipient.original)
            for each in outgoing.recipients
        ],
        outgoing.prefix,
    )


# ------------------------------------------------------------------------------------------------------- forwarding


def test_an_alias_that_leads_elsewhere_forwards_under_a_reverse_path_of_ours():
    server = Server({"out": ["x@other.example"]})
    assert server.send(to("out@localhost")) == [None]
    (outgoing,) = server.queue.outgoing
    there = outgoing.reverse_path.path.address
    assert there.domain == "localhost"
    assert server.rewriter.back(there) == address("a@b.example")
    assert summary(outgoing)[1:] == (
        [("<x@other.example>", [], "rfc822;out@localhost")],
        b"Delivered-To: out@localhost\r\n",
    )
    assert [each.destination for each in outgoing.recipients] == ["other.example"]
    assert server.queue.contents == [b"Delivered-To: out@localhost\r\n" + OCTETS]


@pytest.mark.parametrize("reverse_path", ["you@localhost", "me@LOCALHOST", ""])
def test_our_own_and_the_null_reverse_path_are_not_rewritten(reverse_path):
    server = Server({"out": ["x@other.example"]})
    server.send(to("out@localhost"), reverse_path=sender(reverse_path.lower()))
    assert str(server.queue.outgoing[0].reverse_path.path) == f"<{reverse_path.lower()}>"


def test_rewriting_can_be_turned_off_and_bounces_to_old_addresses_still_find_back():
    server = Server({"out": ["x@other.example"]}, rewrite_senders=False)
    server.send(to("out@localhost"))
    assert str(server.queue.outgoing[0].reverse_path.path) == "<a@b.example>"
    there = server.rewriter.forward(Path(address("a@b.example")))
    server.send(Recipient(there), reverse_path=sender(""))
    assert summary(server.queue.outgoing[1])[:2] == ("<>", [("<a@b.example>", [], "")])


def test_a_submitters_own_recipients_elsewhere_are_sent_as_he_said():
    server = Server({"out": ["x@other.example"]})
    submitter = Submitter("submission", server.rig.records[0])
    recipient = to("y@third.example", "SUCCESS", original="rfc822;z@third.example")
    reverse_path = sender("you@localhost", ret="HDRS", envid="e1")
    assert server.send(recipient, to("out@localhost"), reverse_path=reverse_path, submitter=submitter) == [None, None]
    direct, forwarded = server.queue.outgoing
    assert direct.recipients[0].recipient == recipient
    assert direct.reverse_path == reverse_path
    assert direct.prefix == b""
    assert direct.submitter == server.rig.records[0].id
    assert summary(forwarded)[0] == "<you@localhost>"
    assert len(server.queue.filings) == 1


def test_local_copies_and_what_goes_on_are_one_commit():
    server = Server({"team": [0, "x@other.example", "y@other.example"]})
    assert server.send(to("team@localhost"), to("me@localhost")) == [None, None]
    (filing,) = server.queue.filings
    assert [len(filing.deliveries), len(filing.outgoing)] == [2, 1]
    assert len(server.rig.mail()) == len(server.rig.mail(account=1)) == 1
    assert [str(each.recipient.path) for each in filing.outgoing[0].recipients] == [
        "<x@other.example>",
        "<y@other.example>",
    ]


def test_a_queue_that_takes_nothing_takes_nothing_for_anybody():
    server = Server({"team": [0, "x@other.example"]})
    server.queue.error = StorageFull()
    with pytest.raises(StorageFull):
        server.send(to("team@localhost"))
    assert not server.rig.mail()


def test_row_23_what_an_alias_sent_on_and_comes_back_goes_in_a_circle():
    server = Server({"out": ["x@other.example"], "team": [0, "x@other.example"]})
    server.send(to("out@localhost"))
    (error,) = server.send(to("out@localhost"), octets=server.queue.contents[0])
    assert (error.code, error.enhanced) == (554, "5.4.6")
    assert server.send(to("team@localhost"), octets=server.queue.contents[0]) == [None]
    assert len(server.queue.outgoing) == 2


# ------------------------------------------------------------------------------------------------------- bounces come back


def test_a_bounce_to_an_address_of_ours_goes_on_to_where_the_message_came_from():
    server = Server({"out": ["x@other.example"]})
    server.send(to("out@localhost"))
    there = server.queue.outgoing[0].reverse_path.path
    assert server.send(Recipient(there), reverse_path=sender("")) == [None]
    assert summary(server.queue.outgoing[1]) == ("<>", [("<a@b.example>", [], "")], b"")


def test_row_22_nobody_with_a_sender_and_nobody_with_a_forged_address_is_sent_on():
    server = Server()
    there = str(server.rewriter.forward(Path(address("a@b.example")))).strip("<>")
    assert server.refused(to(there)) == (550, "5.7.1")
    assert server.refused(to("SRS0=aaaaaa=hn=b.example=a@localhost"), reverse_path=sender("")) == (550, "5.1.1")
    assert server.refused(to(there.replace("localhost", "other.example")), reverse_path=sender("")) == (550, "5.7.1")
    assert server.queue.filings == []


def test_a_bounce_whose_way_back_ends_here_is_delivered_here():
    server = Server()
    there = server.rewriter.forward(Path(address("you@localhost")))
    assert server.send(Recipient(there), reverse_path=sender("")) == [None]
    assert len(server.rig.mail()) == 1
    gone = server.rewriter.forward(Path(address("nobody@localhost")))
    assert server.refused(Recipient(gone), reverse_path=sender("")) == (550, "5.1.1")


# ------------------------------------------------------------------------------------------------------- DSN


def reports(server):
    return [parse(octets) for octets in server.queue.contents if b"multipart/report" in octets]


def test_success_of_local_delivery_is_reported_to_a_sender_elsewhere():
    server = Server()
    recipient = to("you@localhost", "SUCCESS", original="rfc822;You@localhost")
    assert server.send(recipient, to("me@localhost"), reverse_path=sender(envid="e 1", ret="FULL")) == [None, None]
    (report,) = reports(server)
    assert report.message["Original-Envelope-Id"] == "e 1"
    assert report.recipients == [
        {
            "Original-Recipient": "rfc822; You@localhost",
            "Final-Recipient": "rfc822; you@localhost",
            "Action": "delivered",
            "Status": "2.1.5",
            "Last-Attempt-Date": report.message["Arrival-Date"],
        }
    ]
    assert report.media_types[2] == "text/rfc822-headers"
    assert summary(server.queue.outgoing[0])[:2] == ("<>", [("<a@b.example>", [], "")])


def test_a_sender_here_gets_the_report_into_his_mailbox_without_the_queue():
    server = Server()
    submitter = Submitter("submission", server.rig.records[1])
    server.send(to("you@localhost", "SUCCESS"), reverse_path=sender("me@localhost"), submitter=submitter)
    (mail,) = server.rig.mail(account=1)
    assert mail.startswith(b"Return-Path: <>\r\nDelivered-To: me@localhost\r\nDate: ")
    assert b"Action: delivered\r\n" in mail
    assert server.queue.filings == []


@pytest.mark.parametrize("notify", [(), ("NEVER",), ("FAILURE", "DELAY")])
def test_success_nobody_asked_for_is_not_reported(notify):
    server = Server()
    server.send(to("you@localhost", *notify))
    assert reports(server) == []


def test_a_message_without_sender_is_never_reported_on():
    server = Server()
    server.send(to("you@localhost", "SUCCESS"), reverse_path=sender(""))
    assert reports(server) == []
    assert len(server.rig.mail()) == 1


def test_an_alias_of_several_places_is_reported_expanded_and_success_goes_no_further():
    server = Server({"team": [0, "x@other.example"]})
    server.send(to("team@localhost", "SUCCESS", "FAILURE"))
    server.send(to("team@localhost", "SUCCESS"))
    assert [each.recipients[0]["Action"] for each in reports(server)] == ["expanded", "expanded"]
    assert [each.recipients[0]["Final-Recipient"] for each in reports(server)] == ["rfc822; team@localhost"] * 2
    forwarded = [each for each in server.queue.outgoing if each.prefix]
    assert [summary(each)[1] for each in forwarded] == [
        [("<x@other.example>", ["FAILURE"], "rfc822;team@localhost")],
        [("<x@other.example>", ["NEVER"], "rfc822;team@localhost")],
    ]


def test_an_alias_of_one_place_elsewhere_passes_the_wish_on_and_reports_nothing():
    server = Server({"out": ["x@other.example"]})
    server.send(to("out@localhost", "SUCCESS", original="rfc822;first@b.example"))
    assert reports(server) == []
    assert summary(server.queue.outgoing[0])[1] == [("<x@other.example>", ["SUCCESS"], "rfc822;first@b.example")]


def test_an_alias_of_one_account_is_reported_under_the_name_that_was_written_to():
    server = Server({"sales": [0]})
    server.send(to("sales@localhost", "SUCCESS"))
    (report,) = reports(server)
    assert report.recipients[0]["Final-Recipient"] == "rfc822; sales@localhost"
    assert report.recipients[0]["Action"] == "delivered"


def test_a_copy_that_was_refused_is_not_reported_as_delivered():
    server = Server()
    reverse_path = sender()
    transaction = finish(server.target.begin(reverse_path, STRANGER))
    recipients = [to("you@localhost", "SUCCESS"), to("me@localhost", "SUCCESS")]
    for recipient in recipients:
        finish(transaction.add_recipient(recipient))
    finish(server.rig.store.remove_account("me@localhost"))
    sink = server.rig.store.new_content()
    sink.write(OCTETS)
    results = finish(transaction.commit(finish(sink.finish()), Envelope(reverse_path, recipients)))
    assert [result and result.enhanced for result in results] == [None, "5.1.1"]
    (report,) = reports(server)
    assert [each["Final-Recipient"] for each in report.recipients] == ["rfc822; you@localhost"]


def test_a_report_that_cannot_be_filed_does_not_undo_the_delivery():
    server = Server()
    server.queue.error = StorageFull()
    assert server.send(to("you@localhost", "SUCCESS")) == [None]
    assert len(server.rig.mail()) == 1


# ------------------------------------------------------------------------------------------------------- reports of failure


def failure(server, *recipients):
    """A report as the queue has it composed."""
    sink = server.rig.store.new_content()
    sink.write(OCTETS)
    return Report(finish(sink.finish()), Envelope(sender(""), list(recipients)))


def filed(server, *recipients):
    filing = finish(server.target.file_report(failure(server, *recipients)))
    return [delivery.account for delivery in filing.deliveries], [
        str(each.recipient.path) for outgoing in filing.outgoing for each in outgoing.recipients
    ]


def test_a_report_of_failure_is_filed_where_its_addressee_is():
    server = Server({"both": [0, "x@other.example"]})
    you = server.rig.records[0].id
    assert filed(server, to("you@localhost")) == ([you], [])
    assert filed(server, to("a@b.example")) == ([], ["<a@b.example>"])
    assert filed(server, to("both@localhost")) == ([you], ["<x@other.example>"])
    assert filed(server, Recipient(server.rewriter.forward(Path(address("a@b.example"))))) == ([], ["<a@b.example>"])
    assert server.queue.filings == []


def test_row_22_a_report_nobody_can_get_goes_to_postmaster_so_often_and_no_further():
    server = Server()
    postmaster = server.rig.records[0].id
    assert [filed(server, to("gone@localhost")) for _ in range(20)] == [([postmaster], [])] * 20
    with pytest.raises(MailError, match="No such recipient"):
        filed(server, to("gone@localhost"))


def test_a_report_to_postmaster_that_he_cannot_get_is_the_end():
    server = Server()

    async def nobody(_):
        return Unknown()

    server.rig.directory.resolve = nobody
    for recipient in ("postmaster@localhost", "gone@localhost"):
        with pytest.raises(MailError, match="No such recipient"):
            filed(server, to(recipient))


def test_what_cannot_be_said_now_is_not_lost():
    server = Server()

    async def later(_):
        raise StorageFull

    server.rig.directory.resolve = later
    with pytest.raises(StorageFull):
        filed(server, to("you@localhost"))
