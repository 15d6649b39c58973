"""Authentication-Results: rendered, and told apart from those that only pretend to be ours.  RFC 8601."""

from __future__ import annotations

import re
from typing import Final

import msgspec

Result = str
"""pass, fail, neutral, policy, temperror, permerror, none.  RFC 8601 §2.7.1."""

_TOKEN: Final = re.compile(rb'[^\x00-\x20()<>@,;:\\"/\[\]?=\x7f]+')
_PLAIN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/^_`{|}~.@=-]+")


class SignatureResult(msgspec.Struct, frozen=True):
    """What became of one signature.  reason: for people.  The rest as the signature says it, "" when unreadable."""

    result: Result
    reason: str = ""
    domain: str = ""
    selector: str = ""
    identity: str = ""
    algorithm: str = ""
    start: str = ""


def render(authserv_id: str, results: list[SignatureResult]) -> bytes:
    """The field's value, folded."""
    lines = [authserv_id] + [_method(each) for each in results or [SignatureResult("none")]]
    return ";\r\n\t".join(lines).encode("ascii")


def _method(each: SignatureResult) -> str:
    words = [f"dkim={each.result}"]
    if each.reason:
        words.append(f'reason="{_quoted(each.reason)}"')
    properties = (
        ("d", each.domain),
        ("i", each.identity),
        ("s", each.selector),
        ("a", each.algorithm),
        ("b", each.start),
    )
    for name, value in properties:
        if value:
            words.append(f"header.{name}={value if _PLAIN.fullmatch(value) else chr(34) + _quoted(value) + chr(34)}")
    return "\r\n\t ".join([" ".join(words[:2]), *words[2:]]) if len(words) > 4 else " ".join(words)


def _quoted(text: str) -> str:
    """Printable ASCII without what ends a quoted string, and not long enough to be a line of its own."""
    return "".join(each if " " <= each <= "~" and each not in '"\\' else "?" for each in text)[:120]


def authserv_id(value: bytes) -> bytes:
    """The authserv-id of a field's unfolded value, lower-case, b"" where there is none.  Linear.

    Lenient: who pretends need not keep to the grammar, so what a lenient reader would take for the id is taken.
    """
    rest = _without_comments(value)
    if rest.startswith(b'"'):
        match = re.match(rb'"((?:[^"\\]|\\.)*)"', rest, re.DOTALL)
        return re.sub(rb"\\(.)", rb"\1", match[1]).strip().lower().rstrip(b".") if match else rest[1:].lower()
    match = _TOKEN.match(rest)
    return match[0].lower().rstrip(b".") if match else b""


def _without_comments(value: bytes) -> bytes:
    """Take off white space and comments in front; a comment without end is all there is."""
    at, depth = 0, 0
    while at < len(value):
        octet = value[at : at + 1]
        if octet == b"\\" and depth:
            at += 1
        elif octet == b"(":
            depth += 1
        elif octet == b")" and depth:
            depth -= 1
        elif depth == 0 and octet not in b" \t\r\n":
            break
        at += 1
    return value[at:]
