from __future__ import annotations

import threading
from types import SimpleNamespace

import dkim
import pytest
from twisted.internet.defer import succeed

from livemail.filters.dkim.keys import DKIMKeyError, KeyFolder
from livemail.filters.dkim.sign import DKIMSign
from livemail.interfaces.directory import LocalAccount, Unknown
from livemail.interfaces.filter import Defer
from tests.filters.dkim.rig import NOW, passed, signed, verified

MAIL = b"From: Ann <ann@example.org>\r\nTo: b@example.net\r\nSubject: one\r\n\r\nbody \r\n\r\n"


@pytest.fixture
def folder(tmp_path):
    """Keys of example.org, one of each algorithm."""
    keys = KeyFolder(tmp_path / "dkim")
    keys.create("example.org", "rsa1", "rsa", 1024)
    keys.create("example.org", "ed1", "ed25519")
    return tmp_path


def records(folder):
    keys = KeyFolder(folder / "dkim")
    return {key.name: key.record.encode() for domain in keys.domains() for key in keys.keys(domain)}


def tags(octets):
    lines = octets.partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n")
    found = [line.partition(b":")[2] for line in lines if line.startswith(b"DKIM-Signature:")]
    return [dict(part.strip().split(b"=", 1) for part in each.split(b";") if part.strip()) for each in found]


def test_every_key_signs_and_all_signatures_verify_here_and_with_dkimpy(folder, monkeypatch):
    monkeypatch.setattr(dkim, "time", SimpleNamespace(time=lambda: NOW))
    octets = signed(MAIL, folder)
    assert octets.endswith(MAIL)
    assert verified(octets, records(folder)).count("dkim=pass") == 2
    found = records(folder)
    for index in range(2):
        assert dkim.DKIM(octets).verify(index, dnsfunc=lambda name, timeout: found[name.decode().rstrip(".")])
    assert {each[b"a"] for each in tags(octets)} == {b"rsa-sha256", b"ed25519-sha256"}
    assert all(each[b"d"] == b"example.org" and each[b"t"] == b"4000000000" for each in tags(octets))
    assert all(len(line) <= 80 for line in octets.partition(b"From:")[0].split(b"\r\n"))


def test_from_and_its_like_are_signed_once_more_than_they_occur(folder):
    for found in tags(signed(MAIL, folder)):
        names = found[b"h"].replace(b" ", b"").split(b":")
        assert names.count(b"from") == 2
        assert names.count(b"subject") == 2
        assert names.count(b"reply-to") == 1
    octets = signed(MAIL, folder)
    for added in (b"From: eve@example.net\r\n", b"Subject: other\r\n", b"Reply-To: eve@example.net\r\n"):
        assert "dkim=pass" not in verified(added + octets, records(folder))
    (only, _) = tags(signed(MAIL, folder, oversign=()))
    assert only[b"h"].replace(b" ", b"") == b"from:from:subject:to"


def test_keys_of_the_domain_or_of_the_nearest_above_it_sign(folder):
    octets = signed(MAIL.replace(b"@example.org", b"@sub.example.org"), folder, "ann@sub.example.org")
    assert [each[b"d"] for each in tags(octets)] == [b"example.org"] * 2
    KeyFolder(folder / "dkim").create("sub.example.org", "s", "ed25519")
    octets = signed(MAIL.replace(b"@example.org", b"@sub.example.org"), folder, "ann@sub.example.org")
    assert [each[b"d"] for each in tags(octets)] == [b"sub.example.org"]


@pytest.mark.parametrize(
    "octets",
    [
        MAIL.replace(b"example.org", b"example.com"),
        MAIL.replace(b"From:", b"X-From:"),
        MAIL.replace(b"Ann <ann@example.org>", b"ann@example.org, eve@example.org"),
        b"From: eve@example.net\r\n" + MAIL,
        MAIL.replace(b"ann@example.org", b"ann@../../etc"),
        MAIL.replace(b"Ann <ann@example.org>", b""),
    ],
)
def test_mail_of_others_and_mail_without_one_author_is_not_signed(folder, octets):
    assert signed(octets, folder, "ann@example.org") == octets


def test_strangers_and_authors_somebody_does_not_own_are_not_signed(folder):
    assert signed(MAIL, folder, "") == MAIL
    assert signed(MAIL, folder, "eve@example.net") == MAIL
    assert b"DKIM-Signature" in signed(MAIL, folder, "eve@example.net", check_author=False)

    class Directory:
        def __init__(self, name):
            self.name = name

        async def resolve(self, address):
            return (LocalAccount(1, self.name, ""),) if self.name else Unknown()

    assert b"DKIM-Signature" in signed(MAIL, folder, "eve@example.net", directory=Directory("eve@example.net"))
    for name in ("bob@example.net", ""):
        assert signed(MAIL, folder, "eve@example.net", directory=Directory(name)) == MAIL


def test_domains_can_be_chosen(folder):
    assert signed(MAIL, folder, signing_domains=("example.com",)) == MAIL
    assert b"DKIM-Signature" in signed(MAIL, folder, signing_domains=("Example.Org",))
    faults = DKIMSign.Config(signing_domains=("a b",), oversign=("received",)).faults()
    assert [key for key, _ in faults] == ["oversign", "signing_domains"]


def test_a_key_others_can_read_or_that_is_broken_defers_and_is_named(folder):
    path = folder / "dkim" / "example.org" / "rsa1.pem"
    path.chmod(0o644)
    assert isinstance(passed(MAIL, DKIMSign, folder=folder, authcid="ann@example.org")[2].verdict, Defer)
    path.chmod(0o600)
    assert b"DKIM-Signature" in signed(MAIL, folder)
    path.write_bytes(b"no key")
    with pytest.raises(DKIMKeyError, match=r"rsa1\._domainkey\.example\.org"):
        KeyFolder(folder / "dkim").keys("example.org")


def test_hashing_and_signing_leave_our_thread(folder):
    places = []

    def run_blocking(function, *arguments):
        thread = threading.Thread(target=lambda: places.append((threading.get_ident(), function(*arguments))))
        thread.start()
        thread.join()
        return succeed(places[-1][1])

    octets = signed(MAIL, folder, run_blocking=run_blocking)
    assert b"DKIM-Signature" in octets
    assert "dkim=pass" in verified(octets, records(folder), run_blocking=run_blocking)
    assert len(places) == 2
    assert threading.get_ident() not in {place for place, _ in places}


def test_a_new_key_signs_from_the_next_message_on_and_a_removed_one_no_more(folder):
    KeyFolder(folder / "dkim").create("example.org", "third", "ed25519")
    assert len(tags(signed(MAIL, folder))) == 3
    (folder / "dkim" / "example.org" / "third.pem").unlink()
    assert len(tags(signed(MAIL, folder))) == 2
