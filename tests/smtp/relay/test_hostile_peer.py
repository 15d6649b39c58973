"""A peer that misbehaves in every phase, over real sockets, with the times of RFC 5321 on a clock of ours: each ends as it should, nothing hangs, nothing arrives twice.

A scenario is what the peer does (`Peer`'s keywords) and what becomes of the message.  Its name is its sentence.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import TestCase

from livemail.interfaces.relay import Hops, NextHop
from livemail.net.tls_client import ClientTLS
from livemail.smtp.relay.relay import Relay
from livemail.smtp.relay.settings import RelaySettings
from tests.smtp.relay.hostile_peer import DEAF, GARBLE, Authority, HostileFactory, Hurry
from tests.smtp.relay.peer import ALL, DROP, ENDLESS, PIPELINED, RESET, SLOW, STALL, Peer
from tests.smtp.relay.rig import MESSAGE, job

AUTHORITY = Authority()
with tempfile.TemporaryDirectory() as _folder:
    Path(_folder, "ca.pem").write_bytes(AUTHORITY.pem)
    TRUSTING = ClientTLS(f"{_folder}/ca.pem")
OFFERS_TLS = (*PIPELINED, b"STARTTLS")
LARGE = (b"y" * 998 + b"\r\n") * 8000
LINES = b"250-and more\r\n" * 100
STAGES = ("connect", "greeting", "ehlo", "starttls", "tls", "auth", "mail", "rcpt", "data", "content")
"""What `livemail.interfaces.relay.Reply` says there is."""

TO = ("a@peer.example", "b@peer.example", "c@peer.example")


class Scenario:
    """fates: of the recipients, a word for all or one for each.  code: that the first result's reply has, 0 for any.

    taken: messages the peer had whole.  connections: it saw; 0 for any.  tls, certificate: of the hop and of the peer.
    second: what the peer does on connections after the first.  twice: the message is sent again over what the first left.
    """

    def __init__(
        self, fates: str, code: int = 0, *, down: bool = False, taken: int = 0, connections: int = 1, offers: Any = PIPELINED, to: tuple[str, ...] = TO[:1],
        content: bytes = MESSAGE, tls: str = "none", certificate: Any = None, hop: dict[str, Any] | None = None, second: dict[str, Any] | None = None,
        twice: bool = False, lmtp: bool = False, implicit: bool = False, **actions: Any,
    ) -> None:  # fmt: skip
        self.fates = fates.split() if " " in fates else [fates] * len(to)
        self.code, self.down, self.taken, self.connections = code, down, taken, connections
        self.offers, self.to, self.content, self.actions, self.second = offers, to, content, actions, second
        self.tls, self.certificate, self.hop, self.twice, self.lmtp, self.implicit = (
            tls,
            certificate,
            hop or {},
            twice,
            lmtp,
            implicit,
        )

    def peer(self, number: int) -> Peer:
        actions = self.actions if number == 0 or self.second is None else self.second
        actions = dict(actions)
        return Peer(actions.pop("offers", self.offers), lmtp=self.lmtp, **actions)


def deferred(code: int = 451, **options: Any) -> Scenario:
    """Nobody could be talked to."""
    return Scenario("deferred", code, down=True, **options)


def unsure(**options: Any) -> Scenario:
    """The peer had the whole message and said nothing that counts."""
    return Scenario("deferred", 451, taken=1, **options)


def good(**options: Any) -> Scenario:
    options.setdefault("taken", 1)
    return Scenario("delivered", 250, **options)


def localhost(**options: Any) -> Any:
    return AUTHORITY.show("peer.example", **options)


SCENARIOS: dict[str, Scenario] = {
    # -------------------------------------------------------------------------------------------- greeting
    "never greets": deferred(greeting=STALL),
    "hangs up instead of a greeting": deferred(greeting=DROP),
    "resets instead of a greeting": deferred(greeting=RESET),
    "greets with 421": deferred(421, greeting=b"421 4.3.2 busy\r\n"),
    "greets with 450": deferred(450, greeting=b"450 4.7.1 later\r\n"),
    "greets with 554": deferred(554, greeting=b"554 5.7.1 no\r\n"),
    "greets with 521, which is for good": Scenario("failed", 521, greeting=b"521 5.3.2 no mail here\r\n"),
    "speaks HTTP": deferred(greeting=b"HTTP/1.1 200 OK\r\n\r\n"),
    "greets in an endless line": deferred(greeting=(ENDLESS, b"220 " + b"x" * 996)),
    "greets in endless lines": deferred(greeting=(ENDLESS, b"220-more\r\n" * 100)),
    "greets with changing codes": deferred(greeting=b"220-hello\r\n421 bye\r\n"),
    "greets with NUL": deferred(greeting=b"220 hel\0lo\r\n"),
    "ends its lines with LF": deferred(greeting=b"220 hello\n"),
    "greets in the middle of a reply and stops": deferred(greeting=[[b"220 hel", STALL]]),
    "greets and answers EHLO in one go": deferred(greeting=b"220 hi\r\n250-x\r\n250 PIPELINING\r\n"),
    "speaks one octet at a time": good(greeting=(SLOW, b"220-he\r\n220 llo\r\n"), mail=(SLOW, b"250 2.1.0 ok\r\n"), offers=(), actions_content=(SLOW, b"250 2.0.0 ok\r\n")),
    "speaks 8-bit": good(greeting=b"220 gr\xfc\xdf \xc3\xa4\r\n", content=b"250 2.0.0 \xff\xfe\r\n"),
    # -------------------------------------------------------------------------------------------- EHLO
    "never answers EHLO": deferred(ehlo=STALL),
    "hangs up at EHLO": deferred(ehlo=DROP),
    "refuses EHLO for now": deferred(450, ehlo=b"450 4.7.1 later\r\n"),
    "says 421 to EHLO": deferred(421, ehlo=b"421 4.7.0 bye\r\n"),
    "refuses EHLO and HELO": deferred(550, ehlo=b"550 5.7.1 no\r\n", helo=b"550 5.7.1 no\r\n"),
    "knows HELO alone": good(ehlo=b"502 5.5.1 what\r\n"),
    "answers EHLO with 354": deferred(ehlo=b"354 go\r\n"),
    "offers extensions without end": deferred(ehlo=(ENDLESS, LINES)),
    "offers nonsense": good(offers=(b"\xff\xff", b"SIZE x y z", b"AUTH", b"LIMITS RCPTMAX=-1", b"", b"PIPELINING NOT")),
    # -------------------------------------------------------------------------------------------- TLS
    "refuses STARTTLS, where TLS may be": good(offers=OFFERS_TLS, tls="may", starttls=b"454 4.7.0 no\r\n"),
    "refuses STARTTLS, where TLS must be": deferred(454, offers=OFFERS_TLS, tls="encrypt", starttls=b"454 4.7.0 no\r\n"),
    "does not offer TLS, where it must be": deferred(tls="encrypt"),
    "never answers STARTTLS": deferred(offers=OFFERS_TLS, tls="encrypt", starttls=STALL),
    "injects replies behind STARTTLS": deferred(offers=OFFERS_TLS, tls="encrypt", certificate=localhost(), starttls=b"220 go\r\n250-x\r\n250 PIPELINING\r\n250 ok\r\n"),
    "answers the handshake with text, where TLS must be": deferred(offers=OFFERS_TLS, tls="encrypt", starttls=[[b"220 go\r\n", GARBLE]]),
    "answers the handshake with text, where TLS may be": good(offers=OFFERS_TLS, tls="may", starttls=[[b"220 go\r\n", GARBLE]], connections=2),
    "stalls in the handshake, where TLS may be": good(offers=OFFERS_TLS, tls="may", starttls=[[b"220 go\r\n", STALL]], connections=2),
    "hangs up in the handshake, where TLS may be": good(offers=OFFERS_TLS, tls="may", starttls=[[b"220 go\r\n", DROP]], connections=2),
    "shows its own certificate, where any will do": good(offers=OFFERS_TLS, tls="may", certificate=localhost(own=True)),
    "shows an expired certificate, where any will do": good(offers=OFFERS_TLS, tls="encrypt", certificate=localhost(days=-1)),
    "shows its own certificate, where it is verified": deferred(offers=OFFERS_TLS, tls="verify", certificate=localhost(own=True)),
    "shows an expired certificate, where it is verified": deferred(offers=OFFERS_TLS, tls="verify", certificate=localhost(days=-1)),
    "shows another's certificate, where it is verified": deferred(offers=OFFERS_TLS, tls="verify", certificate=AUTHORITY.show("other.example")),
    "shows its certificate": good(offers=OFFERS_TLS, tls="verify", certificate=localhost()),
    "shows the certificate of the name we look for": good(
        offers=OFFERS_TLS, tls="verify", certificate=AUTHORITY.show("*.hosting.example"), hop={"reference": "mx7.hosting.example"}
    ),
    "has TLS from the first octet": good(tls="verify", certificate=localhost(), implicit=True, hop={"implicit_tls": True}),
    "has no TLS where it comes first": deferred(tls="encrypt", hop={"implicit_tls": True}),
    "says nonsense inside TLS": deferred(offers=OFFERS_TLS, tls="encrypt", certificate=localhost(), ehlo=[None, b"what\r\n"]),
    # -------------------------------------------------------------------------------------------- AUTH
    "refuses the password": deferred(535, offers=(*PIPELINED, b"AUTH PLAIN"), auth=b"535 5.7.8 no\r\n", hop={"login": "u", "password": "p"}),
    "never answers AUTH": deferred(offers=(*PIPELINED, b"AUTH PLAIN"), auth=STALL, hop={"login": "u", "password": "p"}),
    "asks for passwords without end": deferred(451, offers=(*PIPELINED, b"AUTH LOGIN"), auth=b"334 bW9yZQ==\r\n", hop={"login": "u", "password": "p"}),
    "has no mechanism of ours": deferred(454, offers=(*PIPELINED, b"AUTH GSSAPI"), hop={"login": "u", "password": "p"}),
    # -------------------------------------------------------------------------------------------- MAIL and RCPT
    "refuses MAIL for now": Scenario("deferred", 451, mail=b"451 4.7.1 greylisted\r\n"),
    "refuses MAIL": Scenario("failed", 550, mail=b"550 5.7.1 no\r\n"),
    "refuses MAIL for its size": Scenario("failed", 552, mail=b"552 5.3.4 too big\r\n"),
    "says a size and gets nothing larger": Scenario("failed", 552, offers=(b"PIPELINING", b"SIZE 10")),
    "never answers MAIL": deferred(mail=STALL),
    "hangs up at MAIL": deferred(mail=DROP),
    "resets at MAIL": deferred(mail=RESET),
    "says 421 to MAIL": deferred(421, mail=b"421 4.3.2 bye\r\n"),
    "says nonsense to MAIL": deferred(mail=b"sure\r\n"),
    "answers MAIL with 354": deferred(mail=b"354 go\r\n"),
    "refuses some recipients": Scenario("failed delivered deferred", 550, to=TO, taken=1, rcpt=[b"550 5.1.1 no\r\n", None, b"450 4.2.1 later\r\n"]),
    "refuses all recipients": Scenario("failed", 550, to=TO, rcpt=b"550 5.1.1 no\r\n"),
    "refuses all recipients and wants content": Scenario("failed", 550, to=TO, rcpt=b"550 5.1.1 no\r\n", data=b"354 go\r\n"),
    "never answers the second RCPT": deferred(to=TO, rcpt=[None, STALL]),
    "hangs up at the second RCPT": deferred(to=TO, rcpt=[None, DROP]),
    "says 421 to the second RCPT": deferred(421, to=TO, rcpt=[None, b"421 4.3.2 bye\r\n"]),
    "refuses one recipient and hangs up": Scenario("failed deferred deferred", 550, to=TO, rcpt=[b"550 5.1.1 no\r\n", DROP]),
    "takes two recipients at a time": good(to=TO, taken=2, rcpt=[None, None, b"452 4.5.3 too many\r\n", None]),
    "leaves one reply out": deferred(to=TO, rcpt=[None, b"", None]),
    # -------------------------------------------------------------------------------------------- DATA and content
    "refuses DATA for now": Scenario("deferred", 451, data=b"451 4.3.0 disk\r\n"),
    "refuses DATA": Scenario("failed", 554, data=b"554 5.7.1 no\r\n"),
    "never answers DATA": deferred(data=STALL),
    "hangs up at DATA": deferred(data=DROP),
    "answers DATA with 250": deferred(data=b"250 2.0.0 taken\r\n"),
    "says the message is taken before it is sent": deferred(data=b"354 go\r\n250 2.0.0 taken\r\n"),
    "answers all commands and the content at MAIL": deferred(mail=b"250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n", offers=()),
    "hangs up in the middle of content": deferred(content=LARGE, data=[[b"354 go\r\n", DROP]]),
    "resets in the middle of content": deferred(content=LARGE, data=[[b"354 go\r\n", RESET]]),
    "stops reading in the middle of content": deferred(content=LARGE, data=[[b"354 go\r\n", DEAF]]),
    "refuses in the middle of content and stops reading": Scenario("failed", 552, content=LARGE, early=[b"552 5.3.4 too big\r\n", DEAF]),
    "refuses in the middle of content and hangs up": Scenario("failed", 552, content=LARGE, early=[b"552 5.3.4 too big\r\n", DROP]),
    "takes it in the middle of content": deferred(content=LARGE, early=b"250 2.0.0 taken\r\n"),
    "refuses content for now": Scenario("deferred", 451, taken=1, actions_content=b"451 4.7.1 later\r\n"),
    "refuses content": Scenario("failed", 554, taken=1, actions_content=b"554 5.7.1 spam\r\n"),
    "says 421 to content": deferred(421, taken=1, actions_content=b"421 4.3.2 bye\r\n"),
    "never answers content": unsure(actions_content=STALL),
    "hangs up at the end of content": unsure(actions_content=DROP),
    "resets at the end of content": unsure(actions_content=RESET),
    "says nonsense to content": unsure(actions_content=b"thanks\r\n"),
    "answers content with 354": unsure(actions_content=b"354 more\r\n"),
    "answers content with changing codes": unsure(actions_content=b"250-ok\r\n550 not ok\r\n"),
    "answers content in an endless line": unsure(actions_content=(ENDLESS, b"250 " + b"x" * 996)),
    "answers content in endless lines": unsure(actions_content=(ENDLESS, LINES)),
    "answers half and hangs up": unsure(actions_content=[[b"250 2.0.", DROP]]),
    "takes content and says 421 behind it": good(actions_content=b"250 2.0.0 ok\r\n421 4.3.2 bye\r\n"),
    "hangs up at the end of BDAT": unsure(offers=ALL, actions_content=DROP),
    "never answers BDAT": unsure(offers=ALL, actions_content=STALL),
    "refuses all recipients and gets BDAT all the same": Scenario("failed", 550, offers=ALL, to=TO, rcpt=b"550 5.1.1 no\r\n"),
    "refuses a chunk": Scenario("failed", 552, offers=ALL, content=LARGE, bdat=[None, b"552 5.3.4 too big\r\n", b"503 5.5.1 what\r\n"]),
    "hangs up between the replies of LMTP": Scenario("delivered deferred deferred", 250, lmtp=True, to=TO, taken=1, actions_content=[None, DROP]),
    # -------------------------------------------------------------------------------------------- the second message
    "hangs up after a message": good(twice=True, taken=2, connections=2, actions_content=[[b"250 2.0.0 ok\r\n", DROP]]),
    "hangs up at the second MAIL": good(twice=True, taken=2, connections=2, mail=[None, DROP], second={}),
    "answers the second message before it comes": good(twice=True, taken=2, connections=2, actions_content=b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n"),
    "refuses RSET": good(twice=True, taken=1, connections=2, rcpt=[b"550 5.1.1 no\r\n", None], rset=b"500 5.5.1 what\r\n", second={}),
    "never says goodbye": good(quit=STALL),
}  # fmt: skip


class HostilePeerTests(TestCase):
    timeout = 20

    async def play(self, scenario: Scenario) -> None:
        actions = scenario.actions
        if "actions_content" in actions:
            actions["content"] = actions.pop("actions_content")
        factory = HostileFactory(scenario.peer, scenario.certificate, implicit_tls=scenario.implicit)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        hurry = Hurry()
        relay = Relay(hurry, RelaySettings(), "client.example", time.time, TRUSTING)
        hop = NextHop(
            "peer.example", port.getHost().port, ("127.0.0.1",), tls=scenario.tls, protocol="lmtp" if scenario.lmtp else "smtp", **scenario.hop
        )  # fmt: skip
        what = job(scenario.content, to=scenario.to)
        attempted = None
        for _ in range(2 if scenario.twice else 1):
            attempted = await hurry.finish(relay.attempt(Hops("peer.example", (hop,)), what), [factory])
        await hurry.finish(relay.close(), [factory])
        for left in factory.open:
            left.listen_again()
        await hurry.until(lambda: not factory.open, [factory])
        await port.stopListening()
        assert [result.fate for result in attempted.results] == scenario.fates, attempted
        reply = attempted.results[0].reply
        assert not scenario.code or reply.code == scenario.code, attempted
        assert attempted.is_down is scenario.down, attempted
        assert len(factory.messages) == scenario.taken, [peer.lines for peer in factory.peers]
        assert all(message.content == scenario.content for message in factory.messages)
        assert not scenario.connections or len(factory.peers) == scenario.connections, attempted
        assert all(each.outcome.stage in STAGES for each in attempted.attempts), attempted
        assert reply.stage in STAGES
        assert reply.text.isprintable()
        assert len(reply.text) <= 512
        assert not relay.busy
        assert not relay.pool._hosts, "room that nobody gave back"
        assert not hurry.clock.getDelayedCalls()
        assert factory.endless_octets < 3_000_000
        assert attempted.attempts
        assert "secret" not in repr(attempted)


def _test(scenario: Scenario) -> Any:
    def test(self: HostilePeerTests) -> Deferred[None]:
        return ensureDeferred(self.play(scenario))

    return test


for _name, _scenario in SCENARIOS.items():
    setattr(HostilePeerTests, "test_a_peer_that_" + _name.replace(" ", "_").replace(",", ""), _test(_scenario))
