"""The real program: ``twistd -n livemail run``, stopped by a signal in mid-transaction."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import livemail
from livemail.config import LOCAL_PORTS
from tests.system.rig import free_offset

RUN = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"


@pytest.mark.system
def test_sigterm_drains_within_bounds_and_ends_with_status_0(tmp_path: Path) -> None:
    root = Path(livemail.__file__).parents[1]
    offset = free_offset()
    environment = {**os.environ, "LIVEMAIL_DATA": str(tmp_path), "LIVEMAIL_PORT_OFFSET": str(offset)}
    server = subprocess.Popen(
        [sys.executable, "-c", RUN, "-n", "--pidfile=", "livemail", "run"],
        cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("livemail runs")
        with socket.create_connection(("127.0.0.1", LOCAL_PORTS["smtp"] + offset), 10) as idle:
            idle.settimeout(20)
            with socket.create_connection(("127.0.0.1", LOCAL_PORTS["smtp"] + offset), 10) as busy:
                busy.settimeout(20)
                talk = busy.makefile("rwb", buffering=0)
                assert talk.readline().startswith(b"220")
                assert idle.recv(512).startswith(b"220")
                for command in (b"HELO x", b"MAIL FROM:<a@example.org>", b"RCPT TO:<you@localhost>", b"DATA"):
                    talk.write(command + b"\r\n")
                    assert talk.readline()[:1] in b"23"
                server.send_signal(signal.SIGHUP)
                server.send_signal(signal.SIGTERM)
                assert idle.recv(512).startswith(b"421")
                talk.write(b"Subject: kept\r\n\r\nIt counts.\r\n.\r\n")
                assert talk.readline().startswith(b"250")
                assert talk.readline().startswith(b"421")
        _, errors = server.communicate(timeout=30)
        assert server.returncode == 0, errors
        assert "Traceback" not in errors
    finally:
        server.kill()
    shown = subprocess.run(
        [sys.executable, "-m", "livemail", "--data", str(tmp_path), "--json", "account", "show", "you"],
        cwd=root, env=environment, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert '"INBOX", "messages": 4' in shown.stdout
