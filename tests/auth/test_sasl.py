"""SASL messages.  RFC 4616."""

from __future__ import annotations

import pytest

from livemail.auth.sasl import LoginExchange, PlainExchange, parse_plain
from livemail.mail.errors import WireError
from tests.auth.rig import finish


class Asked:
    """Stands for the portal: remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []

    async def __call__(self, authcid: str, password: str, authzid: str):
        self.calls.append((authcid, password, authzid))
        return "login"


@pytest.mark.parametrize(
    ("message", "parsed"),
    [
        (b"\0tim\0tanstaaftanstaaf", ("", "tim", "tanstaaftanstaaf")),  # RFC 4616 §4
        (b"Ursel\0Kurt\0xipj3plmq", ("Ursel", "Kurt", "xipj3plmq")),
        ("\0jörg\0pass wörd ".encode(), ("", "jörg", "pass wörd ")),
        (b"\0a\0" + b"p" * 1024, ("", "a", "p" * 1024)),
    ],
)
def test_plain(message, parsed):
    assert parse_plain(message) == parsed


@pytest.mark.parametrize(
    "message",
    [
        b"", b"tim", b"\0tim", b"\0\0", b"\0tim\0", b"\0\0secret", b"\0tim\0secret\0", b"\0tim\0sec\0ret", b"\0\xff\0secret",
        b"\0tim\0\xc3", b"\0" + b"x" * 513 + b"\0p", b"x" * 513 + b"\0t\0p", b"\0t\0" + b"p" * 1025,
    ],
)  # fmt: skip
def test_plain_that_is_none_is_refused_without_quoting_it(message):
    with pytest.raises(WireError) as caught:
        parse_plain(message)
    assert (caught.value.code, caught.value.enhanced) == (501, "5.5.2")
    assert caught.value.text == "Malformed PLAIN response"


def test_plain_with_and_without_initial_response():
    for steps in ([b"\0tim\0secret"], [None, b"\0tim\0secret"]):
        asked = Asked()
        exchange = PlainExchange(asked)
        results = [finish(exchange.step(step)) for step in steps]
        assert results == [b""] * (len(steps) - 1) + ["login"]
        assert asked.calls == [("tim", "secret", "")]


def test_login_with_and_without_initial_response():
    for steps, prompts in (
        ([b"tim", b"secret"], [b"Password:"]),
        ([None, b"tim", b"secret"], [b"Username:", b"Password:"]),
    ):
        asked = Asked()
        exchange = LoginExchange(asked)
        assert [finish(exchange.step(step)) for step in steps] == [*prompts, "login"]
        assert asked.calls == [("tim", "secret", "")]


@pytest.mark.parametrize("steps", [[b""], [b"a\0b"], [b"tim", b""], [b"tim", None], [b"tim", b"\xff"], [b"x" * 513]])
def test_login_that_is_none_is_refused(steps):
    exchange = LoginExchange(Asked())
    for step in steps[:-1]:
        finish(exchange.step(step))
    with pytest.raises(WireError):
        finish(exchange.step(steps[-1]))


@pytest.mark.parametrize(("kind", "steps"), [(PlainExchange, [b"\0tim\0secret"]), (LoginExchange, [b"tim", b"secret"])])
def test_an_exchange_that_is_over_asks_nobody_again(kind, steps):
    asked = Asked()
    exchange = kind(asked)
    for step in steps:
        finish(exchange.step(step))
    with pytest.raises(WireError):
        finish(exchange.step(steps[-1]))
    assert len(asked.calls) == 1
