"""Part numbers and sections.  RFC 9051 §6.4.5.1."""

from __future__ import annotations

import pathlib

import pytest

from livemail.mail.message.scanner import scan
from livemail.mail.message.sections import Section, find_part, section_range
from livemail.mail.message.summary import decode_parts

_VECTORS = pathlib.Path(__file__).parent.parent / "vectors" / "mime"


def _section(name: str, path: tuple[int, ...], section: Section) -> bytes | None:
    content = (_VECTORS / f"{name}.eml").read_bytes()
    found = section_range(decode_parts(scan(content).parts), path, section)
    return None if found is None else content[found[0] : found[1]]


@pytest.mark.parametrize(
    ("name", "path", "section", "octets"),
    [
        ("plain", (1,), "", b"One\r\nTwo\r\n"),
        ("plain", (), "TEXT", b"One\r\nTwo\r\n"),
        ("plain", (1,), "TEXT", None),
        ("plain", (1,), "HEADER", None),
        ("plain", (2,), "", None),
        ("plain", (0,), "", None),
        ("plain", (1, 1), "", None),
        ("plain", (), "MIME", None),
        ("no-body", (), "HEADER", b"Subject: only a header\r\n"),
        ("no-body", (1,), "", b""),
        ("no-header", (), "HEADER", b"\r\n"),
        ("nested", (1,), "MIME", b"\r\n"),
        ("nested", (1,), "", b"A part without header fields."),
        ("nested", (2, 1), "MIME", b"Content-Type: text/plain; charset=utf-8\r\n\r\n"),
        ("nested", (2, 1), "", b"Text"),
        ("nested", (2, 2), "", b"<p>Text</p>\r\n"),
        ("nested", (2, 3), "", None),
        ("nested", (2, 2, 1), "", None),
        ("nested", (3,), "", b"YWJj"),
        ("nested", (2,), "TEXT", None),
        ("digest", (1,), "MIME", b"\r\n"),
        ("digest", (1,), "HEADER", b"From: one@example.org\r\nSubject: first\r\n\r\n"),
        ("digest", (1,), "TEXT", b"1\r\n"),
        ("digest", (1, 1), "", b"1\r\n"),
        ("digest", (1, 1), "MIME", b"From: one@example.org\r\nSubject: first\r\n\r\n"),
        ("digest", (1, 2), "", None),
        ("forwarded", (1, 1), "", b"i1"),
        ("forwarded", (1, 2), "HEADER", b"Subject: innermost\r\n\r\n"),
        ("forwarded", (1, 2, 1), "", b"deep"),
        ("forwarded", (1, 2), "", b"Subject: innermost\r\n\r\ndeep"),
        ("forwarded", (1, 3), "", None),
        ("lf-only", (2,), "", b"two"),
        ("cut-header", (1,), "MIME", b"Content-Type: text/html"),
        ("cut-header", (1,), "", b""),
        ("no-parts", (1,), "", b"Text that no delimiter\r\nintroduces.\r\n"),
    ],
)
def test_a_section_is_exactly_these_octets(
    name: str, path: tuple[int, ...], section: Section, octets: bytes | None
) -> None:
    assert _section(name, path, section) == octets


def test_the_whole_is_header_and_text() -> None:
    whole, header, text = (_section("nested", (), section) for section in ("", "HEADER", "TEXT"))
    assert whole is not None
    assert header is not None
    assert text is not None
    assert header + text == whole == (_VECTORS / "nested.eml").read_bytes()
    assert header.endswith(b"\r\n\r\n")


def test_a_message_that_is_a_message_part_numbers_what_is_in_it_below_1() -> None:
    content = b"Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nbody"
    root = decode_parts(scan(content).parts)
    part = find_part(root, (1, 1))
    assert part is not None
    assert content[part.body : part.end] == b"body"
    assert section_range(root, (1,), "HEADER") == (32, 47)
    assert find_part(root, (1, 1, 1)) is None
