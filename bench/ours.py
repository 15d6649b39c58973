"""livemail as a stranger runs it: the local profile, a data folder of its own, accounts added in one batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench.ground import PASSWORD, Process, wait_for
from bench.peers import DOMAIN as PEER_DOMAIN
from bench.peers import users

BIN = Path(sys.executable).parent
DOMAIN = "localhost"
RELAY_PORT = 11525


class Livemail:
    """The server, and where it listens, read from its own first-run.txt."""

    def __init__(self, folder: Path, *, is_new: bool = True) -> None:
        """is_new: the accounts are to be made."""
        self.data = folder / "livemail"
        self.process = Process(
            [str(BIN / "twistd"), "--nodaemon", "--pidfile=", "livemail", "run"],
            folder / "livemail.log",
            {"LIVEMAIL_DATA": str(self.data)},
        )
        wait_for(("127.0.0.1", 2143), self.process, "livemail")
        lines = (self.data / "first-run.txt").read_text().splitlines()
        self.facts = dict(line.split(": ", 1) for line in lines if ": " in line)
        self.smtp = self._address("smtp")
        self.imap = self._address("imap")
        if is_new:
            self._add_accounts(folder / "accounts.tsv")

    def _add_accounts(self, batch: Path) -> None:
        batch.write_text("".join(f"{user}\t{PASSWORD}\n" for user in users()))
        batch.chmod(0o600)
        subprocess.run(
            [str(BIN / "livemail"), "--data", str(self.data), "account", "add", "--batch", str(batch)],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def _address(self, service: str) -> tuple[str, int]:
        host, _, port = self.facts[service].rpartition(":")
        return host, int(port)

    def stop(self) -> None:
        self.process.stop()


CONFIGURATION = """
data = "{data}"
hostname = "livemail.bench.test"
[[listen]]
service = "smtp"
address = "127.0.0.1:{port}"
[directory]
local_domains = ["livemail.bench.test"]
backup_domains = ["{domain}"]
[relay]
smarthost = "127.0.0.1:{hop}"
tls = "{tls}"
"""


class Relaying:
    """livemail that relays a domain's mail to one next hop, unchanged, as Postfix does beside it."""

    def __init__(self, folder: Path, port: int, *, tls: bool) -> None:
        self.smtp = ("127.0.0.1", RELAY_PORT)
        data = folder / "livemail-relay"
        data.mkdir(mode=0o700)
        self.configuration = folder / "livemail-relay.toml"
        self.configuration.write_text(
            CONFIGURATION.format(
                data=data,
                port=RELAY_PORT,
                domain=PEER_DOMAIN,
                hop=port,
                tls="encrypt" if tls else "none",
            )
        )
        self.process = Process(
            [str(BIN / "twistd"), "--nodaemon", "--pidfile=", "livemail", "run", "--config", str(self.configuration)],
            folder / "livemail-relay.log",
        )
        wait_for(self.smtp, self.process, "livemail")
        self.pid = self.process.child.pid

    def queued(self) -> int:
        """Messages in its queue."""
        told = subprocess.run(
            [str(BIN / "livemail"), "--config", str(self.configuration), "queue", "stats", "--json"],
            check=True,
            capture_output=True,
        )
        return int(json.loads(told.stdout)["messages"])

    def stop(self) -> None:
        self.process.stop()
