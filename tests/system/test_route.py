"""``livemail route show``: a running server finds the way for a domain in its tables and in a real DNS."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli_w

from tests.system.rig import Server, program
from tests.system.test_dns import KNOT, SIGNED, ZONE, free_port, started


@pytest.fixture
def name_server(tmp_path: Path) -> Iterator[str]:
    """ADDRESS:PORT of a name server with the zones of test_dns."""
    port = free_port()
    (tmp_path / "db").mkdir()
    (tmp_path / "plain.zone").write_text(ZONE.format(digest="ab" * 32))
    (tmp_path / "signed.zone").write_text(SIGNED)
    (tmp_path / "knot.conf").write_text(KNOT.format(folder=tmp_path, port=port))
    process = started([program("knotd"), "-c", tmp_path / "knot.conf"], port, tmp_path / "knot.log")
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_a_running_server_tells_where_mail_goes(fresh: Server, name_server: str) -> None:
    fresh.start()
    assert fresh.stop() == 0
    fresh.configure(resolver={"servers": [f"127.0.0.1:{free_port()}", name_server]})
    file = Path(fresh.arguments[1])
    table = tomllib.loads(file.read_text())
    table["route"] = [{"domains": ["*.elsewhere.test"], "next_hop": ["localhost:2526"]}]
    file.write_text(tomli_w.dumps(table))
    fresh.start()
    for domain, status, told in (
        ("ann@plain.example.test", 0, "one.plain.example.test:25  2001:db8::1  192.0.2.1"),
        ("x.elsewhere.test", 0, "localhost:2526"),
        ("null.example.test", 1, "556 5.1.10"),
        ("elsewhere.test", 75, "451 4.4.3"),
        ("localhost", 0, "delivered here"),
    ):
        done = fresh.livemail("route", "show", domain)
        assert (done.returncode, told in done.stdout) == (status, True), (domain, done.stdout, done.stderr)
    hops = json.loads(fresh.livemail("route", "show", "plain.example.test", "--json").stdout)["hops"]
    assert [hop["host"] for hop in hops] == ["one.plain.example.test", "two.plain.example.test"]
    assert fresh.stop() == 0
    assert fresh.livemail("route", "show", "plain.example.test").returncode == 69
