"""Names in a Maildir: of mailboxes' folders, of messages' files, of keywords.

Maildir++: ``a/b`` is the folder ``.a.b``, each component in modified UTF-7, as Courier and Dovecot have it.  A dot in a
component would read as a separator, so it is written ``\\2e``, and a backslash ``\\5c``: Dovecot's listescape.  A name too long for a
file system is hashed, and stands in the file ``livemail-name`` of its folder.

A message's file is ``base:2,FLAGS`` in ``cur`` or ``base`` in ``new``; base never changes while the message lives.  Letters a to z are keywords by
the folder's ``dovecot-keywords``; letters nobody here knows are kept when flags change.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from livemail.mail import utf7
from livemail.mail.errors import InvalidName
from livemail.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from livemail.mail.names import INBOX, SEPARATOR, canonical_name

MAX_FOLDER_OCTETS: Final = 240
NAME_FILE: Final = "livemail-name"
HASHED: Final = ".\\="
MAX_LETTERS: Final = 26

_LETTERS: Final = {"D": DRAFT, "F": FLAGGED, "R": ANSWERED, "S": SEEN, "T": DELETED}
_ESCAPED: Final = re.compile(r"\\([0-9a-f]{2})")


def folder_name(mailbox: str) -> str:
    """Return the folder of a mailbox, "" for INBOX: it is the account's own."""
    if mailbox == INBOX:
        return ""
    components = [utf7.encode(component).decode("ascii") for component in mailbox.split(SEPARATOR)]
    name = "." + ".".join(component.replace("\\", "\\5c").replace(".", "\\2e") for component in components)
    if len(name) <= MAX_FOLDER_OCTETS:
        return name
    return HASHED + hashlib.blake2b(mailbox.encode(), digest_size=24).hexdigest()


def is_hashed(folder: str) -> bool:
    """Whether the folder's name does not tell its mailbox's."""
    return folder.startswith(HASHED)


def mailbox_name(folder: str) -> str | None:
    """Return the mailbox of a folder; None for what is no mailbox's, or not the one spelling of its name."""
    if not folder.startswith(".") or is_hashed(folder):
        return None
    try:
        components = [
            utf7.decode(_ESCAPED.sub(lambda found: chr(int(found.group(1), 16)), each).encode("ascii"))
            for each in folder[1:].split(".")
        ]
        if any(SEPARATOR in component for component in components):
            return None
        name = canonical_name(SEPARATOR.join(components))
    except (InvalidName, UnicodeError):
        return None
    return name if folder_name(name) == folder else None


# ---------------------------------------------------------------------------------------------------------- files


def split_name(name: str) -> tuple[str, str]:
    """Return base and flag letters of a file's name."""
    base, mark, info = name.rpartition(":2,")
    return (base, info) if mark else (name.partition(":")[0], "")


def read_letters(letters: str) -> tuple[int, str]:
    """Return system flags, and the keyword letters among the rest."""
    flags = 0
    for letter in letters:
        flags |= _LETTERS.get(letter, 0)
    return flags, "".join(sorted({letter for letter in letters if "a" <= letter <= "z"}))


def write_letters(flags: int, keywords: Iterable[str], before: str = "") -> str:
    """Return the letters of flags and keyword letters, with those of ``before`` that mean neither; ASCII order."""
    wanted = {letter for letter, bit in _LETTERS.items() if flags & bit}
    foreign = {letter for letter in before if letter not in _LETTERS and not "a" <= letter <= "z"}
    return "".join(sorted(wanted | foreign | set(keywords)))


def file_name(base: str, letters: str) -> str:
    """Return the name of a file in ``cur``."""
    return f"{base}:2,{letters}"


_HOST_ESCAPES: Final = str.maketrans({"/": "\\057", ":": "\\072", ",": "\\054"})


def new_base(seconds: int, unique: str, host: str, octets: int, size: int) -> str:
    """Return a base nobody else makes.  cr.yp.to/proto/maildir.html; S and W as Courier and Dovecot have them.

    unique: of this process and moment.  octets: of the file; size: octets with CRLF.
    """
    return f"{seconds}.{unique}.{host.translate(_HOST_ESCAPES) or 'localhost'},S={octets},W={size}"
