"""Import and export, as operations over the store."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from twisted.internet.defer import DeferredSemaphore, gatherResults
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from livemail.admin.operations import EX_DATA, EX_NO_ACCOUNT, EX_PROBLEMS, Refused, canonical_login
from livemail.interfaces.runtime import RunBlocking
from livemail.interfaces.storage import IAccount, IMailStore, Progress
from livemail.interfaces.transfer import IImportTarget
from livemail.mail.errors import MailError
from livemail.storage.transfer.exporter import WRITERS, Exporter
from livemail.storage.transfer.files import EmlSource, MboxSource
from livemail.storage.transfer.imap import IMAPSource, Login
from livemail.storage.transfer.importer import Importer, Options
from livemail.storage.transfer.maildir import MaildirSource
from livemail.storage.transfer.source import Source, SourceError

KINDS: Final = ("maildir", "mbox", "eml", "imap")


class Transfers:
    """``import`` and ``export``."""

    def __init__(
        self, store: IMailStore, domains: Callable[[], Sequence[str]], run_blocking: RunBlocking, jobs: int = 1
    ) -> None:
        """domains: the local ones, the default first.  jobs: accounts of a batch at once, at most: each keeps a thread busy."""
        self._store = store
        self._domains = domains
        self._run_blocking = run_blocking
        self._jobs = jobs

    def operations(self) -> dict[str, Callable[[Mapping[str, Any], Progress], Awaitable[Any]]]:
        """What is offered, by name."""
        return {"import": self.bring_in, "import.batch": self.bring_in_many, "export": self.bring_out}

    async def _account(self, name: str) -> IAccount:
        login = canonical_login(name, self._domains())
        record = await self._store.account_named(login)
        if record is None:
            raise Refused(f"there is no account {login}; `livemail account add {login}` makes it", EX_NO_ACCOUNT)
        return await self._store.account(record.id)

    async def bring_in(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """kind, source, account; keep_uids, again, into, variant, password, token, ca."""
        account = await self._account(arguments["account"])
        try:
            verifyObject(IImportTarget, account)
        except Invalid:
            raise Refused(f"{account.name} is kept elsewhere; nothing can be imported into it", EX_PROBLEMS) from None
        options = Options(
            keep_uids=bool(arguments.get("keep_uids")),
            again=f"again {time.time_ns()}" if arguments.get("again") else "",
            into=str(arguments.get("into") or ""),
        )
        importer = Importer(self._store, account, self._run_blocking, progress, options)
        try:
            source = await self._run_blocking(open_source, arguments)
            report = await importer.run(source)
        except SourceError as error:
            came = importer.report.imported
            more = f"; {came:,} messages came before that, and another run goes on from there" if came else ""
            raise Refused(f"{error}{more}", EX_DATA) from None
        return {"account": account.name, **msgspec.to_builtins(report)}

    async def bring_in_many(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """rows: [[account, address, password], …] of IMAP servers; jobs: how many at once; the rest as `bring_in`."""
        shared = {key: arguments.get(key) for key in ("keep_uids", "again", "into", "ca")}
        at: dict[int, tuple[int, int]] = {}

        async def one(number: int, row: Sequence[str]) -> Any:
            def tell(done: int, total: int, what: str) -> None:
                at[number] = (done, total)
                progress(sum(done for done, _ in at.values()), 0, f"{what} of {len(at)} accounts")

            name, source, password = row
            try:
                return await self.bring_in(
                    {**shared, "kind": "imap", "account": name, "source": source, "password": password}, tell
                )
            except Refused as refused:
                return {"account": name, "error": refused.text}
            except MailError as error:
                return {"account": name, "error": str(error)}

        gate = DeferredSemaphore(max(1, min(int(arguments.get("jobs") or 1), self._jobs)))
        running = [gate.run(one, number, row) for number, row in enumerate(arguments["rows"])]
        return list(await gatherResults(running))

    async def bring_out(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """kind, target, account."""
        account = await self._account(arguments["account"])
        kind = arguments["kind"]
        if kind not in WRITERS:
            raise Refused(f"{kind!r} is no kind of export; write one of {', '.join(WRITERS)}", EX_DATA)
        try:
            report = await Exporter(account, self._run_blocking, progress).run(kind, Path(arguments["target"]))
        except SourceError as error:
            raise Refused(str(error), EX_PROBLEMS) from None
        return {"account": account.name, **msgspec.to_builtins(report)}


def open_source(arguments: Mapping[str, Any]) -> Source:
    """Open what is to be imported.  Blocks.  Raises SourceError."""
    kind, source = arguments["kind"], str(arguments["source"])
    if kind == "imap":
        return IMAPSource(
            Login(source, arguments.get("password") or "", arguments.get("token") or "", arguments.get("ca") or "")
        )
    if kind == "maildir":
        return MaildirSource(Path(source))
    if kind == "mbox":
        return MboxSource(Path(source), arguments.get("variant") or "auto")
    if kind == "eml":
        return EmlSource(Path(source))
    raise SourceError(f"{kind!r} is no kind of import; write one of {', '.join(KINDS)}")
