"""Patterns of mailbox names.  RFC 3501 §6.3.8.

They come from clients, and ``*%*%*%…`` against a long name has made servers spin (CVE-2026-33607).  So a pattern is not tried
and retried: all the places in it where the name so far could have led are kept as the bits of one int, and each character
of the name moves them all at once.  Each character costs a few operations on ints, whatever the pattern is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from livemail.mail.names import SEPARATOR

_WILDCARDS: Final = re.compile(r"[*%]{2,}")
Matches = Callable[[str], bool]


def compile_pattern(text: str) -> Matches:
    """Return what says whether a name matches: ``*`` is anything, ``%`` anything without a separator."""
    text = _WILDCARDS.sub(lambda run: "*" if "*" in run[0] else "%", text)
    # The common shapes are one call into C.
    wildcards = text.count("*") + text.count("%")
    if not wildcards:
        return text.__eq__
    if wildcards == 1 and text[-1] in "*%":
        prefix = text[:-1]
        if text[-1] == "*":
            return lambda name: name.startswith(prefix)
        return lambda name: name.startswith(prefix) and SEPARATOR not in name[len(prefix) :]
    return _compile_bits(text)


def _compile_bits(text: str) -> Matches:
    """Bit i stands for "the first i elements of the pattern are used up"; wildcards are never side by side."""
    letters: dict[str, int] = {}
    star = percent = 0
    for i, element in enumerate(text):
        if element == "*":
            star |= 1 << i
        elif element == "%":
            percent |= 1 << i
        else:
            letters[element] = letters.get(element, 0) | 1 << i
    wild = star | percent
    accepting = 1 << len(text)

    def matches(name: str) -> bool:
        # A wildcard may stand for nothing: who is at it is behind it too.
        at = 1 | (wild & 1) << 1
        for character in name:
            stays = star if character == SEPARATOR else wild
            at = (at & letters.get(character, 0)) << 1 | at & stays
            if not at:
                return False
            at |= (at & wild) << 1
        return bool(at & accepting)

    return matches
