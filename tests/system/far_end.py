"""Debian's Postfix with a milter before it and our ear behind it: everything it accepts is relayed to `FarEnd`."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import smtplib
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.system.rig import needs_root, program

MAIN = """
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = front.example
mydestination =
relayhost = [127.0.0.1]:{far_port}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
alias_maps =
alias_database =
maillog_file = {log}
maillog_file_prefixes = /
smtp_tls_security_level = none
smtpd_tls_security_level = none
smtp_dns_support_level = disabled
smtp_host_lookup = native
message_size_limit = 0
mailbox_size_limit = 0
biff = no
smtpd_milters = {milter}
milter_default_action = tempfail
milter_protocol = 6
{more}
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Arrived(NamedTuple):
    """One message at the far end."""

    reverse_path: str
    recipients: list[str]
    octets: bytes

    @property
    def header(self) -> list[bytes]:
        """Fields, unfolded."""
        return re.sub(rb"\r\n[ \t]+", b" ", self.octets.partition(b"\r\n\r\n")[0]).split(b"\r\n")

    @property
    def body(self) -> bytes:
        return self.octets.partition(b"\r\n\r\n")[2]


class FarEnd:
    """An SMTP server that takes everything."""

    def __init__(self, port: int) -> None:
        self.arrived: list[Arrived] = []
        far_end = self

        class Dialogue(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                far_end._talk(self.rfile, self.wfile)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", port), Dialogue)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _talk(self, incoming: Any, outgoing: Any) -> None:
        reverse_path, recipients = "", []
        outgoing.write(b"220 far.example\r\n")
        for line in incoming:
            word = line[:4].upper()
            if word == b"EHLO":
                outgoing.write(b"250-far.example\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n")
                continue
            if word == b"MAIL":
                reverse_path, recipients = _path(line), []
            elif word == b"RCPT":
                recipients.append(_path(line))
            elif word == b"DATA":
                outgoing.write(b"354 go\r\n")
                lines = []
                for each in incoming:
                    if each == b".\r\n":
                        break
                    lines.append(each[1:] if each.startswith(b".") else each)
                self.arrived.append(Arrived(reverse_path, recipients, b"".join(lines)))
            outgoing.write(b"250 ok\r\n")
            if word == b"QUIT":
                return

    def wait_for(self, wanted: Callable[[Arrived], bool], seconds: float = 30) -> Arrived:
        """The first message that is wanted, as soon as it is here."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for each in list(self.arrived):
                if wanted(each):
                    return each
            time.sleep(0.02)
        raise AssertionError(f"nothing like it among {len(self.arrived)} messages")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _path(line: bytes) -> str:
    return re.sub(r".*<(.*)>.*", r"\1", line.decode().strip())


class Postfix:
    """Postfix of its own: queue, configuration and log in one folder."""

    def __init__(self, folder: Path, port: int, far_port: int, milter: str, more: str = "") -> None:
        program("postfix")
        needs_root("Postfix")
        self.folder, self.port = folder / "postfix", port
        queue, data = self.folder / "queue", self.folder / "data"
        for each in (self.folder, queue, data):
            each.mkdir()
        # pytest's folders are their owner's alone; Postfix's processes are another's.
        for each in (folder, *folder.parents):
            if each == Path(each.anchor) or each == Path("/tmp"):
                break
            each.chmod(each.stat().st_mode | 0o011)
        owner = pwd.getpwnam("postfix")
        os.chown(data, owner.pw_uid, owner.pw_gid)
        self.log = self.folder / "maillog"
        (self.folder / "main.cf").write_text(
            MAIN.format(queue=queue, data=data, log=self.log, far_port=far_port, milter=milter, more=more)
        )
        (self.folder / "master.cf").write_text(MASTER.format(port=port))
        started = self._run("postfix", "start")
        try:
            wait_for_port(port)
        except AssertionError:
            self._run("postfix", "stop")
            raise AssertionError(f"{started.stdout}{started.stderr}{self.output()}") from None

    def _run(self, word: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program(word), "-c", str(self.folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )

    def client(self) -> smtplib.SMTP:
        return smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.example", timeout=60)

    def held(self) -> list[bytes]:
        """Contents of the messages on hold, as Postfix tells of them, with CRLF."""
        files = [path for path in (self.folder / "queue" / "hold").rglob("*") if path.is_file()]
        arguments = [program("postcat"), "-c", str(self.folder), "-h", "-b"]
        told = [subprocess.run([*arguments, str(path)], capture_output=True, timeout=60, check=True) for path in files]
        return [done.stdout.replace(b"\n", b"\r\n") for done in told]

    def output(self) -> str:
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""

    def stop(self) -> None:
        self._run("postfix", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_for_port(port: int, seconds: float = 30, address: str = "127.0.0.1") -> None:
    """Until somebody listens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"nobody listens on {address}:{port}")
