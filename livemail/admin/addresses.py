"""What an administrator does with domains and aliases, as operations: arguments and results are what JSON can say."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from livemail.admin.operations import EX_DATA, EX_EXISTS, EX_NO_ACCOUNT, EX_PROBLEMS, Operations, Refused
from livemail.directory.book import AddressBook, AlreadyThere, NotPossible, NotThere, StillUsed, domain_name
from livemail.directory.store import StoreDirectory
from livemail.interfaces.addresses import AliasRecord, DomainRecord
from livemail.interfaces.storage import Progress

Asked = Mapping[str, Any]
LISTED_TARGETS = 20
"""Targets of an alias that a list tells; `alias.show` tells all."""


def add_to(operations: Operations, book: AddressBook, directory: StoreDirectory) -> None:
    """Offer ``domain.*`` and ``alias.*``."""
    offered = AddressOperations(book, directory)
    for name, function in {
        "domain.add": offered.domain_add,
        "domain.list": offered.domain_list,
        "domain.show": offered.domain_show,
        "domain.set": offered.domain_set,
        "domain.remove": offered.domain_remove,
        "alias.add": offered.alias_add,
        "alias.list": offered.alias_list,
        "alias.show": offered.alias_show,
        "alias.set": offered.alias_set,
        "alias.remove": offered.alias_remove,
    }.items():
        operations.add(name, _refusing(function))


def _refusing(
    function: Callable[[Asked], Coroutine[Any, Any, Any]],
) -> Callable[[Asked, Progress], Coroutine[Any, Any, Any]]:
    """Say what is not possible with an exit status."""

    async def run(asked: Asked, _progress: Progress) -> Any:
        try:
            return await function(asked)
        except NotThere as error:
            raise Refused(str(error), EX_NO_ACCOUNT) from None
        except AlreadyThere as error:
            raise Refused(str(error), EX_EXISTS) from None
        except StillUsed as error:
            raise Refused(str(error), EX_PROBLEMS) from None
        except NotPossible as error:
            raise Refused(str(error), EX_DATA) from None

    return run


class AddressOperations:
    """The operations."""

    def __init__(self, book: AddressBook, directory: StoreDirectory) -> None:
        self._book = book
        self._directory = directory

    # ---------------------------------------------------------------------------------------------------- domains

    async def domain_add(self, asked: Asked) -> Any:
        """name, role, catch_all, postmaster."""
        record = await self._book.add_domain(asked["name"], asked["role"], asked["catch_all"], asked["postmaster"])
        return _domain(record, is_configured=False)

    async def domain_list(self, _asked: Asked) -> Any:
        """All domains, the configuration file's too."""
        return [_domain(record, is_configured=configured) for record, configured in self._directory.domains().values()]

    async def domain_show(self, asked: Asked) -> Any:
        """One domain, with how many accounts and aliases it has."""
        key = domain_name(asked["name"])
        known = self._directory.domains().get(key)
        if known is None:
            raise NotThere(f"there is no domain {key}; `livemail domain list` shows all")
        accounts, aliases = await self._book.count(key)
        return {**_domain(known[0], is_configured=known[1]), "accounts": accounts, "aliases": aliases}

    async def domain_set(self, asked: Asked) -> Any:
        """name; role, catch_all, postmaster: null leaves one as it is."""
        record = await self._book.set_domain(asked["name"], asked["role"], asked["catch_all"], asked["postmaster"])
        return _domain(record, is_configured=self._directory.domains()[record.name][1])

    async def domain_remove(self, asked: Asked) -> Any:
        """name."""
        return {"name": (await self._book.remove_domain(asked["name"])).name}

    # ---------------------------------------------------------------------------------------------------- aliases

    async def alias_add(self, asked: Asked) -> Any:
        """address, targets, senders, keep_copy."""
        record = await self._book.add_alias(
            asked["address"], asked["targets"], asked["senders"], keep_copy=asked["keep_copy"]
        )
        return {**_alias(record, is_configured=False), "missing": await self._missing(record)}

    async def _missing(self, record: AliasRecord) -> list[str]:
        """Return the first targets here that nobody has: not refused, because accounts may follow, and told."""
        missing: list[str] = []
        for target in record.targets:
            if len(missing) < LISTED_TARGETS and not await self._directory.leads_somewhere(target):
                missing.append(target)
        return missing

    async def alias_list(self, asked: Asked) -> Any:
        """domain: null for all.  The configuration file's aliases stand first."""
        domain = domain_name(asked["domain"]) if asked["domain"] else ""
        configured = [(record, True) for record in self._directory.configured_aliases()]
        kept = [(record, False) for record in await self._book.aliases()]
        return [
            _alias(record, is_configured=is_configured, targets=LISTED_TARGETS)
            for record, is_configured in configured + kept
            if not domain or record.domain == domain
        ]

    async def alias_show(self, asked: Asked) -> Any:
        """address."""
        for record in self._directory.configured_aliases():
            if record.address == self._book.completed(asked["address"]):
                return _alias(record, is_configured=True)
        return _alias(await self._book.alias(asked["address"]), is_configured=False)

    async def alias_set(self, asked: Asked) -> Any:
        """address; add, drop: targets; senders, keep_copy: null leaves one as it is."""
        record = await self._book.set_alias(
            asked["address"],
            add=asked["add"],
            drop=asked["drop"],
            senders=asked["senders"],
            keep_copy=asked["keep_copy"],
        )
        return {**_alias(record, is_configured=False), "missing": await self._missing(record)}

    async def alias_remove(self, asked: Asked) -> Any:
        """address."""
        return {"address": (await self._book.remove_alias(asked["address"])).address}


def _domain(record: DomainRecord, *, is_configured: bool) -> dict[str, Any]:
    return {
        "name": record.name,
        "role": record.role,
        "catch_all": record.catch_all,
        "postmaster": record.postmaster,
        "configured": is_configured,
        "created": record.created,
    }


def _alias(record: AliasRecord, *, is_configured: bool, targets: int | None = None) -> dict[str, Any]:
    return {
        "address": record.address,
        "targets": list(record.targets[:targets]),
        "target_count": len(record.targets),
        "keep_copy": record.keep_copy,
        "senders": list(record.senders),
        "configured": is_configured,
        "created": record.created,
    }
