"""livemail as a stranger runs it: the local profile, a data folder of its own, accounts added in one batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.ground import PASSWORD, Process, wait_for
from bench.peers import users

BIN = Path(sys.executable).parent
DOMAIN = "localhost"


class Livemail:
    """The server, and where it listens, read from its own first-run.txt."""

    def __init__(self, folder: Path) -> None:
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
        batch = folder / "accounts.tsv"
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
