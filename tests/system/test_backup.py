"""Backup, loss, restore: by the command, beside the running server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lmdb
import pyrage

from tests.system.mail import deliver, fetch_all, imap, smtp
from tests.system.rig import Server


def send(server: Server, *subjects: str) -> None:
    with smtp(server) as client:
        client.ehlo()
        for subject in subjects:
            octets = f"Subject: {subject}\r\nMessage-ID: <{subject}@x>\r\n\r\n{subject}\r\n".encode()
            assert deliver(client, "you@localhost", octets)[0] == 250


def everything(server: Server) -> dict[int, bytes]:
    client = imap(server)
    try:
        return fetch_all(client)
    finally:
        client.logout()


def test_a_store_that_was_lost_comes_back_from_its_backup(fresh: Server, tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(f"{identity}\n")
    fresh.start()
    send(fresh, *(f"m{number}" for number in range(30)))
    made = fresh.livemail("store", "backup", str(tmp_path / "b"), "--recipient", str(identity.to_public()))
    assert made.returncode == 0, made.stderr
    send(fresh, "late")
    again = fresh.livemail("store", "backup", str(tmp_path / "b"), "--json")
    report = json.loads(again.stdout)
    assert (report["generation"], report["messages"]) == (2, 34)
    before = everything(fresh)
    send(fresh, "after")

    assert fresh.livemail("store", "verify", str(tmp_path / "b")).stdout == "no problems\n"
    verified = fresh.livemail("store", "verify", str(tmp_path / "b"), "--identity", str(tmp_path / "key"))
    assert verified.stdout == "no problems\n", verified.stdout + verified.stderr
    in_the_way = fresh.livemail("store", "restore", str(tmp_path / "b"), "--to", str(fresh.data))
    assert in_the_way.returncode == 1
    assert "has a mail store" in in_the_way.stderr

    fresh.kill()
    shutil.rmtree(fresh.data / "store")
    keyless = fresh.livemail("store", "restore", str(tmp_path / "b"), "--to", str(fresh.data))
    assert "--identity FILE" in keyless.stderr
    restored = fresh.livemail(
        "store", "restore", str(tmp_path / "b"), "--to", str(fresh.data), "--identity", str(tmp_path / "key")
    )
    assert restored.returncode == 0, restored.stderr
    fresh.start()
    assert everything(fresh) == before
    send(fresh, "new")
    checked = fresh.livemail("store", "check")
    assert checked.returncode == 0, checked.stdout


def test_an_account_gets_back_what_it_lost_beside_the_running_server(fresh: Server, tmp_path: Path) -> None:
    fresh.start()
    send(fresh, "one", "two", "three")
    assert fresh.livemail("store", "backup", str(tmp_path / "b")).returncode == 0
    client = imap(fresh)
    client.select("INBOX")
    _, (found,) = client.uid("SEARCH", "OR SUBJECT two SUBJECT three")
    client.uid("STORE", found.replace(b" ", b",").decode(), "+FLAGS.SILENT", "(\\Deleted)")
    client.expunge()
    for arguments, count in ((["--message", "<two@x>"], 1), (["--mailbox", "INBOX"], 1), ([], 0)):
        done = fresh.livemail("store", "restore", str(tmp_path / "b"), "--account", "you", *arguments, "--json")
        assert json.loads(done.stdout)["imported"] == count, done.stdout + done.stderr
    client.noop()
    for subject in ("one", "two", "three"):
        _, (found,) = client.search(None, "SUBJECT", subject)
        assert len(found.split()) == 1
    nobody = fresh.livemail("store", "restore", str(tmp_path / "b"), "--account", "ghost")
    assert nobody.returncode == 67
    usage = fresh.livemail("store", "restore", str(tmp_path / "b"), "--mailbox", "INBOX", "--to", str(tmp_path / "n"))
    assert usage.returncode == 64


def test_repair_plans_beside_the_server_and_works_without_it(fresh: Server) -> None:
    fresh.start()
    send(fresh, "one", "two")
    before = everything(fresh)
    sound = fresh.livemail("store", "repair", "--dry-run")
    assert (sound.returncode, sound.stdout) == (0, "nothing to repair\n")
    running = fresh.livemail("store", "repair")
    assert running.returncode == 75
    assert "stop it, repair" in running.stderr
    fresh.stop()
    shard = fresh.data / "store" / "shard-00"
    with lmdb.open(str(shard), max_dbs=64, map_size=1 << 40, lib_version=0) as index:
        for table in (b"mcnt", b"cache"):
            handle = index.open_db(table, create=False)
            with index.begin(write=True) as txn:
                cursor = txn.cursor(handle)
                cursor.first()
                cursor.delete()
    assert fresh.livemail("store", "check").returncode == 1
    plan = fresh.livemail("store", "repair", "--dry-run", "--json")
    assert plan.returncode == 1
    assert {each["kind"] for each in json.loads(plan.stdout)} >= {"mailbox-counters", "cache-row"}
    assert fresh.livemail("store", "check").returncode == 1
    assert fresh.livemail("store", "repair").returncode == 0
    checked = fresh.livemail("store", "check")
    assert checked.returncode == 0, checked.stdout
    fresh.start()
    after = everything(fresh)
    assert after.keys() == before.keys()
    # The first message's delivery prefix was in the row that was lost.
    assert [octets for uid, octets in after.items() if uid > 1] == [octets for uid, octets in before.items() if uid > 1]


def test_mail_that_came_after_an_index_which_is_put_back_is_told_and_brought_to_lost_and_found(fresh: Server) -> None:
    fresh.start()
    send(fresh, "before")
    fresh.stop()
    index = fresh.data / "store/shard-00/data.mdb"
    older = index.read_bytes()
    fresh.start()
    send(fresh, "one", "two")
    late = [octets for octets in everything(fresh).values() if octets.endswith((b"\none\r\n", b"\ntwo\r\n"))]
    fresh.kill()
    index.write_bytes(older)
    fresh.start()
    said = fresh.output()
    assert "data.mdb is older than the segments" in said
    assert "`livemail store repair` brings those to lost+found" in said
    send(fresh, "after")
    checked = fresh.livemail("store", "check")
    assert checked.returncode == 1
    assert "2 whole messages" in checked.stdout
    fresh.kill()
    fresh.start()
    fresh.stop()
    assert fresh.livemail("store", "repair").returncode == 0
    checked = fresh.livemail("store", "check")
    assert checked.returncode == 0, checked.stdout
    fresh.start()
    client = imap(fresh)
    found = fetch_all(client, "lost+found").values()
    # What was put in front of each for its recipient was in the index.
    assert sorted(found) == sorted(octets[octets.index(b"Received: ") :] for octets in late)
    client.logout()
