"""Which mailboxes LIST and LSUB name.  RFC 3501 §6.3.8, §6.3.9, §7.2.2."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from livemail.interfaces.storage import MailboxInfo
from livemail.mail import utf7
from livemail.mail.errors import InvalidName
from livemail.mail.names import INBOX, MAX_NAME_OCTETS, SEPARATOR, superiors
from livemail.mail.patterns import compile_pattern


class Pattern:
    """A mailbox pattern: ``*`` is anything, ``%`` anything without a separator."""

    def __init__(self, text: str) -> None:
        """text: reference and pattern joined.  Raises InvalidName for one longer than any name."""
        if len(text) > MAX_NAME_OCTETS:
            raise InvalidName(f"A mailbox pattern has at most {MAX_NAME_OCTETS} octets")
        text = unicodedata.normalize("NFC", text)
        if text[:5].upper() == INBOX and text[5:6] in {"", SEPARATOR, "*", "%"}:
            text = INBOX + text[5:]
        self.has_percent = "%" in text
        self._matches = compile_pattern(text)
        self._matches_inbox = compile_pattern(text.upper())(INBOX)

    def matches(self, name: str) -> bool:
        """name: canonical."""
        return self._matches_inbox if name == INBOX else self._matches(name)


class Listed(msgspec.Struct, frozen=True):
    """One untagged LIST or LSUB.  attributes: with their backslashes."""

    name: str
    attributes: tuple[str, ...]

    def to_wire(self, word: bytes) -> bytes:
        """Render the response line.  word: LIST or LSUB."""
        attributes = " ".join(self.attributes).encode("ascii")
        return b"* " + word + b" (" + attributes + b') "/" ' + utf7.to_astring(self.name) + b"\r\n"


def listed_mailboxes(mailboxes: Sequence[MailboxInfo], pattern: Pattern) -> Iterator[Listed | None]:
    """Choose and describe the mailboxes, INBOX first, then by name; None for each that does not match.

    A superior that no mailbox stands for (a store may allow it) is named too, as one that cannot be selected.
    """
    uses = {mailbox.name: mailbox.special_use for mailbox in mailboxes}
    with_inferiors = _all_superiors(uses)
    for name in sorted({*uses, *with_inferiors}, key=_inbox_first):
        if not pattern.matches(name):
            yield None
            continue
        attributes = ["\\HasChildren" if name in with_inferiors else "\\HasNoChildren"]
        if name not in uses:
            attributes[:0] = ["\\NonExistent", "\\Noselect"]
        elif uses[name]:
            attributes.append(uses[name])
        yield Listed(name, tuple(attributes))


def listed_subscriptions(subscribed: Iterable[str], pattern: Pattern) -> Iterator[Listed | None]:
    """Choose the subscriptions, in the same order; None now and then, while looking.

    With ``%``, a name that is too deep to match is stood for by its matching superior, with \\Noselect where that one is
    not subscribed to itself.  RFC 3501 §6.3.9.
    """
    names = set(subscribed)
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        yield None
        if pattern.matches(name):
            found[name] = ()
        elif pattern.has_percent:
            for superior in superiors(name):
                if superior not in names and superior not in found and pattern.matches(superior):
                    found[superior] = ("\\Noselect",)
    for name in sorted(found, key=_inbox_first):
        yield Listed(name, found[name])


def _all_superiors(names: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for name in names:
        end = name.rfind(SEPARATOR)
        while end > 0 and (superior := name[:end]) not in found:
            found.add(superior)
            end = name.rfind(SEPARATOR, 0, end)
    return found


def _inbox_first(name: str) -> tuple[bool, str]:
    return name != INBOX, name
