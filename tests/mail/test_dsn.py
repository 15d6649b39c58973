from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemail.mail.address import Address
from livemail.mail.dsn import (
    OriginalRecipient,
    decode_xtext,
    encode_xtext,
    escape_utf8_address,
    original_of,
    parse_envid,
    parse_original,
)
from livemail.mail.errors import WireError


def test_xtext_is_encoded_in_upper_case_and_comes_back():
    assert encode_xtext("a+b=c d") == "a+2Bb+3Dc+20d"
    assert decode_xtext(b"a+2Bb+3Dc+20d") == "a+b=c d"


@given(st.text(min_size=1))
def test_any_text_survives_xtext(text):
    assert decode_xtext(encode_xtext(text).encode("ascii")) == text


@pytest.mark.parametrize("wrong", [b"", b"a+2", b"a=b", b"+2b", b"a b", b"+", b"a\r", b"\xc3\xa4"])
def test_what_is_no_xtext_is_refused(wrong):
    with pytest.raises(WireError):
        decode_xtext(wrong)


def test_an_envelope_id_is_printable_ascii_of_a_hundred_octets_at_most():
    assert parse_envid(b"QQ+20314+2B") == "QQ 314+"
    assert parse_envid(b"x" * 100) == "x" * 100
    for wrong in (b"", b"x" * 101, b"a+0D+0ABcc:+20x", b"a+00", b"+C3+A4", b"+FF"):
        with pytest.raises(WireError) as raised:
            parse_envid(wrong)
        assert (raised.value.code, raised.value.enhanced) == (501, "5.5.4")


@pytest.mark.parametrize(
    ("value", "kind", "address"),
    [
        (b"rfc822;Bob+2Bx@example.net", "rfc822", "Bob+x@example.net"),
        (b"RFC822;Bob@example.net", "rfc822", "Bob@example.net"),
        (b"x400;/C=de", None, None),
        (b"x-local;a+20b", "x-local", "a b"),
        (b"utf-8;\\x{3B4}\\x{2B}@x.example", "utf-8", "δ+@x.example"),
        ("utf-8;δ@x.example".encode(), "utf-8", "δ@x.example"),
        (b"utf-8;\\x{1F600}@x.example", "utf-8", "\U0001f600@x.example"),
        (b"utf-8;\\x{5C}\\x{20}@x.example", "utf-8", "\\ @x.example"),
    ],
)
def test_original_recipients_of_every_type_are_decoded(value, kind, address):
    if kind is None:
        with pytest.raises(WireError):
            parse_original(value)
    else:
        assert parse_original(value) == OriginalRecipient(kind, address)


@pytest.mark.parametrize(
    "wrong",
    [
        b"", b";", b"rfc822;", b";a@b", b"rfc822", b"rfc 822;a@b", b"-x;a", b"x-;a", b"a" * 65 + b";x",
        b"rfc822;a+0D+0AStatus:+202.0.0", b"rfc822;a+00", b"rfc822;+E4", b"rfc822;a=b", b"rfc822;" + b"a" * 494,
        b"utf-8;\\x{41}", b"utf-8;\\x{D800}", b"utf-8;\\x{110000}", b"utf-8;\\x{0}", b"utf-8;\\x{}", b"utf-8;\\x{0D}",
        b"utf-8;\\x{A}", b"utf-8;\\x{1B}", b"utf-8;\\x{202E}", b"utf-8;\\x{85}", b"utf-8;\\x{2028}", b"utf-8;\\",
        b"utf-8;\\x3B4", b"utf-8;a+b", b"utf-8;a=b", b"utf-8;a b", b"utf-8;\xff", b"utf-8;\xe2\x80\xae",
        b"rfc822;\xc3\xa4@b",
    ],
)  # fmt: skip
def test_an_original_recipient_that_is_malformed_or_holds_what_does_not_show_is_501(wrong):
    with pytest.raises(WireError) as raised:
        parse_original(wrong)
    assert (raised.value.code, raised.value.enhanced) == (501, "5.5.4")


def test_utf8_as_it_is_needs_smtputf8_and_its_ascii_form_does_not():
    with pytest.raises(WireError):
        parse_original("utf-8;δ@x".encode(), smtputf8=False)
    assert parse_original(b"utf-8;\\x{3B4}@x", smtputf8=False).address == "δ@x"


@pytest.mark.parametrize("local", ["bob", "bob+x", "a b", "a=b", "δοκ", "δ+\\", '"'])
def test_an_original_recipient_made_of_an_address_is_ascii_and_says_the_address(local):
    address = Address(local, "x.example")
    value = original_of(address)
    assert value.isascii()
    assert " " not in value
    assert "=" not in value
    assert parse_original(value.encode(), smtputf8=False).address == str(address)


def test_the_two_utf8_forms():
    assert escape_utf8_address("δ+a", ascii_only=True) == "\\x{3B4}\\x{2B}a"
    assert escape_utf8_address("δ+a", ascii_only=False) == "δ\\x{2B}a"
