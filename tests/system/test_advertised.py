"""What the running server advertises, in every state, is what livemail/rfc.txt and README.rst say is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.rfc_list import offered
from tests.system.hostile import Raw
from tests.system.rig import ROOT, Server


def _ehlo(raw: Raw, hello: bytes) -> Iterator[str]:
    raw.send(hello + b" client.example\r\n")
    raw.line()  # who the server is
    while True:
        line = raw.line()
        assert line.startswith(b"250"), line
        word, *parameters = line[4:].decode().split()
        yield word
        if word == "AUTH":
            yield from parameters
        if line[3:4] == b" ":
            return


def _smtp(server: Server, service: str) -> Iterator[str]:
    hello = b"LHLO" if service == "lmtp" else b"EHLO"
    raw = Raw(server, service)
    before = list(_ehlo(raw, hello))
    yield from before
    if "STARTTLS" in before:
        assert raw.ask(b"STARTTLS").startswith(b"220")
        raw.tls()
        yield from _ehlo(raw, hello)


def _imap(server: Server, _: str) -> Iterator[str]:
    raw = Raw(server, "imap")
    for step in (None, b"t STARTTLS\r\n", b"login"):
        if step == b"login":
            raw.login()
        elif step:
            assert raw.tagged(step).startswith(b"t OK")
            raw.tls()
        raw.send(b"c CAPABILITY\r\n")
        for word in raw.line().decode().removeprefix("* CAPABILITY ").split():
            name, _, value = word.partition("=")
            # AUTH=PLAIN and APPENDLIMIT=… have a value behind the name; STATUS=SIZE is one name.
            yield value if name == "AUTH" else name if name == "APPENDLIMIT" else word
        assert raw.line().startswith(b"c OK")


def _pop3(server: Server, _: str) -> Iterator[str]:
    raw = Raw(server, "pop3")
    for step in (b"", b"STLS", b"USER %b" % server.facts["account"].encode()):
        if step:
            assert raw.ask(step).startswith(b"+OK")
        if step == b"STLS":
            raw.tls()
        elif step:
            assert raw.ask(b"PASS %b" % server.facts["password"].encode()).startswith(b"+OK")
        assert raw.ask(b"CAPA").startswith(b"+OK")
        while (line := raw.line().decode()) != ".":
            word, *parameters = line.split()
            yield word
            if word == "SASL":
                yield from parameters


ESMTP = {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "STARTTLS"}
IMAP = {
    "IMAP4rev1", "STARTTLS", "PLAIN", "LOGIN", "LITERAL+", "SASL-IR", "ID", "ENABLE", "IDLE", "NAMESPACE", "CHILDREN", "UNSELECT",
    "UIDPLUS", "MOVE", "SPECIAL-USE", "CONDSTORE", "STATUS=SIZE", "APPENDLIMIT",
}  # fmt: skip
POP3 = {
    "TOP", "UIDL", "USER", "SASL", "PLAIN", "LOGIN", "PIPELINING", "RESP-CODES", "EXPIRE", "LOGIN-DELAY", "IMPLEMENTATION",
    "AUTH-RESP-CODE", "STLS", "UTF8", "LANG",
}  # fmt: skip


@pytest.mark.parametrize(
    ("service", "ask", "floor"),
    [
        ("smtp", _smtp, ESMTP),
        ("submission", _smtp, ESMTP | {"AUTH", "PLAIN", "LOGIN"}),
        ("lmtp", _smtp, ESMTP),
        ("imap", _imap, IMAP),
        ("pop3", _pop3, POP3),
    ],
)
def test_what_is_advertised_is_listed(
    server: Server, service: str, ask: Callable[[Server, str], Iterator[str]], floor: set[str]
) -> None:
    told = set(ask(server, service))
    assert floor <= told
    # SASL LOGIN is in no RFC: draft-murchison-sasl-login-00.
    assert told - offered() == {"LOGIN"} & told
    described = set(re.findall(r"[A-Z0-9][A-Za-z0-9=+-]+", (ROOT / "README.rst").read_text("utf-8")))
    assert told - described - {"HELP", "LOGINDISABLED", "IMPLEMENTATION"} == set()
