"""Resolver and routing against Debian's name servers: knot has the zones (one of them signed), unbound validates."""

from __future__ import annotations

import random
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from livemail.delivery.ourselves import Ourselves
from livemail.delivery.routing import Routing
from livemail.delivery.settings import RoutingSettings
from livemail.mail.errors import MailError
from livemail.net.resolver import exchange
from livemail.net.resolver.resolver import Resolver
from livemail.net.resolver.settings import ResolverSettings
from tests.system.rig import program, run

ZONE = """\
$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 30
@ NS ns
ns A 127.0.0.1
plain MX 20 two.plain
plain MX 10 one.plain
one.plain A 192.0.2.1
one.plain AAAA 2001:db8::1
two.plain A 192.0.2.2
null MX 0 .
implicit A 192.0.2.3
text TXT "only text"
alias CNAME plain
atmx MX 5 alias-of-host
alias-of-host CNAME one.plain
outside CNAME plain.elsewhere.
loop1 CNAME loop2
loop2 CNAME loop1
_25._tcp.one.plain TLSA 3 1 1 {digest}
*.wild MX 10 one.plain
backup MX 10 one.plain
backup MX 20 ourselves
backup MX 30 two.plain
ourselves A 192.0.2.99
"""
BIG = "".join(f"big MX {n} host-{n}.with-a-rather-long-name-{n:03}.big\n" for n in range(100))
SIGNED = "$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 30\n@ NS ns\nns A 127.0.0.1\n@ MX 10 mx\nmx A 192.0.2.7\n"
KNOT = """\
server:
  rundir: "{folder}"
  listen: 127.0.0.1@{port}
  tcp-workers: 1
  udp-workers: 1
  background-workers: 1
database:
  storage: "{folder}/db"
log:
  - target: stderr
    any: warning
policy:
  - id: fast
    algorithm: ecdsap256sha256
    single-type-signing: on
zone:
  - domain: example.test
    storage: "{folder}"
    file: plain.zone
  - domain: signed.test
    storage: "{folder}"
    file: signed.zone
    dnssec-signing: on
    dnssec-policy: fast
    zonefile-sync: -1
  - domain: broken.test
    storage: "{folder}"
    file: signed.zone
"""
UNBOUND = """\
server:
  directory: "{folder}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  logfile: ""
  interface: 127.0.0.1@{port}
  port: {port}
  do-ip6: no
  num-threads: 1
  do-not-query-localhost: no
  local-zone: "test." nodefault
  domain-insecure: "example.test"
  trust-anchor: "{anchor}"
  trust-anchor: "broken.test. DS 1 13 2 {digest}"
remote-control:
  control-enable: no
"""
STUB = 'stub-zone:\n  name: "{zone}"\n  stub-addr: 127.0.0.1@{port}\n'


def free_port() -> int:
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(("127.0.0.1", tcp.getsockname()[1]))
            except OSError:
                continue
            return int(tcp.getsockname()[1])


def started(arguments: list[str | Path], port: int, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        process = subprocess.Popen([str(each) for each in arguments], stdout=file, stderr=file)
    for _ in range(400):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    process.kill()
    raise AssertionError(log.read_text())


@pytest.fixture(scope="class")
def name_servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    knotd, keymgr, unbound = program("knotd"), program("keymgr"), program("unbound")
    folder = tmp_path_factory.mktemp("dns")
    ports = {"knot": free_port(), "unbound": free_port()}
    (folder / "db").mkdir()
    (folder / "plain.zone").write_text(ZONE.format(digest="ab" * 32) + BIG)
    (folder / "signed.zone").write_text(SIGNED)
    (folder / "knot.conf").write_text(KNOT.format(folder=folder, port=ports["knot"]))
    processes = [started([knotd, "-c", folder / "knot.conf"], ports["knot"], folder / "knot.log")]
    try:
        anchor = ""
        for _ in range(200):
            lines = run([keymgr, "-c", folder / "knot.conf", "signed.test.", "ds"]).stdout.splitlines()
            anchor = next((line for line in lines if " 2 " in line), "")
            if anchor:
                break
            time.sleep(0.05)
        assert anchor, (folder / "knot.log").read_text()
        text = UNBOUND.format(folder=folder, port=ports["unbound"], anchor=anchor, digest="00" * 32)
        for zone in ("example.test", "signed.test", "broken.test"):
            text += STUB.format(zone=zone, port=ports["knot"])
        (folder / "unbound.conf").write_text(text)
        processes.append(
            started([unbound, "-d", "-c", folder / "unbound.conf"], ports["unbound"], folder / "unbound.log")
        )
        request.cls.ports = ports
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.usefixtures("name_servers")
class NameServers(TestCase):
    """Every question goes to both servers, and both must be understood alike."""

    ports: dict[str, int]

    def resolver(self, *servers: str, **more: Any) -> Resolver:
        places = tuple(f"127.0.0.1:{self.ports[name]}" for name in servers or ("unbound",))
        settings = ResolverSettings(servers=places, hosts_file="", **more)
        return Resolver(settings, partial(exchange.ask, reactor), reactor.seconds, secrets.randbits)

    def routing(self, resolver: Resolver) -> Routing:
        ourselves = Ourselves([], [("192.0.2.99", 25)])
        shuffle = random.Random(1).shuffle
        return Routing(RoutingSettings(), (), resolver=resolver, ourselves=ourselves, shuffle=shuffle)

    def tearDown(self) -> Deferred[None]:
        return deferLater(reactor, 0.01)  # closed sockets leave the reactor in its next turns

    async def test_hosts_of_every_kind_of_domain(self) -> None:
        for server in ("knot", "unbound"):
            routing = self.routing(self.resolver(server))
            for domain, expected in {
                "plain.example.test": [
                    ("one.plain.example.test", ("2001:db8::1", "192.0.2.1")),
                    ("two.plain.example.test", ("192.0.2.2",)),
                ],
                "implicit.example.test": [("implicit.example.test", ("192.0.2.3",))],
                "alias.example.test": [
                    ("one.plain.example.test", ("2001:db8::1", "192.0.2.1")),
                    ("two.plain.example.test", ("192.0.2.2",)),
                ],
                "atmx.example.test": [("alias-of-host.example.test", ("2001:db8::1", "192.0.2.1"))],
                "any.thing.wild.example.test": [("one.plain.example.test", ("2001:db8::1", "192.0.2.1"))],
                "backup.example.test": [("one.plain.example.test", ("2001:db8::1", "192.0.2.1"))],
            }.items():
                hops = await routing.hops(domain)
                self.assertEqual([(hop.host, hop.addresses) for hop in hops.hops], expected, (server, domain))

    async def test_domains_without_hosts_say_why(self) -> None:
        for server in ("knot", "unbound"):
            routing = self.routing(self.resolver(server))
            for domain, expected in {
                "null.example.test": "556 5.1.10",
                "text.example.test": "550 5.1.2",
                "nowhere.example.test": "550 5.1.2",
                "ourselves.example.test": "550 5.4.6",
                "loop1.example.test": "451 4.4.3",
                "outside.example.test": "451 4.4.3" if server == "knot" else None,
                "big.example.test": "550 5.4.4",
            }.items():
                if expected is None:  # unbound has no root servers to ask here, and takes its time to say so
                    continue
                try:
                    self.fail(f"{domain}: {await routing.hops(domain)}")
                except MailError as error:
                    self.assertEqual(f"{error.code} {error.enhanced}", expected, (server, domain))

    async def test_an_answer_too_big_for_udp_comes_by_tcp(self) -> None:
        for server in ("knot", "unbound"):
            answer = await self.resolver(server).mx("big.example.test")
            self.assertEqual([preference for preference, _ in answer.records], list(range(100)))

    async def test_dnssec_is_told_by_the_one_who_validates(self) -> None:
        self.assertTrue((await self.resolver("unbound").mx("signed.test")).is_secure)
        self.assertFalse((await self.resolver("unbound").mx("plain.example.test")).is_secure)
        self.assertFalse((await self.resolver("knot").mx("signed.test")).is_secure)
        untrusted = self.resolver("unbound", trusted=("192.0.2.0/24",))
        self.assertFalse((await untrusted.mx("signed.test")).is_secure)

    async def test_a_domain_whose_signatures_are_wrong_fails_for_now(self) -> None:
        with self.assertRaises(MailError) as caught:
            await self.resolver("unbound").mx("broken.test")
        self.assertIn("SERVFAIL", caught.exception.reason)

    async def test_a_server_that_refuses_sends_us_to_the_next(self) -> None:
        resolver = self.resolver("knot", "unbound")
        with self.assertRaises(MailError) as caught:
            await self.resolver("knot").mx("elsewhere.invalid")
        self.assertIn("rcode 5", caught.exception.reason)
        self.assertEqual((await resolver.mx("elsewhere.invalid")).exists, False)

    async def test_text_and_tlsa_records(self) -> None:
        for server in ("knot", "unbound"):
            resolver = self.resolver(server)
            self.assertEqual((await resolver.txt("text.example.test")).records, (b"only text",))
            tlsa = await resolver.tlsa("_25._tcp.one.plain.example.test")
            self.assertEqual(tlsa.records, ((3, 1, 1, b"\xab" * 32),))

    async def test_nothing_is_remembered_longer_than_the_zone_says(self) -> None:
        answer = await self.resolver("knot").mx("nowhere.example.test")
        self.assertEqual((answer.exists, round(answer.seconds)), (False, 30))
        answer = await self.resolver("knot").mx("plain.example.test")
        self.assertEqual(round(answer.seconds), 300)

    async def test_a_dead_server_in_front_costs_one_question(self) -> None:
        dead = f"127.0.0.1:{free_port()}"
        settings = ResolverSettings(servers=(dead, f"127.0.0.1:{self.ports['knot']}"), hosts_file="")
        asked: list[int] = []

        def counted(server: Any, query: Any, patience: float) -> Any:
            asked.append(server.port)
            return exchange.ask(reactor, server, query, patience)

        resolver = Resolver(settings, counted, reactor.seconds, secrets.randbits)
        for name in ("plain", "null", "text", "implicit"):
            await resolver.mx(f"{name}.example.test")
        self.assertEqual(asked.count(self.ports["knot"]), 4)
        self.assertEqual(len(asked), 5)
