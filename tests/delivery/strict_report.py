"""A parser of reports that accepts nothing RFC 3464, RFC 6522 and RFC 5322 do not allow; written apart from what composes them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

FIELD = re.compile(rb"([!-9;-~]+): (.*(?:\r\n[ \t].*[!-~].*)*)\r\n")
ADDRESS_FIELDS = {"Original-Recipient", "Final-Recipient"}
ORDER_MESSAGE = ["Original-Envelope-Id", "Reporting-MTA", "Arrival-Date"]
ORDER_RECIPIENT = [
    "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date",
    "Will-Retry-Until",
]  # fmt: skip
DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000")


@dataclass
class Strict:
    header: dict[str, str]
    text: bytes
    message: dict[str, str]
    recipients: list[dict[str, str]] = field(default_factory=list)
    media_types: list[str] = field(default_factory=list)
    returned: bytes = b""


def fields(octets: bytes, *, utf8: bool = False) -> dict[str, str]:
    """Parse a block of header fields, each at most once, every line at most 998 octets."""
    found: dict[str, str] = {}
    at = 0
    while at < len(octets):
        match = FIELD.match(octets, at)
        assert match, octets[at : at + 100]
        name = match[1].decode()
        assert name.lower() not in {known.lower() for known in found}, f"{name} twice"
        raw = match[2]
        assert utf8 or raw.isascii(), raw
        assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", raw), raw
        assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
        found[name] = re.sub("\r\n(?=[ \t])", "", raw.decode())
        assert "\r" not in found[name]
        assert "\n" not in found[name]
        at = match.end()
    return found


def parse(octets: bytes) -> Strict:
    assert re.fullmatch(rb"(?:[^\r\n]*\r\n)*", octets), "a line does not end with CRLF"
    head, _, body = octets.partition(b"\r\n\r\n")
    header = fields(head + b"\r\n", utf8=True)
    kind = re.fullmatch(
        r'multipart/report; report-type=delivery-status;\s+boundary="([A-Za-z0-9]{16,70})"', header["Content-Type"]
    )
    assert kind, header["Content-Type"]
    mark = b"--" + kind[1].encode()
    assert body.count(mark) == 4
    preamble, *pieces, epilogue = re.split(rb"(?:^|\r\n)" + mark + rb"(?:\r\n|(?=--\r\n$))", body)
    assert preamble == b""
    assert epilogue == b"--\r\n"
    assert len(pieces) == 3
    if not body.isascii():
        assert header.get("Content-Transfer-Encoding") == "8bit"
    parts = []
    for piece in pieces:
        part_head, _, part_body = piece.partition(b"\r\n\r\n")
        part_header = fields(part_head + b"\r\n")
        assert part_body.isascii() or part_header.get("Content-Transfer-Encoding") == "8bit"
        parts.append((part_header, part_body))
    (text_header, text), (status_header, status), (returned_header, returned) = parts
    assert text_header["Content-Type"].startswith("text/plain; charset=")
    is_global = status_header["Content-Type"] == "message/global-delivery-status"
    assert is_global or status_header["Content-Type"] == "message/delivery-status"
    allowed = {"message/global", "message/global-headers"} if is_global else {"message/rfc822", "text/rfc822-headers"}
    assert returned_header["Content-Type"] in allowed
    # The line end before the boundary is the boundary's: the last group still has its own.
    groups = [fields(group.removesuffix(b"\r\n") + b"\r\n", utf8=is_global) for group in status.split(b"\r\n\r\n")]
    result = Strict(header, text, groups[0], groups[1:], [each["Content-Type"] for each, _ in parts], returned)
    check(result, is_global=is_global)
    return result


def check(report: Strict, *, is_global: bool) -> None:
    assert in_order(report.message, ORDER_MESSAGE)
    assert re.fullmatch(r"dns; [A-Za-z0-9.-]+", report.message["Reporting-MTA"])
    assert DATE.fullmatch(report.message["Arrival-Date"])
    assert report.recipients
    for group in report.recipients:
        assert in_order(group, ORDER_RECIPIENT)
        kind, _, address = group["Final-Recipient"].partition("; ")
        assert kind in {"rfc822", "utf-8"}
        assert address
        assert is_global or group["Final-Recipient"].isascii()
        assert group["Action"] in {"failed", "delayed", "delivered", "relayed", "expanded"}
        allowed = {"failed": "45", "delayed": "4"}.get(group["Action"], "2")
        assert re.fullmatch(rf"[{allowed}]\.\d{{1,3}}\.\d{{1,3}}", group["Status"]), group
        if "Diagnostic-Code" in group:
            assert re.match(r"(smtp|X-livemail); [2-5]\d\d", group["Diagnostic-Code"])
        for name in ("Last-Attempt-Date", "Will-Retry-Until"):
            assert name not in group or DATE.fullmatch(group[name])
        assert "Will-Retry-Until" not in group or group["Action"] == "delayed"


def in_order(group: dict[str, str], order: list[str]) -> bool:
    places = [order.index(name) for name in group]
    return places == sorted(places)
