"""The queue's reporter: reports about queued recipients, as contents the queue can file.  See `livemail.interfaces.queue.Reporter`."""

from __future__ import annotations

from collections.abc import Sequence

from livemail.delivery.bounce.notice import Original, Outcome
from livemail.delivery.bounce.notice import Report as Composed
from livemail.delivery.bounce.reporter import Reporter
from livemail.interfaces.queue import Concerned, QueuedMessage, Report, queue_id_text
from livemail.interfaces.storage import IContentReader, IMailStore


class QueueReporter:
    """Composes with a `Reporter`, and makes contents in a store."""

    def __init__(self, reporter: Reporter, store: IMailStore) -> None:
        self._reporter = reporter
        self._store = store

    async def __call__(
        self, message: QueuedMessage, content: IContentReader, concerned: Sequence[Concerned]
    ) -> list[Report]:
        """See `livemail.interfaces.queue.Reporter`.  Raises what the store raises; then no content is left behind."""
        original = Original.of_reader(queue_id_text(message.id), message.reverse_path, message.created, content)
        outcomes = [
            Outcome(each.recipient.recipient, each.action, each.reply, each.host, each.attempted, each.retry_until)
            for each in concerned
        ]
        reports: list[Report] = []
        try:
            for composed in await self._reporter.compose(original, outcomes):
                reports.append(await stored(composed, self._store))  # noqa: PERF401  # what was made is to be closed
        except BaseException:
            for report in reports:
                report.content.close()
            raise
        return reports


async def stored(composed: Composed, store: IMailStore) -> Report:
    """Make the content of a composed report.  Raises StorageFull, StorageFailed.  The caller closes the content."""
    sink = store.new_content(len(composed.octets))
    try:
        sink.write(composed.octets)
        content = await sink.finish()
    except BaseException:
        sink.abort()
        raise
    return Report(content, composed.envelope)
