"""Domains and aliases as a store keeps them, beside those of the configuration file.

A store keeps what it is told and guards two things only: nothing is there twice, and no domain goes while something of it is
left.  What the records mean is the directory's (`livemail.directory`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from zope.interface import Interface

DomainRole = Literal["local", "backup"]
"""local: we are the final destination.  backup: we take its mail and hand it to a better MX host (RFC 5321 §5.1)."""


class DomainRecord(msgspec.Struct, frozen=True):
    """One domain.  name: its key (`livemail.mail.domains.domain_key`).  created: seconds since the epoch, UTC.

    catch_all: address that gets the mail for addresses of the domain that nobody has, "" for nobody.  postmaster: address
    that gets postmaster's where no account or alias of that name exists, "" as the configuration says.
    """

    name: str
    role: DomainRole = "local"
    catch_all: str = ""
    postmaster: str = ""
    created: int = 0


class AliasRecord(msgspec.Struct, frozen=True):
    """One alias; one with many targets is a group.  created: seconds since the epoch, UTC.

    local_part: folded (`livemail.directory.aliases.fold`).  domain: its key.  targets: addresses, in order, each once.
    keep_copy: the account of the same name gets the mail too.
    senders: who may write to it: addresses, ``@domain`` for all of a domain, ``members`` for its targets; empty for everybody.
    """

    local_part: str
    domain: str
    targets: tuple[str, ...]
    keep_copy: bool = False
    senders: tuple[str, ...] = ()
    created: int = 0

    @property
    def address(self) -> str:
        """The alias as one writes it."""
        return f"{self.local_part}@{self.domain}"


class IAddressBook(Interface):
    """The domains and aliases of one store.  Every call is one durable transaction."""

    async def domains() -> Sequence[DomainRecord]:
        """All domains by name, ascending."""

    async def put_domain(record: DomainRecord, *, is_new: bool) -> None:
        """Keep a domain.  is_new: raises DomainExists when there is one of its name, else NoSuchDomain when there is none."""

    async def remove_domain(name: str) -> None:
        """Forget a domain.  Raises NoSuchDomain, DomainInUse (accounts or aliases are left)."""

    async def aliases() -> Sequence[AliasRecord]:
        """All aliases by domain and local part, ascending."""

    async def alias(local_part: str, domain: str) -> AliasRecord | None:
        """One alias."""

    async def put_alias(record: AliasRecord, *, is_new: bool) -> None:
        """Keep an alias.  is_new: raises AliasExists when there is one of its address, else NoSuchAlias when there is none."""

    async def remove_alias(local_part: str, domain: str) -> None:
        """Forget an alias.  Raises NoSuchAlias."""
