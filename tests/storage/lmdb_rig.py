"""An LMDB store in a folder the test can look into, with failpoints that fire once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from livemail.storage import failpoints
from livemail.storage.lmdb import LMDBStore
from tests.contracts.rig import Rig


class FolderRig(Rig):
    """A rig whose folder is given, and which stays when the rig is closed."""

    is_durable = True

    def __init__(self, folder: Path, **settings: Any) -> None:
        """Nothing expunged is kept, so that what goes is gone, unless ``undelete`` says otherwise."""
        self.folder = folder
        super().__init__(**({"undelete": 0.0} | settings))

    @property
    def shard(self) -> Path:
        return self.folder / "store" / "shard-00"

    @property
    def segments(self) -> dict[str, int]:
        """Name and octets of every segment."""
        return {path.name: path.stat().st_size for path in sorted((self.shard / "seg").glob("*.seg"))}

    @property
    def spooled(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "store" / "spool").iterdir())

    def open(self) -> LMDBStore:
        return self.wait(
            LMDBStore.open(
                self.folder,
                self.settings,
                call_from_thread=self.pump.call_from_thread,
                run_blocking=self.pump.run_blocking,
                watcher=self.pump,
                now=self.clock,
                create=True,
                quotas=self.quotas,
                maildir_of=self.maildir_of,
                seconds=self.clock,
            )
        )

    def maildir_of(self, name: str) -> Path | None:
        """No account is in a Maildir."""
        return None

    def problems(self) -> list[str]:
        """The kinds of the problems `check` finds."""
        return [problem.kind for problem in self.wait(self.store.check()).problems]


class Once:
    """A failpoint hook that raises at a step, ``times`` times, and counts."""

    def __init__(self, name: str, error: Callable[[], BaseException], times: int = 1) -> None:
        self.seen: list[str] = []
        self._name = name
        self._error = error
        self._left = times

    def __call__(self, name: str) -> None:
        self.seen.append(name)
        if name == self._name and self._left:
            self._left -= 1
            raise self._error()

    def __enter__(self) -> Self:
        failpoints.install(self)
        return self

    def __exit__(self, *_: object) -> None:
        failpoints.install(None)
