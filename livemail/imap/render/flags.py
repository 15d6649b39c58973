"""Flags on the wire.  RFC 9051 §2.3.2, RFC 3501 §2.3.2 (\\Recent).

A mailbox of a hundred thousand messages has a few dozen different combinations of flags, so a text is made once per
combination.  The cache is a dict with ``__missing__``: a hit stays inside C, and a whole column of flags is
``map(texts.__getitem__, …)``.
"""

from __future__ import annotations

from collections.abc import Sequence

from livemail.mail.flags import MAX_KEYWORDS, SYSTEM_FLAGS, flag_names


def flag_text(flags: int, bits: int, keywords: Sequence[str], *, recent: bool = False) -> bytes:
    """Return the flags without parentheses: system flags, ``\\Recent``, then keywords in the order of their bits.

    bits: keyword bits; one without a name in ``keywords`` is left out.
    """
    names = flag_names(flags)
    if recent:
        names.append("\\Recent")
    if bits:
        names.extend(keyword for at, keyword in enumerate(keywords) if bits >> at & 1)
    return " ".join(names).encode()


class FlagTexts(dict[tuple[int, int], bytes]):
    """Texts by (system flags, keyword bits) for one list of keywords."""

    def __init__(self, keywords: Sequence[str], *, recent: bool = False) -> None:
        super().__init__()
        self.keywords = keywords
        self.recent = recent

    def __missing__(self, key: tuple[int, int]) -> bytes:
        if len(self) >= 4096:
            self.clear()
        text = self[key] = flag_text(*key, self.keywords, recent=self.recent)
        return text


def flags_line(keywords: Sequence[str]) -> bytes:
    """The untagged FLAGS response: every flag the mailbox has a name for.  RFC 9051 §7.3.5."""
    return b"* FLAGS (%b)\r\n" % " ".join([*SYSTEM_FLAGS, *keywords]).encode()


def permanent_flags_line(keywords: Sequence[str], *, read_only: bool) -> bytes:
    """The PERMANENTFLAGS code; ``\\*`` while the mailbox can name more keywords.  RFC 9051 §7.1."""
    if read_only:
        return b"* OK [PERMANENTFLAGS ()] Read-only\r\n"
    names = [*SYSTEM_FLAGS, *keywords]
    if len(keywords) < MAX_KEYWORDS:
        names.append("\\*")
    return b"* OK [PERMANENTFLAGS (%b)] Flags that last\r\n" % " ".join(names).encode()
