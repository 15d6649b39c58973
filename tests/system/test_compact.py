"""`livemail store compact`, beside the running server and without one."""

from __future__ import annotations

import json

from tests.system.mail import fetch_all, imap
from tests.system.rig import Server
from tests.system.test_backup import everything, send


def expunge_most(server: Server) -> None:
    client = imap(server)
    client.select("INBOX")
    _, (found,) = client.uid("SEARCH", "NOT SUBJECT 7")
    client.uid("STORE", found.replace(b" ", b",").decode(), "+FLAGS.SILENT", "(\\Deleted)")
    client.expunge()
    client.logout()


def octets_on_disk(server: Server) -> int:
    return sum(path.stat().st_size for path in (server.data / "store" / "shard-00" / "seg").glob("*.seg"))


def test_space_comes_back_beside_the_running_server_and_without_one(fresh: Server) -> None:
    fresh.start()
    send(fresh, *(f"m{number}" for number in range(40)))
    watching = imap(fresh)
    watching.select("INBOX")
    expunge_most(fresh)
    kept = everything(fresh)
    assert len(kept) == 4
    before = octets_on_disk(fresh)
    # What was expunged can come back, and takes its room until it is let go.
    early = fresh.livemail("store", "compact")
    assert "deleted mail that can come back" in early.stdout, early.stdout + early.stderr
    assert octets_on_disk(fresh) == before
    purged = fresh.livemail("message", "purge", "--account", "you", "--all", "--yes")
    assert purged.returncode == 0, purged.stderr
    beside = fresh.livemail("store", "compact", "--json")
    assert beside.returncode == 0, beside.stdout + beside.stderr
    report = json.loads(beside.stdout)
    assert (report["before"], report["after"]) == (before, octets_on_disk(fresh))
    assert report["before"] - report["after"] == report["returned"] > before / 2
    watching.noop()
    assert fetch_all(watching) == kept == everything(fresh)
    watching.logout()

    send(fresh, *(f"n{number}" for number in range(40)))
    expunge_most(fresh)
    assert fresh.livemail("message", "purge", "--account", "you", "--all", "--yes").returncode == 0
    kept = everything(fresh)
    wrong = fresh.livemail("store", "compact", "--over", "101")
    assert (wrong.returncode, "from 0 to 100" in wrong.stderr) == (64, True)
    fresh.stop()
    without = fresh.livemail("store", "compact", "--over", "20")
    assert without.returncode == 0, without.stderr
    assert "1 segment gone" in without.stdout, without.stdout
    assert octets_on_disk(fresh) < before
    checked = fresh.livemail("store", "check")
    assert checked.returncode == 0, checked.stdout
    fresh.start()
    assert everything(fresh) == kept
