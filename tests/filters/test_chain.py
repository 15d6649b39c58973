from __future__ import annotations

import threading

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher

from livemail.filters import (
    BODY_CHUNK,
    CONTINUE,
    SKIP,
    Accept,
    Defer,
    Discard,
    Filter,
    Quarantine,
    Reject,
)
from livemail.filters.chain import FilterChain, FilterSpec
from livemail.mail.address import Address, Path
from tests.smtp.rig import Rig

MAIL = b"Subject: one\r\nX-A: 1\r\nX-A: 2\r\n folded\r\n\r\nbody\r\n"


def rig(*filters, **settings):
    specs = [each if isinstance(each, FilterSpec) else FilterSpec(each.__name__, each) for each in filters]
    return Rig(filters=specs, **settings)


def at_message(action):
    """Make a filter whose stage ``message`` is a function."""

    class Made(Filter):
        async def message(self, tx, message):
            return action(tx, message) or CONTINUE

    return Made


def send(*filters, recipients=("you@localhost",)):
    made = rig(*filters)
    return made.connect().send(MAIL, *recipients), made


def test_every_stage_is_asked_in_order_and_an_object_serves_one_transaction():
    log = []

    class Witness(Filter):
        def __init__(self, config):
            super().__init__(config)
            self.number = len({entry[0] for entry in log})

        async def connect(self, tx):
            log.append((self.number, "connect", tx.connection.peer))
            return CONTINUE

        async def helo(self, tx, name):
            log.append((self.number, "helo", name))
            return CONTINUE

        async def mail(self, tx, reverse_path):
            log.append((self.number, "mail", tx.helo))
            return CONTINUE

        async def rcpt(self, tx, recipient):
            log.append((self.number, "rcpt", len(tx.recipients)))
            return CONTINUE

        async def data(self, tx):
            log.append((self.number, "data", len(tx.recipients)))
            return CONTINUE

        async def headers(self, tx, message):
            log.append((self.number, "headers", message.text("subject")))
            return CONTINUE

        async def message(self, tx, message):
            log.append((self.number, "message", [record.stage for record in tx.records]))
            return CONTINUE

        def closed(self):
            log.append((self.number, "closed", None))

    client = rig(Witness).connect()
    client.send(MAIL)
    client.send(MAIL)
    client.say("QUIT")
    transaction = ["mail", "rcpt", "data", "headers", "message", "closed"]
    assert [entry[:2] for entry in log] == [
        (0, "connect"), (0, "helo"), (0, "closed"), *((1, stage) for stage in transaction), *((2, stage) for stage in transaction)
    ]  # fmt: skip
    values = {entry[1]: entry[2] for entry in log}
    assert values["connect"] == "192.168.1.1"
    assert (values["helo"], values["mail"]) == ("client.example", "client.example")
    assert (values["rcpt"], values["data"], values["headers"]) == (0, 1, "one")
    assert values["message"] == ["connect", "helo", "mail", "rcpt", "data", "headers"]


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "headers", "message"])
@pytest.mark.parametrize("verdict", [Reject("5.7.9", "no, thanks"), Defer("4.7.9", "not now")])
def test_a_refusal_is_said_at_its_stage_and_nothing_is_stored(stage, verdict):
    class Refuse(Filter):
        pass

    async def refuse(self, *_):
        return verdict

    setattr(Refuse, stage, refuse)
    made = rig(Refuse)
    client = made.connect()
    said = client.feed(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<you@localhost>\r\nDATA\r\n")
    if "354" in said:
        said += client.feed(MAIL + b".\r\n")
    assert f"{verdict.code} {verdict.enhanced} {verdict.text}\r\n" in said
    assert not made.mail()
    assert client.say("NOOP").startswith("250")


@pytest.mark.parametrize(("verdict", "code"), [(Reject(), "554"), (Defer(), "421")])
def test_a_refusal_at_connect_closes(verdict, code):
    class Refuse(Filter):
        async def connect(self, tx):
            return verdict

    client = rig(Refuse).connect(helo=False)
    assert client.greeting.startswith(code)
    assert client.is_closed


@pytest.mark.parametrize("stage", ["connect", "helo", "mail", "rcpt", "data", "headers", "message"])
def test_quarantine_and_discard_hold_from_any_stage(stage):
    for verdict, inbox, junk in ((Quarantine(), 0, 1), (Discard(), 0, 0)):

        class Judge(Filter):
            pass

        async def judge(self, *_, verdict=verdict):
            return verdict

        setattr(Judge, stage, judge)
        reply, made = send(Judge)
        assert reply.startswith("250")
        assert (len(made.mail()), len(made.mail("Junk"))) == (inbox, junk)


def test_accept_ends_the_asking_and_does_not_lift_a_quarantine():
    reject = at_message(lambda *_: Reject())
    reply, made = send(at_message(lambda *_: Accept()), reject)
    assert reply.startswith("250")
    reply, made = send(at_message(lambda *_: Quarantine()), at_message(lambda *_: Accept()), reject)
    assert reply.startswith("250")
    assert len(made.mail("Junk")) == 1

    class AcceptEarly(Filter):
        async def mail(self, tx, reverse_path):
            return Accept()

    assert send(AcceptEarly, reject)[0].startswith("250")


def test_edits_are_seen_by_the_next_filter_and_stored():
    seen = []

    def edit(tx, message):
        message.add_header("X-Added", "grün")
        message.insert_header("X-First", b"raw")
        message.change_header("subject", "two")
        message.remove_header("X-A", 1)
        message.change_header("X-New", "made")

    def look(tx, message):
        seen.extend(
            [message.text("x-added"), message.text("subject"), message.values("X-A"), message.summary.header_size]
        )
        message.replace_body(b"other\r\n")

    reply, made = send(at_message(edit), at_message(look))
    assert reply.startswith("250")
    (stored,) = made.mail()
    head, _, tail = stored.partition(b"X-First: raw\r\n")
    assert head.endswith(b"Delivered-To: you@localhost\r\n")
    _received, _, rest = tail.partition(b"+0000\r\n")
    assert rest == b"subject: two\r\nX-A: 1\r\nX-Added: =?utf-8?b?Z3LDvG4=?=\r\nX-New: made\r\n\r\nother\r\n"
    assert seen[:3] == ["grün", "two", [b"1"]]
    assert seen[3] > len(MAIL)


def test_envelope_edits():
    def edit(tx, message):
        tx.add_recipient(Address("me", "localhost"))
        tx.remove_recipient(Path(Address("you", "localhost")))
        tx.change_reverse_path(Path.null)
        tx.add_score(2.5, "looks odd")

    def look(tx, message):
        assert [str(recipient.path) for recipient in tx.recipients] == ["<third@localhost>", "<me@localhost>"]
        assert (tx.score, tx.scores) == (2.5, [(2.5, "looks odd")])

    reply, made = send(at_message(edit), at_message(look), recipients=("you@localhost", "third@localhost"))
    assert reply.startswith("250")
    assert [len(made.mail(account=at)) for at in range(3)] == [0, 1, 1]
    assert made.mail(account=1)[0].startswith(b"Return-Path: <>\r\n")


def test_the_envelope_is_not_edited_before_there_is_a_message():
    class Early(Filter):
        async def rcpt(self, tx, recipient):
            tx.add_recipient(Address("me", "localhost"))
            return CONTINUE

    made = rig(Early)
    client = made.connect()
    client.say("MAIL FROM:<a@b.example>")
    assert client.say("RCPT TO:<you@localhost>").startswith("451")


def half_edited(tx, message):
    message.replace_body(b"half\r\n")
    message.add_header("X-Half", "1")
    tx.add_recipient(Address("me", "localhost"))
    raise ZeroDivisionError("private")


def test_a_filter_that_fails_defers_and_is_named_in_the_log():
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        reply, made = send(FilterSpec("the-breaker", at_message(half_edited)))
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert reply == "451 4.3.0 The message could not be checked, try again later\r\n"
    assert not made.mail()
    assert any("the-breaker failed at message" in (formatEvent(event) or "") for event in events)


def test_a_filter_that_fails_is_skipped_where_configured_without_half_an_edit():
    reply, made = send(FilterSpec("breaker", at_message(half_edited), on_failure="skip"))
    assert reply.startswith("250")
    assert made.mail()[0].endswith(MAIL)
    assert not made.mail(account=1)


def test_what_is_no_verdict_is_a_failure():
    class Wrong(Filter):
        async def message(self, tx, message):
            return True

    assert send(Wrong)[0].startswith("451")


def test_a_filter_that_takes_too_long_defers():
    class Slow(Filter):
        async def message(self, tx, message):
            message.add_header("X-Late", "1")
            await Deferred()
            return CONTINUE

    made = rig(FilterSpec("slow", Slow, timeout=5))
    client = made.connect()
    assert client.send(MAIL) == ""
    made.clock.advance(4.9)
    assert client.read() == ""
    made.clock.advance(0.2)
    assert client.read().startswith("451 4.3.0")
    assert not made.mail()


def test_a_client_that_leaves_while_a_filter_waits_ends_the_filter():
    ended = []

    class Slow(Filter):
        async def message(self, tx, message):
            try:
                await Deferred()
            finally:
                ended.append(1)
            return CONTINUE

        def closed(self):
            ended.append(2)

    made = rig(Slow)
    client = made.connect()
    client.send(MAIL)
    client.transport.lose()
    assert ended == [1, 2]
    assert not made.mail()


@pytest.mark.parametrize("value", ["a\r\nBcc: x", "a\nb", "a\rb", "a\0b", b"a\r\nb"])
def test_row_37_a_header_value_never_makes_a_new_line(value):
    def edit(tx, message):
        with pytest.raises(ValueError, match="cannot hold"):
            message.add_header("X-Y", value)
        with pytest.raises(ValueError, match="not a header field name"):
            message.add_header("X-Y: a\r\nBcc", "b")

    assert send(at_message(edit))[0].startswith("250")


def test_parts_are_seen_with_their_names():
    found = []

    class NoExecutables(Filter):
        """The example of the documentation."""

        class Config(msgspec.Struct, frozen=True):
            extensions: frozenset[str] = frozenset({".exe", ".scr"})

        async def message(self, tx, message):
            for part in message.parts():
                found.append((part.media_type, part.filename, part.decoded()))
                if part.extension in self.config.extensions:
                    return Reject("5.7.1", f"{part.filename}: executables are not accepted here")
            return CONTINUE

    mail = (
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nhello\r\n--b\r\n'
        b"Content-Type: application/octet-stream; name=x\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: attachment; filename*=utf-8''B%C3%96SE.EXE\r\n\r\nTVo=\r\n--b--\r\n"
    )
    made = rig(NoExecutables)
    assert made.connect().send(mail) == "550 5.7.1 B\\xd6SE.EXE: executables are not accepted here\r\n"
    assert found == [("text/plain", "", b"hello"), ("application/octet-stream", "BÖSE.EXE", b"MZ")]
    tolerant = FilterSpec("none", NoExecutables, config=NoExecutables.Config(extensions=frozenset()))
    assert rig(tolerant).connect().send(mail).startswith("250")


def test_a_blocking_filter_runs_elsewhere():
    threads = []

    class Blocking(Filter):
        blocking = True

        async def message(self, tx, message):
            threads.append(threading.current_thread())
            return Quarantine()

    class Awaiting(Blocking):
        async def message(self, tx, message):
            await Deferred()
            return CONTINUE

    async def elsewhere(function, *arguments):
        box = []

        def run():
            try:
                box.append((function(*arguments), None))
            except RuntimeError as error:
                box.append((None, error))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if box[0][1]:
            raise box[0][1]
        return box[0][0]

    for filter_, reply, junk in ((Blocking, "250", 1), (Awaiting, "451", 0)):
        made = rig()
        made.chain = FilterChain([FilterSpec("b", filter_)], made.store, made.clock, elsewhere)
        assert made.connect().send(MAIL).startswith(reply)
        assert len(made.mail("Junk")) == junk
    assert threads[0] is not threading.current_thread()


def test_a_chain_says_what_it_lacks():
    made = Rig()
    spec = FilterSpec("x", Filter)
    with pytest.raises(ValueError, match="store and a clock"):
        FilterChain([spec])

    class Blocking(Filter):
        blocking = True

    with pytest.raises(ValueError, match="run_blocking"):
        FilterChain([FilterSpec("x", Blocking)], made.store, made.clock)


# ---------------------------------------------------------------------------------------------------------- bodies, order


def test_a_body_streams_in_chunks_behind_the_edits_of_earlier_filters():
    log = []

    class Sums(Filter):
        async def headers(self, tx, message):
            log.append(["headers", message.text("X-Before")])
            return CONTINUE

        async def body(self, tx, chunk):
            log[-1].append(chunk)
            return CONTINUE

        async def message(self, tx, message):
            log.append(["message"])
            return CONTINUE

    def before(tx, message):
        message.add_header("X-Before", "yes")
        message.replace_body(b"0123456789abcdef" * 12288 + b"\r\n")

    reply, _ = send(at_message(before), Sums)
    assert reply.startswith("250")
    (_, header, *chunks), after = log
    assert header == "yes"
    assert after == ["message"]
    assert [len(chunk) for chunk in chunks] == [BODY_CHUNK, BODY_CHUNK, BODY_CHUNK, 2]
    assert b"".join(chunks) == b"0123456789abcdef" * 12288 + b"\r\n"


@pytest.mark.parametrize(
    ("answer", "asked", "reply"), [(SKIP, ["body", "message"], "250"), (Reject(), ["body"], "550")]
)
def test_skip_leaves_out_the_rest_of_the_body_and_a_verdict_ends_it(answer, asked, reply):
    log = []

    class First(Filter):
        async def body(self, tx, chunk):
            log.append("body")
            return answer

        async def message(self, tx, message):
            log.append("message")
            return CONTINUE

    made = rig(First)
    assert made.connect().send(b"\r\n" + b"x" * 500 + b"\r\n" + (b"y" * 900 + b"\r\n") * 300).startswith(reply)
    assert log == asked


def test_a_large_message_lets_the_reactor_breathe():
    class Streaming(Filter):
        async def body(self, tx, chunk):
            return CONTINUE

        async def message(self, tx, message):
            message.add_header("X-A", "1")
            return CONTINUE

    made = rig(Streaming)
    client = made.connect()
    turns = []
    made.clock.callLater, later = (lambda *call: turns.append(call[0]) or later(*call)), made.clock.callLater
    assert client.send(b"\r\n" + (b"y" * 900 + b"\r\n") * 3000) == ""
    made.clock.advance(0)
    assert client.read().startswith("250")
    assert turns.count(0) >= 8


def test_a_message_without_a_body_has_no_chunks_and_both_other_stages():
    class Witness(Filter):
        async def body(self, tx, chunk):
            raise AssertionError

        async def message(self, tx, message):
            return Quarantine()

    made = rig(Witness)
    assert made.connect().send(b"Subject: x\r\n\r\n").startswith("250")
    assert len(made.mail("Junk")) == 1


def test_a_whole_body_has_one_time_limit():
    class Slow(Filter):
        async def body(self, tx, chunk):
            await deferLater(made.clock, 3, lambda: None)
            return CONTINUE

    made = rig(FilterSpec("slow", Slow, timeout=7))
    client = made.connect()
    assert client.send(b"\r\n" + (b"y" * 900 + b"\r\n") * 300) == ""
    for _ in range(100):
        made.clock.advance(0.5)
    assert client.read().startswith("451")


def test_folded_values_are_allowed_and_a_body_gets_its_line_endings():
    def edit(tx, message):
        message.insert_header("X-Folded", b"one\r\n\ttwo")
        message.replace_body(b"a\nb\rc\r\n")
        for wrong in (b"a\r\n \r\nb", b"a\r\n", b"a\n\tb"):
            with pytest.raises(ValueError, match="cannot hold"):
                message.add_header("X-Wrong", wrong)

    _, made = send(at_message(edit))
    assert b"X-Folded: one\r\n\ttwo\r\n" in made.mail()[0]
    assert made.mail()[0].endswith(b"\r\n\r\na\r\nb\r\nc\r\n")
