"""Part numbers and body sections as ranges of octets.  RFC 9051 §6.4.5.1.

Offsets count from the first octet of the content; a delivery prefix in front of it is the caller's to add.

The numbering: a message that is a multipart numbers its parts 1, 2, …; any other message has part 1, which is its
body.  Below a message/rfc822 part the message in it is numbered the same way, without a number of its own.
"""

from __future__ import annotations

from typing import Literal

from livemail.mail.message.summary import Part

Section = Literal["", "HEADER", "TEXT", "MIME"]


def find_part(root: Part, path: tuple[int, ...]) -> Part | None:
    """Return the part with a number, None when there is none.  path: 1-based; () is the message itself."""
    if not path:
        return root
    part = _part_of_message(root, path[0])
    for number in path[1:]:
        if part is None:
            return None
        if part.media_type.startswith("message/") and part.children:
            part = _part_of_message(part.children[0], number)
        else:
            part = _child(part, number)
    return part


def _part_of_message(message: Part, number: int) -> Part | None:
    if message.media_type.startswith("multipart/"):
        return _child(message, number)
    return message if number == 1 else None


def _child(part: Part, number: int) -> Part | None:
    return part.children[number - 1] if 1 <= number <= len(part.children) else None


def section_range(root: Part, path: tuple[int, ...], section: Section) -> tuple[int, int] | None:
    """Return (offset, end) of a section, end exclusive; None when the message has no such section.

    section: "" the body of the part (for () the whole message); MIME the part's own header with its blank line;
    HEADER and TEXT those of the message: the whole one for (), else the one in a message/rfc822 part.
    """
    part = find_part(root, path)
    if part is None:
        return None
    if not section:
        return (part.body, part.end) if path else (part.start, part.end)
    if section == "MIME":
        return (part.start, part.body) if path else None
    if path:
        if not part.media_type.startswith("message/") or not part.children:
            return None
        part = part.children[0]
    return (part.start, part.body) if section == "HEADER" else (part.body, part.end)
