"""From a message before and after the chain to the edits that an MTA makes of one the other.

The chain answers with a whole message; an MTA wants edits.  Fields that stayed are found as a longest common subsequence;
what lies between them was removed, changed or put in.  The order of the edits is chosen so that positions mean the same to Postfix,
which forgets removed fields at once, and to Sendmail, which goes on counting them:

    1. insertions behind the first field, last one first: nothing before them has moved
    2. changes and removals, last occurrence first
    3. insertions before the first field, at position 0.  Behind such a one Postfix counts its own Received field like any
       other, so they come last
    4. additions at the end, first one first

The first field is the one that stands for the MTA's own Received field, which it has put in front and does not show to milters:
positions of insertions count it, occurrences for changes do not, and it cannot be changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Final

from livemail.filters.message import Field
from livemail.mail.content import Content
from livemail.mail.envelope import Envelope
from livemail.milter.grammar import (
    BodyChunk,
    Edit,
    HeaderChange,
    RecipientAdded,
    RecipientRemoved,
    ReversePathChanged,
)
from livemail.milter.wire import CHUNK_OCTETS

MAX_COMPARED: Final = 400
"""Fields in each of two headers up to which the least number of edits is looked for: that takes quadratic time."""


class CannotChange(Exception):
    """The MTA's own field was to be changed."""


def header_changes(before: Sequence[Field], after: Sequence[Field]) -> list[HeaderChange]:
    """Edits that make one header of the other.  before: with what stands for the MTA's own field in front.

    Raises CannotChange.
    """
    changes: list[tuple[int, HeaderChange]] = []  # with the field's place before
    inserts: list[tuple[int, Field]] = []  # with the place before which it goes
    for old_start, old_end, new_start, new_end in _differences(before, after):
        old, new = list(range(old_start, old_end)), list(after[new_start:new_end])
        while old and new and before[old[0]][0].lower() == new[0][0].lower() and _value(new[0]).strip(b" "):
            changes.append((old[0], HeaderChange("change", new[0][0], _value(new[0]))))
            del old[0], new[0]
        # In front of what goes, so that what was put in front of everything stays there.
        inserts += [(old[0] if old else old_end, field) for field in new]
        changes += [(place, HeaderChange("change", before[place][0], b"")) for place in old]
    if any(place == 0 for place, _ in changes):
        raise CannotChange("the field Received of the MTA in front cannot be changed or removed")
    return [*_ordered(before, changes, inserts)]


def _ordered(
    before: Sequence[Field], changes: list[tuple[int, HeaderChange]], inserts: list[tuple[int, Field]]
) -> Iterator[HeaderChange]:
    first = [field for place, field in inserts if place == 0]
    inner = [(place, field) for place, field in inserts if 0 < place < len(before)]
    last = [field for place, field in inserts if place == len(before)]
    for place, (name, raw) in reversed(inner):
        yield HeaderChange("insert", name, _value((name, raw)), place)
    # Occurrences as they are with the insertions made, before any removal.
    inserted: dict[int, list[bytes]] = {}
    for place, (name, _) in inner:
        inserted.setdefault(place, []).append(name.lower())
    seen: Counter[bytes] = Counter()
    occurrence: list[int] = []
    for place, (name, _) in enumerate(before):
        seen.update(inserted.get(place, ()))
        seen[name.lower()] += 1 if place else 0
        occurrence.append(seen[name.lower()])
    for place, change in sorted(changes, key=lambda item: item[0], reverse=True):
        yield HeaderChange("change", change.name, change.value, occurrence[place])
    for name, raw in reversed(first):
        yield HeaderChange("insert", name, _value((name, raw)), 0)
    for name, raw in last:
        yield HeaderChange("add", name, _value((name, raw)))


def _value(field: Field) -> bytes:
    return field[1].partition(b":")[2].removesuffix(b"\r\n")


def _differences(before: Sequence[Field], after: Sequence[Field]) -> Iterator[tuple[int, int, int, int]]:
    """Ranges [start, end) of both that are not the same; linear for large headers, with more edits than need be."""
    head = 0
    while head < min(len(before), len(after)) and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < min(len(before), len(after)) - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    if max(len(old), len(new)) > MAX_COMPARED:
        yield head, head + len(old), head, head + len(new)
        return
    for tag, a1, a2, b1, b2 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            yield head + a1, head + a2, head + b1, head + b2


def same_body(before: Content, after: Content) -> bool:
    """Whether what is behind the blank line is the same."""
    if before is after:
        return True
    a, b = before.outline.header_size, after.outline.header_size
    if before.size - a != after.size - b:
        return False
    while a < before.size:
        octets = before.read(a, CHUNK_OCTETS)
        if octets != after.read(b, len(octets)) or not octets:
            return not octets
        a, b = a + len(octets), b + len(octets)
    return True


def envelope_changes(before: Envelope, after: Envelope) -> list[Edit]:
    """Edits of recipients and reverse-path."""
    edits: list[Edit] = []
    if after.reverse_path.path != before.reverse_path.path:
        edits.append(ReversePathChanged(after.reverse_path.path))
    old, new = {each.path for each in before.recipients}, {each.path for each in after.recipients}
    edits += [RecipientRemoved(each.path) for each in before.recipients if each.path not in new]
    edits += [RecipientAdded(each) for each in after.recipients if each.path not in old]
    return edits


def body_chunks(content: Content) -> Iterator[BodyChunk]:
    """The body in packets; one empty one for an empty body."""
    at = content.outline.header_size
    if at >= content.size:
        yield BodyChunk(b"")
    while at < content.size:
        octets = content.read(at, CHUNK_OCTETS)
        yield BodyChunk(octets)
        at += len(octets)
