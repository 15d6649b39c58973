"""Recording what a process does to its files: a library made with the C compiler, loaded before the process's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


class Entry(NamedTuple):
    """One step, as `record.c` says at its top.  path, other: absolute."""

    kind: str
    inode: int
    offset: int
    path: str
    other: str
    data: bytes


def compiler() -> str | None:
    """Return the C compiler's path."""
    return shutil.which("cc") or shutil.which("gcc")


def make_library(folder: Path) -> Path:
    """Compile the recorder."""
    library = folder / "record.so"
    made = subprocess.run(
        [compiler() or "cc", "-O1", "-Wall", "-shared", "-fPIC", "-pthread", "-o", library, HERE / "record.c"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return library


def record(library: Path, folder: Path, root: Path, arguments: Sequence[str], **environment: str) -> list[Entry]:
    """Run a module of the tests under the recorder; it works below ``root`` and writes its acknowledgements to its last argument.

    folder: for the record.  arguments: the module, then its arguments.
    """
    log = folder / "record"
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "LD_PRELOAD": str(library), "LM_RECORD": str(log), "LM_ROOT": str(root)}
        | {"LM_ACKS": arguments[-1], **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(_entries(log.read_bytes()))


def _entries(octets: bytes) -> Iterator[Entry]:
    at = 0
    while at < len(octets):
        end = octets.index(b"\n", at)
        kind, *numbers = octets[at:end].decode().split()
        inode, offset, length, first, second = map(int, numbers)
        path_end = end + 1 + first
        other_end = path_end + second
        at = other_end + length
        yield Entry(
            kind,
            inode,
            offset,
            octets[end + 1 : path_end].decode(),
            octets[path_end:other_end].decode(),
            octets[other_end:at],
        )
