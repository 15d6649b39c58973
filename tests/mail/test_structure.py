"""ENVELOPE, BODYSTRUCTURE and BODY of small messages, against results written by hand.  RFC 2046, 9051 §7.5.2."""

from __future__ import annotations

import pathlib

import pytest

from livemail.mail.message.scanner import scan
from livemail.mail.message.structure import basic_body

_VECTORS = pathlib.Path(__file__).parent.parent / "vectors" / "mime"

_DEFAULT = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" '

STRUCTURES = {
    "plain": _DEFAULT + b"10 2 NIL NIL NIL NIL)",
    "nested": (
        b"(" + _DEFAULT + b"29 1 NIL NIL NIL NIL)"
        b'(("text" "plain" ("charset" "utf-8") NIL NIL "7bit" 4 1 NIL NIL NIL NIL)'
        b'("text" "html" NIL NIL NIL "quoted-printable" 13 1 NIL NIL NIL NIL)'
        b' "alternative" ("boundary" "in ner") NIL ("de" "en") NIL)'
        b'("image" "png" ("name" "a \\"b\\".png") "<img@example.org>" "A picture" "base64" 4'
        b' "Q2hlY2sgSW50ZWdyaXR5IQ==" ("attachment" ("filename" "a.png" "size" "3")) NIL "http://example.org/a.png")'
        b' "mixed" ("boundary" "outer") NIL NIL NIL)'
    ),
    "digest": (
        b'(("message" "rfc822" NIL NIL NIL "7bit" 44'
        b' (NIL "first" ((NIL NIL "one" "example.org")) ((NIL NIL "one" "example.org"))'
        b' ((NIL NIL "one" "example.org")) NIL NIL NIL NIL NIL) '
        + _DEFAULT
        + b"3 1 NIL NIL NIL NIL) 4 NIL NIL NIL NIL)"
        b'("text" "plain" NIL NIL NIL "7bit" 13 1 NIL NIL NIL NIL) "digest" ("boundary" "d") NIL NIL NIL)'
    ),
    "forwarded": (
        b'(("message" "rfc822" NIL NIL NIL "7bit" 206'
        b' ("Mon, 23 Nov 2026 09:00:00 +0000" "inner" ((NIL NIL "inner" "example.org"))'
        b' ((NIL NIL "inner" "example.org")) ((NIL NIL "inner" "example.org")) NIL NIL NIL NIL NIL)'
        b" (" + _DEFAULT + b"2 1 NIL NIL NIL NIL)"
        b'("message" "rfc822" NIL NIL NIL "7bit" 26'
        b' (NIL "innermost" NIL NIL NIL NIL NIL NIL NIL NIL) '
        + _DEFAULT
        + b'4 1 NIL NIL NIL NIL) 3 NIL NIL NIL NIL) "mixed" ("boundary" "n") NIL NIL NIL) 15 NIL NIL NIL NIL)'
        b' "mixed" ("boundary" "m") NIL NIL NIL)'
    ),
    "no-header": _DEFAULT + b"14 1 NIL NIL NIL NIL)",
    "no-body": _DEFAULT + b"0 0 NIL NIL NIL NIL)",
    "no-parts": b"(" + _DEFAULT + b'37 2 NIL NIL NIL NIL) "mixed" ("boundary" "nowhere") NIL NIL NIL)',
    "unclosed": (b'(("text" "plain" NIL NIL NIL "7bit" 18 1 NIL NIL NIL NIL) "mixed" ("boundary" "x") NIL NIL NIL)'),
    "lf-only": (
        b"("
        + _DEFAULT
        + b"3 1 NIL NIL NIL NIL)"
        + _DEFAULT
        + b'3 1 NIL NIL NIL NIL) "mixed" ("boundary" "x") NIL NIL NIL)'
    ),
    "cut-header": (
        b'(("text" "html" NIL NIL NIL "7bit" 0 0 NIL NIL NIL NIL)' + _DEFAULT + b"4 1 NIL NIL NIL NIL)"
        b' "mixed" ("boundary" "x") NIL NIL NIL)'
    ),
    "eight-bit": b'("text" "plain" ("charset" "utf-8") NIL NIL "8bit" 9 1 NIL NIL NIL NIL)',
}

ENVELOPES = {
    "plain": (
        b'("Tue, 24 Nov 2026 10:00:00 +0100" "Hello" (("Ann" NIL "ann" "example.org")) (("Ann" NIL "ann" "example.org"))'
        b' (("Ann" NIL "ann" "example.org")) ((NIL NIL "bob" "example.net")) NIL NIL NIL "<1@example.org>")'
    ),
    "no-header": b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)",
    "eight-bit": (
        b'(NIL {7}\r\nGr\xc3\xbc\xc3\x9fe (({11}\r\nJ\xc3\xb6rg \\ "x" NIL "j" "example.org"))'
        b' (({11}\r\nJ\xc3\xb6rg \\ "x" NIL "j" "example.org")) (({11}\r\nJ\xc3\xb6rg \\ "x" NIL "j" "example.org"))'
        b' ((NIL NIL "Friends" NIL)(NIL NIL "a" "example.org")("B" NIL "b" "example.org")(NIL NIL NIL NIL))'
        b" NIL NIL NIL NIL)"
    ),
}


def _vector(name: str) -> bytes:
    return (_VECTORS / f"{name}.eml").read_bytes()


def test_every_vector_has_a_golden_structure() -> None:
    assert {path.stem for path in _VECTORS.glob("*.eml")} == STRUCTURES.keys()


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_structure_of_a_vector_is_as_written_by_hand(name: str) -> None:
    assert scan(_vector(name)).structure == STRUCTURES[name]


@pytest.mark.parametrize("name", ENVELOPES)
def test_the_envelope_of_a_vector_is_as_written_by_hand(name: str) -> None:
    assert scan(_vector(name)).envelope == ENVELOPES[name]


def test_body_is_the_structure_without_extension_data() -> None:
    assert basic_body(STRUCTURES["nested"]) == (
        b"(" + _DEFAULT + b"29 1)"
        b'(("text" "plain" ("charset" "utf-8") NIL NIL "7bit" 4 1)("text" "html" NIL NIL NIL "quoted-printable" 13 1)'
        b' "alternative")'
        b'("image" "png" ("name" "a \\"b\\".png") "<img@example.org>" "A picture" "base64" 4) "mixed")'
    )


def test_body_of_a_message_part_keeps_its_envelope_and_cuts_inside() -> None:
    assert basic_body(STRUCTURES["digest"]) == (
        b'(("message" "rfc822" NIL NIL NIL "7bit" 44'
        b' (NIL "first" ((NIL NIL "one" "example.org")) ((NIL NIL "one" "example.org"))'
        b' ((NIL NIL "one" "example.org")) NIL NIL NIL NIL NIL) ' + _DEFAULT + b"3 1) 4)"
        b'("text" "plain" NIL NIL NIL "7bit" 13 1) "digest")'
    )


def test_body_keeps_literals_whole() -> None:
    structure = scan(b"Content-Type: text/plain\r\nContent-Description: \xc3\xa9 (\r\n\r\nx").structure
    assert structure == b'("text" "plain" NIL NIL {4}\r\n\xc3\xa9 ( "7bit" 1 1 NIL NIL NIL NIL)'
    assert basic_body(structure) == b'("text" "plain" NIL NIL {4}\r\n\xc3\xa9 ( "7bit" 1 1)'


@pytest.mark.parametrize("wire", [b"", b"()", b'("text" "plain"', b'"text"', b'("a"))', b"((NIL)"])
def test_body_of_something_else_is_a_value_error(wire: bytes) -> None:
    with pytest.raises(ValueError, match="not a body structure"):
        basic_body(wire)


def test_continued_parameters_are_joined_and_stay_encoded() -> None:
    structure = scan(
        b"Content-Type: application/x-stuff; title*0*=us-ascii'en'This%20is%20even%20more%20;\r\n"
        b' title*1*=%2A%2A%2Afun%2A%2A%2A%20; title*2="isn\'t it!"; name*1=b; name*0=a; lost*1=x\r\n\r\n'
    ).structure
    assert structure.startswith(
        b'("application" "x-stuff" ("title*"'
        b' "us-ascii\'en\'This%20is%20even%20more%20%2A%2A%2Afun%2A%2A%2A%20isn%27t%20it!" "name" "ab") NIL'
    )


def test_a_continued_parameter_encoded_later_names_no_character_set() -> None:
    structure = scan(b'Content-Type: a/b; n*0="a b"; n*1*=%41\r\n\r\n').structure
    assert structure.startswith(b'("a" "b" ("n*" "\'\'a%20b%41") NIL')


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        (b"Content-Type: text\r\n", b'("text" "plain" ("charset" "us-ascii")'),
        (b"Content-Type: \r\n", b'("text" "plain" ("charset" "us-ascii")'),
        (b"Content-Type: TEXT/HTML (a comment; charset=no)\r\n", b'("TEXT" "HTML" NIL'),
        (b"Content-Type: text/plain; name=a b.txt; x=\r\n", b'("text" "plain" ("name" "a b.txt" "x" "")'),
        (
            b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n",
            b'("application" "octet-stream" NIL',
        ),
        (b"Content-Type: multipart/mixed\r\n", b'(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 4 1'),
    ],
)
def test_odd_content_types_still_give_a_structure(header: bytes, shown: bytes) -> None:
    structure = scan(header + b"\r\nbody").structure
    assert structure.startswith(shown)
    basic_body(structure)


def test_nul_leaves_the_envelope_and_stays_in_the_octets() -> None:
    summary = scan(b"Subject: a\0b\r\n\r\n")
    assert summary.envelope.startswith(b'(NIL "ab" ')
    assert summary.has_nul
    assert summary.fields == b"Subject: a\0b\r\n"
