"""``livemail message deleted``, ``undelete`` and ``purge``: what was expunged is listed, comes back, or goes for good."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from livemail.admin.operations import EX_NO_ACCOUNT, EX_PROBLEMS, EX_UNAVAILABLE, EX_USAGE, Refused, canonical_login
from livemail.delivery.bounce.text import decode_subject
from livemail.interfaces.runtime import Now, RunBlocking
from livemail.interfaces.storage import IAccount, IMailStore, Progress
from livemail.interfaces.undelete import DeletedMessage, IUndelete
from livemail.mail.errors import InvalidName, LimitReached, OverQuota
from livemail.mail.message.quoting import Value, read_value

BATCH: Final = 500
PAGE: Final = 1000

_DATE, _SUBJECT, _FROM, _MESSAGE_ID = 0, 1, 2, 9


class Choice(msgspec.Struct):
    """Which of an account's kept messages are meant: all those that every given field admits.

    ids: as `id_text` makes them, or Message-IDs; none for any.  mailbox: it was in; "" for any.  since: seconds it was expunged ago at
    most, 0 for any.  text: in sender or subject, without case.
    """

    ids: list[str] = []
    mailbox: str = ""
    since: float = 0.0
    text: str = ""

    @property
    def is_open(self) -> bool:
        """Whether nothing was said."""
        return not (self.ids or self.mailbox or self.since or self.text)


class Told(msgspec.Struct, frozen=True):
    """A kept message as the command shows it.  sender, subject: decoded; times: seconds since the epoch."""

    id: str
    deleted: int
    mailbox: str
    uid: int
    octets: int
    date: int
    sender: str
    subject: str
    message_id: str


def id_text(key: bytes) -> str:
    """Return the id of a kept message: time, mailbox and UID in hexadecimal."""
    deleted, mailbox, uid = (int.from_bytes(each) for each in (key[4:12], key[12:16], key[16:20]))
    return f"{deleted:x}-{mailbox:x}-{uid:x}"


def told_of(message: DeletedMessage) -> Told:
    """Return what is shown of a kept message."""
    try:
        envelope = read_value(message.envelope)
    except ValueError:
        envelope = None
    fields = envelope if isinstance(envelope, list) and len(envelope) == 10 else [None] * 10
    return Told(
        id_text(message.key), message.deleted, message.mailbox, message.uid, message.size, message.internal_date,
        _sender(fields[_FROM]), decode_subject(_octets(fields[_SUBJECT])),
        _octets(fields[_MESSAGE_ID]).decode("ascii", "replace"),
    )  # fmt: skip


def _octets(value: Value) -> bytes:
    return value if isinstance(value, bytes) else b""


def _sender(value: Value) -> str:
    first = value[0] if isinstance(value, list) and value else None
    if not isinstance(first, list) or len(first) != 4:
        return ""
    name, _, local, domain = map(_octets, first)
    return decode_subject(b"%b <%b@%b>" % (name, local, domain) if name else b"%b@%b" % (local, domain))


def is_meant(choice: Choice, told: Told, now: float) -> bool:
    """Whether a kept message is among those chosen."""
    if choice.ids and told.id not in choice.ids and not {told.message_id, told.message_id.strip("<>")} & {*choice.ids}:
        return False
    if choice.mailbox and told.mailbox != choice.mailbox:
        return False
    if choice.since and told.deleted < now - choice.since:
        return False
    return not choice.text or choice.text.casefold() in f"{told.sender}\n{told.subject}".casefold()


def _meant(page: Sequence[DeletedMessage], choice: Choice, now: float) -> list[tuple[bytes, Told]]:
    told = [(message.key, told_of(message)) for message in page]
    return [each for each in told if is_meant(choice, each[1], now)]


class Undeletes:
    """The operations."""

    def __init__(
        self, store: IMailStore, domains: Callable[[], Sequence[str]], run_blocking: RunBlocking, now: Now
    ) -> None:
        """domains: the local ones, the default first."""
        self._store = store
        self._domains = domains
        self._run_blocking = run_blocking
        self._now = now

    def operations(self) -> dict[str, Callable[[Mapping[str, Any], Progress], Awaitable[Any]]]:
        """What is offered, by name."""
        return {"message.deleted": self.deleted, "message.undelete": self.undelete, "message.purge": self.purge}

    async def deleted(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """account, limit, and the fields of `Choice`.  Returns the latest, the latest first."""
        account, kept = await self._account(arguments)
        choice = _choice(arguments)
        latest: deque[Told] = deque(maxlen=max(1, int(arguments.get("limit") or PAGE)))
        count = octets = 0
        async for _, told in self._chosen(kept, choice, progress):
            latest.append(told)
            count += 1
            octets += told.octets
        return {
            "account": account.name,
            "count": count,
            "octets": octets,
            "messages": msgspec.to_builtins(list(reversed(latest))),
        }

    async def undelete(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """account, into, all, and the fields of `Choice`."""
        account, kept = await self._account(arguments)
        found = await self._found(arguments, account, kept, progress)
        wanted: dict[str, list[bytes]] = {}
        for key, told in found:
            wanted.setdefault(str(arguments.get("into") or "") or told.mailbox, []).append(key)
        came: dict[str, int] = {}
        refused: list[dict[str, str]] = []
        for mailbox, keys in wanted.items():
            for at in range(0, len(keys), BATCH):
                done = await self._bring(kept, keys[at : at + BATCH], mailbox, refused)
                if done:
                    came[mailbox] = came.get(mailbox, 0) + done
                progress(sum(came.values()), len(found), "messages")
        return {
            "account": account.name,
            "undeleted": sum(came.values()),
            "mailboxes": came,
            "refused": refused,
            "unknown": _unknown(_choice(arguments), found),
        }

    async def _bring(self, kept: IUndelete, keys: list[bytes], mailbox: str, refused: list[dict[str, str]]) -> int:
        """Bring messages back; those that do not fit are tried one by one.  Returns how many came."""
        try:
            return len(await kept.undelete(keys, mailbox))
        except (OverQuota, LimitReached, InvalidName) as error:
            if len(keys) > 1:
                half = len(keys) // 2
                first = await self._bring(kept, keys[:half], mailbox, refused)
                return first + await self._bring(kept, keys[half:], mailbox, refused)
            refused.append({"id": id_text(keys[0]), "mailbox": mailbox, "why": str(error)})
            return 0

    async def purge(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """account, all, and the fields of `Choice`."""
        account, kept = await self._account(arguments)
        found = await self._found(arguments, account, kept, progress)
        messages = octets = 0
        for at in range(0, len(found), BATCH):
            gone = await kept.forget_deleted([key for key, _ in found[at : at + BATCH]])
            messages += gone.messages
            octets += gone.octets
            progress(messages, len(found), "messages")
        return {
            "account": account.name,
            "purged": messages,
            "octets": octets,
            "unknown": _unknown(_choice(arguments), found),
        }

    async def _account(self, arguments: Mapping[str, Any]) -> tuple[IAccount, IUndelete]:
        login = canonical_login(arguments["account"], self._domains())
        record = await self._store.account_named(login)
        if record is None:
            raise Refused(f"there is no account {login}; `livemail account list` shows all", EX_NO_ACCOUNT)
        account = await self._store.account(record.id)
        kept = IUndelete(account, None)
        if kept is None:
            raise Refused(f"{login} is kept elsewhere, where nothing can be undeleted", EX_UNAVAILABLE)
        return account, kept

    async def _found(
        self, arguments: Mapping[str, Any], account: IAccount, kept: IUndelete, progress: Progress
    ) -> list[tuple[bytes, Told]]:
        choice = _choice(arguments)
        if choice.is_open and not arguments.get("all"):
            there = (await kept.kept()).messages
            raise Refused(
                f"say which of the {there:,} deleted messages of {account.name} are meant: their ids"
                f" (`livemail message deleted --account {account.name}` lists them) or Message-IDs, --mailbox NAME, --since TIME,"
                " --text WORDS, or --all",
                EX_USAGE,
            )
        found = [each async for each in self._chosen(kept, choice, progress)]
        if not found:
            raise Refused(
                f"none of these is among the deleted messages of {account.name}; [storage] undelete says how long they are kept,"
                f" `livemail message deleted --account {account.name}` lists them",
                EX_PROBLEMS,
            )
        return found

    async def _chosen(self, kept: IUndelete, choice: Choice, progress: Progress) -> AsyncIterator[tuple[bytes, Told]]:
        now, total, seen, after = self._now(), (await kept.kept()).messages, 0, b""
        while page := await kept.deleted(after, PAGE):
            after = page[-1].key
            # In a thread: to read a page's envelopes takes tens of milliseconds, and there may be a thousand pages.
            for each in await self._run_blocking(_meant, page, choice, now):
                yield each
            seen += len(page)
            progress(min(seen, total), total, "deleted messages")


def _choice(arguments: Mapping[str, Any]) -> Choice:
    given = {name: arguments[name] for name in ("ids", "mailbox", "since", "text") if arguments.get(name)}
    return msgspec.convert(given, Choice)


def _unknown(choice: Choice, found: Sequence[tuple[bytes, Told]]) -> list[str]:
    known = {word for _, told in found for word in (told.id, told.message_id, told.message_id.strip("<>"))}
    return [each for each in choice.ids if each not in known]
