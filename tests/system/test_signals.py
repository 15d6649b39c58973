"""SIGHUP: the log file and the certificates, read again while connections stay."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from livemail.net.tls import local_ca
from tests.system.mail import imap
from tests.system.rig import Server


def _becomes_true(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def _certificate(server: Server) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(server.address("imaps"), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as encrypted,
    ):
        shown = encrypted.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def _lay(made: Path, place: Path) -> None:
    place.mkdir(exist_ok=True)
    for name in ("server.pem", "server-key.pem"):
        shutil.copy(made / name, place / name)


def test_sighup_reopens_the_log_and_takes_a_renewed_certificate(fresh: Server, tmp_path: Path) -> None:
    fresh.start()
    fresh.stop()
    files, log = tmp_path / "files", tmp_path / "mail.log"
    for name in ("one", "two"):
        local_ca(tmp_path / name)
    _lay(tmp_path / "one", files)
    fresh.configure(
        tls={"local_ca": False, "certificate": str(files / "server.pem"), "key": str(files / "server-key.pem")},
        log={"file": str(log)},
    )
    fresh.start()
    waiting = imap(fresh)
    first = _certificate(fresh)

    log.rename(tmp_path / "mail.log.1")
    _lay(tmp_path / "two", files)
    os.kill(fresh.pid, signal.SIGHUP)
    assert _becomes_true(lambda: log.exists() and "reloaded" in log.read_text())
    second = _certificate(fresh)
    assert second != first
    assert "Traceback" not in log.read_text()

    (files / "server.pem").write_text("not a certificate")
    os.kill(fresh.pid, signal.SIGHUP)
    assert _becomes_true(lambda: "no certificate in PEM form in it" in log.read_text())
    assert _certificate(fresh) == second
    assert waiting.noop()[0] == "OK"
    assert fresh.stop() == 0
