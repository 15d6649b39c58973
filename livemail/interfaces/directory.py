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


Resolution = tuple[LocalAccount | Address, ...] | Elsewhere | Unknown
"""An alias resolves to several places, remote ones (Address) among them; each place once."""


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
