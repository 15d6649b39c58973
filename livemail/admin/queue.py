"""The operations of ``livemail queue``, over the queue of a store.  Arguments and results are what JSON can say.

What is chosen
    ids (texts such as Q1F3), states, sender, recipient, domain, destination, transaction, and older, newer in seconds: see
    `livemail.interfaces.queue.Choice`.  A change without any of them needs ``all``: nobody drops a queue by a typing error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, get_args

import msgspec

from livemail.admin.operations import EX_DATA, EX_PROBLEMS, EX_USAGE, Refused
from livemail.interfaces.queue import (
    MAX_PRIORITY,
    MIN_PRIORITY,
    START,
    Change,
    Choice,
    Drop,
    Edit,
    Fail,
    Hold,
    IQueue,
    QueuedMessage,
    QueuedRecipient,
    QueueId,
    Release,
    Retry,
    State,
    parse_queue_id,
    queue_id_text,
)
from livemail.interfaces.relay import Attempt, Reply
from livemail.interfaces.runtime import Now
from livemail.interfaces.storage import Progress
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Recipient, ReversePath

PIECE: Final = 1000
MAX_LISTED: Final = 100_000

Operation = Callable[[Mapping[str, Any], Progress], Awaitable[Any]]
ParsePath = Callable[[str], Path]


class IFlushed(Protocol):
    """What is known of a runner while it works through what was made due."""

    @property
    def finished(self) -> int:
        """Recipients it has dealt with since it was started."""


class QueueOperations:
    """What can be done with a queue."""

    def __init__(
        self,
        queue: IQueue,
        now: Now,
        parse_path: ParsePath,
        *,
        runner: IFlushed | None = None,
        sleep: Callable[[float], Awaitable[object]] | None = None,
    ) -> None:
        """parse_path: reads ``local@domain``, raises ValueError.  runner, sleep: of the server that runs, None when none does."""
        self._queue = queue
        self._now = now
        self._parse_path = parse_path
        self._runner = runner
        self._sleep = sleep

    def operations(self) -> dict[str, Operation]:
        """The operations by name."""
        return {
            "queue.list": self._list,
            "queue.show": self._show,
            "queue.stats": self._stats,
            "queue.change": self._change,
            "queue.flush": self._flush,
        }

    # --------------------------------------------------------------------------------------------------------- reading

    async def _list(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """limit: messages at most.  Returns them, and whether there are more."""
        choice = self._choice(arguments)
        limit = min(int(arguments.get("limit") or 1000), MAX_LISTED)
        found: list[Any] = []
        after: QueueId | None = START
        while after is not None and len(found) < limit:
            page = await self._queue.find(choice, after, min(PIECE, limit - len(found)))
            found += [told(message) for message in page.messages]
            after = page.after
            progress(len(found), 0, "messages")
        return {"messages": found, "more": after is not None}

    async def _show(self, arguments: Mapping[str, Any], _progress: Progress) -> Any:
        (id_,) = self._ids([arguments["id"]])
        message = await self._queue.message(id_)
        if message is None:
            raise Refused(
                f"{queue_id_text(id_)} is not in the queue (any more); `livemail message explain {queue_id_text(id_)}` may"
                " know what became of it",
                EX_PROBLEMS,
            )
        header = ""
        reader = await self._queue.open_content(id_)
        if reader is not None:
            try:
                start = await reader.read(0, 16 * 1024)
            finally:
                reader.close()
            header = start.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")
        return {**told(message), "header": header}

    async def _stats(self, arguments: Mapping[str, Any], _progress: Progress) -> Any:
        """destinations: how many to tell of."""
        stats = await self._queue.stats()
        destinations = await self._queue.destinations("", int(arguments.get("destinations") or 0))
        result = msgspec.to_builtins(stats)
        result["is_running"] = self._runner is not None
        result["by_destination"] = [
            {**msgspec.to_builtins(each), "reply": reply_text(each.reply)} for each in destinations
        ]
        return result

    # -------------------------------------------------------------------------------------------------------- changing

    async def _change(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """do: hold, release, retry, drop, bounce or edit, with what it needs beside it."""
        choice = self._choice(arguments)
        self._require_some(arguments, choice)
        return await self._apply(choice, await self._read_change(arguments), progress)

    async def _apply(self, choice: Choice, change: Change, progress: Progress) -> dict[str, int]:
        total = {"seen": 0, "changed": 0, "busy": 0}
        after: QueueId | None = START
        while after is not None:
            done = await self._queue.change(choice, change, after, PIECE)
            total["seen"] += done.seen
            total["changed"] += done.changed
            total["busy"] += done.busy
            after = done.after
            progress(total["changed"], 0, "recipients")
        return total

    async def _flush(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """Make everything chosen due, and follow the runner until it has dealt with as much."""
        before = self._runner.finished if self._runner is not None else 0
        total = await self._apply(self._choice(arguments), Retry(), progress)
        finished = 0
        if self._runner is not None and self._sleep is not None and arguments.get("wait", True):
            while finished < total["changed"]:
                await self._sleep(0.5)
                finished = min(self._runner.finished - before, total["changed"])
                progress(finished, total["changed"], "recipients tried")
                stats = await self._queue.stats()
                if not stats.recipients["claimed"] and not 0 < stats.next_attempt <= self._now():
                    break  # Some were dropped or held meanwhile.
        return {**total, "finished": finished, "is_running": self._runner is not None}

    async def _read_change(self, arguments: Mapping[str, Any]) -> Change:
        match arguments.get("do"):
            case "hold":
                return Hold(str(arguments.get("note") or ""))
            case "release":
                return Release()
            case "retry":
                return Retry()
            case "drop":
                return Drop()
            case "bounce":
                text = str(arguments.get("note") or "The administrator gave up this message")
                if not text.isprintable() or len(text) > 400:
                    raise Refused("the reason is one printable line of at most 400 characters", EX_DATA)
                return Fail(Reply(554, "5.0.0", text, "lookup", is_remote=False))
            case "edit":
                return await self._edit(arguments)
            case other:
                raise Refused(f"this server does not know the change {other!r}", EX_USAGE)

    async def _edit(self, arguments: Mapping[str, Any]) -> Edit:
        recipient: Recipient | None = None
        destination = ""
        if arguments.get("new_recipient"):
            address = self._address(arguments["new_recipient"])
            # Where that goes the runner finds out when it is due.
            recipient, destination = Recipient(Path(address)), address.domain
        reverse_path: ReversePath | None = None
        if arguments.get("new_sender"):
            text = arguments["new_sender"]
            path = Path.null if text == "<>" else Path(self._address(text))
            reverse_path = await self._with_path(arguments, path)
        priority = arguments.get("priority")
        if priority is not None and not MIN_PRIORITY <= int(priority) <= MAX_PRIORITY:
            raise Refused(f"a priority is {MIN_PRIORITY} to {MAX_PRIORITY}, higher is sooner", EX_DATA)
        lifetime = float(arguments.get("expires") or 0)
        if recipient is None and reverse_path is None and priority is None and not lifetime:
            raise Refused("say what to change: --new-recipient, --new-sender, --priority or --expires", EX_USAGE)
        expires = self._now() + lifetime if lifetime else 0.0
        return Edit(recipient, destination, reverse_path, int(priority) if priority is not None else None, expires)

    async def _with_path(self, arguments: Mapping[str, Any], path: Path) -> ReversePath:
        """Return the reverse-path with another address and the parameters of the first message chosen."""
        page = await self._queue.find(self._choice(arguments), START, PIECE)
        parameters = {msgspec.structs.replace(message.reverse_path, path=path) for message in page.messages}
        if len(parameters) > 1:
            raise Refused("these messages have different MAIL parameters; change the sender of one at a time", EX_DATA)
        return parameters.pop() if parameters else ReversePath(path)

    # --------------------------------------------------------------------------------------------------------- reading

    def _choice(self, arguments: Mapping[str, Any]) -> Choice:
        states = frozenset(arguments.get("states") or ())
        unknown = states - set(get_args(State))
        if unknown:
            raise Refused(f"{', '.join(sorted(unknown))}: states are {', '.join(get_args(State))}", EX_USAGE)
        now = self._now()
        older, newer = float(arguments.get("older") or 0), float(arguments.get("newer") or 0)
        return Choice(
            ids=frozenset(self._ids(arguments.get("ids") or ())),
            states=states,
            sender=str(arguments.get("sender") or ""),
            recipient=str(arguments.get("recipient") or ""),
            domain=str(arguments.get("domain") or ""),
            destination=str(arguments.get("destination") or ""),
            transaction=str(arguments.get("transaction") or ""),
            created_before=now - older if older else 0.0,
            created_after=now - newer if newer else 0.0,
        )

    @staticmethod
    def _require_some(arguments: Mapping[str, Any], choice: Choice) -> None:
        if choice == Choice() and not arguments.get("all"):
            raise Refused(
                "say which: ids, --sender, --recipient, --domain, --state, --older …, or --all for the whole queue",
                EX_USAGE,
            )

    @staticmethod
    def _ids(texts: Any) -> list[QueueId]:
        try:
            return [parse_queue_id(text) for text in texts]
        except ValueError as error:
            raise Refused(str(error), EX_DATA) from None

    def _address(self, text: str) -> Address:
        try:
            address = self._parse_path(text).address
        except ValueError as error:
            raise Refused(f"{text!r} is not an address: {error}", EX_DATA) from None
        if address is None or not address.domain:
            raise Refused(f"{text!r} is not an address; write local@domain", EX_DATA)
        return address


# ---------------------------------------------------------------------------------------------------------------- telling


def reply_text(reply: Reply | None) -> str:
    """A reply in one line, "" for none."""
    return f"{reply.code} {reply.enhanced} {reply.text}" if reply is not None else ""


def told(message: QueuedMessage) -> dict[str, Any]:
    """A message as JSON can say it."""
    path = message.reverse_path.path
    return {
        "id": queue_id_text(message.id),
        "sender": "<>" if path.is_null else str(path.address),
        "size": message.size,
        "submitter": int(message.submitter),
        "transaction": message.transaction,
        "priority": message.priority,
        "created": message.created,
        "expires": message.expires,
        "envid": message.reverse_path.envid,
        "recipients": [_told_recipient(each) for each in message.recipients],
    }


def _told_recipient(one: QueuedRecipient) -> dict[str, Any]:
    return {
        "number": one.number,
        "recipient": str(one.recipient.path.address),
        "destination": one.destination,
        "state": one.state,
        "next_attempt": one.next_attempt,
        "attempts": one.attempts,
        "last": reply_text(one.verdict or one.last),
        "host": one.host,
        "note": one.note,
        "history": [_told_attempt(each) for each in one.history],
    }


def _told_attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "started": attempt.started,
        "seconds": attempt.seconds,
        "host": attempt.host,
        "address": attempt.address,
        "tls": attempt.tls,
        "stage": attempt.outcome.stage,
        "reply": reply_text(attempt.outcome),
    }
