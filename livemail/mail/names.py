"""Mailbox names: Unicode text, hierarchy separator ``/``, INBOX in any case.  RFC 9051 §5.1.

A name is never a path.  It is still refused where a path would be dangerous (``..``, a leading ``/`` or ``~``,
control characters), because the Maildir back end and every export will put names beside files.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from livemail.mail.errors import InvalidName

SEPARATOR: Final = "/"
INBOX: Final = "INBOX"
MAX_NAME_OCTETS: Final = 1000
MAX_DEPTH: Final = 32

SPECIAL_USE: Final[dict[str, str]] = {
    "Drafts": "\\Drafts",
    "Sent": "\\Sent",
    "Junk": "\\Junk",
    "Trash": "\\Trash",
    "Archive": "\\Archive",
}
"""Mailboxes every new account gets beside INBOX, with their attribute.  RFC 6154 §2."""

SPECIAL_USE_ATTRIBUTES: Final = frozenset({*SPECIAL_USE.values(), "\\All", "\\Flagged"})


def canonical_name(name: str) -> str:
    """Return the one spelling of a mailbox name under which it is stored: NFC, INBOX upper-case, no trailing ``/``.

    name: decoded text.  Raises InvalidName, with the reason as public text.
    """
    name = unicodedata.normalize("NFC", name)
    if name.endswith(SEPARATOR):  # RFC 9051 §6.3.4: a client announces that it will create names below this one.
        name = name[:-1]
    if not name:
        raise InvalidName("A mailbox name cannot be empty")
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_OCTETS:
        raise InvalidName(f"A mailbox name has at most {MAX_NAME_OCTETS} octets")
    components = name.split(SEPARATOR)
    if len(components) > MAX_DEPTH:
        raise InvalidName(f"Mailboxes nest at most {MAX_DEPTH} deep")
    for component in components:
        if not component:
            raise InvalidName("A mailbox name has no empty component")
        if component in {".", ".."}:
            raise InvalidName("A mailbox name has no component . or ..")
        if component != component.strip():
            raise InvalidName("A component of a mailbox name does not begin or end with a space")
    if name.startswith("~"):
        raise InvalidName("A mailbox name does not begin with ~")
    for character in name:
        if character in "*%" or unicodedata.category(character) in {"Cc", "Cs", "Cn", "Zl", "Zp"}:
            raise InvalidName("A mailbox name has no control characters, * or %")
    # Only ASCII letters have two cases here: "\u0131nbox" upper-cased reads INBOX and is another mailbox.
    if components[0].isascii() and components[0].upper() == INBOX:
        components[0] = INBOX
    return SEPARATOR.join(components)


def superiors(name: str) -> list[str]:
    """Return the names above ``name``, outermost first: ``a/b/c`` → ``["a", "a/b"]``."""
    components = name.split(SEPARATOR)
    return [SEPARATOR.join(components[:depth]) for depth in range(1, len(components))]
