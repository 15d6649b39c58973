"""No room left, met for real: temporary refusals, nothing lost, and no restart needed when room returns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def fill(folder: Path, how: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.storage.crash.full", folder, how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_limit_on_file_sizes_is_met_and_lifted(tmp_path):
    assert "taken" in fill(tmp_path / "data", "limit")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB; where nothing may be mounted the test above stands alone, and this one says so."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "livemail-test", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_a_full_disk_is_met_and_an_expunge_makes_room(small_disk):
    assert "taken" in fill(small_disk / "data", "disk")
