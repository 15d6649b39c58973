"""All configured filters: loaded once, shared by the services' chains, replaced as a whole or one by one while mail flows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from livemail.filters.asking import told
from livemail.filters.author import Server
from livemail.filters.chain import FilterChain
from livemail.filters.plan import FilterSpec, Loaded
from livemail.interfaces.runtime import RunBlocking
from livemail.interfaces.storage import IMailStore


class CannotLoad(Exception):
    """A filter's `Filter.start` failed.  Nothing was changed."""


class FilterSet:
    """The filters of one server.  loaded: in the configuration's order.  server: what they may use."""

    log = Logger()

    def __init__(
        self,
        store: IMailStore,
        clock: IReactorTime,
        run_blocking: RunBlocking,
        server: Server,
        *,
        always: Sequence[FilterSpec] = (),
    ) -> None:
        """server: what filters may use; its folder is made when there are filters.  always: come before all that are configured."""
        self._always = tuple(always)
        self._store = store
        self._clock = clock
        self._run_blocking = run_blocking
        self.server = server
        self._chains: dict[str, FilterChain] = {}
        self.loaded: list[Loaded] = []

    def chain(self, service: str) -> FilterChain:
        """The chain of one service: always the same object, whose plan follows `replace`."""
        found = self._chains.get(service)
        if found is None:
            found = FilterChain((), self._store, self._clock, self._run_blocking, server=self.server)
            self._chains[service] = found
            found.replace(self._of(service, self.loaded))
        return found

    @staticmethod
    def _of(service: str, loaded: Sequence[Loaded]) -> list[Loaded]:
        return [each for each in loaded if not each.spec.services or service in each.spec.services]

    def replace(self, specs: Sequence[FilterSpec]) -> list[str]:
        """Have these filters from the next mail transaction on; return the names of those that are new or other than before.

        A filter whose class and configuration are the same goes on with what its objects share.  Raises CannotLoad; everything
        is as before then.
        """
        known = {id(each): each for each in self.loaded}
        fresh: list[Loaded] = []
        kept: list[Loaded] = []
        if specs and self.server.folder:
            Path(self.server.folder).mkdir(mode=0o700, exist_ok=True)
        try:
            for spec in (*self._always, *specs):
                same = next((each for each in known.values() if each.spec == spec), None)
                if same is not None:
                    del known[id(same)]
                    kept.append(same)
                    continue
                try:
                    kept.append(Loaded(spec, self.server))
                except Exception as error:
                    raise CannotLoad(f"filter {spec.name} cannot start: {told(error)}") from error
                fresh.append(kept[-1])
        except CannotLoad:
            for each in fresh:
                each.retire()
            raise
        self.loaded = kept
        for service, chain in self._chains.items():
            chain.replace(self._of(service, kept))
        for old in known.values():
            old.retire()
        return [each.spec.name for each in fresh]

    async def stop(self) -> None:
        """Give everything back; new transactions meet no filters, so only after the last connection."""
        for chain in self._chains.values():
            chain.replace(())
        loaded, self.loaded = self.loaded, []
        for each in loaded:
            each.retire()
        for each in loaded:
            if each.worker is not None and each.worker.stopped is not None:
                await each.worker.stopped
