"""Flushing in a thread of its own, so that the time the disk takes is not lost.

A flush of ten messages takes a third of a millisecond, most of it waiting; filling the index's transaction takes as long,
most of it computing.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread


class FlushFailed(Exception):
    """The disk did not take what was written.  error: what it said."""

    def __init__(self, error: OSError) -> None:
        super().__init__(repr(error))
        self.error = error


class Flusher:
    """Runs one flush at a time; its thread begins with the first.  For one thread."""

    def __init__(self) -> None:
        self._flushes: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._is_running = False

    def begin(self, flush: Callable[[], None]) -> None:
        """Begin a flush; `end` must follow."""
        if self._thread is None:
            self._thread = Thread(target=self._loop, name="livemail-flush", daemon=True)
            self._thread.start()
        self._is_running = True
        self._flushes.put(flush)

    def end(self) -> bool:
        """Wait for the flush that was begun; return whether there was one.  Raises FlushFailed."""
        if not self._is_running:
            return False
        error = self._ends.get()
        self._is_running = False
        if isinstance(error, OSError):
            raise FlushFailed(error) from error
        if error is not None:
            raise error
        return True

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._flushes.put(None)
            self._thread.join()
            self._thread = None

    def _loop(self) -> None:
        while (flush := self._flushes.get()) is not None:
            error: BaseException | None = None
            try:
                flush()
            except BaseException as raised:  # Raised where it is waited for.
                error = raised
            self._ends.put(error)
