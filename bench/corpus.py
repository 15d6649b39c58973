"""Distinct messages of about 4 KB with the header a mailbox really holds; the same octets for everybody."""

from __future__ import annotations

import random

_WORDS = [
    "meeting",
    "invoice",
    "draft",
    "review",
    "budget",
    "travel",
    "schedule",
    "contract",
    "question",
    "answer",
    "weekly",
    "report",
    "server",
    "backup",
    "photo",
    "dinner",
    "ticket",
    "release",
    "branch",
    "customer",
    "order",
    "delivery",
    "address",
    "morning",
    "evening",
    "project",
    "team",
    "office",
    "holiday",
]
_NAMES = ("Ada Lovelace", "Grace Hopper", "Edsger Dijkstra", "Barbara Liskov", "Donald Knuth", "Radia Perlman")


def message(number: int) -> bytes:
    """Message ``number``: always the same octets."""
    chance = random.Random(number)
    sender, other = chance.sample(_NAMES, 2)
    subject = " ".join(chance.sample(_WORDS, 5))
    host = f"mx{number % 7}.example.com"
    head = [
        f"Received: from {host} (192.0.2.{number % 250 + 1}) by mx.example.net",
        f"\twith ESMTPS id {number:08x}; Tue, 24 Nov 2026 0{number % 10}:{number % 60:02}:00 +0000",
        f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s1; h=from:to:subject; bh={number:044d};",
        f"\tb={chance.getrandbits(1024):x}",
        f"Message-ID: <{number:08x}.{chance.getrandbits(64):x}@example.com>",
        f"Date: Tue, 24 Nov 2026 0{number % 10}:{number % 60:02}:00 +0000",
        f"From: {sender} <{sender.split()[0].lower()}@example.com>",
        f"To: {other} <{other.split()[0].lower()}@example.net>, list@example.net",
        f"Subject: {subject}",
        f"References: <{max(number - 1, 0):08x}@example.com>",
        "MIME-Version: 1.0",
        'Content-Type: multipart/alternative; boundary="=_part_boundary"',
        "X-Mailer: Example Mail 4.2",
        "List-Unsubscribe: <https://example.net/leave>",
    ]
    text = "\r\n".join(" ".join(chance.choices(_WORDS, k=11)) for _ in range(14))
    html = "<p>" + "</p>\r\n<p>".join(" ".join(chance.choices(_WORDS, k=10)) for _ in range(14)) + "</p>"
    body = (
        f"--=_part_boundary\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
        f"--=_part_boundary\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{html}\r\n--=_part_boundary--\r\n"
    )
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()
