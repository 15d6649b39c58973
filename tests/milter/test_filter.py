from __future__ import annotations

import msgspec
import pytest
from twisted.internet.defer import Deferred

from livemail.filters.chain import FilterChain, FilterSpec
from livemail.interfaces.filter import ConnectionInfo
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Envelope, Recipient, ReversePath
from livemail.milter import codes
from livemail.milter.client import MilterError, Times
from livemail.milter.filter import Milter
from livemail.milter.grammar import (
    BodyChunk,
    HeaderChange,
    Options,
    Quarantined,
    RecipientAdded,
    RecipientRemoved,
    ReversePathChanged,
)
from livemail.milter.pool import Pool
from tests.milter.milters import CONTINUES, Script, rendered
from tests.smtp.rig import Rig, finish

MAIL = b"Subject: one\r\nX-A: 1\r\nReceived: from elsewhere\r\nX-A: 2\r\n folded\r\n\r\nbody\r\n"
CAT = Path(Address("cat", "localhost"))


def milter(*scripts, on_failure="defer", **more):
    """A specification whose pool gives out these scripts, one a connection; the last again and again."""
    left = list(scripts)

    class Scripted(Milter):
        @classmethod
        def start(cls, config, server):
            async def open_():
                script = left.pop(0) if len(left) > 1 else left[0]
                if isinstance(script, Exception):
                    raise script
                return script

            return Pool(open_, server.reactor, times=Times(), max_body=1000, max_idle=3, idle_seconds=60.0)

    return FilterSpec("milter", Scripted, Milter.Config("inet:1@127.0.0.1"), on_failure=on_failure, **more)


def send(script, *recipients, on_failure="defer"):
    made = Rig(filters=[milter(script, on_failure=on_failure)])
    return made.connect().send(MAIL, *(recipients or ("you@localhost",))), made


def stored(made):
    return made.mail()[0].partition(b"\r\n\r\n")


def test_the_milter_is_told_of_everything_without_our_own_received():
    script = Script()
    reply, _ = send(script)
    assert reply.startswith("250")
    assert script.commands() == "OCHMRTLLLLNBE"
    assert script.told(codes.CONNECT) == [
        b"[192.168.1.1]\x004" + script.told(codes.CONNECT)[0][15:17] + b"192.168.1.1\0"
    ]
    assert script.told(codes.HELO) == [b"client.example\0"]
    assert script.told(codes.RCPT) == [b"<you@localhost>\0"]
    names = [data.partition(b"\0")[0] for data in script.told(codes.HEADER)]
    assert names == [b"Subject", b"X-A", b"Received", b"X-A"]
    assert script.told(codes.HEADER)[3] == b"X-A\x002\n folded\0"
    assert script.told(codes.BODY) == [b"body\r\n"]
    macros = {data[:1]: data[1:].split(b"\0") for data in script.told(codes.MACRO)}
    assert macros[b"C"][macros[b"C"].index(b"{client_addr}") + 1] == b"192.168.1.1"
    assert macros[b"C"][macros[b"C"].index(b"{daemon_name}") + 1] == b"smtp"
    assert macros[b"R"][macros[b"R"].index(b"{rcpt_addr}") + 1] == b"you@localhost"
    assert b"i" in macros[b"M"]
    assert b"i" in macros[b"E"]


def test_the_milter_is_told_who_logged_in_and_how():
    script = Script()
    made = Rig(filters=[milter(script)])
    client = made.submit()
    client.begin("you@localhost", sender="you@localhost")
    (macros,) = [data[1:].split(b"\0") for data in script.told(codes.MACRO) if data.startswith(b"M")]
    assert macros[macros.index(b"{auth_authen}") + 1] == b"you@localhost"
    assert macros[macros.index(b"{auth_type}") + 1] == b"PLAIN"


def test_one_dialogue_serves_a_connections_transactions():
    script = Script()
    client = Rig(filters=[milter(script)]).connect()
    for _ in range(2):
        assert client.send(MAIL).startswith("250")
    client.feed(b"MAIL FROM:<a@b.example>\r\nRSET\r\n")
    client.say("QUIT")
    assert script.commands() == "OCH" + "MRTLLLLNBE" * 2 + "MA"


@pytest.mark.parametrize("stage", ["CONNECT", "HELO", "MAIL", "RCPT", "DATA", "HEADER", "EOH", "BODY", "BODYEOB"])
@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ((codes.REJECT, b""), 5, "Command rejected"),
        ((codes.TEMPFAIL, b""), 4, "try again later"),
        ((codes.REPLYCODE, b"554 5.7.9 not you\0"), 5, "5.7.9 not you"),
        ((codes.REPLYCODE, b"451-4.7.9 not\r\n451 4.7.9 now\0"), 4, "4.7.9 not now"),
        ((codes.REPLYCODE, b"421 4.7.9 away\0"), 4, "4.7.9 away"),
        ((codes.SHUTDOWN, b""), 4, "shutting down"),
    ],
)
def test_a_refusal_is_said_at_its_stage_and_nothing_is_stored(stage, answer, code, words):
    made = Rig(filters=[milter(Script(**{stage: [answer]}))])
    client = made.connect(helo=False)
    said = client.greeting
    if not client.is_closed:
        said += client.say("EHLO client.example")
        said += client.feed(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<you@localhost>\r\nDATA\r\n")
        if "354" in said:
            said += client.feed(MAIL + b".\r\n")
    refusals = [line for line in said.split("\r\n") if line[:1] in "45" and words in line]
    assert refusals, said
    assert all(line.startswith(str(code)) for line in refusals)
    if answer[1].startswith(b"421") and stage != "CONNECT":
        assert refusals[0].startswith("451")
    assert not made.mail()


@pytest.mark.parametrize("stage", ["CONNECT", "HELO", "MAIL", "RCPT", "DATA", "EOH", "BODYEOB"])
def test_accept_means_that_this_milter_is_not_asked_again(stage):
    script = Script(**{stage: [(codes.ACCEPT, b"")]})
    client = Rig(filters=[milter(script)]).connect()
    for _ in range(2):
        assert client.send(MAIL).startswith("250")
    told = {"CONNECT": "OC", "HELO": "OCH"}
    once = {"MAIL": "M", "RCPT": "MR", "DATA": "MRT", "EOH": "MRTLLLLN", "BODYEOB": "MRTLLLLNBE"}
    if stage in told:
        assert script.commands() == told[stage]
    else:
        end = "" if stage == "BODYEOB" else "A"
        assert script.commands() == "OCH" + (once[stage] + end) * 2


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "EOH", "BODY", "BODYEOB"])
def test_discard_takes_and_forgets(stage):
    reply, made = send(Script(**{stage: [(codes.DISCARD, b"")]}))
    assert reply.startswith("250")
    assert not made.mail()


def test_every_edit_is_made():
    edits = rendered(
        HeaderChange("insert", b"X-Top", b" top", 0),
        HeaderChange("insert", b"X-Second", b" second", 2),
        HeaderChange("change", b"X-A", b" changed", 2),
        HeaderChange("change", b"Subject", b"", 1),
        HeaderChange("change", b"Received", b" changed", 1),
        HeaderChange("add", b"DKIM-Signature", b" v=1;\r\n\tb=x"),
        BodyChunk(b"new "),
        BodyChunk(b"body\r\n"),
        ReversePathChanged(Path(Address("bounce", "b.example"))),
    )
    reply, made = send(Script(BODYEOB=[*edits, *CONTINUES]))
    assert reply.startswith("250")
    header, _, body = stored(made)
    assert body == b"new body\r\n"
    lines = header.split(b"\r\n")
    top = lines.index(b"X-Top: top")
    assert b"Return-Path: <bounce@b.example>" in lines[:top]
    ours = lines.index(b"X-Second: second")
    assert any(line.startswith(b"Received: from client.example") for line in lines[top:ours])
    assert lines[ours + 1 :] == [
        b"X-A: 1", b"Received: changed", b"X-A: changed", b"DKIM-Signature: v=1;", b"\tb=x"
    ]  # fmt: skip


def test_recipients_are_added_and_removed_whatever_their_case():
    edits = rendered(RecipientAdded(Recipient(CAT)), RecipientRemoved(Path(Address("YOU", "localhost"))))
    made = Rig(filters=[milter(Script(BODYEOB=[*edits, *CONTINUES]))])
    state = finish(FilterChain([milter(Script(BODYEOB=[*edits, *CONTINUES]))], made.store, made.clock).connect(
        ConnectionInfo("s", "smtp", "192.0.2.1")))[1]  # fmt: skip
    you = Recipient(Path(Address("you", "localhost")))
    reverse = ReversePath(Path.null)
    finish(state.mail(reverse))
    finish(state.rcpt(you))
    envelope = Envelope(reverse, [you])
    finish(state.data(envelope))
    sink = made.store.new_content()
    sink.write(MAIL)
    outcome = finish(state.message(finish(sink.finish()), envelope))
    seen = [each.path for each in outcome.envelope.recipients]
    assert seen == [CAT]


def test_a_milter_may_change_its_mind_about_the_envelope():
    you, other = Path(Address("you", "localhost")), Path(Address("third", "localhost"))
    edits = rendered(
        RecipientRemoved(you), RecipientAdded(Recipient(you)), RecipientAdded(Recipient(other)), RecipientRemoved(other),
        RecipientAdded(Recipient(CAT)), RecipientAdded(Recipient(CAT)), RecipientRemoved(CAT), RecipientRemoved(CAT),
        ReversePathChanged(CAT), ReversePathChanged(Path(Address("last", "b.example"))),
    )  # fmt: skip
    reply, made = send(Script(BODYEOB=[*edits, *CONTINUES]), on_failure="skip")
    assert reply.startswith("250")
    assert b"Return-Path: <last@b.example>" in stored(made)[0]
    assert len(made.mail()) == 1


@pytest.mark.parametrize("error", [ValueError("no such thing"), TypeError("a bug")])
@pytest.mark.parametrize("on_failure", ["defer", "skip"])
def test_an_edit_that_cannot_be_made_defers_the_message_whatever_is_configured(on_failure, error, monkeypatch):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("livemail.milter.filter._edit_header", refuse)
    edits = rendered(HeaderChange("add", b"X", b" y"))
    reply, made = send(Script(BODYEOB=[*edits, *CONTINUES]), on_failure=on_failure)
    assert reply.startswith("451 4.3.0")
    assert not made.mail()


def test_quarantine_is_a_verdict_and_edits_with_a_refusal_are_void():
    reply, made = send(Script(BODYEOB=[*rendered(Quarantined("odd")), *CONTINUES]))
    assert reply.startswith("250")
    assert len(made.mail("Junk")) == 1
    edits = rendered(HeaderChange("add", b"X", b" y"))
    reply, made = send(Script(BODYEOB=[*edits, (codes.REJECT, b"")]))
    assert reply.startswith("550")


@pytest.mark.parametrize("on_failure", ["defer", "skip"])
@pytest.mark.parametrize(
    ("answers", "is_known"),
    [
        ([MilterError("closed")], False),
        ([(codes.CONN_FAIL, b"")], False),
        ([(codes.REPLBODY, b"half"), MilterError("closed")], True),
        ([*rendered(HeaderChange("add", b"X", b" y")), MilterError("closed")], True),
        ([(codes.REPLYCODE, b"550-one\r\n551 two\0")], True),
        ([(codes.REPLBODY, b"x" * 2000)], True),
    ],
)
def test_a_milter_lost_while_it_edits_or_with_a_reply_nobody_can_read_never_lets_mail_through(
    on_failure, answers, is_known
):
    reply, made = send(Script(BODYEOB=answers), on_failure=on_failure)
    if on_failure == "skip" and not is_known:
        assert reply.startswith("250")
        assert stored(made)[2] == b"body\r\n"
    else:
        assert reply.startswith("451 4.3.0")
        assert not made.mail()


def test_a_milter_that_is_not_there_defers_or_is_skipped_and_is_asked_again_for_the_next_message():
    script = Script()
    made = Rig(filters=[milter(MilterError("refused"), script)])
    client = made.connect(helo=False)
    assert client.greeting.startswith("421 4.3.0")
    assert client.is_closed
    assert made.connect().send(MAIL).startswith("250")
    lost = Script(MAIL=[MilterError("closed")])
    made = Rig(filters=[milter(lost, script)])
    client = made.connect()
    assert client.say("MAIL FROM:<a@b.example>").startswith("451 4.3.0")
    assert client.send(MAIL).startswith("250")
    reply, made = send(MilterError("refused"), on_failure="skip")
    assert reply.startswith("250")


def test_a_milter_lost_at_one_recipient_is_a_failure_for_the_next_one_too():
    made = Rig(filters=[milter(Script(RCPT=[MilterError("closed")]))])
    client = made.connect()
    said = client.feed(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<you@localhost>\r\nRCPT TO:<you+x@localhost>\r\nDATA\r\n")
    assert "354" not in said
    assert said.count("451 4.3.0") == 2


def test_a_milter_for_some_recipients_only_is_told_of_mail_when_one_comes():
    script = Script()
    made = Rig(filters=[milter(script, domains=frozenset({"localhost"}))])
    assert made.connect().send(MAIL).startswith("250")
    assert script.commands() == "OCHMRTLLLLNBE"


@pytest.mark.parametrize("on_failure", ["defer", "skip"])
@pytest.mark.parametrize("answers", [[(codes.PROGRESS, b"")], [(codes.REPLBODY, b"half")]])
def test_out_of_time_drops_the_dialogue_and_in_the_middle_of_edits_defers_in_any_case(answers, on_failure):
    class Slow(Script):
        async def receive(self, seconds):
            if not self.queue:
                await Deferred()
            return await super().receive(seconds)

    script = Slow(BODYEOB=answers)
    made = Rig(filters=[milter(script, on_failure=on_failure)])
    client = made.connect()
    client.feed(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<you@localhost>\r\nDATA\r\n")
    assert client.feed(MAIL + b".\r\n") == ""
    made.clock.advance(31)
    passes = on_failure == "skip" and answers[0][0] == codes.PROGRESS
    assert client.read().startswith("250" if passes else "451 4.3.0")
    assert bool(made.mail()) is passes
    assert not script.is_open


def test_old_milters_get_what_they_know():
    script = Script(Options(2, 0x3F, codes.NO_HELO | codes.NO_BODY))
    reply, _ = send(script)
    assert reply.startswith("250")
    assert script.commands() == "OCMRLLLLNE"


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"socket": "inet:x"}, "socket"), ({"socket": "unix:/x", "command_time": 0.0}, "command_time")],
)
def test_faults_of_the_configuration_are_told(settings, key):
    assert [name for name, _ in msgspec.convert(settings, Milter.Config).faults()] == [key]
    assert not list(Milter.Config("unix:/x").faults())
