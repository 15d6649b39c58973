from __future__ import annotations

import re

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from dkim import evaluate_pk

from livemail.filters.dkim.keys import DKIMKeyError, KeyFolder, checked_domain, checked_selector, make_key, read_key


@pytest.mark.parametrize(("algorithm", "bits"), [("rsa", 2048), ("ed25519", 256)])
def test_a_key_is_kept_for_its_owner_alone_and_published_in_strings_dns_can_hold(tmp_path, algorithm, bits):
    folder = KeyFolder(tmp_path / "filters" / "dkim")
    key = folder.create("Example.ORG.", "S1", algorithm)
    path = tmp_path / "filters" / "dkim" / "example.org" / "s1.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    assert (key.name, key.bits) == ("s1._domainkey.example.org", bits)
    _, keysize, kind, _ = evaluate_pk(key.name, key.record)
    assert (keysize, kind.decode()) == (bits, algorithm)
    strings = re.findall(r'"([^"]*)"', key.zone_line)
    assert "".join(strings) == key.record
    assert all(len(each) <= 255 for each in strings)
    assert folder.keys("example.org") == [key]
    assert folder.domains() == ["example.org"]
    assert "BEGIN" not in repr(key)
    with pytest.raises(FileExistsError):
        folder.create("example.org", "s1", algorithm)
    assert folder.keys("example.org") == [key]


@pytest.mark.parametrize(
    "domain", ["", ".", "..", "../x", "a/b", "a\0b", "-a.example", "a..b", "x" * 64 + ".org", "a b", "é" * 70]
)
def test_what_is_no_domain_never_becomes_a_path(tmp_path, domain):
    for check in (checked_domain, checked_selector):
        with pytest.raises(DKIMKeyError):
            check(domain)
    with pytest.raises(DKIMKeyError):
        KeyFolder(tmp_path).create(domain, "s", "ed25519")
    assert not list(tmp_path.iterdir())


def test_a_domain_with_letters_of_its_own_is_kept_as_a_labels():
    assert checked_domain("Bücher.example") == "xn--bcher-kva.example"


def test_small_and_foreign_keys_are_refused():
    with pytest.raises(DKIMKeyError, match="1024 to 4096"):
        make_key("example.org", "s", "rsa", 512)
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(DKIMKeyError, match="neither RSA nor Ed25519"):
        read_key(other, "example.org", "s")


def test_a_private_key_of_512_bits_is_refused_with_its_size():
    p, q = (
        next(n for n in range(1 << 255 | start, 1 << 256, 2) if pow(2, n - 1, n) == 1) for start in (1, 1 << 254 | 1)
    )
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(65537, p * q)
    )
    pem = numbers.private_key(unsafe_skip_rsa_key_validation=True).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(DKIMKeyError, match=r"has 51[12] bits"):
        read_key(pem, "example.org", "s")
