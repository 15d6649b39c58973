"""Fuzz target: whatever a client sends, the session answers or ends, and never says SERVERBUG."""

from __future__ import annotations

import re

from tests.imap.rig import Client, Rig

MESSAGE = b"From: a@example.org\r\nSubject: hello\r\nContent-Type: text/plain\r\n\r\ntext\r\n"


def client_in(state: int) -> Client:
    """0: before login; 1: after; 2 and 3: INBOX selected."""
    rig = Rig(max_bad_commands=50, append_limit=1000, literal_limit=1000, idle_keep_alive=0.0)
    rig.append("INBOX", MESSAGE, MESSAGE)
    client = rig.connect()
    client.take()
    if state:
        client.login()
    if state > 1:
        client.ok(b"SELECT INBOX")
    return client


def fuzz_one(data: bytes) -> None:
    """The first octet chooses the state; the rest is sent, then a NOOP."""
    if not data:
        return
    client = client_in(data[0] % 4)
    answer = client.send(data[1:])
    answer += client.send(b"\r\n")
    assert b"SERVERBUG" not in answer, answer
    if client.is_closed:
        assert client.transport.disconnected or re.search(rb"^\* BYE ", answer, re.MULTILINE), answer
    session = client.connection.session
    client.lose()
    assert session.login is None
    assert session.upload is None
