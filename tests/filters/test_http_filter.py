"""The filter that asks a web service, against a real one on loopback."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from pathlib import Path as File

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from livemail.filters import Accept, Continue, Defer, Discard, Quarantine, Reject, Server
from livemail.filters.chain import FilterSpec
from livemail.filters.shipped.http import AskWebService
from livemail.testing import run_filter_async

MAIL = b"From: a@b.example\r\nSubject: =?utf-8?q?gr=C3=BCn?=\r\n\r\nbody\r\n"


class Service(Resource):
    isLeaf = True

    def __init__(self):
        super().__init__()
        self.asked, self.tokens = [], []
        self.answer = {"verdict": "continue"}
        self.status = 200

    def render_POST(self, request):
        self.asked.append(json.loads(request.content.read()))
        self.tokens.append(request.getHeader("Authorization"))
        request.setResponseCode(self.status)
        if self.answer == "hang":
            return NOT_DONE_YET
        return self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()


class Web(TestCase):
    timeout = 30

    def setUp(self):
        self.service = Service()
        self.port = reactor.listenTCP(0, Site(self.service), interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port.getHost().port}/check"

    async def tearDown(self):
        self.flushLoggedErrors()
        await self.port.stopListening()
        closed = Deferred()
        reactor.callLater(0.05, closed.callback, None)
        await closed

    async def ask(self, message=MAIL, *, seconds=10.0, on_failure="defer", **config):
        spec = FilterSpec(
            "web", AskWebService, AskWebService.Config(**{"url": self.url, **config}), on_failure, seconds
        )
        return await run_filter_async([spec], message, server=Server(reactor=reactor), may_fail=True)

    async def test_every_verdict_is_done(self):
        for answer, kind in (
            ({"verdict": "continue"}, Continue), ({"verdict": "accept"}, Accept), ({"verdict": "discard"}, Discard),
            ({"verdict": "quarantine", "reason": "odd"}, Quarantine), ({"verdict": "defer"}, Defer),
            ({"verdict": "reject", "enhanced": "5.7.9", "text": "no", "code": 554}, Reject),
        ):  # fmt: skip
            self.service.answer = answer
            result = await self.ask()
            assert isinstance(result.verdict, kind), result
            assert not result.failure
        assert (result.verdict.code, result.verdict.enhanced, result.verdict.text) == (554, "5.7.9", "no")

    async def test_it_hears_what_it_is_configured_to_hear(self):
        await self.ask(send="envelope")
        await self.ask()
        await self.ask(send="message")
        await self.ask(send="message", max_message_octets=5)
        envelope, header, message, large = self.service.asked
        assert envelope["reverse_path"] == "sender@example.org"
        assert envelope["recipients"] == ["you@localhost"]
        assert "header" not in envelope
        assert ["Subject", "=?utf-8?q?gr=C3=BCn?="] in header["header"]
        assert base64.b64decode(message["message"]) == MAIL
        assert "message" not in large

    async def test_fields_and_scores_are_taken_over(self):
        self.service.answer = {
            "verdict": "continue",
            "add_headers": [["X-Checked", "yes"]],
            "score": 2.5,
            "reason": "so",
        }
        result = await self.ask()
        assert b"X-Checked: yes\r\n" in result.message
        assert result.scores == [(2.5, "so")]

    async def test_a_token_is_sent_from_its_file(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = folder + "/token"
        File(path).write_text("s3cret\n")  # noqa: ASYNC240 - eight octets
        await self.ask(token_file=path)
        assert self.service.tokens == ["Bearer s3cret"]

    async def test_whatever_is_not_as_agreed_is_a_failure(self):
        for answer, status, said in (
            (b"no json", 200, "the answer is not as agreed"),
            ({"verdict": "perhaps"}, 200, "the answer is not as agreed"),
            ({"verdict": "continue", "add_headers": [["X", "a\r\nBcc: b"]]}, 200, "cannot hold CR"),
            ({"verdict": "reject", "code": 250}, 200, "its code is 5xx"),
            ({"verdict": "continue"}, 500, "the service answered 500"),
            (b" " * 70_000, 200, "more than 65536 octets"),
        ):
            self.service.answer, self.service.status = answer, status
            result = await self.ask()
            assert isinstance(result.verdict, Defer), (answer, result)
            assert said in result.failure
        result = await self.ask(on_failure="skip")
        assert isinstance(result.verdict, Continue)

    async def test_a_service_that_does_not_answer_is_waited_for_so_long(self):
        self.service.answer = "hang"
        result = await self.ask(seconds=0.3)
        assert isinstance(result.verdict, Defer)
        assert "no verdict after 0.3 s" in result.failure
        await self.port.stopListening()
        result = await self.ask(url="http://127.0.0.1:9/x")
        assert isinstance(result.verdict, Defer)
        self.port = reactor.listenTCP(0, Site(self.service), interface="127.0.0.1")
