"""Which filters are asked, and when: specifications, what was loaded of them, and the order per stage.

A plan never changes.  A reload makes another one; a mail transaction keeps the plan it began with, so it never meets half of each.
What the objects of one filter share is given back when the last transaction that may use it is over.

A shadow (``shadow = true``) stands where the live filter of the same name stands, sees what that sees, and never acts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec
from twisted.logger import Logger

from livemail.filters.author import Filter, Server
from livemail.interfaces.filter import ConnectionInfo

STAGES: Final = ("connect", "helo", "mail", "rcpt", "data", "headers", "body", "message")
CONTENT_STAGES: Final = ("headers", "body", "message")

DEFAULT_MEMORY: Final = 512 * 1024 * 1024

_log: Final = Logger()


class FilterSpec(msgspec.Struct, frozen=True):
    """One configured filter.

    name: in logs and records.  filter: the class.  config: None for the class's defaults.  on_failure: what a failure means, the
    message's deferral or nothing.  timeout: seconds a stage may take, all chunks of a body together.  services, domains, accounts:
    whom it is asked for, empty for everybody; domains and accounts in lower case.  shadow: it never acts.  isolation: in a process
    of its own, with ``memory`` octets of address space.  use: what the configuration called it.
    """

    name: str
    filter: type[Filter]
    config: msgspec.Struct | None = None
    on_failure: Literal["defer", "skip"] = "defer"
    timeout: float = 30.0
    services: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    accounts: frozenset[str] = frozenset()
    shadow: bool = False
    isolation: Literal["none", "process"] = "none"
    memory: int = DEFAULT_MEMORY
    use: str = ""

    def overrides(self, stage: str) -> bool:
        """Whether the class has a stage of its own."""
        return getattr(self.filter, stage) is not getattr(Filter, stage)


class Loaded:
    """A filter ready to be asked: its specification and what its objects share.

    compared, differed: of a shadow, the transactions it saw and those in which it would have acted otherwise.
    """

    def __init__(self, spec: FilterSpec, server: Server) -> None:
        """Raises what the filter's `Filter.start` raises."""
        self.spec = spec
        self.server = server
        self.config = spec.config if spec.config is not None else spec.filter.Config()
        self.is_scoped = bool(spec.domains or spec.accounts)
        self.in_thread = spec.filter.blocking and spec.isolation == "none"
        self.has_closed = spec.filter.closed is not Filter.closed or spec.isolation != "none"
        self.content_stages = tuple(stage for stage in CONTENT_STAGES if spec.overrides(stage))
        self.shown_name = f"{spec.name} (shadow)" if spec.shadow else spec.name
        self.compared = 0
        self.differed = 0
        self._users = 0
        self._is_retired = False
        self.worker: Any = None
        if spec.isolation == "process":
            from livemail.filters.isolation import Worker

            self.worker = Worker(spec, self.config, server)
            self.shared: Any = None
        else:
            self.shared = spec.filter.start(self.config, server)

    def make(self) -> Filter:
        """Make the object for one mail transaction."""
        if self.worker is not None:
            made: Filter = self.worker.make()
            return made
        made = self.spec.filter(self.config)
        made.server = self.server
        made.shared = self.shared
        return made

    def has_scope(
        self, stage: str, connection: ConnectionInfo, domains: Iterable[str], accounts: Iterable[str]
    ) -> bool:
        """Whether it is asked.  domains, accounts: of the recipient at rcpt, of all recipients later; lower-case."""
        spec = self.spec
        authcid = connection.authcid.lower()
        if authcid and (authcid in spec.accounts or authcid.rpartition("@")[2] in spec.domains):
            return True
        if stage in {"connect", "helo", "mail"}:
            return False
        return not spec.domains.isdisjoint(domains) or not spec.accounts.isdisjoint(accounts)

    def use(self) -> None:
        """A transaction begins that may ask it."""
        self._users += 1

    def leave(self) -> None:
        """That transaction is over."""
        self._users -= 1
        if self._is_retired and self._users <= 0:
            self._stop()

    def retire(self) -> None:
        """No new transaction asks it."""
        self._is_retired = True
        if self._users <= 0:
            self._stop()

    def _stop(self) -> None:
        self._is_retired = False
        try:
            if self.worker is not None:
                self.worker.stop()
            else:
                self.spec.filter.stop(self.shared)
        except Exception:
            _log.failure("filter {filter} failed at stop", filter=self.spec.name)


class Plan:
    """The filters of one service in order.

    shadows: positions of shadows; watched: of them and their live ones.  filters: shadows directly before their live ones.  stages: for each stage the positions of those that have it.  content: of those that
    have any of headers, body and message.  twins: a shadow's position to its live one's.
    """

    def __init__(self, filters: Sequence[Loaded]) -> None:
        shadows = {loaded.spec.name: loaded for loaded in filters if loaded.spec.shadow}
        ordered: list[Loaded] = []
        for loaded in filters:
            if loaded.spec.shadow:
                if not any(other.spec.name == loaded.spec.name and not other.spec.shadow for other in filters):
                    ordered.append(loaded)
                continue
            twin = shadows.get(loaded.spec.name)
            ordered += [twin, loaded] if twin is not None else [loaded]
        self.filters = tuple(ordered)
        self.stages = {
            stage: tuple(at for at, loaded in enumerate(ordered) if loaded.spec.overrides(stage)) for stage in STAGES
        }
        self.content = tuple(
            at for at, loaded in enumerate(ordered) if any(loaded.spec.overrides(stage) for stage in CONTENT_STAGES)
        )
        self.twins = {
            at: at + 1
            for at, loaded in enumerate(ordered)
            if loaded.spec.shadow and at + 1 < len(ordered) and ordered[at + 1].spec.name == loaded.spec.name
        }
        self.shadows = tuple(at for at, loaded in enumerate(ordered) if loaded.spec.shadow)
        self.watched = frozenset(self.shadows) | frozenset(self.twins.values())
        self.is_empty = not ordered
        self.needs_accounts = any(loaded.spec.accounts for loaded in ordered)

    def use(self) -> None:
        """A transaction begins."""
        for loaded in self.filters:
            loaded.use()

    def leave(self) -> None:
        """It is over."""
        for loaded in self.filters:
            loaded.leave()


EMPTY: Final = Plan(())
