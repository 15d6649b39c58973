"""A world for authentication: the memory store, a plain directory, cheap hashes, a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet.task import Clock
from zope.interface import implementer

from livemail.auth.authenticator import Authenticator
from livemail.auth.cache import VerifiedCache
from livemail.auth.checker import DirectoryChecker
from livemail.auth.passwords import Passwords
from livemail.auth.realm import MailRealm
from livemail.auth.settings import AuthSettings
from livemail.auth.throttle import Throttle
from livemail.interfaces.directory import IDirectory, Unknown
from livemail.interfaces.filter import ConnectionInfo
from livemail.interfaces.storage import AccountRecord
from livemail.net.coroutines import run
from livemail.storage.memory import MemoryStore

ALICE, BOB, NOBODY = "alice@example.org", "bob@example.org", "nobody@example.org"
PASSWORD = "correct horse"
HERE = ConnectionInfo("s1", "imap", "192.0.2.7")
ELSEWHERE = ConnectionInfo("s2", "imap", "198.51.100.9")
CHEAP = AuthSettings(argon2_time=1, argon2_memory=8, argon2_lanes=1)


async def run_inline(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


@implementer(IDirectory)
class PlainDirectory:
    """Logins are account names, or local parts at example.org."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.disabled: set[str] = set()

    async def resolve(self, address):
        return Unknown()

    def canonical_login(self, login: str) -> str:
        name = login.strip().lower()
        local, at, domain = name.rpartition("@")
        if not at:
            return f"{name}@example.org"
        return f"{local}@example.org" if not domain else name

    async def account_for_login(self, login: str) -> AccountRecord | None:
        name = self.canonical_login(login)
        return None if name in self.disabled else await self._store.account_named(name)

    async def addresses_of(self, account):
        return ()

    def is_local_domain(self, domain: str) -> bool:
        return domain == "example.org"


class Asked:
    """A coroutine's outcome, watched while it runs."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_done = False
        self.run = run(coroutine, self._done)

    def _done(self, result: Any, error: BaseException | None) -> None:
        self.result, self.error, self.is_done = result, error, True


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that does not wait for anybody."""
    asked = Asked(coroutine)
    assert asked.is_done, "it waits"
    if asked.error is not None:
        raise asked.error
    return asked.result


class World:
    def __init__(self, settings: AuthSettings = CHEAP, checker: Any = None, run_blocking: Any = run_inline) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.directory = PlainDirectory(self.store)
        self.passwords = Passwords(run_blocking, settings)
        self.verified: list[str] = []
        verify = self.passwords.verify

        async def counted(hashed: str, password: str) -> bool:
            self.verified.append(hashed)
            return await verify(hashed, password)

        self.passwords.verify = counted  # type: ignore[method-assign]
        self.cache = VerifiedCache(
            self.clock.seconds, seconds=settings.remember_seconds, capacity=settings.remember_entries
        )
        self.checker = checker or DirectoryChecker(self.directory, self.store, self.passwords, self.cache)
        self.throttle = Throttle(self.clock.seconds, settings)
        self.authenticator = Authenticator(
            Portal(MailRealm(self.directory, self.store), [self.checker]), self.throttle, self.clock
        )

    def add(self, name: str, password: str = PASSWORD) -> AccountRecord:
        inline = Passwords(run_inline, CHEAP)
        hashed = finish(inline.hash(password)) if password else ""
        (record,) = finish(self.store.add_accounts([(name, hashed)]))
        return record

    def login(self, name: str, password: str, connection: ConnectionInfo = HERE) -> Asked:
        return Asked(self.authenticator.login(name, password, connection))
