from __future__ import annotations

import time

import dkim
import pytest

from livemail.filters.dkim.keys import make_key
from livemail.filters.dkim.streamed import sign
from livemail.filters.dkim.verify import DKIMVerify
from livemail.mail.errors import MailError
from tests.filters.dkim.rig import NOW, VECTORS, passed, vector_keys, verified

KEY, _ = make_key("example.org", "s1", "rsa", 1024)
EDWARDS, _ = make_key("example.org", "s2", "ed25519")
RECORDS = {KEY.name: KEY.record.encode(), EDWARDS.name: EDWARDS.record.encode()}
MAIL = (
    b"From: Ann <ann@example.org>\r\nTo: you@localhost\r\nSubject: a \r\n\tfolded one\r\n"
    b"Date: Wed, 25 Nov 2026 10:00:00 +0000\r\n\r\nbody  one \r\n\r\n\r\n"
)


def with_signature(octets=MAIL, *, key=KEY, **tags):
    """Signed by dkimpy itself; tags: put into the signature before it is signed, None takes one out."""

    class Tagged(dkim.DKIM):
        def gen_header(self, fields, include_headers, canon_policy, header_name, pk, standardize=False):
            given = {name.encode(): value for name, value in tags.items()}
            kept = [(name, given.pop(name, value)) for name, value in fields]
            fields[:] = [*((name, value) for name, value in given.items()), *kept]
            fields[:] = [(name, value) for name, value in fields if value is not None]
            return super().gen_header(fields, include_headers, canon_policy, header_name, pk, standardize)

    names = [name.strip() for name in tags["h"].split(b":")] if tags.get("h") else [b"from", b"to", b"subject", b"from"]
    tagged = Tagged(octets)
    if b"from" not in names:
        names.append(b"from")
    header = tagged.sign(key.selector.encode(), key.domain.encode(), key.material, f"{key.algorithm}-sha256".encode(),
                         include_headers=names)  # fmt: skip
    return header + octets


@pytest.mark.parametrize(
    ("name", "results"),
    [
        ("rfc8463", [("dkim=pass header.d=football.example.com header.i=@football.example.com header.s=brisbane "
                     "header.a=ed25519-sha256 header.b=/gCrinpc"),
                     ("dkim=pass header.d=football.example.com header.i=@football.example.com header.s=test "
                     "header.a=rsa-sha256 header.b=F45dVWDf")]),
        ("rfc6376", [("dkim=pass header.d=example.com header.i=joe@football.example.com header.s=brisbane "
                     "header.a=rsa-sha256 header.b=AuUoFEfD")]),
    ],
)  # fmt: skip
def test_the_examples_of_the_rfcs_verify(name, results):
    octets = (VECTORS / f"{name}.eml").read_bytes()
    assert verified(octets, vector_keys()) == "; ".join(["mx.example.org", *results])
    for damaged in (octets.replace(b"hungry", b"Hungry"), octets.replace(b"SixPack", b"Sixpack")):
        assert "=pass" not in verified(damaged, vector_keys())


def test_what_dkimpy_signs_whole_verifies_streamed_with_both_algorithms_and_all_canonicalizations():
    for key in (KEY, EDWARDS):
        for header in (b"simple", b"relaxed"):
            for body in (b"simple", b"relaxed"):
                value = dkim.sign(MAIL, key.selector.encode(), b"example.org", key.material, canonicalize=(header, body),
                                  signature_algorithm=f"{key.algorithm}-sha256".encode())  # fmt: skip
                assert "dkim=pass" in verified(value + MAIL, RECORDS)
                assert 'reason="the body was changed"' in verified(value + MAIL.replace(b"one \r", b"two \r"), RECORDS)
                assert 'reason="the signature does not verify"' in verified(
                    value + MAIL.replace(b"Ann", b"Eve"), RECORDS
                )


def test_without_signature_the_result_is_none():
    assert verified(MAIL) == "mx.example.org; dkim=none"


REFUSED = {
    "expired": ({"x": b"%d" % (NOW - 1000), "t": None}, "permerror", "the signature has expired"),
    "from the future": ({"t": b"%d" % (NOW + 1000)}, "permerror", "t= is in the future"),
    "x before t": ({"t": b"%d" % (NOW - 1), "x": b"%d" % (NOW - 2)}, "permerror", "x= is before t="),
    "no number": ({"t": b"soon"}, "permerror", "t= is no number"),
    "h without from": ({"h": b"to:subject"}, "permerror", "h= does not have from"),
    "i outside of d": ({"i": b"@example.net"}, "permerror", "i= is outside of d="),
    "i beside d": ({"i": b"@notexample.org"}, "permerror", "i= is outside of d="),
    "version": ({"v": b"2"}, "permerror", "v= is not 1"),
    "no version": ({"v": None}, "permerror", "v= is missing"),
    "sha1": ({"a": b"rsa-sha1"}, "permerror", "a=rsa-sha1 is not taken"),
    "query": ({"q": b"http"}, "permerror", "q= does not have dns/txt"),
    "canonicalization": ({"c": b"nofws"}, "permerror", "c= is not known"),
    "domain": ({"d": b"../x"}, "permerror", "d= or s= is no domain name"),
    "selector": ({"s": b"a b"}, "permerror", "d= or s= is no domain name"),
    "part of the body": ({"l": b"4"}, "fail", "l= leaves 8 octets of the body unsigned"),
    "more than the body": ({"l": b"400"}, "fail", "l= is more than the body has"),
    "bh": ({"bh": b"!!!!"}, "permerror", "bh= is not base64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_signature_that_says_something_odd_is_not_trusted_and_the_reason_is_told(case):
    tags, result, reason = REFUSED[case]
    if "t" not in tags:
        tags = {**tags, "t": b"%d" % NOW}
    told = verified(with_signature(**tags), RECORDS)
    assert f'dkim={result} reason="{reason}"' in told


def test_a_signature_over_the_whole_body_may_say_so():
    assert "dkim=pass" in verified(with_signature(t=b"%d" % NOW, l=b"12"), RECORDS)
    longer = with_signature(t=b"%d" % NOW, l=b"12") + b"appended\r\n"
    assert "dkim=fail" in verified(longer, RECORDS)


KEYS = {
    "no key": (None, "permerror", "there is no key in DNS"),
    "no answer": (
        MailError("DNS does not answer", code=451),
        "temperror",
        "the key could not be asked for: DNS does not answer",
    ),
    "revoked": (b"v=DKIM1; k=rsa; p=", "permerror", "the key was revoked"),
    "other version": (
        KEY.record.encode().replace(b"DKIM1", b"DKIM2"),
        "permerror",
        "the key record is of another version",
    ),
    "other kind": (EDWARDS.record.encode(), "permerror", "the key is for ed25519, the signature is rsa-sha256"),
    "other hash": (KEY.record.encode() + b"; h=sha1", "permerror", "the key is not for SHA-256"),
    "other service": (KEY.record.encode() + b"; s=tlsrpt", "permerror", "the key is not for mail"),
    "not base64": (b"v=DKIM1; p=@@", "permerror", "the key is not base64"),
    "no RSA key": (b"v=DKIM1; p=AAAA", "permerror", "the key cannot be read"),
    "no tags": (b"hello", "permerror", "the key record is no list of tags"),
    "empty": (b"", "permerror", "the key record has no key"),
    "too long": (KEY.record.encode() + b"; n=" + b"x" * 5000, "permerror", "the key record is too long"),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_key_that_cannot_be_used_is_told(case):
    record, result, reason = KEYS[case]
    told = verified(with_signature(t=b"%d" % NOW), {KEY.name: record})
    assert f'dkim={result} reason="{reason}"' in told, told


def test_a_key_of_512_bits_fails():
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

    # A modulus of 512 bits; nobody needs its factors to publish it.
    numbers = RSAPublicNumbers(65537, (1 << 511) | (1 << 200) | 1)
    der = numbers.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    import base64

    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)
    told = verified(with_signature(t=b"%d" % NOW), {KEY.name: record})
    assert 'dkim=fail reason="the key has 512 bits, less than 1024"' in told


def test_a_key_with_the_flag_s_holds_i_to_the_domain_itself():
    strict = {KEY.name: KEY.record.encode() + b"; t=s"}
    assert "dkim=pass" in verified(with_signature(t=b"%d" % NOW), strict)
    assert "i= in a subdomain" in verified(with_signature(t=b"%d" % NOW, i=b"@sub.example.org"), strict)
    assert "dkim=pass" in verified(with_signature(t=b"%d" % NOW, i=b"@sub.example.org"), RECORDS)


def test_of_two_signatures_each_has_its_result_and_of_several_records_the_one_that_fits_is_used():
    good = with_signature(t=b"%d" % NOW)
    bad = with_signature(good, key=EDWARDS, t=b"%d" % NOW).replace(b" b=", b" b=AAAA", 1)
    told = verified(bad, {KEY.name: [b"v=spf1 -all", KEY.record.encode()], EDWARDS.name: EDWARDS.record.encode()})
    assert told.count("dkim=pass") == 1
    assert told.count("dkim=fail") == 1


def test_no_more_signatures_than_configured_are_looked_at():
    one = with_signature(t=b"%d" % NOW)
    header = one[: one.index(b"From:")]
    octets = header * 1000 + MAIL
    found, dns, _ = passed(octets, DKIMVerify, records=RECORDS, max_signatures=3)
    told = found.partition(b"DKIM-Signature")[0].decode()
    assert told.count("dkim=pass") == 3
    assert 'dkim=policy reason="997 more signatures were not looked at"' in told
    assert len(dns.asked) == 3


def test_a_second_from_is_never_overlooked():
    octets = with_signature(t=b"%d" % NOW, h=b"from:to")
    told = verified(b"From: eve@example.net\r\n" + octets, RECORDS)
    assert "dkim=fail" in told


FORGED = [
    b"mx.example.org; dkim=pass",
    b"MX.Example.ORG; dkim=pass",
    b"mx.example.org 1; dkim=pass",
    b" (comment (nested) \\) ) mx.example.org; x",
    b'"mx.example.org"; x',
    b"mx.example.org.; x",
    b"mx.example.org",
    b"\r\n\tmx.example.org;\r\n\tspf=pass",
]
KEPT = [
    b"other.example; dkim=pass",
    b"mx.example.org.evil; x",
    b"notmx.example.org; x",
    b"(mx.example.org) other.example; x",
    b"",
]


def test_fields_that_pretend_to_be_ours_are_taken_out_and_others_are_left():
    fields = [value for pair in zip(FORGED, KEPT * 2, strict=False) for value in pair]
    octets = b"".join(b"Authentication-Results: " + value + b"\r\n" for value in fields) + MAIL
    found, _, _ = passed(octets, DKIMVerify)
    header = found.partition(b"\r\n\r\n")[0].replace(b"\r\n\t", b" ").split(b"\r\n")
    values = [line.partition(b":")[2].strip() for line in header if line.lower().startswith(b"authentication-results:")]
    assert values[0] == b"mx.example.org; dkim=none"
    assert set(values[1:]) <= {value.strip() for value in KEPT}
    assert len(values[1:]) == sum(value in KEPT for value in fields)


def test_the_name_results_are_given_under_can_be_chosen():
    assert verified(MAIL, authserv_id="Mail.Example").startswith("mail.example; ")
    assert [key for key, _ in DKIMVerify.Config(authserv_id="a b", max_signatures=0).faults()] == [
        "max_signatures",
        "authserv_id",
    ]


@pytest.mark.parametrize(
    "value",
    [
        b" " * 15_000,
        b" v=1; a=rsa-sha256; b=" + b" \t" * 7000 + b";",
        b" " + b"b =" * 5000,
        b" v=1;" * 3000,
        b" v=1; a=rsa-sha256; d=example.org; s=s1; bh=AAAA; b=AAAA; h=" + b":".join(b"from" for _ in range(3000)),
        b" v=1; a=rsa-sha256; d=example.org; s=s1; bh=AAAA; b=" + b"A" * 14_000 + b"; h=from",
        b" v=1; a=rsa-sha256; d=" + b"a-" * 7000 + b"; s=s1; bh=AAAA; b=AAAA; h=from",
        b" x" * 20_000,
    ],
)
def test_a_hostile_signature_costs_next_to_nothing(value):
    began = time.process_time()
    told = verified(b"DKIM-Signature:" + value + b"\r\n" + MAIL, RECORDS)
    assert "dkim=pass" not in told
    assert time.process_time() - began < 2


def test_a_header_of_a_hundred_thousand_fields_costs_linear_time():
    names = b":".join([b"from", *(b"x-%d" % number for number in range(199))])
    octets = b"X: y\r\n" * 100_000 + with_signature(t=b"%d" % NOW, h=b"from:x")
    octets = octets.replace(b"h=from : x", b"h=" + names)
    began = time.process_time()
    assert "dkim=fail" in verified(octets, RECORDS)
    assert time.process_time() - began < 8


def test_what_we_sign_dkimpy_verifies_whole():
    from livemail.filters.dkim.body import BodyHash

    header, _, body = MAIL.partition(b"\r\n\r\n")
    hashing = BodyHash("relaxed")
    hashing.feed(body)
    digest = hashing.finish()
    fields = [(line.partition(b":")[0], line + b"\r\n") for line in header.replace(b"\r\n\t", b"\n\t").split(b"\r\n")]
    fields = [(name, raw.replace(b"\n\t", b"\r\n\t").replace(b"\r\r\n", b"\r\n")) for name, raw in fields]
    for key in (KEY, EDWARDS):
        value = sign(fields, digest, key, [b"from", b"from", b"to", b"subject"], time.time())
        octets = b"DKIM-Signature: " + value + b"\r\n" + MAIL
        assert dkim.verify(octets, dnsfunc=lambda *_, key=key, **__: key.record.encode())
        assert b"h=from : from : to : subject" in b" ".join(value.split())
