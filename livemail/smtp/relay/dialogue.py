"""What is said when: generators over `livemail.smtp.relay.needs`; no I/O, so a test plays the peer.

    introduce   greeting, EHLO (HELO where it is not known), STARTTLS, EHLO again, AUTH
    send        one message to some recipients, in as many mail transactions as the peer's limits ask for
    farewell    QUIT

One mail transaction, where the peer offers PIPELINING (RFC 2920) and CHUNKING (RFC 3030), is one write and one wait:

    [RSET] MAIL RCPT… BDAT n LAST <content>         small content, over a connection that took some so before, and just now
    [RSET] MAIL RCPT… DATA    then    <content> .   small content without CHUNKING; large content without it is streamed
    [RSET] MAIL RCPT…         then    BDAT n …      large content, one chunk ahead of the replies

That content goes along only where BDAT has worked is a matter of safety: a host that offers CHUNKING and refuses BDAT without
reading the octets behind it would take lines of the content for commands.  Nor can it be told then which reply is which when the
host gives one too many: all of them are doubtful, nobody is delivered, and for a while such a host is asked step by step.

Without PIPELINING the same commands go one by one.  After a transaction that did not reach its content RSET stands before the next.

The window.  From the moment the last octet of content is out until its reply is in, the peer may have taken the message without
our knowing.  What breaks then leaves the recipients deferred ("deferred", never "again"), and no other host is tried at once: the
same message in two places is what RFC 1047 is about.  Before that moment any break is harmless, and the next host may be asked.
"""

from __future__ import annotations

import base64
from collections.abc import Generator
from typing import Any, Final, Literal, TypeVar

import msgspec

from livemail.interfaces.relay import Job, NextHop, Reply
from livemail.mail.envelope import Recipient
from livemail.smtp.relay.convert import CHUNK, Giving, Unconvertible, converted
from livemail.smtp.relay.envelope import Fit, Unfit, fit, mail_line, rcpt_line
from livemail.smtp.relay.needs import Broken, Need, Read, Secure, Turn, Write
from livemail.smtp.relay.offers import NOTHING, Offers, parse_offers
from livemail.smtp.relay.state import GO, LATER, NEVER, OK, WRONG, Meaning, Stage, meaning
from livemail.smtp.relay.wire import Content, Said, command

T = TypeVar("T")
Dialogue = Generator[Need, Any, T]

AT_ONCE: Final = 64 * 1024
"""Octets of content that go with the envelope, before it is known whether anybody is accepted."""

_BDAT_OCTETS: Final = 256 * 1024

_RCPT: Final[tuple[Stage, ...]] = ("rcpt",)
_CONTENT: Final[tuple[Stage, ...]] = ("content",)

_TOLD: Final = {"helo": "ehlo", "rset": "mail", "chunk": "content"}

Verdict = Literal["delivered", "failed", "deferred", "again"]
"""again: not delivered, and another host may be asked at once."""


class Outcome(msgspec.Struct, frozen=True):
    """What one recipient's mail came to on one connection.  dsn: the peer reports from here on."""

    verdict: Verdict
    reply: Reply
    dsn: bool = False


class HostRefused(Exception):
    """The peer talks, but not with us now; nothing was said about any message."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"{reply.code} {reply.text}")
        self.reply = reply


def reply_of(said: Said, stage: Stage) -> Reply:
    """Make the reply that is kept of what was said."""
    enhanced, text = said.parts
    return Reply(said.code, enhanced or f"{said.code // 100}.0.0", text, told_stage(stage))


def told_stage(stage: str) -> str:
    """What a stage is called outside: `livemail.interfaces.relay.Reply.stage` knows fewer."""
    return _TOLD.get(stage, stage)


def _ours(code: int, enhanced: str, text: str, stage: str) -> Reply:
    return Reply(code, enhanced, text, stage, is_remote=False)


def _wrong(said: Said, stage: Stage) -> Broken:
    text = f"The host answered {said.code} where that means nothing"
    return Broken("garbage", _ours(451, "4.5.0", text, told_stage(stage)))


class Session:
    """One connection's side of the protocol: what the peer can, and how far we are with it.

    hello_name: what we call ourselves.  may_say_password: in the clear.  batch: recipients of one transaction, at most.
    """

    def __init__(self, hop: NextHop, hello_name: str, batch: int, *, may_say_password: bool, without_tls: bool) -> None:
        self.hop = hop
        self.offers: Offers = NOTHING
        self.tls = ""
        self.messages = 0  # begun on this connection
        self.in_window = False  # all content is out, its reply is not in
        self.knows_chunks = False  # it has taken a message by BDAT on this connection
        self._hello_name = hello_name
        self._batch = batch
        self._may_say_password = may_say_password
        self._without_tls = without_tls
        self._is_lmtp = hop.protocol == "lmtp"
        self._needs_reset = False

    @property
    def is_spent(self) -> bool:
        """Whether the peer said that it takes no more transactions on this connection.  RFC 9422 §4.1."""
        return 0 < self.offers.mail_max <= self.messages

    # ------------------------------------------------------------------------------------------ introduction

    def introduce(self) -> Dialogue[None]:
        """From the connection to the first MAIL.  Raises HostRefused, Broken."""
        hop = self.hop
        is_required = hop.tls in {"encrypt", "verify"}
        if hop.implicit_tls:
            self.tls = yield Secure()
        said = yield from self._ask(b"", "greeting")
        if meaning("greeting", said.code) is not OK:
            raise HostRefused(reply_of(said, "greeting"))
        yield from self._hello()
        if not self.tls and hop.tls != "none" and not self._without_tls:
            if self.offers.starttls:
                said = yield from self._ask(b"STARTTLS\r\n", "starttls")
                if meaning("starttls", said.code) is OK:
                    self.tls = yield Secure()
                    yield from self._hello()
                elif is_required:
                    raise HostRefused(reply_of(said, "starttls"))
            elif is_required:
                raise HostRefused(
                    _ours(451, "4.7.4", "TLS is required here, and the host does not offer it", "starttls")
                )
        if hop.login:
            yield from self._authenticate()

    def _ask(self, octets: bytes, stage: Stage) -> Dialogue[Said]:
        """One command, one reply that means something."""
        replies: list[Said] = yield Turn(octets, (stage,))
        if meaning(stage, replies[0].code) is WRONG:
            raise _wrong(replies[0], stage)
        return replies[0]

    def _hello(self) -> Dialogue[None]:
        self.offers = NOTHING
        verb = "LHLO" if self._is_lmtp else "EHLO"
        said = yield from self._ask(command(f"{verb} {self._hello_name}"), "ehlo")
        answer = meaning("ehlo", said.code)
        if answer is OK:
            self.offers = parse_offers(said)
            return
        # RFC 5321 §3.2: a host may know HELO alone.  Not where what we need is an extension.
        is_old = answer is NEVER and not (self._is_lmtp or self.tls or self.hop.login)
        if is_old and self.hop.tls in {"none", "may"}:
            old = yield from self._ask(command(f"HELO {self._hello_name}"), "helo")
            if meaning("helo", old.code) is OK:
                return
            raise HostRefused(reply_of(old, "helo"))
        raise HostRefused(reply_of(said, "ehlo"))

    def _authenticate(self) -> Dialogue[None]:
        """AUTH PLAIN or LOGIN.  RFC 4954 §4, RFC 4616."""
        if not (self.tls or self._may_say_password):
            raise HostRefused(
                _ours(454, "4.7.0", "The password is not said without TLS, which the host does not offer", "auth")
            )
        login, password = self.hop.login.encode(), self.hop.password.encode()
        if "PLAIN" in self.offers.auth:
            said = yield from self._ask(
                b"AUTH PLAIN " + base64.b64encode(b"\0%b\0%b" % (login, password)) + b"\r\n", "auth"
            )
        elif "LOGIN" in self.offers.auth:
            said = yield from self._ask(b"AUTH LOGIN\r\n", "auth")
            for secret in (login, password):
                if meaning("auth", said.code) is GO:
                    said = yield from self._ask(base64.b64encode(secret) + b"\r\n", "auth")
        else:
            raise HostRefused(_ours(454, "4.7.0", "The host offers neither AUTH PLAIN nor AUTH LOGIN", "auth"))
        answer = meaning("auth", said.code)
        if answer is GO:
            raise _wrong(said, "auth")
        if answer is not OK:
            raise HostRefused(reply_of(said, "auth"))

    # ------------------------------------------------------------------------------------------ messages

    def send(
        self, job: Job, recipients: list[Recipient], outcomes: dict[int, Outcome], *, hesitates: bool
    ) -> Dialogue[None]:
        """Send one message; ``outcomes`` gets each recipient's, by its place in ``recipients``, as soon as it is known.

        hesitates: content does not go before its envelope was answered; for a connection that has rested and may be dead,
        and for peers whose replies were more than our commands.
        Raises Broken; the recipients without an outcome then have had no answer, and nothing was sent that could be one.
        """
        try:
            how = fit(job, self.offers)
            mail = mail_line(job, self.offers, how)
        except Unfit as unfit:
            for position in range(len(recipients)):
                outcomes[position] = Outcome("failed", unfit.reply)
            return
        left = []
        lines = {}
        for position, recipient in enumerate(recipients):
            try:
                lines[position] = rcpt_line(recipient, self.offers, how)
                left.append(position)
            except Unfit as unfit:
                outcomes[position] = Outcome("failed", unfit.reply)
        limit = min(self._batch, self.offers.rcpt_max or self._batch)
        while left:
            now, left = left[:limit], left[limit:]
            giving = None
            if how.converts:
                try:
                    giving = yield from converted(job.content_offset, job.content.size, utf8_header=how.smtputf8)
                except Unconvertible as unconvertible:
                    text = f"The next host takes no 8-bit content, and this cannot be converted: {unconvertible}"
                    for position in (*now, *left):
                        outcomes[position] = Outcome("failed", _ours(554, "5.6.3", text, "data"))
                    return
            transaction = Transaction(self, job, how, outcomes, now)
            yield from transaction.run(mail, [lines[each] for each in now], giving, hesitates=hesitates)
            if transaction.postponed:
                left = transaction.postponed + left
                limit = max(1, transaction.accepted_count)
            if left and self.is_spent:
                return

    def farewell(self) -> Dialogue[None]:
        """QUIT."""
        yield Turn(b"QUIT\r\n", ("quit",))

    # ------------------------------------------------------------------------------------------ for Transaction

    def begin_transaction(self) -> tuple[bytes, tuple[Stage, ...]]:
        """Count a transaction; return what must be said before its MAIL."""
        self.messages += 1
        needs_reset, self._needs_reset = self._needs_reset, True
        return (b"RSET\r\n", ("rset",)) if needs_reset else (b"", ())

    def end_transaction(self) -> None:
        """The content was answered: the peer has forgotten the envelope.  RFC 5321 §4.1.1.4."""
        self._needs_reset = False


class Transaction:
    """One mail transaction.  places: of its recipients in the outcomes.

    postponed: places the peer has no room for in this transaction, when it took others.
    """

    def __init__(self, session: Session, job: Job, how: Fit, outcomes: dict[int, Outcome], places: list[int]) -> None:
        self.session = session
        self.postponed: list[int] = []
        self._job = job
        self._how = how
        self._outcomes = outcomes
        self._places = places
        self._accepted: list[int] = []
        self._is_lmtp = session.hop.protocol == "lmtp"

    @property
    def accepted_count(self) -> int:
        """How many recipients the peer took."""
        return len(self._accepted)

    def run(self, mail: bytes, rcpts: list[bytes], giving: Giving | None, *, hesitates: bool) -> Dialogue[None]:
        """Everything from MAIL to the answer to the content.  Raises Broken."""
        session = self.session
        prefix, before = session.begin_transaction()
        stages: tuple[Stage, ...] = (*before, "mail", *_RCPT * len(rcpts))
        offers = session.offers
        if not offers.pipelining:
            if not (yield from self._one_by_one(prefix, mail, rcpts)):
                return
            yield from self._content(giving, is_asked=False)
            return
        group = b"".join((prefix, mail, *rcpts))
        small = giving is None and self._how.size <= AT_ONCE
        if offers.chunking:
            if small and not hesitates and session.knows_chunks and not self._is_lmtp:
                yield from self._all_at_once(group, stages)
                return
            yield from self._envelope(group, stages)
            if self._accepted:
                yield from self._content(giving, is_asked=False)
            return
        go = yield from self._envelope(group + b"DATA\r\n", (*stages, "data"))
        yield from self._after_data(go, giving)

    # ------------------------------------------------------------------------------------------ the envelope

    def _one_by_one(self, prefix: bytes, mail: bytes, rcpts: list[bytes]) -> Dialogue[bool]:
        """The envelope without PIPELINING; returns whether content is wanted."""
        if prefix:
            self._take_envelope((yield Turn(prefix, ("rset",))), ("rset",))
        if not self._take_envelope((yield Turn(mail, ("mail",))), ("mail",)):
            return False
        for position, line in enumerate(rcpts):
            try:
                said = yield Turn(line, ("rcpt",))
            except Broken as broken:
                self._take_recipients(_answers(broken), position)
                raise
            self._take_recipients(said, position)
        self._see_postponed()
        return bool(self._accepted)

    def _envelope(self, group: bytes, stages: tuple[Stage, ...]) -> Dialogue[Said | None]:
        """Say a group and take its replies; returns the one to DATA, None when the group ends before it."""
        try:
            said: list[Said] = yield Turn(group, stages)
        except Broken as broken:
            said = _answers(broken)
            self._take_envelope(said, stages[: len(said)])
            raise
        self._take_envelope(said, stages)
        return said[-1] if stages[-1] == "data" else None

    def _take_envelope(self, said: list[Said], stages: tuple[Stage, ...]) -> bool:
        """Take the replies to RSET, MAIL and RCPT; returns whether MAIL was taken.  Raises Broken for one that means nothing."""
        at = 0
        if stages and stages[0] == "rset":
            if not said:
                return False
            if meaning("rset", said[0].code) is not OK:
                raise _wrong(said[0], "rset")
            at = 1
        if at >= len(said):
            return False
        mail = meaning("mail", said[at].code)
        if mail is WRONG:
            raise _wrong(said[at], "mail")
        if mail is not OK:
            for place in self._places:
                self._settle(place, said[at], "mail", mail)
            return False
        self._take_recipients([each for each, stage in zip(said, stages, strict=False) if stage == "rcpt"], 0)
        self._see_postponed()
        return True

    def _take_recipients(self, said: list[Said], first: int) -> None:
        for place, each in zip(self._places[first:], said, strict=False):
            answer = meaning("rcpt", each.code)
            if answer is WRONG:
                raise _wrong(each, "rcpt")
            if answer is OK:
                self._accepted.append(place)
            elif _is_too_many(each):
                self.postponed.append(place)
                self._settle(place, each, "rcpt", LATER)
            else:
                self._settle(place, each, "rcpt", answer)

    def _see_postponed(self) -> None:
        """Recipients over the peer's limit go with the next transaction, but only where this one took somebody."""
        if not self._accepted:
            self.postponed = []
        for place in self.postponed:
            self._outcomes.pop(place, None)

    def _settle(self, place: int, said: Said, stage: Stage, answer: Meaning) -> None:
        if answer is OK:
            self._outcomes[place] = Outcome("delivered", reply_of(said, stage), dsn=self.session.offers.dsn)
        else:
            verdict: Verdict = "failed" if answer is NEVER else "again"
            self._outcomes[place] = Outcome(verdict, reply_of(said, stage))

    # ------------------------------------------------------------------------------------------ the content

    def _all_at_once(self, group: bytes, stages: tuple[Stage, ...]) -> Dialogue[None]:
        """Envelope and content in one write.  What the peer says to the content of nobody's message does not matter."""
        content = Content(stuffs=False)
        octets = content.feed((yield from self._read_small())) + content.end()
        said: list[Said] = []
        self.session.in_window = True
        try:
            line = b"BDAT %d LAST\r\n" % len(octets)
            said = yield Turn(b"".join((group, line, octets)), (*stages, "content"), is_whole=True)
            self._take_envelope(said[:-1], stages)
            if self._accepted:
                self._take_answers(said[-1:])
        except Broken as broken:
            try:
                if not said:
                    said = _answers(broken)
                    self._take_envelope(said, stages[: len(said)])
            finally:
                # 421 to a command of the envelope says nothing of the content that was sent with it.
                self._lost(broken, self._places, is_answer=len(said) == len(stages))
            raise
        finally:
            self.session.in_window = False

    def _read_small(self) -> Dialogue[bytes]:
        size = self._how.size
        return (yield Read(self._job.content_offset, size)) if size else b""

    def _content(self, giving: Giving | None, *, is_asked: bool) -> Dialogue[None]:
        """Send content to a peer that has taken the envelope.  is_asked: DATA was said and answered."""
        if self.session.offers.chunking and not is_asked:
            yield from self._by_bdat(giving)
            return
        said = yield from self._data()
        yield from self._after_data(said, giving)

    def _data(self) -> Dialogue[Said]:
        replies: list[Said] = yield Turn(b"DATA\r\n", ("data",))
        return replies[0]

    def _after_data(self, said: Said | None, giving: Giving | None) -> Dialogue[None]:
        assert said is not None
        answer = meaning("data", said.code)
        if answer is WRONG:
            raise _wrong(said, "data")
        if not self._accepted:
            if answer is GO:
                # RFC 2920 §3.1: the peer waits for content that is for nobody.
                yield Turn(b".\r\n", ("content",))
                self.session.end_transaction()
            return
        if answer is not GO:
            for place in self._accepted:
                self._settle(place, said, "data", answer)
            return
        yield from self._by_data(giving)

    def _by_data(self, giving: Giving | None) -> Dialogue[None]:
        content = Content(stuffs=True)
        if giving is None and self._how.size <= AT_ONCE:
            block = content.feed((yield from self._read_small()))
        else:
            block = b""
            try:
                blocks = giving or self._plain()
                answer = None
                while True:
                    need = next(blocks) if answer is None else blocks.send(answer)
                    answer = None
                    if isinstance(need, Read):
                        answer = yield need
                    elif need:
                        yield Write(content.feed(need))
            except StopIteration:
                pass
            except Broken as broken:
                self._refused_early(broken)
                raise
        yield from self._end(block + content.end())

    def _refused_early(self, broken: Broken) -> None:
        """The peer answered before it had all: only a refusal can be meant, and then it is of this message."""
        if broken.kind == "early" and broken.said:
            answer = meaning("content", broken.said[0].code)
            if answer in {LATER, NEVER}:
                for place in self._accepted:
                    self._settle(place, broken.said[0], "content", answer)

    def _plain(self) -> Giving:
        end = self._job.content.size
        for at in range(self._job.content_offset, end, CHUNK):
            yield (yield Read(at, min(CHUNK, end - at)))

    def _end(self, octets: bytes) -> Dialogue[None]:
        """Send the last octets of content and take the answer."""
        self.session.in_window = True
        try:
            self._take_answers((yield Turn(octets, _CONTENT * (len(self._accepted) if self._is_lmtp else 1))))
        except Broken as broken:
            if broken.kind == "early":
                self._refused_early(broken)
            else:
                try:
                    self._take_answers(broken.said)
                finally:
                    self._lost(broken, self._accepted)
            raise
        finally:
            self.session.in_window = False

    def _by_bdat(self, giving: Giving | None) -> Dialogue[None]:
        """Content in chunks of known size, one ahead of the replies where the peer lets us."""
        is_raw = self._how.body == "BINARYMIME"
        content = Content(stuffs=False)
        waiting: list[bytes] = []
        size = 0
        ahead = 0
        blocks = giving or self._plain()
        answer = None
        while True:
            try:
                need = next(blocks) if answer is None else blocks.send(answer)
            except StopIteration:
                break
            answer = None
            if isinstance(need, Read):
                answer = yield need
                continue
            waiting.append(need if is_raw else content.feed(need))
            size += len(waiting[-1])
            if size >= _BDAT_OCTETS:
                replies = yield Turn(b"".join((b"BDAT %d\r\n" % size, *waiting)), ("chunk",), leave=1)
                ahead = 1
                waiting, size = [], 0
                if not self._take_chunks(replies):
                    yield Turn(b"", ())
                    return
        if not is_raw:
            waiting.append(content.end())
            size += len(waiting[-1])
        if ahead:
            replies = yield Turn(b"", ())
            if not self._take_chunks(replies):
                return
        yield from self._end(b"".join((b"BDAT %d LAST\r\n" % size, *waiting)))

    def _take_chunks(self, said: list[Said]) -> bool:
        """Take replies to chunks that are not the last; returns whether to go on."""
        for each in said:
            answer = meaning("chunk", each.code)
            if answer is WRONG:
                raise _wrong(each, "chunk")
            if answer is not OK:
                for place in self._accepted:
                    self._settle(place, each, "chunk", answer)
                return False
        return True

    def _take_answers(self, said: list[Said]) -> None:
        """Take what the content was answered with: for all, or in LMTP for each in the order of RCPT."""
        places = self._accepted
        for position, each in enumerate(said):
            answer = meaning("content", each.code)
            if answer is WRONG:
                raise _wrong(each, "content")
            for place in places[position : position + 1] if self._is_lmtp else places:
                self._settle(place, each, "content", answer)
            if answer is OK and self.session.offers.chunking:
                self.session.knows_chunks = True
        if said:
            self.session.end_transaction()

    def _lost(self, broken: Broken, places: list[int], *, is_answer: bool = True) -> None:
        """The connection broke in the window: who has no answer is deferred, and no other host is asked now.

        421 is an answer where it stands for one, and no acceptance; in LMTP it is one recipient's, and of those behind it nothing is known.  What
        broke before anything was written is not in the window.
        """
        is_sure = broken.kind == "early" or (broken.kind == "closing" and is_answer)
        verdict: Verdict = "again" if is_sure else "deferred"
        for place in places:
            if place not in self._outcomes:
                self._outcomes[place] = Outcome(verdict, broken.reply)
                if self._is_lmtp:
                    verdict = "deferred"


def _answers(broken: Broken) -> list[Said]:
    """The replies that answer something: one that came before it was asked for does not."""
    return [] if broken.kind == "early" else broken.said


def _is_too_many(said: Said) -> bool:
    """Whether a recipient was refused for the number before it.  RFC 5321 §4.5.3.1.10, RFC 3463 §3.6."""
    if said.code == 452:
        return said.enhanced in {"", "4.5.3"}
    return said.code == 552 and said.enhanced == "5.5.3"
