from __future__ import annotations

import pytest

from livemail.config import ConfigError, loads
from livemail.filters import Accept, Continue, Defer, Discard, Quarantine, Reject
from livemail.filters.find import find, plugins
from livemail.filters.shipped.attachments import Attachments, clean_name, kinds_of_name
from livemail.filters.shipped.external import ExternalTag
from livemail.filters.shipped.identity import SenderIdentity
from livemail.filters.shipped.limits import Limits
from livemail.filters.shipped.loops import LoopGuard
from livemail.filters.shipped.rates import Rates, Window
from livemail.testing import hostile_messages, run_filter
from tests.filters.shipped_rig import attached, server, zipped

PLAIN = b"From: Ann <ann@else.example>\r\nSubject: hello\r\n\r\nbody\r\n"
PE = b"MZ\x90\0" + bytes(200)
HEAD = 'data = "/tmp"\n[[listen]]\nservice = "lmtp"\naddress = "127.0.0.1:2400"\n[[filter]]\n'


def ask(kind, message=PLAIN, **more):
    return run_filter(kind, message, server=server(), **more)


def test_every_shipped_filter_is_found_by_its_name():
    for plugin in plugins():
        assert find(plugin.name).__module__ == plugin.filter.partition(":")[0]
        assert plugin.description


@pytest.mark.parametrize("kind", [Attachments, ExternalTag, SenderIdentity, LoopGuard, Limits, Rates])
def test_a_shipped_filter_comes_to_a_verdict_whatever_is_sent(kind):
    config = {Limits: {"max_parts": 50}, Rates: {"max_messages": 5}}.get(kind, {})
    for name, message in hostile_messages():
        run_filter(kind, message, server=server(), **config)  # raises with the filter's line when it fails
        assert name


@pytest.mark.parametrize(
    "text",
    [
        'use = "attachments"\nrefuse = ["exe"]',
        'use = "limits"',
        'use = "rates"',
        'use = "rates"\nmax_messages = 1\nby = "peer"\nexempt = ["x"]',
        'use = "external-tag"\nfield = ""\nprefix = ""',
        'use = "external-tag"\nfield = "a b"',
        'use = "sender-identity"\ntrusted = ["here"]',
        'use = "loop-guard"\nmax_hops = 0\nmax_visits = 0',
        'use = "http"',
        'use = "http"\nurl = "ftp://x"',
        'use = "http"\nurl = "http://policy.example.org"\ntoken_file = "/dev/null"',
    ],
)
def test_what_cannot_work_is_said_by_the_configuration(text):
    with pytest.raises(ConfigError):
        loads(HEAD + text + "\n", "x")


# ------------------------------------------------------------------------------------------------------ attachments


@pytest.mark.parametrize(
    ("octets", "name", "kind"),
    [
        (PE, 'filename="readme.txt"', "executable"),
        (b"\x7fELF\x02", 'filename="a"', "executable"),
        (b"hello", 'filename="a.ExE"', "executable"),
        (b"hello", 'filename="a.exe. ."', "executable"),
        (b"hello", "filename*=utf-8''photo%E2%80%AEgpj.exe", "executable"),
        (b"hello", 'filename*0="a.e"; filename*1="xe"', "executable"),
        (b"hello", 'filename="report.pdf.js"', "script"),
        (b"#!/bin/sh\n", 'filename="notes.txt"', "script"),
        (b"L\0\0\0\x01\x14\x02\0", 'filename="a.pdf"', "shortcut"),
        (zipped(("run.exe", b"x")), 'filename="a.zip"', "executable"),
        (zipped(("readme.txt", PE)), 'filename="a.docx"', "executable"),
        (zipped(("inner.zip", zipped(("deep.zip", zipped(("x.txt", PE)))))), 'filename="a.zip"', "executable"),
    ],
)
def test_an_attachment_is_what_it_is(octets, name, kind):
    result = ask(Attachments, attached(octets, name))
    assert isinstance(result.verdict, Reject), result
    assert f"({kind})" in result.verdict.text


@pytest.mark.parametrize(
    ("octets", "refuse", "kind"),
    [
        (zipped(("word/vbaProject.bin", b"x")), "macro", "macro"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + b"_\0V\0B\0A\0", "macro", "macro"),
        (zipped(("x.txt", b"x"), encrypt=True), "encrypted", "encrypted"),
        (zipped(("x.txt", b"x" * 1000))[:-20], "unexamined", "unexamined"),
        (zipped(("1.zip", zipped(("2.zip", zipped(("3.zip", zipped(("4.txt", b"x")))))))), "unexamined", "unexamined"),
        (b"Rar!\x1a\x07\0", "unexamined", "unexamined"),
        (b"<html><script>", "html", "html"),
        (b"hello", ".bin", ".bin"),
        (bytes(0x8001) + b"CD001", "disk-image", "disk-image"),
    ],
)
def test_other_kinds_are_refused_where_they_are_named(octets, refuse, kind):
    assert isinstance(ask(Attachments, attached(octets)).verdict, Continue)
    result = ask(Attachments, attached(octets), refuse=[refuse])
    assert isinstance(result.verdict, Reject)
    assert f"({kind})" in result.verdict.text


def test_a_bomb_and_many_entries_are_not_unpacked():
    bomb = zipped(("a.zip", zipped(("zeros", bytes(30_000_000)))))
    result = ask(Attachments, attached(bomb), refuse=["unexamined"], max_archive_octets=20_000)
    assert isinstance(result.verdict, Reject)
    many = zipped(*((f"{n}.txt", b"") for n in range(200)))
    assert isinstance(ask(Attachments, attached(many), refuse=["unexamined"], max_entries=100).verdict, Reject)
    assert isinstance(ask(Attachments, attached(many), refuse=["unexamined"]).verdict, Continue)


def test_what_is_shown_as_text_is_no_attachment_and_names_can_be_allowed():
    assert isinstance(ask(Attachments, b"Subject: x\r\n\r\n#!/bin/sh\r\n").verdict, Continue)
    assert isinstance(ask(Attachments, attached(PE, 'filename="Tool.exe"'), allow=["tool.EXE"]).verdict, Continue)


def test_a_policy_may_quarantine_or_mark():
    assert isinstance(ask(Attachments, attached(PE), action="quarantine").verdict, Quarantine)
    marked = ask(Attachments, attached(PE, 'filename="a\x07b.exe"'), action="mark")
    assert isinstance(marked.verdict, Continue)
    assert b"X-Attachment-Policy: executable; " in marked.message


def test_names_are_cleaned_as_systems_clean_them():
    assert clean_name("C:\\x\\..\\A.EXE ..") == "a.exe"
    assert clean_name("a\u202etxt.exe\0") == "atxt.exe"
    assert kinds_of_name("exe") == set()


# ----------------------------------------------------------------------------------------------------------- rates


def send_many(kind_server, count, **more):
    from livemail.filters.chain import FilterChain, FilterSpec
    from livemail.filters.once import Circumstances, run_once
    from livemail.storage.memory.store import MemoryStore
    from tests.smtp.rig import finish

    store = MemoryStore()
    settings = Rates.Config(**{key: more.pop(key) for key in list(more) if key in Rates.Config.__struct_fields__})
    chain = FilterChain([FilterSpec("rates", Rates, settings)], store, kind_server.reactor, None, server=kind_server)

    def one(**about):
        sink = store.new_content()
        sink.write(PLAIN)
        return finish(run_once(chain, finish(sink.finish()), Circumstances(**{**more, **about}))).verdict

    return [one() for _ in range(count)], one


def test_an_account_may_send_so_many_within_a_period_and_again_later():
    clock = server()
    verdicts, one = send_many(clock, 5, max_messages=3, period=60, authcid="ann@example.org", service="submission")
    assert [type(each).__name__ for each in verdicts] == ["Continue"] * 3 + ["Defer"] * 2
    assert verdicts[-1].code == 450
    assert isinstance(one(authcid="ben@example.org"), Continue)
    assert isinstance(one(authcid=""), Continue)
    clock.reactor.advance(121)
    assert isinstance(one(), Continue)


def test_recipients_count_each_and_networks_together():
    clock = server()
    verdicts, one = send_many(
        clock, 1, by="peer", max_recipients=3, action="reject", exempt=frozenset({"198.51.100.0/24"}), peer="2001:db8::1",
        recipients=["a@example.org", "b@example.org"],
    )  # fmt: skip
    assert isinstance(verdicts[0], Continue)
    assert isinstance(one(peer="2001:db8::ffff"), Continue)  # one of the two was taken
    assert isinstance(one(peer="2001:db8::2"), Reject)
    assert isinstance(one(peer="2001:db8:1::2"), Continue)
    for _ in range(5):
        assert isinstance(one(peer="198.51.100.7"), Continue)


def test_a_window_slides_and_is_bounded():
    window = Window(10, 3)
    for _ in range(10):
        window.add("a", 0)
    assert [round(window.count("a", now), 6) for now in (9, 10, 15, 19, 20)] == [10, 10, 5, 1, 0]
    for key in "bcd":
        window.add(key, 1)
    assert window.count("a", 1) == 0
    assert window.count("d", 1) == 1


# -------------------------------------------------------------------------------------------------- external, identity


def test_mail_from_outside_is_marked_once_and_what_others_wrote_is_taken_out():
    forged = b"X-External-Sender: no\r\nX-External-Sender: never\r\n" + PLAIN
    result = ask(ExternalTag, forged)
    assert result.message.count(b"X-External-Sender:") == 1
    assert b"X-External-Sender: yes\r\n" in result.message
    assert b"Subject: [External] hello\r\n" in result.message
    again = ask(ExternalTag, result.message)
    assert again.message.count(b"[External]") == 1
    assert ask(ExternalTag, b"From: a@b.example\r\n\r\n").message.count(b"Subject: [External]") == 1


def test_what_users_send_and_trusted_domains_are_not_marked():
    inside = ask(ExternalTag, b"X-External-Sender: yes\r\n" + PLAIN, authcid="ann@example.org", service="submission")
    assert b"External" not in inside.message
    config = {"trusted": ["else.example"]}
    assert ask(ExternalTag, sender="x@else.example", **config).edits == []
    assert ask(ExternalTag, sender="x@third.example", **config).edits
    assert ask(ExternalTag, PLAIN.replace(b"else", b"third"), sender="x@else.example", **config).edits


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"From: boss@example.org", "Log in to send"),
        (b"From: boss@EXAMPLE.org, a@b.example", "Log in to send"),
        (b"From: a@b.example\r\nFrom: c@d.example", "one From field"),
        (b"Subject: nobody", "needs an author"),
        (b'From: "boss@example.org" <a@b.example>', "holds another address"),
        (b"From: =?utf-8?q?boss=40example=2Eorg?= <a@b.example>", "holds another address"),
    ],
)
def test_a_stranger_who_is_not_who_he_seems_is_refused(head, said):
    message = head + b"\r\n\r\nx\r\n"
    result = ask(SenderIdentity, message)
    assert isinstance(result.verdict, Reject)
    assert said in result.verdict.text
    assert isinstance(ask(SenderIdentity, message, trusted=["192.0.2.0/24"]).verdict, Continue)
    assert isinstance(ask(SenderIdentity, message, authcid="boss@example.org", service="submission").verdict, Continue)
    assert isinstance(ask(SenderIdentity, message, action="quarantine").verdict, Quarantine)
    assert b"X-Sender-Identity: " in ask(SenderIdentity, message, action="mark").message


def test_honest_strangers_pass():
    for head in (b"From: a@b.example", b'From: "a@b.example" <a@b.example>'):
        assert isinstance(ask(SenderIdentity, head + b"\r\n\r\nx\r\n").verdict, Continue), head
    assert isinstance(ask(SenderIdentity, envelope=True, sender="x@example.org").verdict, Reject)


# ----------------------------------------------------------------------------------------------------- loops, limits


def test_what_was_here_too_often_is_refused():
    ours = b"Received: from a by MX.example.org with ESMTP id 1;\r\n\tnow\r\n"
    assert isinstance(ask(LoopGuard, ours * 3 + PLAIN).verdict, Continue)
    result = ask(LoopGuard, ours * 4 + PLAIN)
    assert result.verdict == Reject("5.4.6", "This message was here 3 times before: it goes in circles", code=554)
    assert isinstance(ask(LoopGuard, b"Received: by not-mx.example.org;\r\n" * 20 + PLAIN).verdict, Continue)
    assert isinstance(ask(LoopGuard, b"Received: by x;\r\n" * 51 + PLAIN).verdict, Reject)


def test_a_marker_is_added_and_met_again():
    once = ask(LoopGuard, marker="X-Loop")
    assert b"X-Loop: mx.example.org\r\n" in once.message
    assert isinstance(ask(LoopGuard, once.message, marker="X-Loop").verdict, Reject)


def test_machines_do_not_answer_each_other():
    reply = b"Auto-Submitted: auto-replied\r\n" + PLAIN
    assert isinstance(ask(LoopGuard, reply, sender="", discard_auto_replies=True).verdict, Discard)
    assert isinstance(ask(LoopGuard, reply, discard_auto_replies=True).verdict, Continue)


def test_limits_hold_for_what_comes_and_for_what_is_announced():
    assert ask(Limits, max_octets=10).verdict.code == 552
    assert isinstance(ask(Limits, max_octets=1000).verdict, Continue)
    assert isinstance(ask(Limits, attached(b"x"), max_parts=1).verdict, Reject)
    assert isinstance(ask(Limits, attached(b"x"), max_parts=2).verdict, Continue)
    assert isinstance(ask(Limits, PLAIN + b"x" * 999 + b"\r\n", max_line_octets=998).verdict, Reject)
    result = ask(Limits, max_recipients=2, recipients=[f"u{n}@example.org" for n in range(4)])
    assert isinstance(result.verdict, Continue)
    assert list(result.refused) == ["u2@example.org", "u3@example.org"]
    assert not isinstance(result.verdict, Accept | Defer)
