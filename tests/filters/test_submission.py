from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemail.filters import Filter, Server
from livemail.filters.chain import FilterChain
from livemail.filters.filter_set import FilterSet
from livemail.filters.plan import FilterSpec
from livemail.filters.shipped.submission import Submission
from livemail.interfaces.directory import LocalAccount
from tests.smtp.rig import NOW, Rig

WHOLE = b"From: you@localhost\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <a@b>\r\n"


class Numbered(Submission):
    @staticmethod
    def new_token():
        return "t0"


class Submits:
    """A submission service with the filter in its chain."""

    def __init__(self, service="submission", **chosen):
        self.rig = Rig()
        server = Server(hostname="mx.localhost", now=lambda: NOW, directory=self.rig.directory)
        specs = [FilterSpec("submission", Numbered, Submission.Config(**chosen))]
        self.rig.chain = FilterChain(specs, self.rig.store, self.rig.clock, server=server)
        self.client = self.rig.submit() if service == "submission" else self.rig.connect(service)

    def say(self, header, body=b"\r\nx\r\n"):
        stuffed = b"\r\n".join(b"." + line if line[:1] == b"." else line for line in (header + body).split(b"\r\n"))
        return self.client.send(stuffed, "me@localhost", sender="you@localhost")

    def __call__(self, header, body=b"\r\nx\r\n"):
        """The message as delivered, behind the trace."""
        reply = self.say(header, body)
        while not reply:  # long content lets the reactor turn now and then
            self.rig.clock.advance(0.001)
            reply = self.client.read()
        assert reply.startswith("250"), reply
        octets = self.rig.mail(account=1)[-1]
        trace = octets.index(b"Received: ")
        return octets[octets.index(b"+0000\r\n", trace) + 7 :]


def test_a_message_with_nothing_to_mend_passes_octet_for_octet():
    odd = b"X-Odd:   a\r\n\t b  \r\nfrom : You <YOU@localhost>\r\n" + WHOLE.partition(b"\r\n")[2]
    assert Submits()(odd) == odd + b"\r\nx\r\n"


def test_what_is_missing_is_added_behind_our_trace():
    assert Submits()(b"Subject: x\r\n") == (
        b"From: you@localhost\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <t0@mx.localhost>\r\n"
        b"Subject: x\r\n\r\nx\r\n"
    )


@pytest.mark.parametrize("missing", [b"From", b"Date", b"Message-ID"])
def test_only_what_is_missing_is_added(missing):
    header = b"".join(line for line in WHOLE.splitlines(keepends=True) if not line.startswith(missing))
    found = Submits()(header)
    assert found.endswith(header + b"\r\nx\r\n")
    assert found.startswith(missing + b": ")
    assert found.count(missing + b":") == 1


def test_bcc_is_taken_out_wherever_it_stands_and_nothing_else_is():
    header = (
        b"Bcc: a@b.example,\r\n c@d.example\r\n"
        + WHOLE
        + b"BCC:\r\nX-Bcc: stays\r\nresent-bcc: e@f.example\r\nTo: x\r\n"
    )
    assert (
        Submits()(header, b"\r\nBcc: in the body\r\n") == WHOLE + b"X-Bcc: stays\r\nTo: x\r\n\r\nBcc: in the body\r\n"
    )


def test_a_message_without_a_header_gets_one():
    found = Submits()(b"", b"\r\nbody\r\n")
    assert found.endswith(b"\r\n\r\nbody\r\n")
    assert found.startswith(b"From: you@localhost\r\n")


def test_mail_of_strangers_is_never_mended():
    for service in ("smtp", "lmtp"):
        assert (
            Submits(service)(b"Bcc: a@b.example\r\nFrom: x@y.example\r\n")
            == b"Bcc: a@b.example\r\nFrom: x@y.example\r\n\r\nx\r\n"
        )


def test_mending_can_be_turned_off():
    assert Submits(repair=False)(b"Bcc: a@b.example\r\n") == b"Bcc: a@b.example\r\n\r\nx\r\n"


OTHERS = [
    b"From: me@localhost\r\n",
    b"From: you@localhost, me@localhost\r\n",
    b"From: you@localhost <me@localhost>\r\n",
    b'From: "you@localhost" <x@other.example>\r\n',
    b"From: x@other.example (you@localhost)\r\n",
    b"From: group: you@localhost;\r\n",
    b"From: undisclosed\r\n",
    b"From: you:;\r\n",
    b"From: you:you@localhost;\r\n",
    b"From:\r\n",
    b"From: you@localhost\r\nFrom: me@localhost\r\n",
    b"From: you@localhost\r\nfrom: you@localhost\r\n",
    b"From: =?utf-8?Q?you=40localhost?= <\xff@x>\r\n",
    b"From: <@you.localhost:me@localhost>\r\n",
    b"From: " + b"you@localhost, " * 60 + b"you@localhost\r\n",
]


@pytest.mark.parametrize("field", OTHERS)
def test_an_author_who_is_somebody_else_is_refused_or_flagged(field):
    rest = WHOLE.partition(b"\r\n")[2]
    assert (
        Submits(check_from="refuse").say(field + rest).startswith("550 5.7.1 From is not an address of you@localhost")
    )
    assert Submits()(field + rest) == b"Sender: you@localhost\r\n" + field + rest + b"\r\nx\r\n"
    assert Submits(check_from="off")(field + rest) == field + rest + b"\r\nx\r\n"


@pytest.mark.parametrize(
    "field", [b"From: You+tag@LOCALHOST\r\n", b"From: sales@localhost, You <you@localhost>\r\n", b"From: you\r\n"]
)
def test_every_address_of_the_account_is_his(field):
    submits = Submits(check_from="refuse")
    record = submits.rig.records[0]
    submits.rig.directory.aliases = {"sales": (LocalAccount(record.id, record.name),)}
    rest = WHOLE.partition(b"\r\n")[2]
    assert submits(field + rest) == field + rest + b"\r\nx\r\n"


def test_a_sender_who_is_the_account_says_enough_and_another_is_replaced():
    rest = b"From: me@localhost\r\n" + WHOLE.partition(b"\r\n")[2]
    assert (
        Submits()(b"Sender: You <you@localhost>\r\n" + rest) == b"Sender: You <you@localhost>\r\n" + rest + b"\r\nx\r\n"
    )
    assert Submits()(b"Sender: me@localhost\r\n" + rest) == b"Sender: you@localhost\r\n" + rest + b"\r\nx\r\n"
    assert (
        Submits()(b"Resent-From: you@localhost\r\n" + rest) == b"Resent-From: you@localhost\r\n" + rest + b"\r\nx\r\n"
    )


def test_a_large_body_streams_through_unchanged():
    body = b"\r\n" + (b"y" * 998 + b"\r\n") * 2000
    found = Submits()(b"Subject: x\r\nBcc: a@b.example\r\n", body)
    assert found.endswith(b"Subject: x\r\n" + body)
    assert b"Bcc" not in found


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_no_from_makes_the_filter_fail_or_lets_another_line_in(text):
    value = text.encode().replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")
    found = Submits()(b"From: " + value + b"\r\n" + WHOLE.partition(b"\r\n")[2])
    assert found.count(b"\r\n") in {5, 6}


def test_what_is_always_asked_comes_first_and_survives_every_replacement():
    rig = Rig()
    always = FilterSpec("submission", Submission, services=frozenset({"submission"}))
    filters = FilterSet(rig.store, rig.clock, None, Server(directory=rig.directory), always=[always])
    filters.replace([])
    other = FilterSpec("other", Filter)
    for specs in ([other], [], [other]):
        filters.replace(specs)
        assert [each.spec for each in filters.loaded] == [always, *specs]
    assert [each.spec.name for each in filters.chain("submission").plan.filters] == ["submission", "other"]
    assert [each.spec.name for each in filters.chain("smtp").plan.filters] == ["other"]
