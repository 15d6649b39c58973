"""Start, stop, drain, restart; what the server says when it cannot start."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import threading
import time
import tomllib
from pathlib import Path

import pytest

from tests.system.mail import deliver, fetch_all, imap, smtp, wire_data
from tests.system.rig import BIN, Server, run

KEYS = {
    "account",
    "password",
    "smtp",
    "submission",
    "submissions",
    "lmtp",
    "imap",
    "imaps",
    "pop3",
    "pop3s",
    "ca",
    "data",
}


def test_first_run_leaves_its_facts_to_the_owner_only(fresh: Server) -> None:
    fresh.start()
    file = fresh.data / "first-run.txt"
    assert set(fresh.facts) >= KEYS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Path(fresh.facts["ca"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert fresh.facts["data"] == str(fresh.data)
    assert len(fetch_all(imap(fresh))) == 3
    for path in fresh.data.rglob("*"):
        if not path.is_socket():
            assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0 or path.name == "ca.pem", path


def test_a_second_start_keeps_account_mail_and_ca(fresh: Server) -> None:
    fresh.start()
    before = dict(fresh.facts)
    authority = Path(fresh.facts["ca"]).read_bytes()
    with smtp(fresh) as client:
        client.ehlo()
        assert deliver(client, "you@localhost", b"Subject: stays\r\n\r\nx\r\n")[0] == 250
    assert fresh.stop() == 0
    fresh.start()
    assert fresh.facts == before
    assert Path(fresh.facts["ca"]).read_bytes() == authority
    assert len(fetch_all(imap(fresh))) == 4


def test_sigterm_lets_a_transaction_finish_and_answers_421_to_the_idle(fresh: Server) -> None:
    fresh.start()
    idle, busy = smtp(fresh), smtp(fresh)
    idle.ehlo()
    busy.ehlo()
    assert busy.docmd("MAIL FROM:<a@example.org>")[0] == 250
    assert busy.docmd("RCPT TO:<you@localhost>")[0] == 250
    assert fresh.process is not None
    fresh.process.send_signal(signal.SIGTERM)
    assert idle.getreply()[0] == 421
    code, text = wire_data(busy, b"Subject: finished\r\n\r\nx\r\n")
    assert code in {250, 421}, text
    assert fresh.process.wait(30) == 0
    fresh.start()
    subjects = [octets for octets in fetch_all(imap(fresh)).values() if b"Subject: finished" in octets]
    assert len(subjects) == (1 if code == 250 else 0)


def test_sigterm_ends_in_bounded_time_though_a_client_never_finishes(fresh: Server) -> None:
    fresh.start()
    fresh.stop()
    fresh.configure(net={"drain_time": 2.0})
    fresh.start()
    stuck = smtp(fresh)
    stuck.ehlo()
    stuck.docmd("MAIL FROM:<a@example.org>")
    stuck.docmd("RCPT TO:<you@localhost>")
    stuck.docmd("DATA")
    began = time.monotonic()
    assert fresh.stop(seconds=40) == 0
    assert 2 <= time.monotonic() - began < 11


def test_a_port_in_use_is_an_error_at_start(fresh: Server) -> None:
    offset = int(fresh.environment["LIVEMAIL_PORT_OFFSET"])
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 2143 + offset))
        taken.listen()
        done = run(
            [BIN / "twistd", "-n", "--pidfile=", "livemail", "run"], env=fresh.environment, cwd=fresh.data.parent
        )
    said = done.stdout + done.stderr
    assert done.returncode not in {0, None}
    assert str(2143 + offset) in said
    assert "is in use by another program" in said
    assert "LIVEMAIL_PORT_OFFSET" in said
    assert "Traceback" not in said


def test_a_second_server_on_the_same_data_is_told_who_has_it(fresh: Server) -> None:
    fresh.start()
    other = dict(fresh.environment, LIVEMAIL_PORT_OFFSET=str(int(fresh.environment["LIVEMAIL_PORT_OFFSET"]) + 11))
    done = run([BIN / "twistd", "-n", "--pidfile=", "livemail", "run"], env=other, cwd=fresh.data.parent)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert f"kill {fresh.pid}" in said
    assert str(fresh.data) in said
    assert "Traceback" not in said
    assert imap(fresh).noop()[0] == "OK"


def test_a_store_of_a_newer_version_is_left_alone(fresh: Server) -> None:
    fresh.start()
    fresh.stop()
    meta = fresh.data / "store/meta.json"
    facts = json.loads(meta.read_text())
    key = next(name for name in facts if name in {"format", "version"})
    facts[key] = 999
    meta.write_text(json.dumps(facts))
    before = sorted((path, path.stat().st_size) for path in (fresh.data / "store").rglob("*") if path.is_file())
    done = run([BIN / "twistd", "-n", "--pidfile=", "livemail", "run"], env=fresh.environment, cwd=fresh.data.parent)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Install the newer livemail" in said
    assert "Traceback" not in said
    after = sorted((path, path.stat().st_size) for path in (fresh.data / "store").rglob("*") if path.is_file())
    assert before == after


def test_a_corrupt_segment_tail_is_dropped_and_said(fresh: Server) -> None:
    fresh.start()
    with smtp(fresh) as client:
        client.ehlo()
        assert deliver(client, "you@localhost", b"Subject: whole\r\n\r\nx\r\n")[0] == 250
    fresh.kill()
    segment = max((fresh.data / "store").rglob("*.seg"))
    with segment.open("ab") as file:
        file.write(os.urandom(5000))
    fresh.start()
    assert any(b"Subject: whole" in octets for octets in fetch_all(imap(fresh)).values())
    assert fresh.livemail("store", "check").returncode == 0
    assert "5000" in fresh.output() or "5,000" in fresh.output()


def test_config_show_prints_what_config_accepts(fresh: Server, tmp_path: Path) -> None:
    fresh.start()
    shown = fresh.livemail("config", "show")
    assert shown.returncode == 0, shown.stderr
    tomllib.loads(shown.stdout)
    fresh.stop()
    file = tmp_path / "livemail.toml"
    file.write_text(shown.stdout)
    fresh.arguments = ["--config", str(file)]
    fresh.start()
    assert len(fetch_all(imap(fresh))) == 3
    again = run([BIN / "livemail", "--config", file, "config", "show"])
    assert again.stdout == shown.stdout


def test_a_wrong_configuration_is_reported_whole(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(
        '[imap]\nidle_timout = 3\n\n[smtp]\nmax_message_size = "huge"\n\n[[listen]]\nservice = "imapz"\naddress = "127.0.0.1:1"\n'
    )
    for command in (["livemail", "check"], ["livemail", "run"]):
        done = run([BIN / "twistd", "-n", "--pidfile=", *command, "--config", file], cwd=tmp_path)
        said = done.stdout + done.stderr
        assert done.returncode == 78, said
        for line in (2, 5, 8):
            assert f"{file}:{line}" in said, said
        assert "Traceback" not in said
        assert "imaps" in said  # what to write instead


def test_a_missing_configuration_and_a_missing_data_folder_say_what_to_do(tmp_path: Path) -> None:
    done = run(
        [BIN / "twistd", "-n", "--pidfile=", "livemail", "run", "--config", tmp_path / "none.toml"], cwd=tmp_path
    )
    assert done.returncode != 0
    assert "none.toml" in done.stdout + done.stderr
    done = run([BIN / "livemail", "--data", tmp_path / "nowhere", "account", "list"])
    assert done.returncode != 0
    assert "nowhere" in done.stderr
    assert "start the server once to make it, or mount the disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "nowhere").exists()


def test_account_commands_work_beside_the_server_and_without_it(fresh: Server) -> None:
    fresh.start()
    fresh.add_account("beside@localhost", "one two")
    assert imap(fresh, "beside@localhost", "one two").noop()[0] == "OK"
    fresh.stop()
    done = fresh.livemail("account", "add", "without@localhost", "--password-stdin", stdin="three four\n")
    assert done.returncode == 0, done.stderr
    listed = json.loads(fresh.livemail("account", "list", "--json").stdout)
    assert {"you@localhost", "beside@localhost", "without@localhost"} <= {str(item["name"]) for item in listed}
    fresh.start()
    assert imap(fresh, "without@localhost", "three four").noop()[0] == "OK"
    assert fresh.livemail("account", "password", "without@localhost", "--password-stdin", stdin="new\n").returncode == 0
    assert imap(fresh, "without@localhost", "new").noop()[0] == "OK"
    assert fresh.livemail("account", "remove", "without@localhost", "--yes").returncode == 0
    assert "without@localhost" not in fresh.livemail("account", "list").stdout


def test_a_full_disk_is_a_temporary_refusal_and_loses_nothing(fresh: Server) -> None:
    """The data folder on a small tmpfs, which only root may mount."""
    fresh.data.mkdir(mode=0o700)
    mounted = run(["mount", "-t", "tmpfs", "-o", "size=96m,mode=700", "tmpfs", fresh.data])
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        fresh.start()
        blob = b"Subject: filler %d\r\n\r\n" + b"x" * 70 + b"\r\n"
        big = (b"y" * 70 + b"\r\n") * 14_000
        taken = 0
        with smtp(fresh) as client:
            client.ehlo()
            for number in range(200):
                code, text = deliver(client, "you@localhost", blob % number + big)
                if code != 250:
                    break
                taken += 1
        assert code == 452, text
        assert taken > 0
        session = imap(fresh)
        assert len(fetch_all(session)) == 3 + taken
        status, answer = session.append("INBOX", None, None, blob % 999 + big)
        assert status == "NO", answer
        session.select("INBOX")
        session.store("4:*", "+FLAGS", "\\Deleted")
        assert session.expunge()[0] == "OK"
        session.logout()
        fresh.stop()
        fresh.start()
        assert len(fetch_all(imap(fresh))) == 3
        assert fresh.livemail("store", "check").returncode == 0
    finally:
        fresh.kill()
        subprocess.run(["umount", "-l", str(fresh.data)], check=False)


@pytest.mark.parametrize("room", ["size=8m", "nr_inodes=30", "nr_inodes=8"])
def test_a_disk_too_small_to_begin_on_is_said_so(fresh: Server, room: str) -> None:
    fresh.data.mkdir(mode=0o700)
    mounted = run(["mount", "-t", "tmpfs", "-o", f"{room},mode=700", "tmpfs", fresh.data])
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        done = run(
            [BIN / "twistd", "-n", "--pidfile=", "livemail", "run"], env=fresh.environment, cwd=fresh.data.parent
        )
        said = done.stdout + done.stderr
        assert done.returncode != 0
        assert str(fresh.data) in said
        assert "free some" in said
        assert "Traceback" not in said
    finally:
        subprocess.run(["umount", "-l", str(fresh.data)], check=False)


def test_many_clients_at_once_are_all_served(fresh: Server) -> None:
    fresh.start()
    failures: list[BaseException] = []

    def one(number: int) -> None:
        try:
            with smtp(fresh) as client:
                client.ehlo()
                assert deliver(client, "you@localhost", b"Subject: many %d\r\n\r\nx\r\n" % number)[0] == 250
            imap(fresh).logout()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(fetch_all(imap(fresh))) == 63
