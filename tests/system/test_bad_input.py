"""What is in the way is told with what to do about it, and nothing is lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
from pathlib import Path

import pytest

from tests.system.hostile import Raw
from tests.system.mail import deliver, fetch_all, imap, smtp
from tests.system.rig import BIN, Server, program, run

RUN = [BIN / "twistd", "-n", "--pidfile=", "livemail", "run"]

NOBODY = 65534
_LOST = "-dac_override,-dac_read_search,-fowner,-chown"


def _as_somebody() -> list[str]:
    """What makes root obey permissions; for everybody else nothing is needed."""
    if os.getuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed; it is in Debian's util-linux")
    return ["setpriv", f"--bounding-set={_LOST}", f"--inh-caps={_LOST}"]


def _take_away(folder: Path) -> None:
    """Make a folder and all in it somebody else's, or at least not writable."""
    for path in [folder, *folder.rglob("*")]:
        if os.getuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        path.chmod(0o500 if path.is_dir() else 0o400)


def _refused(server: Server, *words: str | Path, status: int = 1) -> str:
    """Run a command that must fail with that status and no traceback; return what it said."""
    done = run([*_as_somebody(), *(words or RUN)], env=server.environment, cwd=server.data.parent)
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    assert "Traceback" not in said
    return said


def test_a_data_folder_of_another_user(fresh: Server) -> None:
    fresh.data.mkdir(mode=0o700)
    _take_away(fresh.data)
    said = _refused(fresh)
    assert str(fresh.data) in said
    assert "belongs to the user livemail runs as" in said
    assert not list(fresh.data.rglob("*"))


def test_a_store_of_another_user_is_not_touched(fresh: Server) -> None:
    fresh.start()
    fresh.stop()
    _take_away(fresh.data / "store")
    before = sorted((path, path.stat().st_size, path.stat().st_mtime) for path in (fresh.data / "store").rglob("*"))
    for words in ([], [BIN / "livemail", "--data", fresh.data, "account", "list"]):
        said = _refused(fresh, *words)
        assert "belongs to the user livemail runs as" in said
    assert before == sorted(
        (path, path.stat().st_size, path.stat().st_mtime) for path in (fresh.data / "store").rglob("*")
    )


def test_a_configured_data_folder_that_is_missing(fresh: Server) -> None:
    fresh.configure()
    checked = run([BIN / "livemail", *fresh.arguments, "config", "check"])
    assert checked.returncode == 0
    assert f"must be made before the start (install -d -m 700 {fresh.data})" in checked.stdout
    said = _refused(fresh, *RUN, *fresh.arguments)
    assert f"install -d -m 700 {fresh.data}" in said
    assert not fresh.data.exists()
    fresh.data.mkdir(mode=0o700)
    assert "must be made" not in run([BIN / "livemail", *fresh.arguments, "config", "check"]).stdout


def test_first_run_txt_deleted_is_written_again_without_the_password(fresh: Server) -> None:
    fresh.start()
    before = dict(fresh.facts)
    with smtp(fresh) as client:
        client.ehlo()
        assert deliver(client, "you@localhost", b"Subject: stays\r\n\r\nx\r\n")[0] == 250
    fresh.stop()
    file = fresh.data / "first-run.txt"
    file.unlink()
    fresh.start()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {key: value for key, value in before.items() if key not in {"account", "password"}} == fresh.facts
    advice = re.search(r"`(\S+) --data (\S+) account password NAME` sets a password", fresh.output())
    assert advice is not None, fresh.output()
    assert fresh.livemail("account", "password", "you@localhost", "--password-stdin", stdin="new one\n").returncode == 0
    assert len(fetch_all(imap(fresh, "you@localhost", "new one"))) == 4


def test_a_control_socket_left_behind_by_kill_9_is_in_nobodys_way(fresh: Server) -> None:
    fresh.start()
    assert fresh.process is not None
    os.kill(fresh.pid, signal.SIGKILL)  # the server alone; what it has started must find out
    fresh.process.wait()
    assert (fresh.data / "control.sock").is_socket()
    listed = fresh.livemail("account", "list")
    assert (listed.returncode, listed.stdout) == (0, "you@localhost\n"), listed.stderr
    fresh.start(seconds=10)
    assert fresh.livemail("account", "list").stdout == "you@localhost\n"


def test_a_batch_with_bad_lines_names_them_all_and_adds_none(fresh: Server, tmp_path: Path) -> None:
    batch = tmp_path / "people"
    batch.write_text(
        "ann@localhost\tone\nno tab here\n\n# note\nben@localhost\t\ncleo@elsewhere\tx\nann@localhost\ttwo\n"
    )
    fresh.start()
    for is_running in (True, False):
        if not is_running:
            fresh.stop()
        done = fresh.livemail("account", "add", "--batch", str(batch))
        assert done.returncode == 65, done.stdout
        told = re.findall(rf"{re.escape(str(batch))}:(\d+): (.*)", done.stderr)
        assert [int(line) for line, _ in told] == [2, 5, 6, 7]
        words = dict(told)
        assert "tab" in words["2"]
        assert "empty" in words["5"]
        assert "livemail domain add" in words["6"]
        assert "twice" in words["7"]
        assert "nothing was added" in done.stderr
        assert fresh.livemail("account", "list").stdout == "you@localhost\n"


def test_names_and_passwords_that_are_no_good(fresh: Server) -> None:
    fresh.start()

    def add(name: str, password: str) -> tuple[int, str]:
        done = fresh.livemail("account", "add", name, "--password-stdin", stdin=password)
        return done.returncode, done.stdout + done.stderr

    assert add("ann", "one\n") == (0, "added ann@localhost\n")  # without a domain: the first local one
    status, said = add("ann@localhost", "two\n")
    assert (status, "account password ann@localhost" in said) == (73, True), said
    status, said = add("ben@localhost", "\n")
    assert (status, "the password is empty" in said) == (65, True), said
    assert add("ben@localhost", "")[0] == 65
    status, said = add("ben@example.org", "x\n")
    assert (status, "livemail domain add" in said) == (65, True), said
    status, said = add("b en", "x\n")
    assert (status, "without spaces" in said) == (65, True), said
    assert fresh.livemail("account", "list").stdout == "ann@localhost\nyou@localhost\n"
    assert imap(fresh, "ann@localhost", "one").noop()[0] == "OK"
    done = fresh.livemail("account", "show", "nobody")
    assert (done.returncode, "account list" in done.stderr) == (67, True)


@pytest.mark.parametrize("below", ["", "/x"])
def test_a_data_folder_that_is_a_file(fresh: Server, below: str) -> None:
    fresh.data.write_text("mine")
    fresh.environment["LIVEMAIL_DATA"] = f"{fresh.data}{below}"
    said = _refused(fresh)
    assert f"{fresh.data}{below} is in the way, or leads through a file" in said
    assert fresh.data.read_text() == "mine"


def _with_files(soft: int, hard: int) -> list[str]:
    return [program("prlimit"), f"--nofile={soft}:{hard}"]


def test_too_few_files_to_start_at_all(fresh: Server) -> None:
    said = _refused(fresh, *_with_files(20, 20), *RUN)
    assert "lets this process open too few files; raise that (ulimit -n" in said


def test_where_few_files_may_be_open_some_clients_are_told_to_wait(fresh: Server) -> None:
    fresh.start(under=_with_files(200, 200))
    assert "only 48 connections at once, not the 10000 of [net] max_connections" in fresh.output()
    raws = [Raw(fresh, "imap") for _ in range(60)]
    # The connection by which the start was awaited may still be counted.
    taken = sum(raw.greeting.startswith(b"* OK") for raw in raws)
    assert taken in {47, 48}
    assert [raw.greeting[:4] for raw in raws] == [b"* OK"] * taken + [b"* BY"] * (60 - taken)
    assert b"Too many connections, try again later" in raws[-1].greeting
    for raw in raws:
        raw.close()
    assert fresh.livemail("store", "check").returncode == 0


def test_the_limit_of_open_files_is_raised_where_that_is_allowed(fresh: Server) -> None:
    fresh.start()
    fresh.stop()
    fresh.configure(net={"max_connections": 400})
    fresh.start(under=_with_files(100, 728))
    assert "too few files" not in fresh.output()
    raws = [Raw(fresh, "imap") for _ in range(200)]
    assert all(raw.greeting.startswith(b"* OK") for raw in raws)
    for raw in raws:
        raw.close()


@pytest.mark.parametrize("name", ["control.sock", "first-run.txt", "tls"])
def test_something_else_that_lies_where_a_file_of_ours_belongs(fresh: Server, name: str) -> None:
    fresh.start()
    fresh.stop()
    place = fresh.data / name
    if place.is_dir():
        shutil.rmtree(place)
        place.write_text("not a folder")
    else:
        place.unlink(missing_ok=True)
        place.mkdir()
    said = _refused(fresh)
    assert str(place) in said
    assert "in the way" in said or "out of the way" in said


def test_a_first_run_txt_of_nonsense_is_written_anew(fresh: Server) -> None:
    fresh.start()
    fresh.stop()
    (fresh.data / "first-run.txt").write_bytes(b"\xff\xfe: \x00\n" * 50)
    fresh.start()
    assert "account password NAME` sets a password" in fresh.output()


def test_an_index_that_is_lost_or_cut_short_stops_the_start_and_deletes_nothing(fresh: Server) -> None:
    fresh.start()
    with smtp(fresh) as client:
        client.ehlo()
        for number in range(20):
            assert deliver(client, "you@localhost", b"Subject: n%d\r\n\r\n%b\r\n" % (number, b"x" * 3000))[0] == 250
    fresh.stop()
    index = fresh.data / "store/shard-00/data.mdb"
    whole = index.read_bytes()
    segments = {path: path.read_bytes() for path in fresh.data.glob("store/shard-00/seg/*.seg")}
    for damaged in (None, b"", whole[: len(whole) // 8192 * 4096], os.urandom(len(whole))):
        index.unlink()
        if damaged is not None:
            index.write_bytes(damaged)
        for words in (RUN, [BIN / "livemail", "--data", fresh.data, "store", "check"]):
            assert "from a backup" in _refused(fresh, *words)
        assert segments == {path: path.read_bytes() for path in fresh.data.glob("store/shard-00/seg/*.seg")}
        index.unlink(missing_ok=True)
        index.write_bytes(b"")
    index.write_bytes(whole)
    fresh.start()
    assert len(fetch_all(imap(fresh))) == 23
