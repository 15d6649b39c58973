"""``livemail filter list|reload|replay`` as operations: what the server's filters are, new ones for old, one over mail that is here."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred

from livemail.admin.operations import EX_DATA, Refused
from livemail.filters import Continue, Server
from livemail.filters.chain import FilterChain
from livemail.filters.filter_set import CannotLoad, FilterSet
from livemail.filters.find import CannotFind, import_anew, plugins, put_back
from livemail.filters.once import Circumstances, retire, run_once
from livemail.filters.plan import FilterSpec, Loaded
from livemail.interfaces.storage import DATE, SAVED, UID_, FetchWant, IAccount, IMailStore, MailboxInfo, Progress
from livemail.mail.content import Content
from livemail.mail.ids import MailboxId, UIDSet

Specs = Callable[[Sequence[Mapping[str, Any]]], list[FilterSpec]]
"""Makes specifications of tables; raises ValueError, CannotFind."""

MAX_FOUND: Final = 1000
LEFT_OUT: Final = frozenset({"\\Sent", "\\Drafts", "\\Trash"})
CHUNK_OCTETS: Final = 256 * 1024
_OURS: Final = re.compile(rb"\bfrom (\S+) \(\[(?:IPv6:)?([0-9A-Fa-f.:]+)\]\)")
_FIELD: Final = re.compile(
    rb"^(return-path|x-original-to|delivered-to):[ \t]*<?([^<>\r\n]*)>?", re.IGNORECASE | re.MULTILINE
)


def described(spec: FilterSpec) -> dict[str, Any]:
    """A filter as it is configured."""
    return {
        "name": spec.name,
        "use": spec.use,
        "class": f"{spec.filter.__module__}:{spec.filter.__qualname__}",
        "stages": [
            stage
            for stage in ("connect", "helo", "mail", "rcpt", "data", "headers", "body", "message")
            if spec.overrides(stage)
        ],
        "services": sorted(spec.services),
        "domains": sorted(spec.domains),
        "accounts": sorted(spec.accounts),
        "on_failure": spec.on_failure,
        "timeout": spec.timeout,
        "blocking": spec.filter.blocking,
        "isolation": spec.isolation,
        "shadow": spec.shadow,
    }


def known_plugins() -> list[dict[str, str]]:
    """The names that ``use`` knows."""
    return [{"name": each.name, "class": each.filter, "description": each.description} for each in plugins()]


class FilterOperations:
    """What can be done to the filters of a running server.

    specs: makes specifications of the configuration's tables.  tables: reads them anew; raises what `specs` raises and ValueError.
    """

    def __init__(
        self,
        filters: FilterSet,
        store: IMailStore,
        server: Server,
        specs: Specs,
        tables: Callable[[], Sequence[Mapping[str, Any]]],
    ) -> None:
        self._filters = filters
        self._store = store
        self._server = server
        self._specs = specs
        self._tables = tables

    async def list(self, _arguments: Mapping[str, Any], _progress: Progress) -> Any:
        """Every filter in order, with what shadows counted; and the names there are."""
        told = []
        for loaded in self._filters.loaded:
            one = described(loaded.spec)
            if loaded.spec.shadow:
                one |= {"compared": loaded.compared, "differed": loaded.differed}
            if loaded.worker is not None:
                one["pid"] = loaded.worker.pid
            told.append(one)
        return {"filters": told, "known": known_plugins(), "is_running": True}

    async def reload(self, arguments: Mapping[str, Any], _progress: Progress) -> Any:
        """name: of one filter, "" for all.  Whatever is wrong, the filters stay as they were."""
        return {"reloaded": self.reload_now(arguments.get("name", ""))}

    def reload_now(self, name: str = "") -> Sequence[str]:
        """Read the tables and the modules anew; return the names of filters that are other now.  Raises Refused."""
        known = [each.spec.name for each in self._filters.loaded]
        if name and name not in known:
            raise Refused(
                f"no filter of this server is named {name!r}; there are {', '.join(known) or 'none'}", EX_DATA
            )
        forgotten: list[dict[str, Any]] = []
        modules = {each.spec.filter.__module__ for each in self._filters.loaded if name in {"", each.spec.name}}
        try:
            tables = self._tables()
            forgotten += [import_anew(module) for module in sorted(modules)]
            return self._filters.replace(self._specs(tables))
        except (ValueError, CannotFind, CannotLoad, OSError) as error:
            for each in reversed(forgotten):
                put_back(each)
            raise Refused(f"{error}\nthe filters stay as they were", EX_DATA) from None

    async def replay(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """See `Replay`.  name: of a configured filter; else use and settings, as a table would have them."""
        wanted = arguments.get("name", "")
        spec = next(
            (each.spec for each in self._filters.loaded if each.spec.name == wanted and not each.spec.shadow), None
        )
        if spec is None:
            try:
                [spec] = self._specs([{"use": wanted, **arguments.get("settings", {})}])
            except (ValueError, CannotFind) as error:
                raise Refused(str(error), EX_DATA) from None
        elif arguments.get("settings"):
            try:
                [spec] = self._specs([{"use": spec.use, **arguments["settings"]}])
            except (ValueError, CannotFind) as error:
                raise Refused(str(error), EX_DATA) from None
        return await Replay(self._store, self._server, spec).run(arguments, progress)


class Replay:
    """One filter over mail that is stored: what its verdicts would have been.  Reads only."""

    def __init__(self, store: IMailStore, server: Server, spec: FilterSpec) -> None:
        self._store = store
        self._server = server
        plain = msgspec.structs.replace(
            spec, services=frozenset(), domains=frozenset(), accounts=frozenset(), shadow=False
        )
        self._spec = plain
        self._turn = 0.0

    async def run(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """since: seconds since the epoch.  accounts, mailbox: only these; by default all but Sent, Drafts and Trash.  limit: messages."""
        try:
            loaded = Loaded(self._spec, self._server)
        except Exception as error:
            raise Refused(f"filter {self._spec.name} cannot start: {error}", EX_DATA) from None
        chain = FilterChain([loaded], self._store, self._server.reactor, self._server.run_blocking, server=self._server)
        verdicts: Counter[str] = Counter()
        found: list[dict[str, Any]] = []
        limit = int(arguments.get("limit") or 0)
        messages = octets = failures = 0
        began = time.perf_counter()
        try:
            async for account, box, uid, date in self._messages(arguments):
                if limit and messages >= limit:
                    break
                result = await self._try(chain, account, box, uid)
                if result is None:
                    continue
                messages += 1
                octets += result[0]
                judged = result[1]
                word = "failure" if judged.failure else type(judged.verdict).__name__.lower()
                failures += bool(judged.failure)
                verdicts[word] += 1
                if (not isinstance(judged.verdict, Continue) or judged.edits or judged.failure) and len(
                    found
                ) < MAX_FOUND:
                    found.append(_told(account.name, box.name, uid, date, word, judged))
                progress(messages, 0, "messages")
                await self._breathe()
        finally:
            retire([loaded])
        return {
            "filter": self._spec.name, "messages": messages, "octets": octets, "verdicts": dict(verdicts), "failures": failures,
            "seconds": time.perf_counter() - began, "found": found, "is_cut_off": len(found) >= MAX_FOUND,
        }  # fmt: skip

    async def _messages(self, arguments: Mapping[str, Any]) -> AsyncIterator[tuple[IAccount, MailboxInfo, int, int]]:
        since = float(arguments.get("since") or 0)
        names = {str(name).lower() for name in arguments.get("accounts") or ()}
        only = str(arguments.get("mailbox") or "")
        for record in await self._store.accounts():
            if names and record.name.lower() not in names:
                continue
            account = await self._store.account(record.id)
            for box in (await account.mailboxes()).mailboxes:
                if box.name != only if only else box.special_use in LEFT_OUT:
                    continue
                async for batch in account.fetch(box.id, UIDSet.all(), FetchWant()):
                    for row in batch.rows:
                        if row[SAVED] >= since:
                            yield account, box, row[UID_], row[DATE]

    async def _try(self, chain: FilterChain, account: IAccount, box: MailboxInfo, uid: int) -> Any:
        reader = await account.open_content(MailboxId(box.id), _uid(uid))
        if reader is None:
            return None
        try:
            prefix = await reader.read(0, reader.prefix_size)
            content = await self._content(reader)
        finally:
            reader.close()
        size = content.size
        about = _circumstances(prefix, content.read(0, 4096), account.name)
        return size, await run_once(chain, content, about, wants_message=False)

    async def _content(self, reader: Any) -> Content:
        sink = self._store.new_content(reader.size)
        try:
            for at in range(reader.prefix_size, reader.size, CHUNK_OCTETS):
                sink.write(await reader.read(at, CHUNK_OCTETS))
            return await sink.finish()
        except BaseException:
            sink.abort()
            raise

    async def _breathe(self) -> None:
        now = time.perf_counter()
        if now - self._turn > 0.02:
            turn: Deferred[None] = Deferred()
            self._server.reactor.callLater(0, turn.callback, None)
            await turn
            self._turn = time.perf_counter()


def _uid(uid: int) -> Any:
    return uid


def _circumstances(prefix: bytes, head: bytes, account: str) -> Circumstances:
    """Who sent a stored message, as far as it says itself."""
    fields = {
        name.lower(): value.strip().decode("utf-8", "replace") for name, value in reversed(_FIELD.findall(prefix))
    }
    ours = _OURS.search(head)
    return Circumstances(
        sender=fields.get(b"return-path", ""),
        recipients=(fields.get(b"x-original-to") or fields.get(b"delivered-to") or account,),
        peer=ours.group(2).decode() if ours else "",
        helo=ours.group(1).decode("ascii", "replace") if ours else "",
    )


def _told(account: str, mailbox: str, uid: int, date: int, word: str, judged: Any) -> dict[str, Any]:
    verdict = judged.verdict
    text = f"{verdict.code} {verdict.enhanced} {verdict.text}" if hasattr(verdict, "code") else ""
    return {
        "account": account,
        "mailbox": mailbox,
        "uid": uid,
        "date": date,
        "verdict": word,
        "text": judged.failure or text,
        "reason": getattr(verdict, "reason", ""),
        "edits": judged.edits,
    }
