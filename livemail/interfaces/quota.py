"""What is used of every quota."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from zope.interface import Interface


class QuotaUse(msgspec.Struct, frozen=True):
    """One account, one domain as a whole, or the store.

    kind: "account", "domain" or "store".  name: "" for the store.  octets, messages, mailboxes: used.  A limit of 0 is none.
    percent: of the limit that is nearer, rounded down; mailboxes do not count for it.
    """

    kind: str
    name: str
    octets: int
    messages: int
    mailboxes: int
    octets_limit: int
    messages_limit: int
    mailboxes_limit: int
    percent: int


class IQuotaStore(Interface):
    """A store that keeps quotas."""

    async def quotas(name: str = "") -> Sequence[QuotaUse]:
        """One account, its domain and the store; without name every account, every domain and the store.

        Raises NoSuchAccount.
        """
