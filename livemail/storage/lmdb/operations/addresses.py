"""Domains and aliases come, change and go."""

from __future__ import annotations

from livemail.interfaces.addresses import AliasRecord, DomainRecord
from livemail.mail.errors import AliasExists, DomainExists, DomainInUse, NoSuchAlias, NoSuchDomain
from livemail.storage.lmdb.operations.group import Group
from livemail.storage.lmdb.records import alias_key, pack_alias, pack_domain


class PutDomain:
    """Keep a domain."""

    def __init__(self, record: DomainRecord, *, is_new: bool) -> None:
        self._record = record
        self._is_new = is_new

    def run(self, group: Group) -> None:
        """Raises DomainExists, NoSuchDomain."""
        key, table = self._record.name.encode(), group.tables.dom
        exists = group.txn.get(key, db=table) is not None
        if exists == self._is_new:
            raise DomainExists if exists else NoSuchDomain
        group.txn.put(key, pack_domain(self._record), db=table)


class RemoveDomain:
    """Forget a domain nothing is left of."""

    def __init__(self, name: str) -> None:
        self._name = name

    def run(self, group: Group) -> None:
        """Raises NoSuchDomain, DomainInUse.  Looks at every login: this is rare."""
        txn, tables = group.txn, group.tables
        key = self._name.encode()
        if txn.get(key, db=tables.dom) is None:
            raise NoSuchDomain
        end = b"@" + key
        accounts = sum(bytes(login).endswith(end) for login in txn.cursor(tables.user).iternext(values=False))
        aliases = 0
        prefix = alias_key("", self._name)
        cursor = txn.cursor(tables.alias)
        found = cursor.set_range(prefix)
        while found and bytes(cursor.key()).startswith(prefix):
            aliases += 1
            found = cursor.next()
        if accounts or aliases:
            raise DomainInUse.of(self._name, accounts, aliases)
        txn.delete(key, db=tables.dom)


class PutAlias:
    """Keep an alias."""

    def __init__(self, record: AliasRecord, *, is_new: bool) -> None:
        self._record = record
        self._is_new = is_new

    def run(self, group: Group) -> None:
        """Raises AliasExists, NoSuchAlias."""
        key, table = alias_key(self._record.local_part, self._record.domain), group.tables.alias
        exists = group.txn.get(key, db=table) is not None
        if exists == self._is_new:
            raise AliasExists if exists else NoSuchAlias
        group.txn.put(key, pack_alias(self._record), db=table)


class RemoveAlias:
    """Forget an alias."""

    def __init__(self, local_part: str, domain: str) -> None:
        self._key = alias_key(local_part, domain)

    def run(self, group: Group) -> None:
        """Raises NoSuchAlias."""
        if not group.txn.delete(self._key, db=group.tables.alias):
            raise NoSuchAlias
