"""A clock that went back while the server was down: what may only rise, rises."""

from __future__ import annotations

import imaplib
import re

from tests.system.mail import imap
from tests.system.rig import Server, program


def _numbers(session: imaplib.IMAP4, mailbox: str) -> dict[str, int]:
    told = session.status(mailbox, "(UIDNEXT UIDVALIDITY HIGHESTMODSEQ)")[1][0]
    assert isinstance(told, bytes)
    return {name: int(number) for name, number in re.findall(r"([A-Z]+) (\d+)", told.decode())}


def test_uidvalidity_uids_and_modseqs_never_go_back(fresh: Server) -> None:
    program("faketime")
    fresh.start()
    session = imap(fresh)
    session.create("again")
    for _ in range(2):
        session.append("again", None, None, b"Subject: x\r\n\r\nx\r\n")  # type: ignore[arg-type]
    before, inbox = _numbers(session, "again"), _numbers(session, "INBOX")
    session.delete("again")
    session.logout()
    fresh.stop()

    fresh.start(under=["faketime", "-m", "-f", "-3d"])
    session = imap(fresh)
    session.create("again")
    after = _numbers(session, "again")
    assert after["UIDVALIDITY"] > before["UIDVALIDITY"]
    assert after["HIGHESTMODSEQ"] > before["HIGHESTMODSEQ"]
    session.append("INBOX", None, None, b"Subject: x\r\n\r\nx\r\n")  # type: ignore[arg-type]
    now = _numbers(session, "INBOX")
    assert now["UIDVALIDITY"] == inbox["UIDVALIDITY"]
    assert now["UIDNEXT"] == inbox["UIDNEXT"] + 1
    assert now["HIGHESTMODSEQ"] > after["HIGHESTMODSEQ"]
    session.logout()
    assert fresh.livemail("store", "check").returncode == 0
