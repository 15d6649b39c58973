"""npm packages the system tests use: installed once into ``.venv/npm``, at a version; left out where npm or the registry is not."""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path

import pytest

from tests.system.rig import IN_CI, program, run

FOLDER = Path(sys.prefix) / "npm"


def npm_package(name: str, version: str) -> Path:
    """The folder of a package; its test is left out by name where it cannot be had, with CI=true it fails."""
    npm = program("npm")
    FOLDER.mkdir(exist_ok=True)
    place = FOLDER / "node_modules" / name
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "package.json").is_file():
            done = run(
                [
                    npm,
                    "install",
                    "--prefix",
                    FOLDER,
                    "--no-audit",
                    "--no-fund",
                    "--ignore-scripts",
                    "--fetch-retries=1",
                    "--fetch-timeout=60000",
                    f"{name}@{version}",
                ],
                seconds=300,
            )
            if done.returncode:
                message = f"npm cannot install {name}: {done.stderr.strip()[-300:]}"
                if IN_CI:
                    pytest.fail(message)
                pytest.skip(message)
    return place
