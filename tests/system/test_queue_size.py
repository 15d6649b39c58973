"""A queue of very many recipients takes memory for those it works on, not for those that wait.

LIVEMAIL_TEST_QUEUED sets how many wait (default 20,000; the acceptance run uses 1000000), over 500 domains.  The next hop
is down, so every one of them is known to the runner as late as it may be.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time

from tests.system.rig import Server, free_offset

QUEUED = int(os.environ.get("LIVEMAIL_TEST_QUEUED", "20000"))
EACH = 500
"""Recipients a message."""

GROWTH = 48 * 1024
"""KiB of memory of its own (no mapped file) that both processes together may have more of than at rest."""

USER, PASSWORD = "many@localhost", "a million wait"


class Submitter(threading.Thread):
    """Submits messages in pipelined groups."""

    def __init__(self, server: Server, first: int, count: int) -> None:
        super().__init__(daemon=True)
        self.numbers = range(first, first + count, EACH)
        self.socket = socket.create_connection(server.address("submission"), 60)
        self.replies = self.socket.makefile("rb")
        self.taken = 0
        self.error: BaseException | None = None
        # Before anything is measured: to hash a password takes 64 MiB for a moment.
        self.reply(b"220")
        self.say(b"EHLO many", b"250")
        self.say(b"AUTH PLAIN " + base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()), b"235")

    def reply(self, code: bytes) -> None:
        line = self.replies.readline()
        while line[3:4] == b"-":
            line = self.replies.readline()
        assert line.startswith(code), line

    def say(self, line: bytes, code: bytes) -> None:
        self.socket.sendall(line + b"\r\n")
        self.reply(code)

    def run(self) -> None:
        try:
            for first in self.numbers:
                lines = [f"MAIL FROM:<{USER}>"]
                lines += [f"RCPT TO:<u{n}@d{n % 500}.example>" for n in range(first, first + EACH)]
                self.socket.sendall("\r\n".join([*lines, "DATA", ""]).encode())
                for _ in lines:
                    self.reply(b"250")
                self.reply(b"354")
                self.say(b"Subject: to many %d\r\n\r\n%b\r\n." % (first, b"x" * 1000), b"250")
                self.taken += EACH
        except BaseException as error:  # the test's thread tells it
            self.error = error
        finally:
            self.socket.close()


def _waiting(server: Server) -> int:
    told = server.livemail("queue", "stats", "--json", seconds=120)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)["recipients"]
    return sum(found[state] for state in ("queued", "deferred", "claimed", "held"))


def test_memory_is_that_of_a_short_queue(fresh: Server) -> None:
    fresh.start()
    fresh.add_account(USER, PASSWORD)
    fresh.stop()
    fresh.configure(
        delivery={"capture_outbound": False},
        relay={"smarthost": f"127.0.0.1:{free_offset() + 2526}"},
        submission={"max_recipients": EACH},
    )
    fresh.arguments = ["--config", str(fresh.data.parent / f"{fresh.data.name}.toml")]
    fresh.start()
    share = QUEUED // 4
    clients = [Submitter(fresh, number * share, share) for number in range(4)]
    at_rest = fresh.memory("RssAnon")
    began = time.monotonic()
    for client in clients:
        client.start()
    most = at_rest
    while any(client.is_alive() for client in clients):
        most = max(most, fresh.memory("RssAnon"))
        time.sleep(0.1)
    accepted = time.monotonic() - began
    assert [client.error for client in clients] == [None] * 4
    assert sum(client.taken for client in clients) == QUEUED
    began = time.monotonic()
    waiting = _waiting(fresh)
    counted = time.monotonic() - began
    assert waiting == QUEUED
    listed = fresh.livemail("queue", "list", "--limit", "3", "--domain", "d7.example", "--json")
    assert listed.returncode == 0, listed.stderr
    most = max(most, fresh.memory("RssAnon"))
    fresh.stop()
    restarted = fresh.start()
    most = max(most, fresh.memory("RssAnon"))
    assert _waiting(fresh) == QUEUED
    print(  # noqa: T201
        f"{QUEUED:,} recipients wait: taken in {accepted:.0f} s, memory {at_rest / 1024:.0f} MiB at rest and"
        f" {most / 1024:.0f} MiB at most, stats in {counted:.1f} s, start in {restarted:.1f} s"
    )
    assert most - at_rest < GROWTH
    dropped = fresh.livemail("queue", "drop", "--domain", "d7.example", "--yes", "--json", seconds=300)
    assert dropped.returncode == 0, dropped.stderr
    assert _waiting(fresh) == QUEUED - QUEUED // 500
    fresh.stop()
