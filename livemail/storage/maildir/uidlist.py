"""``dovecot-uidlist``: the UIDs Dovecot gave.  Read when a folder is met first, written by an export.

Version 3, the first line and one line a message, ascending UIDs::

    3 V<uidvalidity> N<next uid> G<guid>
    <uid> W<octets with CRLF> :<file name as it was then, flags may have changed>

Version 1 (Dovecot 1.0): ``1 <uidvalidity> <next uid>`` and ``<uid> <file name>``.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from livemail.mail.ids import MAX_UID
from livemail.storage.maildir.names import split_name

FILE: Final = "dovecot-uidlist"
MAX_LINE_OCTETS: Final = 4096


class UIDList(msgspec.Struct):
    """uids: by the base of the file's name."""

    uid_validity: int
    uid_next: int
    uids: dict[str, int]


def read_uidlist(folder: Path) -> UIDList | None:
    """Read a folder's list; None when there is none that can be trusted."""
    try:
        with (folder / FILE).open("rb") as file:
            return parse_uidlist(file)
    except (OSError, ValueError):
        return None


def parse_uidlist(lines: Iterable[bytes]) -> UIDList:
    """Parse the lines of a list; a line that is none ends it.  Raises ValueError when the first is no head."""
    uid_validity, uid_next, entries = walk_uidlist(lines)
    uids = dict(entries)
    return UIDList(uid_validity, max(uid_next, next(reversed(uids.values()), 0) + 1), uids)


def walk_uidlist(lines: Iterable[bytes]) -> tuple[int, int, Iterator[tuple[str, int]]]:
    """Return UIDVALIDITY, the next UID as the head says it, and the entries: base and UID, UIDs ascending, read as they are asked for.

    Raises ValueError when the first line is no head.
    """
    rest = iter(lines)
    head = next(rest, b"").split()
    version = head[0] if head else b""
    if version == b"3":
        fields = {field[:1]: field[1:] for field in head[1:]}
        validity, following = int(fields.get(b"V", b"")), int(fields.get(b"N", b""))
    elif version == b"1" and len(head) >= 3:
        validity, following = int(head[1]), int(head[2])
    else:
        raise ValueError("not a dovecot-uidlist")
    if not 0 < validity <= MAX_UID or not 0 < following <= MAX_UID:
        raise ValueError("impossible UIDVALIDITY or next UID")
    return validity, following, _entries(rest, version)


def _entries(lines: Iterable[bytes], version: bytes) -> Iterator[tuple[str, int]]:
    last = 0
    for line in lines:
        number, _, name = line.rstrip(b"\n").partition(b" ")
        if version == b"3":
            name = name[1:] if name.startswith(b":") else name.partition(b" :")[2]
        if not number.isdigit() or len(number) > 10 or not last < int(number) <= MAX_UID or not name:
            break
        last = int(number)
        yield split_name(name.decode("utf-8", "surrogateescape"))[0], last


def render_uidlist(uid_validity: int, uid_next: int, files: Iterable[tuple[int, str, int]]) -> Iterable[bytes]:
    """Yield the lines of a version 3 list.  files: (uid, file name, octets with CRLF), UIDs ascending."""
    yield b"3 V%d N%d G%s\n" % (uid_validity, uid_next, secrets.token_hex(16).encode())
    for uid, name, size in files:
        yield b"%d W%d :%s\n" % (uid, size, name.encode("utf-8", "surrogateescape"))
