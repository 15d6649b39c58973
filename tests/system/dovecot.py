"""Debian's Dovecot on a Maildir that belongs to whoever runs the tests."""

from __future__ import annotations

import contextlib
import imaplib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.system.rig import program

CONFIGURATION = """\
protocols = imap
listen = 127.0.0.1
base_dir = {run}
state_dir = {run}/state
log_path = {run}.log
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
first_valid_uid = 1
mail_location = maildir:{maildir}
namespace inbox {{
  inbox = yes
  separator = /
}}
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = nobody
passdb {{
  driver = static
  args = password=x
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={run} allow_all_users=yes
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""


class Dovecot:
    """One server over one Maildir.  It refuses to read mail as root, so a user namespace calls us nobody."""

    def __init__(self, folder: Path, maildir: Path) -> None:
        folder.mkdir(parents=True)
        run = folder / "run"
        run.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        configuration = folder / "dovecot.conf"
        configuration.write_text(CONFIGURATION.format(run=run, maildir=maildir, port=self.port))
        self._log = folder / "run.log"
        self._process = subprocess.Popen(
            [program("unshare"), "--user", "--map-user=65534", "--map-group=65534", program("dovecot"), "-F", "-c",
             str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 2) as connection:
                connection.settimeout(5)
                if connection.recv(1):
                    return
            time.sleep(0.05)
        raise AssertionError(f"Dovecot did not greet:\n{self.log()}")

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def imap(self) -> imaplib.IMAP4:
        client = imaplib.IMAP4("127.0.0.1", self.port, timeout=30)
        client.login("any", "x")
        return client

    def stop(self) -> None:
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
