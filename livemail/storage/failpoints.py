"""Named steps of the write path at which a test may kill the process or raise an error."""

from __future__ import annotations

from collections.abc import Callable

NAMES = (
    "group-begin",
    "segment-created",
    "segment-renamed",
    "segment-written",
    "segment-sync",
    "segment-synced",
    "txn-begun",
    "txn-operation",
    "folders-synced",
    "txn-filled",
    "txn-committed",
    "segments-removed",
    "group-answered",
    "spool-write",
    "spool-sync",
)

_hook: Callable[[str], None] | None = None


def install(hook: Callable[[str], None] | None) -> None:
    """Call ``hook`` with the name of every step from now on; None ends that."""
    global _hook
    _hook = hook


def failpoint(name: str) -> None:
    """A step of the write path is reached.  Raises what the installed hook raises."""
    if _hook is not None:
        _hook(name)
