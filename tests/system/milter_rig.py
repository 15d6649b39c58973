"""``twistd livemail milter`` as a process, and other people's milters."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.system.far_end import wait_for_port
from tests.system.rig import BIN, needs_root, program

PORTS = {"milter": 18101, "postfix": 18102, "far": 18103, "opendkim": 18104, "rspamd": 18105}
"""Loopback, below the ephemeral range, and no other test's."""


class LivemailMilter:
    """livemail's filters as a milter on `PORTS["milter"]`."""

    def __init__(self, folder: Path, arguments: Sequence[str], modules: Path | None = None, port: int = 0) -> None:
        """modules: a folder with filters of the test's own."""
        self.port = port or PORTS["milter"]
        self.log = folder / "milter.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LIVEMAIL_")}
        environment["LIVEMAIL_DATA"] = str(folder / "milter-data")
        if modules is not None:
            environment["PYTHONPATH"] = str(modules)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(BIN / "twistd"), "--nodaemon", "--pidfile=", "livemail", "milter",
                 "--listen", f"inet:{self.port}@127.0.0.1", *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder,
            )  # fmt: skip
        try:
            wait_for_port(self.port)
        except AssertionError:
            self.stop()
            raise AssertionError(self.output()) from None

    def output(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()


class Daemon:
    """A foreign milter in the foreground."""

    def __init__(
        self, folder: Path, name: str, arguments: Sequence[str], port: int, address: str = "127.0.0.1"
    ) -> None:
        needs_root(name)
        self._name = name
        self.log = folder / f"{name}.out"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [program(name), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        try:
            wait_for_port(port, address=address)
        except AssertionError:
            self.stop()
            raise AssertionError(self.log.read_text(errors="replace")[-3000:]) from None

    def stop(self) -> None:
        if self._name != "opendkim":  # which takes five seconds to go
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        self.process.kill()
        self.process.wait()


def opendkim(folder: Path, settings: dict[str, str]) -> Daemon:
    """OpenDKIM on `PORTS["opendkim"]`."""
    lines = {
        "UserID": "root",
        "Syslog": "no",
        "RequireSafeKeys": "no",
        "InternalHosts": "0.0.0.0/0",
        "Background": "no",
    }
    file = folder / "opendkim.conf"
    file.write_text("".join(f"{name} {value}\n" for name, value in (lines | settings).items()))
    port = PORTS["opendkim"]
    return Daemon(folder, "opendkim", ["-f", "-x", str(file), "-p", f"inet:{port}@127.0.0.1"], port)


def rspamd(folder: Path) -> Daemon:
    """rspamd on `PORTS["rspamd"]`: no rules, only its own test patterns, so that it starts in a second."""
    place = folder / "rspamd"
    place.mkdir()
    (place / "tld").write_text("com\norg\nexample\n")
    (place / "rspamd.conf").write_text(
        f"""
options {{
  pidfile = "{place}/pid"; url_tld = "{place}/tld"; filters = ""; hs_cache_dir = "{place}"; temp_dir = "{place}";
  stats_file = "{place}/stats"; disable_hyperscan = true; gtube_patterns = "all"; enable_test_patterns = true;
  dns {{ nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; }}
}}
logging {{ type = "file"; filename = "{place}/log"; level = "info"; }}
metric {{ name = "default"; actions {{ reject = 15; add_header = 6; }} }}
worker "rspamd_proxy" {{
  bind_socket = "127.0.0.1:{PORTS["rspamd"]}"; milter = yes; count = 1; timeout = 30s;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
"""
    )
    return Daemon(
        folder, "rspamd", ["-f", "-i", "-c", str(place / "rspamd.conf"), "-u", "root", "-g", "root"], PORTS["rspamd"]
    )
