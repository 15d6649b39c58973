"""Hostile rows that need other limits than the default: the server reads them from --config."""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import time
from collections.abc import Iterator

import pytest

from tests.system.hostile import Raw, spool_empties, unharmed
from tests.system.mail import deliver, fetch_all, imap, smtp
from tests.system.rig import Server


@pytest.fixture
def configured(fresh: Server) -> Iterator[Server]:
    """A server that has had its first run and is stopped, so that a test can configure and start it."""
    fresh.start()
    fresh.stop()
    return fresh


def _quick(times: list[float]) -> float:
    """The mean of the quicker half: what the machine did meanwhile only ever adds."""
    times = sorted(times)
    return statistics.fmean(times[: len(times) // 2])


def test_row_10_an_unknown_user_takes_as_long_as_a_wrong_password(configured: Server) -> None:
    configured.configure(
        auth={"failure_delay": 0.0, "remember_seconds": 0.0}, imap={"max_failed_logins": 1000, "login_timeout": 3600.0}
    )
    configured.start()
    raw = Raw(configured, "imap")
    texts: set[bytes] = set()
    known: list[float] = []
    unknown: list[float] = []

    def tried(name: str) -> float:
        began = time.perf_counter()
        answer = raw.tagged(f't LOGIN {name} "not the password"\r\n'.encode())
        took = time.perf_counter() - began
        assert answer.startswith(b"t NO"), answer
        texts.add(answer)
        return took

    for name in ("you@localhost", "nobody@localhost"):
        tried(name)
    ratio = 0.0
    # A leak stays a leak however often it is measured; what a busy machine adds does not come out thrice.
    for _ in range(3):
        for n in range(100):
            # Who goes first changes, so that neither has the warmer cache.
            for is_known in (True, False) if n % 2 else (False, True):
                (known if is_known else unknown).append(tried("you@localhost" if is_known else f"nobody{n}@localhost"))
        ratio = _quick(known) / _quick(unknown)
        if 0.95 < ratio < 1.05:
            break
    assert 0.95 < ratio < 1.05, (_quick(known), _quick(unknown))
    assert len(texts) == 1, texts


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
def test_row_15_a_body_over_the_limit_is_refused_and_nothing_is_stored(configured: Server, way: str) -> None:
    configured.configure(smtp={"max_message_octets": 100_000})
    configured.start()
    with unharmed(configured):
        for size, wanted in ((5_000_000, b"552 5.3.4"), (50_000, b"250")):
            # The server may close rather than read a chunk it will not take.
            raw = Raw(configured, "smtp")
            raw.ask(b"EHLO client.example")
            assert raw.ask(b"MAIL FROM:<a@example.org>").startswith(b"250")  # no SIZE
            assert raw.ask(b"RCPT TO:<you@localhost>").startswith(b"250")
            content = b"Subject: row 15\r\n\r\n" + (b"z" * 70 + b"\r\n") * (size // 72)
            if way == "DATA":
                assert raw.ask(b"DATA").startswith(b"354")
                answer = raw.ask(content + b".")
            else:
                answer = raw.ask(b"BDAT %d LAST\r\n%b" % (len(content), content[:-2]))
            assert answer.startswith(wanted), answer
            raw.close()
        assert len(fetch_all(imap(configured))) == 4
        assert spool_empties(configured)


LOGIN_SECONDS = 6.0
IDLE = int(os.environ.get("LIVEMAIL_TEST_IDLE", "1200"))


@contextlib.contextmanager
def _many_files(count: int) -> Iterator[None]:
    """Let this process, and those it starts, have that many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"this machine allows {hard} open files; {count} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _closed_within(raws: list[Raw], seconds: float) -> int:
    """How many of the connections the server has closed by then."""
    deadline = time.monotonic() + seconds
    closed = 0
    for raw in raws:
        raw.socket.settimeout(max(0.01, deadline - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            try:
                while raw.socket.recv(4096):
                    pass
            except ConnectionError:
                pass
            closed += 1
    return closed


def test_row_30_idle_strangers_do_not_stop_others_and_are_sent_away(configured: Server) -> None:
    configured.configure(
        smtp={"idle_timeout": LOGIN_SECONDS},
        imap={"login_timeout": LOGIN_SECONDS},
        pop3={"login_timeout": LOGIN_SECONDS},
    )
    services = ("smtp", "imap", "pop3")
    with _many_files(IDLE + 500):
        configured.start()
        imap(
            configured
        ).logout()  # Its password is known from here on: to hash it again takes as much memory as thousands of guests.
        with unharmed(configured):
            idle = [Raw(configured, services[n % 3], greeting=False) for n in range(IDLE)]
            slow = [Raw(configured, service) for service in services]
            began = time.monotonic()
            with smtp(configured) as client:
                client.ehlo()
                assert deliver(client, "you@localhost", b"Subject: row 30\r\n\r\nx\r\n")[0] == 250
            session = imap(configured)
            assert len(fetch_all(session)) == 4
            assert time.monotonic() - began < 5
            # An octet now and then makes nobody a guest.
            while time.monotonic() - began < LOGIN_SECONDS + 4:
                for raw in slow:
                    raw.send(b"x")
                time.sleep(0.5)
            assert _closed_within(slow, 2) == len(slow)
            assert _closed_within(idle, 30) == IDLE
            assert session.noop()[0] == "OK"  # who has logged in stays
        for raw in (*idle, *slow):
            raw.close()
