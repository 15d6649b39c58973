"""What the manuals show is run: files are written, commands typed, recipes executed, in the order they stand."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

_BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n((?:    :\w+: .*\n)*)\n((?:(?:    .*)?\n)+)", re.MULTILINE)


def blocks(name):
    """(language, options, text) of each block."""
    for language, options, text in _BLOCK.findall((ROOT / "docs" / name).read_text("utf-8")):
        found = dict(re.findall(r":(\w+): (.*)", options))
        lines = [line[4:] for line in text.rstrip().split("\n")]
        yield language, found, "\n".join(lines) + "\n"


def dialogue(text):
    """(command, expected output) of a console block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def fits(expected, said):
    """Whether what was said is what is shown; ``...`` stands for anything, lines included."""
    pattern = re.escape(expected.strip()).replace(re.escape("..."), ".*?")
    return re.fullmatch(pattern, said.strip(), re.DOTALL) is not None


class Terminal:
    """Types commands into one shell's folder after another."""

    def __init__(self, folder, environment):
        self.folder, self.environment = folder, environment

    def type(self, text):
        for command, expected in dialogue(text):
            script = f"{command}\nstatus=$?\npwd >&3\nexit $status\n"
            read, write = os.pipe()
            ran = subprocess.run(
                ["bash", "-c", script.replace(">&3", f">&{write}")], cwd=self.folder, env=self.environment, pass_fds=(write,),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, check=False,
            )  # fmt: skip
            os.close(write)
            with os.fdopen(read) as pipe:
                self.folder = Path(pipe.read().strip())
            assert ran.returncode == 0, f"$ {command}\n{ran.stdout}"
            if expected.strip():
                assert fits(expected, ran.stdout), f"$ {command}\n{ran.stdout}\ninstead of\n{expected}"


@pytest.mark.parametrize(
    "recipe",
    [text for language, options, text in blocks("filters.rst") if language == "python" and "caption" not in options],
    ids=lambda text: re.findall(r"class (\w+)", text)[-1],
)
def test_a_recipe_does_what_it_says(recipe):
    exec(compile(recipe, "docs/filters.rst", "exec"), {"__name__": "recipe"})


def test_there_are_ten_recipes_and_what_is_configuration_is_one(tmp_path):
    from livemail.config import loads

    text = (ROOT / "docs" / "filters.rst").read_text("utf-8")
    assert len(re.findall(r"^\d+\. \*\*", text.partition("Cookbook")[2], re.MULTILINE)) == 10
    (table,) = [text for language, _, text in blocks("filters.rst") if language == "toml"]
    loads(f'data = "{tmp_path}"\n[[listen]]\nservice = "smtp"\naddress = "127.0.0.1:2500"\n{table}', "x")


def test_the_testing_manual_runs_in_a_project_of_somebody_else(tmp_path):
    for _, options, text in blocks("testing.rst"):
        (tmp_path / options["caption"]).write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    for name in ("test_with_pytest.py", "test_with_trial.py"):
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout[-3000:]


def free_offset():
    """A port offset at which nothing of the local profile listens."""
    for offset in range(11_000, 40_000, 97):
        trials = []
        try:
            for port in (2525, 2587, 2465, 2424, 2143, 2993, 2110, 2995):
                trials.append(socket.create_server(("127.0.0.1", port + offset)))  # noqa: PERF401 - closed when one fails
        except OSError:
            continue
        finally:
            for trial in trials:
                trial.close()
        return offset
    raise AssertionError("no free ports")


@pytest.mark.system
@pytest.mark.slow
def test_the_tutorial_works_as_it_is_written(tmp_path):
    """In an environment of its own that sees this checkout and nothing the reader was not told to set."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    environment_folder = tmp_path / "mail"
    subprocess.run([sys.executable, "-m", "venv", str(environment_folder)], check=True, timeout=120)
    site = next((environment_folder / "lib").glob("python*/site-packages"))
    # Python 3.11 lays an old setuptools beside pip, which would stand before the one that is here.
    for old in (
        *site.glob("setuptools*"),
        *site.glob("_distutils_hack"),
        *site.glob("pkg_resources"),
        *site.glob("distutils-*"),
    ):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    ours = next((BIN.parent / "lib").glob("python*/site-packages"))
    (site / "checkout.pth").write_text(f"{ROOT}\nimport site; site.addsitedir({str(ours)!r})\n")
    command = environment_folder / "bin" / "livemail"
    command.write_text(f'#!/bin/sh\nexec {environment_folder}/bin/python -m livemail "$@"\n')
    command.chmod(0o755)
    offset = free_offset()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "LIVEMAIL"))},
        "PATH": f"{environment_folder / 'bin'}:{os.environ['PATH']}",
        "XDG_DATA_HOME": str(tmp_path / "not-used"),
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_NO_DEPS": "1",
    }
    # Another program may have the ports that the manual names: they are others here, and nothing else is.
    moved = {**environment, "LIVEMAIL_PORT_OFFSET": str(offset)}
    terminal, server = Terminal(tmp_path, moved), None
    try:
        for language, options, text in blocks("filters.rst"):
            if language == "toml":
                break
            if language == "python" and "caption" in options:
                (terminal.folder / options["caption"]).write_text(text)
            elif language == "console" and options.get("class") == "server":
                *before, (start, _) = dialogue(text)
                terminal.type("".join(f"$ {line}\n{expected}" for line, expected in before))
                server = subprocess.Popen(
                    ["bash", "-c", f"exec {start}"], cwd=terminal.folder, env=moved,
                    stdout=(tmp_path / "log").open("w"), stderr=subprocess.STDOUT,
                )  # fmt: skip
                wait_for(2525 + offset, server, tmp_path / "log")
            elif language == "console":
                terminal.type(elsewhere(text, offset))
    finally:
        if server is not None:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


def elsewhere(text, offset):
    """A dialogue with a server whose ports were moved."""
    return re.sub(r"127\.0\.0\.1:(\d+)", lambda match: f"127.0.0.1:{int(match[1]) + offset}", text)


def test_every_variable_of_the_tutorial_is_one_the_reader_has():
    """What the test would set and the reader has not makes a tutorial that works in tests only."""
    tutorial = (ROOT / "docs" / "filters.rst").read_text("utf-8").partition("The contract\n")[0]
    assert set(re.findall(r"\$(\w+)", tutorial)) <= {"PWD"}


def wait_for(port, server, log):
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())


def test_dots_stand_for_anything():
    assert fits("a ... c\n...\nend", "a b c\nx\ny\nend")
    assert not fits("a ... c", "a b d")
