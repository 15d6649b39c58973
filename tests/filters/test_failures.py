"""Whatever a filter does at whatever stage: nothing passes unfiltered, nothing is lost, the log names filter and line."""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path as File

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from livemail.filters import CONTINUE, EditError, Filter, Path, Reject
from livemail.filters.chain import FilterChain, FilterSpec
from tests.filters.faults import STAGES, Misbehaving
from tests.smtp.rig import Rig

MAIL = b"Subject: one\r\n\r\nbody\r\n"

FAULTS = File(__file__).with_name("faults.py")

AT_ONCE = ("raise", "exit", "cancel", "eat", "nothing", "nonsense", "wrong_code", "wrong_enhanced", "edit_twice")
IN_TIME = ("hang", "hang_for_ever")


@pytest.fixture
def events():
    found = []
    globalLogPublisher.addObserver(found.append)
    yield found
    globalLogPublisher.removeObserver(found.append)


def spec(at, how, **more):
    return FilterSpec("breaker", Misbehaving, Misbehaving.Config(at=at, how=how), timeout=5, **more)


def send_through(rig):
    """The whole dialogue, whatever is said; every reply in one text."""
    client = rig.connect(helo=False)
    said = client.greeting
    for octets in (
        b"", b"EHLO client.example\r\n", b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<you@localhost>\r\n", b"DATA\r\n", MAIL + b".\r\n"
    ):  # fmt: skip
        if client.is_closed or (octets.startswith(b"Subject") and "354" not in said):
            break
        answer = client.feed(octets) if octets else said
        if not answer:
            rig.clock.advance(6)
            answer = client.read()
        said += answer
    return said


def logged(events):
    return [text for event in events if "failed at" in (text := formatEvent(event) or "")]


def test_what_a_filter_raises_when_it_is_closed_is_logged_with_its_line_and_nothing_more(events):
    rig = Rig(filters=[spec("closed", "raise")])
    assert "250 2.0.0 Ok: taken" in send_through(rig)
    assert re.fullmatch(
        r"filter breaker failed at closed, faults\.py:\d+: ZeroDivisionError: closed", logged(events)[0]
    )


@pytest.mark.parametrize("how", [*AT_ONCE, *IN_TIME])
@pytest.mark.parametrize("at", STAGES)
def test_a_failure_at_any_stage_defers_and_is_named_with_its_line(at, how, events):
    rig = Rig(filters=[spec(at, how)])
    said = send_through(rig)
    assert re.search(r"^4[25]1 4\.3\.0 The message could not be checked", said, re.MULTILINE), said
    assert "250 2.0.0 Ok: taken" not in said
    assert not rig.mail()
    (line, *_) = logged(events)
    assert re.search(rf"filter breaker failed at {at}, faults\.py:\d+: ", line), line


@pytest.mark.parametrize("how", [*AT_ONCE, *IN_TIME])
@pytest.mark.parametrize("at", STAGES)
def test_a_failure_that_is_to_be_skipped_lets_the_message_pass_as_it_was(at, how, events):
    rig = Rig(filters=[spec(at, how, on_failure="skip")])
    said = send_through(rig)
    assert "250 2.0.0 Ok: taken" in said
    (stored,) = rig.mail()
    assert stored.endswith(MAIL)
    assert stored.startswith(b"Return-Path: <a@b.example>\r\n")
    assert logged(events)


@pytest.mark.parametrize("at", ["connect", "helo", "mail", "rcpt", "data", "headers", "message"])
def test_skip_is_nonsense_everywhere_but_at_body(at, events):
    assert "taken" not in send_through(Rig(filters=[spec(at, "skip")]))
    assert "which is for the stage body" in logged(events)[0]


def test_a_raise_is_named_with_the_line_that_raised(events):
    send_through(Rig(filters=[spec("message", "raise")]))
    source = FAULTS.read_text().splitlines()
    number = next(n for n, line in enumerate(source, 1) if 'ZeroDivisionError("here")' in line)
    assert f"faults.py:{number}: ZeroDivisionError: here" in logged(events)[0]


def test_a_filter_that_failed_for_one_recipient_is_not_passed_by_at_the_message():
    class Fussy(Filter):
        async def rcpt(self, tx, recipient):
            if "me@" in str(recipient.path):
                raise ValueError
            return CONTINUE

        async def message(self, tx, message):
            return CONTINUE

    rig = Rig(filters=[FilterSpec("fussy", Fussy)])
    client = rig.connect()
    client.begin("you@localhost")
    assert client.say("RCPT TO:<me@localhost>").startswith("451")
    assert client.say("DATA").startswith("354")
    assert client.feed(MAIL + b".\r\n").startswith("451")
    assert not rig.mail()


def test_an_edit_after_the_verdict_defers_while_the_message_is_still_here(events):
    kept = []

    class Late(Filter):
        async def message(self, tx, message):
            kept.append((tx, message))
            return CONTINUE

    class Next(Filter):
        async def message(self, tx, message):
            for late in (lambda: kept[0][0].change_reverse_path(Path.null), lambda: kept[0][1].add_header("X", "y")):
                with pytest.raises(EditError):
                    late()
            return CONTINUE

    for on_failure, reply in (("defer", "451"), ("skip", "250")):
        kept.clear()
        rig = Rig(filters=[FilterSpec("late", Late, on_failure=on_failure), FilterSpec("next", Next)])
        assert rig.connect().send(MAIL).startswith(reply)
        assert [b"X: y" in mail for mail in rig.mail()] == ([] if reply == "451" else [False])
        assert "late failed at message" in logged(events)[-1]
        with pytest.raises(EditError):
            kept[0][1].replace_body(b"too late")


@pytest.mark.parametrize("on_failure", ["defer", "skip"])
@pytest.mark.parametrize("at", ["headers", "body", "message"])
def test_an_edit_after_a_verdict_at_any_stage_of_the_message_is_a_failure(at, on_failure, events):
    kept = []

    async def stage(self, tx, given):
        kept.append(tx)
        return CONTINUE

    class Next(Filter):
        async def message(self, tx, message):
            with contextlib.suppress(EditError):
                kept[0].change_reverse_path(Path.null)
            return CONTINUE

    late = type("Late", (Filter,), {at: stage})
    rig = Rig(filters=[FilterSpec("late", late, on_failure=on_failure), FilterSpec("next", Next)])
    assert rig.connect().send(MAIL).startswith("451" if on_failure == "defer" else "250")
    assert [mail.startswith(b"Return-Path: <>") for mail in rig.mail()] == ([] if on_failure == "defer" else [False])
    assert re.search(r"late failed at message, test_failures\.py:\d+: ", logged(events)[-1])


@pytest.mark.parametrize("at", ["connect", "helo", "mail", "rcpt", "data"])
def test_an_edit_kept_from_before_there_is_a_message_changes_nothing(at):
    kept, refused = [], []

    class Early(Filter):
        async def message(self, tx, message):
            return CONTINUE

    async def stage(self, tx, *given):
        kept.append(tx)
        return CONTINUE

    class Next(Filter):
        async def message(self, tx, message):
            for one in kept:
                try:
                    one.change_reverse_path(Path.null)
                except EditError as error:
                    refused.append(error)
            return CONTINUE

    setattr(Early, at, stage)
    rig = Rig(filters=[FilterSpec("early", Early), FilterSpec("next", Next)])
    said = send_through(rig)
    assert "250 2.0.0 Ok: taken" not in said or [m.startswith(b"Return-Path: <>") for m in rig.mail()] == [False]
    assert len(refused) == len(kept) > 0


def test_an_edit_while_the_message_is_made_durable_changes_nothing_and_is_told_with_its_line(events):
    kept = []

    class Late(Filter):
        async def message(self, tx, message):
            kept.append(message)
            return CONTINUE

    rig = Rig(filters=[FilterSpec("late", Late)])
    deliver = rig.store.deliver

    async def slow_deliver(batch):
        with contextlib.suppress(EditError):
            kept[0].add_header("X", "y")
        return await deliver(batch)

    rig.store.deliver = slow_deliver
    assert rig.connect().send(MAIL).startswith("250")
    assert [b"X: y" in mail for mail in rig.mail()] == [False]
    told = [text for event in events if "after its verdict" in (text := formatEvent(event) or "")]
    assert len(told) == 1
    assert re.search(r"filter late failed after its verdict, test_failures\.py:\d+: ", told[0]), told[0]


@pytest.mark.parametrize(
    "edit",
    [
        lambda tx, message: message.replace_body(b"x"),
        lambda tx, message: tx.change_reverse_path(Path.null),
        lambda tx, message: tx.remove_recipient(tx.recipients[0].path),
    ],
)
def test_an_edit_made_twice_is_a_failure_even_when_the_filter_swallows_it(edit):
    class Twice(Filter):
        async def message(self, tx, message):
            edit(tx, message)
            with contextlib.suppress(EditError):
                edit(tx, message)
            return CONTINUE

    rig = Rig(filters=[FilterSpec("twice", Twice)])
    assert rig.connect().send(MAIL).startswith("451")
    assert not rig.mail()


@pytest.mark.parametrize("how", AT_ONCE)
@pytest.mark.parametrize("at", STAGES)
def test_a_failure_in_a_thread_defers_and_is_named_with_its_line(at, how, events):
    class Blocking(Misbehaving):
        blocking = True

    def elsewhere(function, *arguments):
        box = []

        def work():
            try:
                box.append((True, function(*arguments)))
            except BaseException as error:
                box.append((False, error))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(20)
        (is_well, what), answer = box[0], Deferred()
        if is_well:
            answer.callback(what)
        else:
            answer.errback(Failure(what))
        return answer

    rig = Rig()
    breaker = FilterSpec("breaker", Blocking, Blocking.Config(at=at, how=how), timeout=5)
    rig.chain = FilterChain([breaker], rig.store, rig.clock, elsewhere)
    said = send_through(rig)
    assert re.search(r"^4[25]1 4\.3\.0 The message could not be checked", said, re.MULTILINE), said
    assert not rig.mail()
    assert re.search(rf"breaker failed at {at}, \w+\.py:\d+: ", logged(events)[0]), logged(events)


@pytest.mark.parametrize("at", STAGES)
def test_a_thread_that_hangs_is_left_behind_and_what_it_does_later_changes_nothing(at, events):
    class Blocking(Misbehaving):
        blocking = True

        async def _hang(self, tx, given):
            hanging.append(threading.current_thread())
            release.wait(10)
            try:
                tx.change_reverse_path(Path.null)
            except EditError as error:
                refused.append(str(error))
            return Reject()

    release, hanging, refused, threads = threading.Event(), [], [], []

    rig = Rig()
    breaker = FilterSpec("breaker", Blocking, Blocking.Config(at=at, how="hang"), timeout=5)

    def elsewhere(function, *arguments):
        answer = Deferred()
        box = []
        thread = threading.Thread(target=lambda: box.append(function(*arguments)))
        threads.append(thread)
        thread.start()
        # The stages before it end by themselves; however slow the machine is, only the one that waits for us hangs.
        while thread.is_alive() and thread not in hanging:
            thread.join(0.01)
        if box:
            answer.callback(box[0])
        return answer

    rig.chain = FilterChain([breaker], rig.store, rig.clock, elsewhere)

    said = send_through(rig)
    release.set()
    for thread in threads:
        thread.join(5)
    assert re.search(r"^4[25]1 4\.3\.0", said, re.MULTILINE), said
    assert not rig.mail()
    assert re.search(rf"breaker failed at {at}, test_failures\.py:\d+: .*no verdict", logged(events)[0]), logged(events)
    assert refused
