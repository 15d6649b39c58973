"""Asks a web service: one POST with what is known of a message, one JSON answer with what to do.

    POST url
    {"reverse_path": "a@b.example", "recipients": […], "peer": "192.0.2.1", "helo": "…", "service": "smtp", "tls": "…",
     "authcid": "", "size": 4123, "score": 1.5, "header": [["Subject", "hello"], …], "message": "base64 of the octets"}

    200 {"verdict": "reject", "enhanced": "5.7.1", "text": "…", "reason": "…", "add_headers": [["X-Checked", "yes"]], "score": 2}

verdict: continue, accept, reject, defer, discard, quarantine.  Whatever else comes (another status, another verdict, more than
``max_response_octets``, nothing in time) is a failure of the filter, and ``on_failure`` says what that means.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import msgspec
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from livemail.filters import (
    CONTINUE,
    Accept,
    Defer,
    Discard,
    Filter,
    Message,
    Quarantine,
    Reject,
    Server,
    Transaction,
    Verdict,
)


class WebServiceFailed(Exception):
    """The service did not answer as agreed."""


class Answer(msgspec.Struct):
    """What the service says."""

    verdict: Literal["continue", "accept", "reject", "defer", "discard", "quarantine"]
    enhanced: str = ""
    code: int = 0
    text: str = ""
    reason: str = ""
    add_headers: list[tuple[str, str]] = []
    score: float = 0.0


class _Bounded(Protocol):
    """Gathers a response, to a bound."""

    def __init__(self, done: Deferred[bytes], limit: int) -> None:
        self._done = done
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            self._finish(WebServiceFailed(f"the answer has more than {self._limit} octets"))
            cast(Any, self.transport).abortConnection()
            return
        self._pieces.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        if isinstance(reason, Failure) and reason.check(ResponseDone, PotentialDataLoss):
            self._finish(None)
        else:
            self._finish(WebServiceFailed(f"the answer was cut off: {reason.getErrorMessage() if reason else ''}"))

    def _finish(self, error: Exception | None) -> None:
        if self._done.called:
            return
        if error is None:
            self._done.callback(b"".join(self._pieces))
        else:
            self._done.errback(error)


class _Service:
    """Connections to the service, kept and counted; shared by all messages."""

    def __init__(self, config: Any, server: Server) -> None:
        self.pool = HTTPConnectionPool(server.reactor)
        self.pool.maxPersistentPerHost = config.connections
        self.agent = Agent(server.reactor, connectTimeout=config.connect_timeout, pool=self.pool)
        self.turns = DeferredSemaphore(config.connections)
        self.token = Path(config.token_file).read_text("utf-8").strip() if config.token_file else ""


class AskWebService(Filter):
    """Let a web service decide."""

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
        """url: http or https, whose certificate must be valid.  send: what it gets beside the envelope: nothing, the header, or the message.

        max_message_octets: a larger message is sent without its octets.  max_response_octets: of an answer.  connections: at most so many
        at once; further messages wait.  connect_timeout: seconds.  token_file: a file whose text is sent as Authorization: Bearer.
        """

        url: str
        send: Literal["envelope", "header", "message"] = "header"
        max_message_octets: int = 1024 * 1024
        max_response_octets: int = 64 * 1024
        connections: int = 10
        connect_timeout: float = 5.0
        token_file: str = ""

        def faults(self) -> Iterable[tuple[str, str]]:
            """Addresses nobody can ask."""
            parts = urlsplit(self.url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                yield "url", f'cannot be "{self.url}"; write one such as "https://policy.example.org/check"'
            if self.connections < 1:
                yield "connections", "must be 1 or more"
            if self.token_file and not Path(self.token_file).is_file():
                yield "token_file", f"{self.token_file} is not a file"
            if self.token_file and parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
                yield "token_file", "would cross the network in the clear; write an https url"

    @classmethod
    def start(cls, config: Any, server: Server) -> _Service:
        """Open the pool."""
        return _Service(config, server)

    @classmethod
    def stop(cls, shared: Any) -> None:
        """Close idle connections."""
        shared.pool.closeCachedConnections()

    async def message(self, tx: Transaction, message: Message) -> Verdict:
        """Ask, and do what is answered."""
        service: _Service = self.shared
        question = msgspec.json.encode(self._question(tx, message))
        await service.turns.acquire()
        try:
            octets = await self._post(service, question)
        finally:
            service.turns.release()
        try:
            answer = msgspec.json.decode(octets, type=Answer)
        except msgspec.DecodeError as error:
            raise WebServiceFailed(f"the answer is not as agreed: {error}") from None
        for name, value in answer.add_headers:
            message.add_header(name, value)
        if answer.score:
            tx.add_score(answer.score, answer.reason or self.config.url)
        return _verdict(answer)

    def _question(self, tx: Transaction, message: Message) -> dict[str, Any]:
        connection, config = tx.connection, self.config
        address = tx.reverse_path.path.address if tx.reverse_path is not None else None
        question: dict[str, Any] = {
            "reverse_path": str(address) if address is not None else "",
            "recipients": [str(recipient.path.address) for recipient in tx.recipients],
            "peer": connection.peer,
            "helo": tx.helo,
            "service": connection.service,
            "tls": connection.tls,
            "authcid": connection.authcid,
            "size": message.size,
            "score": tx.score,
        }
        if config.send != "envelope":
            question["header"] = [
                [name.decode("ascii", "replace"), raw.partition(b":")[2].strip().decode("utf-8", "replace")]
                for name, raw in message.fields
            ]
        if config.send == "message" and message.size <= config.max_message_octets:
            question["message"] = base64.b64encode(b"".join(message.chunks())).decode()
        return question

    async def _post(self, service: _Service, question: bytes) -> bytes:
        headers = {"Content-Type": ["application/json"], "User-Agent": ["livemail"], "Accept": ["application/json"]}
        if service.token:
            headers["Authorization"] = [f"Bearer {service.token}"]
        response: Any = await service.agent.request(
            b"POST", self.config.url.encode(), Headers(headers), FileBodyProducer(io.BytesIO(question))
        )
        done: Deferred[bytes] = Deferred()
        response.deliverBody(_Bounded(done, self.config.max_response_octets))
        octets = await done
        if response.code != 200:
            raise WebServiceFailed(f"the service answered {response.code}")
        return octets


def _verdict(answer: Answer) -> Verdict:
    if answer.verdict == "reject":
        return Reject(answer.enhanced or "5.7.1", answer.text or "Refused by policy", answer.reason, answer.code or 550)
    if answer.verdict == "defer":
        return Defer(answer.enhanced or "4.7.1", answer.text or "Try again later", answer.reason, answer.code or 451)
    if answer.verdict == "accept":
        return Accept(answer.reason)
    if answer.verdict == "discard":
        return Discard(answer.reason)
    return Quarantine(answer.reason) if answer.verdict == "quarantine" else CONTINUE
