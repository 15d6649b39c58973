"""twistd finds `livemail` however it came: installed, installed editable, or run from the checkout.

pip builds with the setuptools that is here (the extra ``test``), so that the tests pass again without a network.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.system.rig import ROOT, free_offset, run

pytestmark = pytest.mark.slow


def _checkout(folder: Path) -> Path:
    """A copy of what the package is made of: pip leaves build folders where it works."""
    folder.mkdir()
    for name in ("livemail", "twisted", "setup.cfg", "pyproject.toml", "README.rst", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
        else:
            shutil.copy(source, folder)
    return folder


def _fresh_venv(folder: Path) -> Path:
    """A virtual environment in which everything of this one is installed but livemail; returns its bin."""
    others = folder / "others"
    others.mkdir(parents=True)
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "livemail" not in entry.name and entry.name not in {"pip", "__pycache__"}:
            (others / entry.name).symlink_to(entry)
    venv.create(folder / "venv", with_pip=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    # Python 3.11 lays an old setuptools beside pip, which would stand before the one that builds us.
    for old in (*site.glob("setuptools*"), *site.glob("_distutils_hack"), *site.glob("pkg_resources")):
        shutil.rmtree(old)
    (site / "distutils-precedence.pth").unlink(missing_ok=True)
    # Read as it is, without the .pth files in it: those would lead back to this checkout.
    (site / "others.pth").write_text(f"{others}\n")
    return folder / "venv/bin"


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIVEMAIL_", "PYTHON"))}
    return kept | {"LIVEMAIL_DATA": str(folder / "data")}


def _says_no_errors(command: list[str | Path], cwd: Path) -> None:
    done = run([*command, "livemail", "check"], cwd=cwd, env=_environment(cwd))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("local profile: no errors; 8 listeners"), done.stdout


def _runs_and_stops(command: list[str | Path], cwd: Path) -> None:
    environment = _environment(cwd) | {"LIVEMAIL_PORT_OFFSET": str(free_offset())}
    with subprocess.Popen(
        list(map(str, command)), cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        said = []
        for line in server.stdout:
            said.append(line)
            if line.startswith("  reset"):
                server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0, said
    assert any(line.startswith("livemail runs, on this machine only") for line in said), said
    assert "Traceback" not in "".join(said)


@pytest.mark.parametrize("how", [[], ["-e"]], ids=["installed", "editable"])
def test_the_plugin_is_found_after_pip_install(how: list[str], tmp_path: Path) -> None:
    source, programs = _checkout(tmp_path / "source"), _fresh_venv(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    missing = run([programs / "python", "-m", "twisted", "--help"], cwd=elsewhere, env=_environment(elsewhere))
    assert missing.returncode == 0
    assert "livemail" not in missing.stdout
    done = run(
        [programs / "pip", "install", "--quiet", "--disable-pip-version-check", "--no-build-isolation", *how, source],
        cwd=elsewhere, env=_environment(elsewhere), seconds=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if not how:
        shutil.rmtree(source)
    _says_no_errors([programs / "python", "-m", "twisted"], elsewhere)
    # twistd itself was installed for another Python; its script is what this is.
    twistd = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
    _says_no_errors([programs / "python", "-c", twistd], elsewhere)
    version = run([programs / "livemail", "--version"], cwd=elsewhere, env=_environment(elsewhere))
    assert (version.returncode, version.stdout.split()[0]) == (0, "livemail"), version.stderr
    config = run([programs / "livemail", "config", "check"], cwd=elsewhere, env=_environment(elsewhere))
    assert config.returncode == 0, config.stderr


def test_the_plugin_is_found_from_the_checkout_with_nothing_installed(tmp_path: Path) -> None:
    source, programs = _checkout(tmp_path / "source"), _fresh_venv(tmp_path)
    _says_no_errors([programs / "python", "-m", "twisted"], source)
    _runs_and_stops([programs / "python", "-m", "twisted", "livemail", "run"], source)
    for words in (["twisted", "livemail", "--version"], ["livemail", "--version"]):
        done = run([programs / "python", "-m", *words], cwd=source, env=_environment(source))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("livemail"), done.stdout
