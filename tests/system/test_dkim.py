"""Signatures across programs: ours verify in OpenDKIM and mailauth, theirs verify here, with the keys in Debian's Knot DNS."""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.system.far_end import wait_for_port
from tests.system.mail import deliver, fetch_all, imap, smtp
from tests.system.milter_rig import PORTS, Daemon, opendkim
from tests.system.npm import npm_package
from tests.system.rig import Server, program, run

NAME_SERVER = "127.0.18.1"
"""A loopback address of its own, because OpenDKIM asks port 53 and no other."""

KNOT = """\
server:
  rundir: "{folder}"
  listen: {address}@53
  tcp-workers: 1
  udp-workers: 1
  background-workers: 1
database:
  storage: "{folder}/db"
log:
  - target: stderr
    any: warning
zone:
  - domain: example.org
    storage: "{folder}"
    file: example.org.zone
"""

MAIL = (
    "From: Ann <ann@example.org>\r\nTo: you@elsewhere.example\r\nSubject: {subject}\r\nDate: Wed, 25 Nov 2026 10:00:00 +0000\r\n"
    "Message-ID: <{subject}@example.org>\r\n\r\ntwo  spaces \r\n\r\ncaf\u00e9 .dot\r\n.\r\nlast\r\n\r\n"
)


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = Server(folder / "data")
        table = tomllib.loads(self.server.livemail("config", "show").stdout)
        table["directory"]["local_domains"] = ["example.org"]
        table["resolver"]["servers"] = [f"{NAME_SERVER}:53"]
        table["filter"] = [
            {"use": "dkim-sign", "services": ["submission", "submissions"]},
            {"use": "milter", "services": ["lmtp"], "socket": f"inet:{PORTS['opendkim']}@127.0.0.1"},
            {"use": "dkim-verify", "services": ["smtp", "lmtp"]},
        ]
        (folder / "livemail.toml").write_text(tomli_w.dumps(table))
        self.server.data.mkdir(mode=0o700)
        self.keys = [self.create("--selector", "r1"), self.create("--algorithm", "ed25519", "--selector", "e1")]

    def create(self, *options: str) -> dict[str, Any]:
        done = self.server.livemail("--json", "dkim", "create", "example.org", *options)
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told


def key_pair(folder: Path, name: str) -> tuple[Path, str]:
    """A private key in PEM, and the record of its public half."""
    private = folder / f"{name}.pem"
    assert run([program("openssl"), "genrsa", "-out", private, "2048"]).returncode == 0
    public = run([program("openssl"), "rsa", "-in", private, "-pubout"]).stdout
    return private, "v=DKIM1; k=rsa; p=" + "".join(public.splitlines()[1:-1])


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("dkim")
    (folder / "knot").mkdir()
    made = Rig(folder)
    private, record = key_pair(folder, "theirs")
    strings = " ".join(f'"{part}"' for part in textwrap.wrap(record, 200, drop_whitespace=False))
    zone = ["$ORIGIN example.org.", "$TTL 60", "@ SOA ns root 1 60 60 60 60", "@ NS ns", f"ns A {NAME_SERVER}",
            *(key["zone"] for key in made.keys), f"theirs._domainkey TXT ( {strings} )", "alias._domainkey CNAME theirs._domainkey"]  # fmt: skip
    (folder / "knot" / "example.org.zone").write_text("\n".join(zone) + "\n")
    (folder / "knot" / "knot.conf").write_text(KNOT.format(folder=folder / "knot", address=NAME_SERVER))
    daemons = []
    try:
        daemons.append(Daemon(folder, "knotd", ["-c", str(folder / "knot" / "knot.conf")], 53, NAME_SERVER))
        daemons.append(opendkim(folder, {
            "Mode": "s", "Domain": "example.org", "Selector": "theirs", "KeyFile": str(private),
        }))  # fmt: skip
        server = made.server
        server.start()
        server.stop()
        server.arguments = ["--config", str(folder / "livemail.toml")]
        server.start()
        server.add_account("ann@example.org", "correct horse")
        yield made
    finally:
        made.server.kill()
        for daemon in daemons:
            daemon.stop()


def mailbox(server: Server, name: str, subject: str) -> bytes:
    client = imap(server, "ann@example.org", "correct horse")
    found = [octets for octets in fetch_all(client, name).values() if f"Subject: {subject}\r\n".encode() in octets]
    client.logout()
    assert len(found) == 1, found
    return found[0]


def submitted(rig: Rig, subject: str) -> bytes:
    """What would go to the other host: captured, without the fields that local delivery put in front."""
    with smtp(rig.server, "submission") as client:
        client.login("ann@example.org", "correct horse")
        reply = deliver(client, "you@elsewhere.example", MAIL.format(subject=subject).encode(), "ann@example.org")
        assert reply[0] == 250, reply
    octets = mailbox(rig.server, "Outbox (captured)", subject)
    return octets[octets.index(b"DKIM-Signature:") :]


def results(octets: bytes) -> str:
    header = re.sub(r"\r\n[ \t]+", " ", octets.partition(b"\r\n\r\n")[0].decode())
    (found,) = [line for line in header.split("\r\n") if line.startswith("Authentication-Results: localhost;")]
    return " ".join(found.split())


def node(folder: Path, script: str, *arguments: str | Path) -> bytes:
    modules = npm_package("mailauth", "4.13.3").parent
    file = folder / "script.js"
    file.write_text(script)
    done = subprocess.run(
        [program("node"), str(file), *map(str, arguments)], capture_output=True, timeout=60, check=False,
        env={"NODE_PATH": str(modules), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_domain_can_be_given_keys_before_the_server_has_ever_run(rig: Rig) -> None:
    """The rig did so; and the server took the folder."""
    assert len(json.loads(rig.server.livemail("--json", "dkim", "list").stdout)) == 2


def test_what_we_sign_verifies_in_opendkim(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "signed.eml"
    octets = submitted(rig, "for-opendkim")
    assert octets.count(b"DKIM-Signature:") == 2
    file.write_bytes(octets)
    (tmp_path / "verify.conf").write_text(f"Mode v\nNameservers {NAME_SERVER}\nSyslog no\n")
    # In this mode OpenDKIM tells of the first signature: so both in turn.
    second = octets[octets.index(b"DKIM-Signature:", 1) :]
    for signed, key in (
        (octets, r"s=r1,? d=example.org, 2048-bit key"),
        (second, r"s=e1,? d=example.org, [0-9]+-bit key"),
    ):
        for content, word in ((signed, "succeeded"), (signed.replace(b"last", b"lost"), "failed")):
            file.write_bytes(content)
            done = run([program("opendkim"), "-x", tmp_path / "verify.conf", "-t", file, "-v"])
            said = done.stdout + done.stderr
            assert re.search(rf"verification \({key}[^)]*\) {word}", said), said


VERIFY = """
const { authenticate } = require('mailauth');
const { Resolver } = require('dns').promises;
const fs = require('fs');
const resolver = new Resolver();
resolver.setServers([process.argv[2]]);
authenticate(fs.readFileSync(process.argv[3]), {
  ip: '192.0.2.1', helo: 'client.example', sender: 'ann@example.org', mta: 'mx.example', disableDmarc: true, disableArc: true,
  disableBimi: true, resolver: (name, type) => resolver.resolve(name, type),
}).then(({ dkim }) => console.log(JSON.stringify(dkim.results.map(r => [r.selector, r.algo, r.status.result]))));
"""


def test_what_we_sign_verifies_in_mailauth(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "signed.eml"
    octets = submitted(rig, "for-mailauth")
    file.write_bytes(octets)
    said = json.loads(node(tmp_path, VERIFY, NAME_SERVER, file))
    assert sorted(said) == [["e1", "ed25519-sha256", "pass"], ["r1", "rsa-sha256", "pass"]]
    file.write_bytes(b"From: eve@example.org\r\n" + octets)
    assert {each[2] for each in json.loads(node(tmp_path, VERIFY, NAME_SERVER, file))} == {"fail"}


def test_what_we_sign_verifies_here(rig: Rig) -> None:
    octets = submitted(rig, "for-us")
    with smtp(rig.server) as client:
        client.ehlo()
        forged = b"Authentication-Results: localhost; dkim=pass header.d=bank.example\r\n" + octets
        assert deliver(client, "ann@example.org", forged)[0] == 250
        assert deliver(client, "ann@example.org", octets.replace(b"for-us", b"for-who"))[0] == 250
    told = results(mailbox(rig.server, "INBOX", "for-us"))
    assert told.count("dkim=pass") == 2
    assert "bank.example" not in told
    assert results(mailbox(rig.server, "INBOX", "for-who")).count("dkim=fail") == 2


def test_row_38_a_thousand_signatures_cost_what_a_few_cost(rig: Rig) -> None:
    octets = submitted(rig, "row-38")
    signature = octets[: octets.index(b"DKIM-Signature:", 1)]
    rig.server.forget_peak()
    before = rig.server.memory("VmRSS")
    with smtp(rig.server) as client, smtp(rig.server) as other:
        client.ehlo()
        blank = b"DKIM-Signature: v=1; a=rsa-sha256; b=" + b" \t" * 450 + b"\r\n"
        for front in (signature * 1000, blank * 900):
            assert deliver(client, "ann@example.org", front + octets)[0] == 250
            assert other.noop()[0] == 250
    client_of_mail = imap(rig.server, "ann@example.org", "correct horse")
    told = [results(each) for each in fetch_all(client_of_mail).values() if b"Subject: row-38\r\n" in each]
    client_of_mail.logout()
    assert sorted(each.count("dkim=pass") for each in told) == [0, 5]
    assert sorted(each.count("dkim=permerror") for each in told) == [0, 5]
    assert all("more signatures were not looked at" in each for each in told)
    assert rig.server.memory("VmHWM") - before < 50 * 1024


SIGN = """
const { dkimSign } = require('mailauth/lib/dkim/sign');
const fs = require('fs');
const octets = fs.readFileSync(process.argv[2]);
const key = fs.readFileSync(process.argv[3]);
const sign = (selector, canonicalization, more) => ({
  signingDomain: 'example.org', selector, privateKey: key, canonicalization, ...more
});
dkimSign(octets, { algorithm: 'rsa-sha256', signatureData: [
  sign('theirs', 'relaxed/relaxed'), sign('theirs', 'simple/simple'), sign('theirs', 'simple/relaxed'),
  sign('alias', 'relaxed/simple'), sign('theirs', 'relaxed/relaxed', { maxBodyLength: 5 }), sign('missing', 'relaxed/relaxed'),
] }).then(done => process.stdout.write(done.signatures));
"""


def test_what_mailauth_signs_verifies_here_through_an_alias_too(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "plain.eml"
    octets = MAIL.format(subject="from-mailauth").encode()
    file.write_bytes(octets)
    signed = node(tmp_path, SIGN, file, rig.folder / "theirs.pem") + octets
    assert signed.count(b"DKIM-Signature") == 6
    with smtp(rig.server) as client:
        client.ehlo()
        assert deliver(client, "ann@example.org", signed)[0] == 250
    told = results(mailbox(rig.server, "INBOX", "from-mailauth"))
    # The sixth is one more than is looked at.
    assert told.count("dkim=pass") + told.count("dkim=fail") + told.count("dkim=permerror") == 5, told
    assert "dkim=policy" in told
    assert told.count("dkim=pass") + told.count("there is no key in DNS") + told.count("unsigned") == 5, told
    assert told.count("dkim=pass") >= 3


def test_what_opendkim_signs_in_the_same_chain_verifies_here(rig: Rig) -> None:
    with smtp(rig.server, "lmtp") as client:
        client.docmd("LHLO client.example")
        assert deliver(client, "ann@example.org", MAIL.format(subject="from-opendkim").encode())[0] == 250
    told = results(mailbox(rig.server, "INBOX", "from-opendkim"))
    assert "dkim=pass header.d=example.org header.s=theirs" in told or "dkim=pass header.d=example.org" in told
    assert "header.s=theirs" in told
    wait_for_port(PORTS["opendkim"])
