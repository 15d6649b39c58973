"""Debian's Postfix as a peer: it takes mail by its sendmail command and by SMTP on a port of its own, and sends everything to one next hop."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import time
from pathlib import Path

from tests.system.rig import program, run

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.example
mydestination =
relayhost = {next_hop}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_recipient_restrictions = permit_mynetworks, reject
smtputf8_enable = yes
alias_maps =
alias_database =
local_recipient_maps =
maillog_file = {folder}/maillog
maillog_file_prefixes = /
smtp_tls_security_level = none
smtpd_tls_security_level = none
smtp_host_lookup = native
disable_dns_lookups = yes
biff = no
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """A running Postfix.  Needs root, as Postfix does."""

    def __init__(self, folder: Path, port: int, next_hop: str) -> None:
        """folder: new, on a short path that everybody may enter.  next_hop: as ``relayhost``, ``[127.0.0.1]:2525``."""
        self.folder = folder
        self.port = port
        folder.mkdir(mode=0o755)
        for name in ("queue", "data"):
            (folder / name).mkdir(mode=0o755)
        owner = pwd.getpwnam("postfix")
        os.chown(folder / "data", owner.pw_uid, owner.pw_gid)
        (folder / "main.cf").write_text(MAIN.format(folder=folder, next_hop=next_hop))
        (folder / "master.cf").write_text(MASTER.format(port=port))
        started = run([program("postfix"), "-c", folder, "start"])
        assert started.returncode == 0, started.stderr + started.stdout

    @property
    def log(self) -> str:
        """What it logged so far."""
        file = self.folder / "maillog"
        return file.read_text(errors="replace") if file.exists() else ""

    def sendmail(self, message: bytes, *arguments: str) -> None:
        """Submit by its sendmail command."""
        done = subprocess.run(
            [program("sendmail"), "-C", str(self.folder), *arguments],
            input=message, capture_output=True, timeout=30, check=False, env={**os.environ, "MAIL_CONFIG": str(self.folder)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def wait_for(self, pattern: str, seconds: float = 30) -> str:
        """Wait until a line of the log matches; return it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = re.search(f"^.*{pattern}.*$", self.log, re.MULTILINE)
            if found:
                return found[0]
            time.sleep(0.05)
        raise AssertionError(f"Postfix never logged {pattern!r}:\n{self.log}")

    def stop(self) -> None:
        """Stop, and wait for it."""
        run([program("postfix"), "-c", self.folder, "stop"])
