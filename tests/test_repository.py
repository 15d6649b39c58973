"""What holds of the checkout as a whole."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    return parser


def test_the_plugin_folder_is_a_namespace() -> None:
    """With an __init__.py there, Python would find this checkout's `twisted` instead of Twisted's."""
    assert (ROOT / "twisted/plugins/livemail_plugin.py").is_file()
    assert not (ROOT / "twisted/__init__.py").exists()
    assert not (ROOT / "twisted/plugins/__init__.py").exists()


def test_the_metadata_is_in_setup_cfg_alone() -> None:
    assert (ROOT / "pyproject.toml").read_text().count("\n") == 3
    assert not (ROOT / "setup.py").exists()


def test_modules_and_functions_have_a_size_one_can_read() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tests/module_sizes.py"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_layers_are_kept_and_make_check_looks() -> None:
    check = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert check is not None
    for tool in ("lint-imports", "mypy", "ruff format --check", "ruff check", "tests/module_sizes.py"):
        assert tool in check[1]
    test = re.search(r"^test:(.*)\n", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert test is not None
    assert "check" in test[1].split()
    if shutil.which("lint-imports", path=str(BIN)) is None:
        pytest.skip("import-linter is not installed; the extra `dev` brings it")
    done = subprocess.run(
        [BIN / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


DISTRIBUTIONS = {
    "dkim": "dkimpy",
    "dns": "dnspython",
    "OpenSSL": "pyopenssl",
    "argon2": "argon2-cffi",
    "zope": "zope.interface",
}
"""Where the name that is imported is not the one that is installed."""


def test_what_is_imported_is_required() -> None:
    required = {
        re.split(r"[\s\[<>=~!]", line, maxsplit=1)[0].lower()
        for line in setup_cfg()["options"]["install_requires"].split("\n")
        if line and not line.startswith("#")
    }
    imported = set()
    for path in (ROOT / "livemail").rglob("*.py"):
        if path.name == "pytest_plugin.py":  # only pytest imports it
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
    foreign = {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in imported - sys.stdlib_module_names}
    assert foreign - {"livemail"} == required


def test_make_without_a_word_names_every_word() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    words = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
    told = set(re.findall(r"make (\w+)", done.stdout))
    assert set(words) - told == {"debian", "help"}


def test_a_missing_program_is_named_and_with_ci_a_failure(tmp_path: Path) -> None:
    """The script for Debian's packages, on a machine with one missing program and no way to install it."""
    tests = tmp_path / "tests"
    tests.mkdir()
    shutil.copy(ROOT / "tests/install-debian-packages", tests)
    (tests / "debian-packages.txt").write_text("# comment\nhaswhat sh\nnosuchpackage nosuchprogram\n")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "id", "dirname"):
        (tools / name).symlink_to(str(shutil.which(name)))
    for ci, status in (("", 0), ("true", 1)):
        done = subprocess.run(
            [tools / "sh", tests / "install-debian-packages"],
            capture_output=True, text=True, check=False, timeout=30, env={"PATH": str(tools), "CI": ci},
        )  # fmt: skip
        assert done.returncode == status
        assert "nosuchprogram" in done.stdout
        assert "nosuchpackage" in done.stdout
        assert "haswhat" not in done.stdout


@pytest.mark.parametrize("ci", ["", "true"])
def test_a_test_whose_program_is_missing_is_left_out_by_name_and_with_ci_fails(ci: str, tmp_path: Path) -> None:
    """The suite's own `program` in a pytest of its own."""
    (tmp_path / "test_one.py").write_text(
        "from tests.system.rig import program\ndef test_needs_it():\n    program('nosuchprogram')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", ROOT / "setup.cfg", "--rootdir", tmp_path, "-q",
         tmp_path / "test_one.py"],
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""},
    )  # fmt: skip
    assert done.returncode == (1 if ci else 0), done.stdout + done.stderr
    assert "nosuchprogram is not installed; tests/debian-packages.txt lists its package" in done.stdout
    assert ("1 failed" if ci else "1 skipped") in done.stdout


def test_the_map_in_the_readme_names_every_package() -> None:
    readme = (ROOT / "README.rst").read_text("utf-8")
    for path in (ROOT / "livemail").iterdir():
        if (path / "__init__.py").is_file():
            assert f"{path.name}/" in readme, path.name
        elif path.suffix == ".py" and path.name != "__init__.py":
            assert path.name in readme, path.name
