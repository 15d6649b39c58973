"""``livemail message explain``: one message's whole story, from connection to mailbox or queue, as JSON can say it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from livemail.admin.operations import EX_PROBLEMS, Refused
from livemail.interfaces.queue import Choice, QueuedMessage, parse_queue_id, queue_id_text
from livemail.interfaces.storage import FetchWant, IMailStore, Progress
from livemail.interfaces.story import KeptStory, Story, StoryPlace, decode_story
from livemail.mail.errors import MailError
from livemail.mail.ids import UIDSet

_TRANSACTION: Final = re.compile(r"[0-9a-f]{6,}-[0-9a-f]+\.[0-9]+")
_SESSION: Final = re.compile(r"[0-9a-f]{6,}-[0-9a-f]+")
MAX_STORIES: Final = 20


class Explain:
    """The operation ``message.explain``."""

    def __init__(self, store: IMailStore) -> None:
        self._store = store

    async def __call__(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """id: what our 250 and Received call it, a session's id, a queue id, or a Message-ID.  Returns a list, the latest first."""
        wanted = str(arguments["id"]).strip()
        stories = await self._find(wanted, progress)
        if not stories:
            raise Refused(
                f"nothing is known of {wanted}; give the id behind `taken as` in our reply, or the Message-ID."
                "  How long stories are kept is [storage] story_time and story_rows",
                EX_PROBLEMS,
            )
        return [await self._told(kept) for kept in stories]

    async def _find(self, wanted: str, progress: Progress) -> list[KeptStory]:
        if _TRANSACTION.fullmatch(wanted):
            kept = await self._store.story(wanted)
            return [kept] if kept is not None else []
        if _SESSION.fullmatch(wanted):
            return list(await self._store.find_stories(f"{wanted}.".encode(), MAX_STORIES, progress))
        queue: Any = getattr(self._store, "queue", None)
        if queue is not None and "@" not in wanted:
            try:
                message = await queue.message(parse_queue_id(wanted))
            except ValueError:
                message = None
            if message is not None and message.transaction:
                kept = await self._store.story(message.transaction)
                return [kept] if kept is not None else []
        text = wanted if wanted.startswith("<") else f"<{wanted}>"
        found = await self._store.find_stories(text.encode(), MAX_STORIES, progress)
        return [kept for kept in found if decode_story(kept.story).message_id == text.encode()]

    async def _told(self, kept: KeptStory) -> dict[str, Any]:
        story = decode_story(kept.story)
        told = msgspec.structs.asdict(story)
        told["message_id"] = story.message_id.decode("utf-8", "replace")
        told["recipients"] = [msgspec.structs.asdict(each) for each in story.recipients]
        del told["answers"], told["quiet"]
        told["filters"] = [msgspec.structs.asdict(each) for each in story.filters]
        told["delivered"] = [await self._place(place) for place in kept.places]
        told["queued"] = await self._queued(story)
        return told

    async def _place(self, place: StoryPlace) -> dict[str, Any]:
        told = {"account": f"account {place.account}", "mailbox": "", "uid": int(place.uid), "is_there": False}
        try:
            account = await self._store.account(place.account)
            told["account"] = account.name
            listed = await account.mailboxes()
            told["mailbox"] = next((box.name for box in listed.mailboxes if box.id == place.mailbox), "")
            if told["mailbox"]:
                async for batch in account.fetch(place.mailbox, UIDSet.of([place.uid]), FetchWant()):
                    told["is_there"] = told["is_there"] or bool(batch.rows)
        except MailError:
            pass
        return told

    async def _queued(self, story: Story) -> list[dict[str, Any]]:
        queue: Any = getattr(self._store, "queue", None)
        if queue is None:
            return []
        page = await queue.find(Choice(transaction=story.transaction))
        found = []
        for message in page.messages:
            whole = await queue.message(message.id) or message
            found.append(_queue_told(whole))
        return found


def _queue_told(message: QueuedMessage) -> dict[str, Any]:
    return {
        "id": queue_id_text(message.id),
        "recipients": [
            {
                "recipient": str(each.recipient.path),
                "destination": each.destination,
                "state": each.state,
                "attempts": each.attempts,
                "next_attempt": each.next_attempt,
                "last": f"{each.last.code} {each.last.enhanced} {each.last.text}" if each.last is not None else "",
                "host": each.host,
                "history": [
                    {
                        "started": attempt.started,
                        "seconds": attempt.seconds,
                        "host": attempt.host,
                        "address": attempt.address,
                        "tls": attempt.tls,
                        "outcome": f"{attempt.outcome.code} {attempt.outcome.enhanced} {attempt.outcome.text}",
                    }
                    for attempt in each.history
                ],
            }
            for each in message.recipients
        ],
    }


# ------------------------------------------------------------------------------------------------------------ in words


def in_words(told: Mapping[str, Any]) -> str:
    """One story for people."""
    answer = f"{told['code']} {told['enhanced']} {told['text']}".rstrip()
    outcome = {"taken": "taken" + (", quarantined" if told["is_junk"] else "")}.get(told["outcome"], told["outcome"])
    lines = [
        f"{told['transaction']}  {_time(told['time'])}  {outcome}" + ("" if told["code"] == 250 else f": {answer}")
    ]
    if told["reason"]:
        lines.append(f"  because     {told['reason']}")
    size = f", {told['size']:,} octets" if told["size"] else ""
    name = f", Message-ID {told['message_id']}" if told["message_id"] else ""
    lines.append(f"  message     from {told['reverse_path']}{size}{name}")
    client = f"{told['peer']} port {told['port']}" if told["peer"] else "a program on this machine"
    lines.append(
        f"  client      {client} by {told['service']}, named itself {told['helo'] or 'nothing'}, "
        f"{told['tls'] or 'no TLS'}, {'logged in as ' + told['authcid'] if told['authcid'] else 'not logged in'}"
    )
    for each in told["recipients"]:
        fate = "taken" if not each["code"] else f"{each['code']} {each['enhanced']} {each['text']}"
        lines.append(f"  recipient   {each['path']}: {fate}")
    if told["count"] > len(told["recipients"]):
        lines.append(f"  recipient   and {told['count'] - len(told['recipients']):,} more")
    lines += [_filter_in_words(each) for each in told["filters"]]
    for each in told["delivered"]:
        there = "" if each["is_there"] else " (not there any more)"
        lines.append(
            f"  delivered   {each['account']}, {each['mailbox'] or 'a removed mailbox'}, UID {each['uid']}{there}"
        )
    for message in told["queued"]:
        for each in message["recipients"]:
            lines += _queue_in_words(message["id"], each)
    if told["outcome"] == "taken" and not told["delivered"] and not told["queued"]:
        lines.append(
            "  left        nothing of it waits here any more: it was sent on, or its sender was told; the log has the attempts"
        )
    return "\n".join(lines)


def _filter_in_words(each: Mapping[str, Any]) -> str:
    verdict = "FAILED: " + each["verdict"] if each["is_failure"] else each["verdict"]
    details = [each["text"], f"({each['reason']})" if each["reason"] else "", ", ".join(each["edits"])]
    often = f" in {each['count']} calls" if each["count"] > 1 else ""
    more = " ".join(part for part in details if part)
    return f"  filter      {each['filter']} at {each['stage']}: {verdict}{' ' + more if more else ''}, {each['microseconds'] / 1000:.3f} ms{often}"


def _queue_in_words(name: str, each: Mapping[str, Any]) -> list[str]:
    line = f"  queue       {name} for {each['recipient']}: {each['state']}, {each['attempts']} attempts"
    if each["last"]:
        line += f", last: {each['host']} said {each['last']}" if each["host"] else f", last: {each['last']}"
    if each["state"] in {"queued", "deferred"}:
        line += f", next {_time(each['next_attempt'])}"
    return [
        line,
        *(
            f"  attempt     {_time(attempt['started'])}, {attempt['seconds']:.1f} s, {attempt['host']} {attempt['address']},"
            f" {attempt['tls'] or 'no TLS'}: {attempt['outcome']}"
            for attempt in each["history"]
        ),
    ]


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
