"""The committer in a thread of this process, and its carrier: for tests, one-shot commands, and ``writer = "thread"``.

py-lmdb lets go of the GIL at every put, and a busy reactor takes it back each time: the two threads spend more on handing
it over than on the puts.  livemail.app's switch interval of half a millisecond keeps the writer from starving.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread

from twisted.logger import Logger

from livemail.mail.errors import StorageFailed
from livemail.storage.failpoints import failpoint
from livemail.storage.lmdb.committer import Answer, Committer, Work
from livemail.storage.lmdb.writer import IReceiver

CallFromThread = Callable[..., object]

_log = Logger()


class WriterThread:
    """Carries groups to the thread and its answers back (`livemail.storage.lmdb.writer.ICarrier`)."""

    def __init__(self, committer: Committer, call_from_thread: CallFromThread) -> None:
        self._committer = committer
        self._call_from_thread = call_from_thread
        self._queue: SimpleQueue[tuple[Sequence[Work], int] | None] = SimpleQueue()
        self._thread = Thread(target=self._loop, name="livemail-writer", daemon=True)
        self._receiver: IReceiver | None = None

    def begin(self, receiver: IReceiver) -> None:
        """See `ICarrier.begin`."""
        self._receiver = receiver
        self._thread.start()

    def carry(self, works: Sequence[Work], now: int) -> None:
        """See `ICarrier.carry`."""
        self._queue.put((works, now))

    def close(self) -> None:
        """See `ICarrier.close`."""
        self._queue.put(None)

    def _loop(self) -> None:
        assert self._receiver is not None
        while (group := self._queue.get()) is not None:
            works, now = group
            try:
                answers = self._committer.commit(works, now)
            except Exception as error:  # A bug here must not leave sessions waiting for ever.
                _log.failure("the writer failed")
                failure = f"the writer failed: {error!r}; restart livemail"
                refusal = StorageFailed(reason=failure)
                answers = [Answer([(work.index, None, refusal) for work in works], failure=failure)]
            self._call_from_thread(self._receiver.answered, answers)
            failpoint("group-answered")
            self._committer.keep_house()
        self._committer.close()
        self._call_from_thread(self._ended)

    def _ended(self) -> None:
        assert self._receiver is not None
        self._thread.join()
        self._receiver.ended()
