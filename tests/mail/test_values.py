"""UID sets, mailbox names, flags, addresses.  RFC 9051 §2.3, §5.1, RFC 5321 §4.1.2."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemail.mail.address import Address, Path, quote_local_part
from livemail.mail.errors import InvalidName, WireError
from livemail.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, flag_names, system_flag
from livemail.mail.ids import MAX_UID, UIDSet
from livemail.mail.names import MAX_DEPTH, MAX_NAME_OCTETS, canonical_name, superiors

_RANGES = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), max_size=8)


def _members(ranges: list[tuple[int, int]]) -> set[int]:
    return {uid for a, b in ranges for uid in range(min(a, b), max(a, b) + 1)}


@given(_RANGES, _RANGES, st.sets(st.integers(1, 70)))
def test_a_uid_set_is_a_set(first: list[tuple[int, int]], second: list[tuple[int, int]], uids: set[int]) -> None:
    made, members = UIDSet(first), _members(first)
    assert list(made) == sorted(members)
    assert len(made) == len(members)
    assert bool(made) == bool(members)
    assert all((uid in made) == (uid in members) for uid in range(70))
    assert set(made | UIDSet(second)) == members | _members(second)
    assert UIDSet.of(members) == made
    assert hash(UIDSet.of(members)) == hash(made)
    assert list(made.select(array("I", sorted(uids)))) == sorted(uids & members)
    assert all(b + 1 < c for (_, b), (c, _) in zip(made.ranges, made.ranges[1:], strict=False))


def test_a_uid_set_of_everything_is_two_ints() -> None:
    everything = UIDSet.all()
    assert len(everything) == MAX_UID
    assert MAX_UID in everything
    assert 0 not in everything
    assert everything.to_wire() == b"1:4294967295"
    uids = array("I", range(1, 100))
    assert everything.select(uids) is uids


def test_a_uid_set_renders_as_a_sequence_set() -> None:
    assert UIDSet([(5, 3), (9, 9), (4, 6), (11, 10)]).to_wire() == b"3:6,9:11"
    assert UIDSet.of([4, 4, 2]).to_wire() == b"2,4"
    assert UIDSet().to_wire() == b""
    assert "x" not in UIDSet.all()


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("inbox", "INBOX"), ("Inbox/Sub", "INBOX/Sub"), ("inboxes", "inboxes"), ("a/inbox", "a/inbox"), ("a/", "a"),
        ("e\u0301", "\u00e9"), ("\u0131nbox", "\u0131nbox"), ("a b", "a b"), ("x" * MAX_NAME_OCTETS, "x" * MAX_NAME_OCTETS),
        ("...", "..."), ("a~", "a~"),
    ],
)  # fmt: skip
def test_a_name_has_one_spelling(name: str, canonical: str) -> None:
    assert canonical_name(name) == canonical
    assert canonical_name(canonical) == canonical


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "//", "/a", "a//b", "a//", ".", "..", "a/../b", "a/.", "~", "~root/x", " a", "a /b", "a/ b", "a*", "%", "a\0b",
        "a\nb", "a\x7f", "\u2028", "\ud800", "\u00e9" * (MAX_NAME_OCTETS // 2 + 1), "/".join("a" * (MAX_DEPTH + 1)),
    ],
)  # fmt: skip
def test_what_would_be_dangerous_beside_files_is_no_name(name: str) -> None:
    with pytest.raises(InvalidName):
        canonical_name(name)


@given(st.text(max_size=30))
def test_a_canonical_name_stays_as_it_is(name: str) -> None:
    try:
        canonical = canonical_name(name)
    except InvalidName:
        return
    assert canonical_name(canonical) == canonical


def test_superiors_come_outermost_first() -> None:
    assert superiors("a/b/c") == ["a", "a/b"]
    assert superiors("a") == []


def test_system_flags_have_bits_in_any_case() -> None:
    assert [system_flag(name) for name in ("\\seen", "\\ANSWERED", "\\Flagged", "\\Deleted", "\\Draft")] == [
        SEEN, ANSWERED, FLAGGED, DELETED, DRAFT,
    ]  # fmt: skip
    assert flag_names(SEEN | DRAFT | ANSWERED) == ["\\Answered", "\\Seen", "\\Draft"]
    assert flag_names(0) == []


@pytest.mark.parametrize("name", ["\\Recent", "\\", "\\Unknown", "Seen"])
def test_other_names_are_no_system_flags(name: str) -> None:
    with pytest.raises(WireError):
        system_flag(name)


@pytest.mark.parametrize(
    ("local_part", "quoted"),
    [
        ("joe", "joe"), ("a.b", "a.b"), ("j\u00f6rg", "j\u00f6rg"), ("a b", '"a b"'), ("a..b", '"a..b"'), (".a", '".a"'), ("", '""'),
        ('a"b', '"a\\"b"'), ("a\\b", '"a\\\\b"'), ("a@b", '"a@b"'),
    ],
)  # fmt: skip
def test_a_local_part_is_quoted_where_it_must_be(local_part: str, quoted: str) -> None:
    assert quote_local_part(local_part) == quoted
    assert str(Path(Address(local_part, "example.org"))) == f"<{quoted}@example.org>"


def test_the_null_path_and_the_postmaster_have_no_domain() -> None:
    assert str(Path.null) == "<>"
    assert Path.null.is_null
    assert not Path(Address("a", "b")).is_null
    assert str(Address("postmaster", "")) == "postmaster"
    assert Address("a", "b.c").is_ascii
    assert not Address("a", "b\u00fc.c").is_ascii
