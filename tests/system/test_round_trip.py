"""Mail of mixed real shapes goes in by SMTP and comes back octet for octet by IMAP and POP3.

LIVEMAIL_TEST_MESSAGES sets how many (default 1,500; the acceptance run uses 20000), LIVEMAIL_TEST_BIG how many
30 MB attachments are among them (default 2).
"""

from __future__ import annotations

import itertools
import os
import poplib
import random
import re

from tests.system.mail import attachment, deliver, digest, imap, shapes, smtp, without_trace
from tests.system.rig import Server

COUNT = int(os.environ.get("LIVEMAIL_TEST_MESSAGES", "1500"))
BIG = int(os.environ.get("LIVEMAIL_TEST_BIG", "2"))
ACCOUNT, PASSWORD = "round@localhost", "round trip"


def test_every_message_comes_back_octet_for_octet(server: Server) -> None:
    server.add_account(ACCOUNT, PASSWORD)
    chance = random.Random(7)
    sent: list[tuple[int, str]] = []
    big_at = {COUNT * (2 * step + 1) // (2 * BIG) for step in range(BIG)} if BIG else set()
    with smtp(server) as client:
        client.ehlo()
        for number, octets in enumerate(itertools.islice(shapes(1), COUNT)):
            content = attachment(number, chance, 22_000_000) if number in big_at else octets
            code, text = deliver(client, ACCOUNT, content)
            assert code == 250, (number, text)
            sent.append((len(content), digest(content)))
    _by_imap(server, sent)
    _by_pop3(server, sent)


def _stripped(octets: bytes, size: int) -> bytes:
    """Take off what delivery put in front: trace fields only, and exactly as much as the sizes differ."""
    assert len(octets) > size
    # The tail of ``size`` octets is compared by digest with what was sent, so cutting by size cannot hide a change.
    return without_trace(octets, octets[len(octets) - size :])


def _by_imap(server: Server, sent: list[tuple[int, str]]) -> None:
    session = imap(server, ACCOUNT, PASSWORD)
    assert session.select("INBOX", readonly=True)[1] == [b"%d" % len(sent)]
    for first in range(1, len(sent) + 1, 100):
        last = min(first + 99, len(sent))
        data = session.fetch(f"{first}:{last}", "(RFC822.SIZE BODY.PEEK[])")[1]
        items = [item for item in data if isinstance(item, tuple)]
        assert len(items) == last - first + 1
        for number, item in enumerate(items, first):
            announced = re.search(rb"RFC822.SIZE (\d+)", item[0])
            assert announced is not None
            assert int(announced[1]) == len(item[1])
            size, wanted = sent[number - 1]
            assert digest(_stripped(item[1], size)) == wanted, number
    session.logout()


def _by_pop3(server: Server, sent: list[tuple[int, str]]) -> None:
    host, port = server.address("pop3")
    session = poplib.POP3(host, port, timeout=120)
    # The longest line is the peer's choice in mail; poplib's own limit is for replies.
    poplib._MAXLINE = 1 << 20  # type: ignore[attr-defined]
    session.user(ACCOUNT)
    session.pass_(PASSWORD)
    assert session.stat()[0] == len(sent)
    for number, (size, wanted) in enumerate(sent, 1):
        lines = session.retr(number)[1]
        octets = b"\r\n".join(lines) + b"\r\n"
        assert digest(_stripped(octets, size)) == wanted, number
    session.quit()
