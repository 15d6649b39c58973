"""Durable ingest: SMTP in, until every message is visible in its mailbox by IMAP.  Client: Postfix's smtp-source."""

from __future__ import annotations

import contextlib
import hashlib
import re
import statistics
import subprocess
import time
from pathlib import Path

from bench.ground import PASSWORD, BenchError, busy_elsewhere, children_cpu, count_messages, say
from bench.imap import IMAP
from bench.ours import DOMAIN as OUR_DOMAIN
from bench.ours import Livemail
from bench.peers import DOMAIN as PEER_DOMAIN
from bench.peers import Dovecot, Postfix, users
from bench.table import Figures, render

PATIENCE = 600.0
NOISE_CORES = 0.2
"""Other programs' share of the machine from which on the table says so."""


def one_run(smtp: tuple[str, int], imap: tuple[str, int], domain: str, count: int, size: int) -> tuple[float, float]:
    """Send ``count`` messages over one kept connection per user; return (seconds until visible, client's CPU seconds)."""
    names = users()
    before = count_messages(imap, names)
    each = count // len(names)
    cpu = children_cpu()
    began = time.monotonic()
    clients = [
        subprocess.Popen(
            ["smtp-source", "-4", "-s", "1", "-d", "-m", str(each), "-l", str(size), "-M", "bench.test",
             "-f", "sender@bench.test", "-t", f"{name}@{domain}", f"{smtp[0]}:{smtp[1]}"],
            stderr=subprocess.PIPE, text=True,
        )
        for name in names
    ]  # fmt: skip
    for client in clients:
        _, errors = client.communicate()
        if client.returncode:
            raise BenchError(f"smtp-source: {errors}")
    wanted = before + each * len(names)
    while (seen := count_messages(imap, names)) < wanted:
        if time.monotonic() - began > PATIENCE:
            raise BenchError(f"{wanted - seen} of {each * len(names)} messages never became visible")
        time.sleep(0.02)
    elapsed = time.monotonic() - began
    if seen != wanted:
        raise BenchError(f"{seen - before} messages visible, {wanted - before} were sent")
    return elapsed, children_cpu() - cpu


def digests(imap: tuple[str, int]) -> set[str]:
    """SHA-256 of every message's body in one mailbox."""
    found = set()
    with IMAP(imap, users()[0], PASSWORD) as session:
        session.command("EXAMINE INBOX")
        answer = session.command("UID FETCH 1:* (BODY.PEEK[TEXT])")
        for literal in re.finditer(rb"BODY\[TEXT\] \{(\d+)\}\r\n", answer):
            body = answer[literal.end() : literal.end() + int(literal[1])]
            found.add(hashlib.sha256(body).hexdigest())
    return found


def measure(folder: Path, *, runs: int, count: int, size: int) -> list[str]:
    """Both servers run by run in turn, so that what else the machine does meets both; the table."""
    peer, ours = Figures("Postfix → Dovecot"), Figures("livemail")
    with contextlib.ExitStack() as running:
        dovecot = Dovecot(folder)
        running.callback(dovecot.stop)
        postfix = Postfix(folder)
        running.callback(postfix.stop)
        livemail = Livemail(folder)
        running.callback(livemail.stop)
        # The peer gets a quarter: a run of either lasts seconds.
        turns = (
            (peer, postfix.smtp, dovecot.imap, PEER_DOMAIN, count // 4),
            (ours, livemail.smtp, livemail.imap, OUR_DOMAIN, count),
        )
        elsewhere = []
        for number in range(runs + 1):
            # Who goes first changes: what one leaves in the caches and the disk's queue meets the other.
            for figures, smtp, imap, domain, messages in turns if number % 2 else reversed(turns):
                elsewhere.append(busy_elsewhere())
                seconds, cpu = one_run(smtp, imap, domain, messages, size)
                say(f"bench: {figures.name} run {number}: {messages / seconds:,.0f} messages/s")
                if number:  # the first run warms up
                    figures.rates.append(messages / seconds)
                    figures.client.append(cpu / seconds)
        our_digests, peer_digests = digests(livemail.imap), digests(dovecot.imap)
    if our_digests != peer_digests:
        raise BenchError(f"bodies differ: {len(our_digests)} digests here, {len(peer_digests)} at the peer")
    bound = 8.0 if size == 4096 else None
    lines = render(f"Durable ingest, {size} octets, {len(users())} connections", "messages/s", ours, peer, bound)
    if max(elsewhere) > NOISE_CORES:
        lines.append(
            f"  other programs kept {statistics.median(elsewhere):.1f} cores busy between the runs, up to"
            f" {max(elsewhere):.1f}: both figures are those of a busy machine"
        )
    return lines
