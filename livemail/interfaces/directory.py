"""The directory: which domains are ours, which accounts and aliases they have, what a login means."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from zope.interface import Interface

from livemail.interfaces.storage import AccountRecord
from livemail.mail.address import Address
from livemail.mail.ids import AccountId


class LocalAccount(msgspec.Struct, frozen=True):
    """The address is an account's.  detail: what followed the ``+``, "" when nothing did (RFC 5233 §1)."""

    account: AccountId
    name: str
    detail: str = ""


class Elsewhere(msgspec.Struct, frozen=True):
    """The domain is not ours."""


class Unknown(msgspec.Struct, frozen=True):
    """The domain is ours, the address is not."""


class Backup(msgspec.Struct, frozen=True):
    """We take the domain's mail and hand it to a better MX host of it."""


class Restriction(msgspec.Struct, frozen=True):
    """Who may write to an alias.  senders: ``local@domain`` and ``@domain``, in the form in which they are compared."""

    alias: str
    senders: frozenset[str]


class Restricted(msgspec.Struct, frozen=True):
    """The address leads to these places for those who may write to every alias on the way."""

    places: tuple[LocalAccount | Address, ...]
    restrictions: tuple[Restriction, ...]


Resolution = tuple[LocalAccount | Address, ...] | Restricted | Backup | Elsewhere | Unknown
"""An alias resolves to several places, remote ones (Address) among them; each place once."""


def places_of(resolution: Resolution) -> tuple[LocalAccount | Address, ...]:
    """Return the places an address leads to, whoever writes."""
    if isinstance(resolution, Restricted):
        return resolution.places
    return resolution if isinstance(resolution, tuple) else ()


class IDirectory(Interface):
    """Answers without asking a peer."""

    async def resolve(address: Address) -> Resolution:
        """Where mail for an address goes.  Loops of aliases end; an address without domain is the default domain's.

        ``postmaster`` at every local domain always resolves (RFC 5321 §4.5.1).
        """

    async def account_for_login(login: str) -> AccountRecord | None:
        """The enabled account a user means by ``login`` (full address, or local part at the default domain)."""

    def canonical_login(login: str) -> str:
        """The name of the account that ``login`` means or would mean, whether there is one or not."""

    async def addresses_of(account: AccountId) -> Sequence[Address]:
        """Addresses the account may send as: its own name, and aliases that lead to it."""

    def is_local_domain(domain: str) -> bool:
        """Whether we are the final destination for a domain (compared without case)."""

    def may_write(sender: Address, restriction: Restriction) -> bool:
        """Whether a sender is among those who may."""
