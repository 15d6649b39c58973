"""The scanner: what a Summary says, whatever the chunks, the malformations and the sizes.  RFC 2046 §5.1, 5322."""

from __future__ import annotations

import email
import email.message
import email.policy
import pathlib
import random
import tracemalloc
from email.mime.application import MIMEApplication
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemail.mail.message import scanner as scanner_module
from livemail.mail.message.scanner import Limits, Scanner, scan
from livemail.mail.message.structure import basic_body
from livemail.mail.message.summary import MAX_CACHED_OCTETS, Part, Summary, decode_parts

_VECTORS = sorted((pathlib.Path(__file__).parent.parent / "vectors" / "mime").glob("*.eml"))

_SHAPES = [
    b"", b"\r", b"\n", b"\r\n", b"--", b"a", b"\0", b"\r\n\r\n", b"\n\n", b"--b\r\n", b"--b--\r\n", b"--b  \t\r\n", b"--bb\r\n",
    b"--bb--\r\n", b"--b-", b"\r\n--b", b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: message/rfc822\r\n",
    b"Content-Type: multipart/digest; boundary=bb\r\n", b"Subject: x\r\n y\r\n", b"text \xe9\r\n", b"--b\n", b"x" * 50,
    b"Content-Type: text/html\n", b"Content-Transfer-Encoding: base64\r\n",
]  # fmt: skip


def _fed(content: bytes, cuts: list[int], limits: Limits | None = None) -> Summary:
    scanner = Scanner(limits or Limits())
    start = 0
    for cut in [*sorted(min(cut, len(content)) for cut in cuts), len(content)]:
        scanner.feed(content[start:cut])
        start = cut
    return scanner.finish()


def _parts(summary: Summary) -> list[Part]:
    found: list[Part] = []
    pending = [decode_parts(summary.parts)]
    while pending:
        part = pending.pop()
        found.append(part)
        pending.extend(part.children)
    return found


def _check_sound(content: bytes, summary: Summary) -> None:
    """What holds for every message."""
    root = decode_parts(summary.parts)
    assert summary.size == len(content)
    assert (root.start, root.body, root.end) == (0, summary.header_size, len(content))
    for part in _parts(summary):
        assert 0 <= part.start <= part.body <= part.end <= len(content)
        body = content[part.body : part.end]
        assert part.lines == body.count(b"\n") + (body != b"" and not body.endswith(b"\n"))
        at = part.body
        for child in part.children:
            assert at <= child.start
            assert child.end <= part.end
            at = child.end
        assert bool(part.children) == part.media_type.startswith(("multipart/", "message/rfc822", "message/global"))
    basic_body(summary.structure)
    assert summary.has_nul == (b"\0" in content)
    assert summary.has_8bit == (not content.isascii())
    stripped = content.replace(b"\r\n", b"")
    assert summary.has_bare_newline == (b"\r" in stripped or b"\n" in stripped)
    assert summary.longest_line == max(map(len, content.replace(b"\r\n", b"\n").split(b"\n")))


@pytest.mark.parametrize("path", _VECTORS, ids=lambda path: path.stem)
def test_a_vector_gives_one_summary_however_it_is_cut(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = path.read_bytes()
    whole = scan(content)
    _check_sound(content, whole)
    # One batch a chunk, so that every cut is a border between batches.
    monkeypatch.setattr(scanner_module, "_BATCH_OCTETS", 1)
    assert _fed(content, list(range(len(content)))) == whole
    for cut in range(len(content)):
        assert _fed(content, [cut]) == whole


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(_SHAPES), max_size=30).map(b"".join), st.lists(st.integers(0, 400), max_size=8))
def test_any_octets_give_one_sound_summary_however_they_are_cut(content: bytes, cuts: list[int]) -> None:
    whole = scan(content)
    _check_sound(content, whole)
    kept = scanner_module._BATCH_OCTETS
    scanner_module._BATCH_OCTETS = 1  # type: ignore[misc]
    try:
        assert _fed(content, cuts) == whole
        assert _fed(content, list(range(len(content)))) == whole
        small = Limits(depth=2, parts=4, header_octets=40, total_header_octets=120, addresses=2, parameters=1)
        assert _fed(content, cuts, small) == _fed(content, [], small)
    finally:
        scanner_module._BATCH_OCTETS = kept  # type: ignore[misc]


def test_large_content_gives_one_summary_across_real_batches() -> None:
    rng = random.Random(4)
    lines = [b"x" * rng.randrange(100) + b"\r\n" for _ in range(4000)]
    content = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        + b"".join(
            b"--b\r\nSubject: %d\r\n\r\n%b\r\n" % (n, b"".join(lines[n * 100 : n * 100 + 100])) for n in range(40)
        )
        + b"--b--\r\n"
    )
    whole = scan(content)
    _check_sound(content, whole)
    assert len(decode_parts(whole.parts).children) == 40
    for size in (1000, 65_535, 65_536, 65_537):
        assert _fed(content, list(range(0, len(content), size))) == whole


# ------------------------------------------------------------------------------------------------- header's values


def test_summary_keeps_what_threads_and_lists_need() -> None:
    summary = scan(
        b"Received: by a\r\nReceived: by b\r\nX-Other: no\r\nFrom: a@b\r\nMessage-ID: <3@x>\r\n"
        b"In-Reply-To: <2@x>\r\nReferences: <0@x>\r\n <1@x>\r\nDate: Thu, 1 Jan 1970 01:00:01 +0100\r\n\r\n"
    )
    assert summary.received_count == 2
    assert summary.message_id == b"<3@x>"
    assert summary.references == (b"<0@x>", b"<1@x>", b"<2@x>")
    assert summary.sent == 1
    assert summary.fields == (
        b"From: a@b\r\nMessage-ID: <3@x>\r\nIn-Reply-To: <2@x>\r\nReferences: <0@x>\r\n <1@x>\r\n"
        b"Date: Thu, 1 Jan 1970 01:00:01 +0100\r\n"
    )


def test_references_keep_the_nearest_twenty() -> None:
    ids = [b"<%d@x>" % n for n in range(100)]
    assert scan(b"References: " + b" ".join(ids) + b"\r\n\r\n").references == tuple(ids[-20:])


def test_fields_too_large_to_cache_are_none() -> None:
    subject = b"Subject: " + b"x" * (MAX_CACHED_OCTETS - 11)
    assert scan(subject + b"\r\n\r\n").fields == subject + b"\r\n"
    assert scan(subject + b"y\r\n\r\n").fields is None


def test_a_header_without_end_has_its_last_field_ended() -> None:
    summary = scan(b"Subject: x")
    assert summary.header_size == 10
    assert summary.fields == b"Subject: x\r\n"


# -------------------------------------------------------------------------------------------------------- boundaries


def _multipart(body: bytes, boundary: bytes = b"b") -> Part:
    return decode_parts(scan(b"Content-Type: multipart/mixed; boundary=" + boundary + b"\r\n\r\n" + body).parts)


@pytest.mark.parametrize(
    ("line", "delimits"),
    [
        (b"--b\r\n", True), (b"--b \t \r\n", True), (b"--b\n", True), (b"--b--\r\n", True), (b"--b", True),
        (b"--bb\r\n", False), (b"--b-\r\n", False), (b"--b--x\r\n", False), (b" --b\r\n", False), (b"-b\r\n", False),
        (b"--b" + b" " * 1000 + b"\r\n", True), (b"--b" + b" " * 1001 + b"\r\n", False),
    ],
)  # fmt: skip
def test_a_delimiter_line_is_whole(line: bytes, delimits: bool) -> None:
    root = _multipart(b"--b\r\n\r\nfirst\r\n" + line)
    assert (root.end - root.children[0].end > len(line) - 1) is delimits


@pytest.mark.parametrize(
    "end", [b"--b", b"--b--", b"--b \r\n", b"--b\n", b"--b-", b"--bx", b"--b--\r", b"--b" + b" " * 1001]
)
def test_many_lines_that_nearly_delimit_change_nothing(end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + b"--bx\r\n--b-\r\n" * 20 + end
    slow = scan(content)
    monkeypatch.setattr(scanner_module, "_MAX_MISSES", 3)
    assert scan(content) == slow
    monkeypatch.setattr(scanner_module, "_BATCH_OCTETS", 1)
    assert _fed(content, list(range(len(content)))) == slow


def test_an_outer_delimiter_ends_inner_parts_without_their_own() -> None:
    root = _multipart(
        b"--b\r\nContent-Type: multipart/mixed; boundary=bc\r\n\r\n--bc\r\n\r\nin\r\n--b\r\n\r\nout\r\n--bc\r\n--b--"
    )
    inner, outer = root.children
    assert len(inner.children) == 1
    assert inner.end == inner.children[0].end
    assert outer.end - outer.body == len(b"out\r\n--bc")


def test_a_part_with_the_boundary_of_its_parent_stays_flat() -> None:
    root = _multipart(b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" * 50)
    assert len(root.children) == 50
    assert all(child.children[0].media_type == "text/plain" for child in root.children)


def test_what_follows_the_closing_delimiter_is_no_part() -> None:
    assert len(_multipart(b"--b\r\n\r\none\r\n--b--\r\n--b\r\n\r\ntwo\r\n").children) == 1


# ------------------------------------------------------------------------------------------ the standard library says


def _leaf(rng: random.Random) -> email.message.Message:
    text = "\n".join("".join(rng.choices("abc -=", k=rng.randrange(60))) for _ in range(rng.randrange(8)))
    kind = rng.randrange(3)
    if kind == 0:
        return MIMEText(text, rng.choice(["plain", "html"]), rng.choice(["us-ascii", "utf-8"]))
    if kind == 1:
        return MIMEApplication(rng.randbytes(rng.randrange(200)), name="ü.bin")
    inner = MIMEText(text)
    inner["Subject"] = "inner"
    return MIMEMessage(inner)


def _generated(rng: random.Random, depth: int = 0) -> email.message.Message:
    if depth == 4 or rng.random() < 0.3:
        return _leaf(rng)
    made = MIMEMultipart(rng.choice(["mixed", "alternative", "related"]), boundary=f"b{rng.randrange(10**9)}=_{depth}")
    for _ in range(rng.randrange(1, 4)):
        made.attach(_generated(rng, depth + 1))
    return made


def _compare(ours: Part, theirs: email.message.Message, content: bytes) -> None:
    assert ours.media_type == theirs.get_content_type()
    if theirs.is_multipart():
        payload = theirs.get_payload()
        assert len(ours.children) == len(payload)
        for child, their_child in zip(ours.children, payload, strict=True):
            _compare(child, their_child, content)
    else:
        assert ours.charset == (theirs.get_content_charset() or "")
        their_body = theirs.get_payload()
        assert content[ours.body : ours.end].decode("ascii").replace("\r\n", "\n") == their_body.replace("\r\n", "\n")


def test_generated_messages_have_the_structure_the_standard_library_reads() -> None:
    rng = random.Random(2046)
    for _ in range(150):
        made = _generated(rng)
        made["Subject"] = "generated"
        content = made.as_bytes(policy=email.policy.SMTP)
        summary = scan(content)
        _check_sound(content, summary)
        _compare(decode_parts(summary.parts), email.message_from_bytes(content), content)


# ------------------------------------------------------------------------------------- limits, security.md rows 25-27


def test_nesting_of_100_000_is_cut_at_the_depth() -> None:
    """Row 25."""
    for depth in (2_000, 100_000):
        content = b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(depth)
        )
        summary = scan(content)
        _check_sound(content, summary)
        assert summary.structure.count(b'"mixed"') == Limits().depth
        assert b'"application" "octet-stream"' in summary.structure


def test_messages_in_messages_are_cut_at_the_depth() -> None:
    """Row 25."""
    content = b"Content-Type: message/rfc822\r\n\r\n" * 100_000
    summary = scan(content)
    _check_sound(content, summary)
    assert summary.structure.count(b'"message" "rfc822"') == Limits().depth


def test_20_000_parts_are_cut_at_the_limit() -> None:
    """Row 25."""
    parts = [b"--b\r\n\r\nx\r\n"] * 20_000
    parts[10_000] = b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\nx\r\n"
    root = _multipart(b"".join(parts))
    assert len(root.children) == Limits().parts - 1


def test_headers_of_all_parts_together_are_bounded() -> None:
    part = b"--b\r\nContent-Type: text/plain; x=" + b"y" * 10_000 + b"\r\n\r\n\r\n"
    content = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 900
    summary = scan(content)
    _check_sound(content, summary)
    assert len(summary.structure) < Limits().total_header_octets * 1.1


def test_a_body_of_any_size_keeps_memory_flat() -> None:
    chunk = (b"A" * 76 + b"\r\n") * 1000
    tracemalloc.start()
    try:
        scanner = Scanner()
        scanner.feed(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n")
        for _ in range(100):
            scanner.feed(chunk)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(400):
            scanner.feed(chunk)
        after, peak = tracemalloc.get_traced_memory()
        scanner.feed(b"\r\n--b--")
        summary = scanner.finish()
    finally:
        tracemalloc.stop()
    assert after - before < 64 * 1024
    assert peak - before < 768 * 1024
    assert decode_parts(summary.parts).children[0].lines == 500_000


def test_an_endless_header_keeps_memory_bounded() -> None:
    scanner = Scanner()
    tracemalloc.start()
    try:
        for _ in range(300):
            scanner.feed(b"X-Field: " + b"y" * 65_000 + b"\r\n")
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    summary = scanner.finish()
    assert kept < 1024 * 1024
    assert summary.header_size == summary.size
    assert summary.fields is None
