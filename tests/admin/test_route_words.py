"""``livemail route show``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from livemail.__main__ import parser
from livemail.admin import route_words
from livemail.admin.operations import Operations, Refused
from livemail.delivery.settings import RouteSettings
from livemail.directory import StoreDirectory
from livemail.directory.settings import DirectorySettings
from livemail.storage.memory import MemoryStore
from tests.contracts.drive import finish
from tests.delivery.test_routing import FAILS, A, Zone, routing


async def plain(password: str) -> str:
    return password


def say(of: Any, *words: str) -> int:
    store = MemoryStore()
    directory = StoreDirectory(store, DirectorySettings())
    operations = Operations(store, directory.local_domains, plain)
    route_words.add_to(operations, directory, of)

    def target(operation: str, arguments: Mapping[str, Any], progress: Any) -> Any:
        return json.loads(json.dumps(finish(operations.perform(operation, arguments, progress))))

    arguments = parser().parse_args(["route", "show", *words])
    return int(arguments.verb(arguments, target))


def test_hosts_routes_refusals_and_ourselves_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    zone = Zone(
        mx__a_test=[(1, "x.test"), (2, "y.test")], x_test=A, y_test=["::2"], mx__b_test=FAILS, mx__c_test=[(0, "")]
    )
    way = RouteSettings(
        domains=("d.test",), next_hop=("192.0.2.7:465",), login="me", password="secret", source=("192.0.2.50",)
    )
    of = routing(zone, way, RouteSettings(domains=("e.test",), next_hop=("unix:/run/x",), protocol="lmtp"))
    for words, status, told in [
        (
            "ann@A.test",
            0,
            "a.test: by a.test\n  x.test:25  192.0.2.1  smtp  tls may\n  y.test:25  ::2  smtp  tls may\n",
        ),
        ("b.test", 75, "b.test: 451 4.4.3 DNS lookup failed\n"),
        ("c.test", 1, "c.test: 556 5.1.10 The domain c.test takes no mail (null MX)\n"),
        (
            "d.test",
            0,
            (
                "d.test: by 192.0.2.7:465 as me\n"
                "  192.0.2.7:465  192.0.2.7  smtp  tls at once, verify  login me  from 192.0.2.50\n"
            ),
        ),
        ("e.test", 0, "e.test: by lmtp:unix:/run/x\n  unix:/run/x  lmtp  tls may\n"),
        ("you@localhost", 0, "localhost: delivered here\n"),
    ]:
        assert say(of, words) == status, words
        assert capsys.readouterr().out == told
    assert say(of, "d.test", "--json") == 0
    out = capsys.readouterr().out
    assert json.loads(out)["hops"][0]["addresses"] == ["192.0.2.7"]
    assert "secret" not in out


def test_without_a_server_it_says_so() -> None:
    with pytest.raises(Refused) as caught:
        say(None, "a.test")
    assert caught.value.status == 69
