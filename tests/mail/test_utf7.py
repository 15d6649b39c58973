"""Modified UTF-7: one spelling for each name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemail.mail import utf7
from livemail.mail.errors import InvalidName

PAIRS = [
    ("INBOX", b"INBOX"),
    ("a & b", b"a &- b"),
    ("&&", b"&-&-"),
    ("caf\u00e9", b"caf&AOk-"),
    ("~peter/mail/\u53f0\u5317/\u65e5\u672c\u8a9e", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"),  # RFC 3501 §5.1.3
    ("\U0001f4ec", b"&2D3c7A-"),
    ("\u00e9&", b"&AOk-&-"),
    ("tab\t", b"tab&AAk-"),
]


@pytest.mark.parametrize(("name", "spelling"), PAIRS)
def test_a_name_is_spelled_as_the_rfc_says(name: str, spelling: bytes) -> None:
    assert utf7.encode(name) == spelling
    assert utf7.decode(spelling) == name


@pytest.mark.parametrize(
    "spelling",
    [
        b"x&AGE-",  # "xa": what is printable is not shifted
        b"x&y",
        b"&",
        b"&AOk",
        b"&AOk-&AOk-",  # a shift right behind a shift
        b"&AOk=-",
        b"&AOl-",  # stray bits behind the last character
        b"&AO/-",  # "/" is "," here
        b"&2D0-",  # half a surrogate pair
        b"&AAA",
        b"&AA-",
        b"&A-",
        b"&!-",
        b"\xff\xfe",
        b"caf\xc3\xa9",
        b"a\tb",
        b"\0",
    ],
)
def test_any_other_spelling_is_refused(spelling: bytes) -> None:
    with pytest.raises(InvalidName):
        utf7.decode(spelling)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_every_name_survives(name: str) -> None:
    spelling = utf7.encode(name)
    assert spelling.isascii()
    assert spelling.decode().isprintable()
    assert utf7.decode(spelling) == name


@given(st.binary(max_size=12).map(lambda b: b"&" + b.replace(b"\0", b"A") + b"-"))
def test_what_decodes_is_what_we_would_write(spelling: bytes) -> None:
    try:
        name = utf7.decode(spelling)
    except InvalidName:
        return
    assert utf7.encode(name) == spelling


@pytest.mark.parametrize(
    ("name", "rendered"),
    [
        ("INBOX", b"INBOX"),
        ("a/b", b"a/b"),
        ("nil", b'"nil"'),
        ("My Box", b'"My Box"'),
        ('say "hi"\\', b'"say \\"hi\\"\\\\"'),
        ("\u00e9", b'"&AOk-"'),
        ("a]b", b'"a]b"'),
    ],
)
def test_a_response_quotes_what_is_not_a_word(name: str, rendered: bytes) -> None:
    assert utf7.to_astring(name) == rendered
