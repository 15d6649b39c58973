"""Aliases: a graph of addresses, expanded once per alias into the places it leads to.

An alias of an alias is followed; one met again on the way stands for the account of its name, which ends every loop and
lets ``bob`` be an alias for ``bob`` and ``archive``.  The detail behind the separator goes along to local places that
have none of their own, so that ``team+x`` reaches ``alice+x``.

Who may write to an alias holds on every way to it: one that leads to a restricted alias is restricted as that one is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from livemail.interfaces.directory import Restriction
from livemail.mail.address import Address

Name = tuple[str, str]
"""Folded local part and key of its domain, which is a local one."""


class Place(NamedTuple):
    """Where an address leads inside the server: perhaps an account.  name: detail included."""

    name: Name
    base: Name
    detail: str


class Expansion(NamedTuple):
    """Where an alias leads, each place once, and who may write to it and to those it leads through."""

    leaves: tuple[Place | Address, ...]
    restrictions: tuple[Restriction, ...]


def fold(local_part: str) -> str:
    """Return the form under which local parts of accounts and aliases are compared: NFC, lower-case."""
    if local_part.isascii():
        return local_part.lower()
    return unicodedata.normalize("NFC", local_part).lower()


class Aliases:
    """The alias table."""

    def __init__(
        self,
        entries: Iterable[tuple[Address, Sequence[Address]]],
        separator: str,
        local_key: Callable[[str], str | None],
    ) -> None:
        """local_key: the key of a domain that is local ("" is the default one), None for others."""
        self._separator: Final = separator
        self._local_key: Final = local_key
        self._targets: dict[Name, list[Address]] = {}
        self._restrictions: dict[Name, Restriction] = {}
        self._expanded: dict[Name, Expansion] = {}
        for address, targets in entries:
            key = local_key(address.domain)
            if key is None:
                raise ValueError(f"the domain of the alias {address} is not local")
            self._targets.setdefault((fold(address.local_part), key), []).extend(targets)

    def put(self, name: Name, targets: Sequence[Address], restriction: Restriction | None = None) -> None:
        """Add an alias, or replace it."""
        self._targets[name] = list(targets)
        if restriction is None:
            self._restrictions.pop(name, None)
        else:
            self._restrictions[name] = restriction
        self.forget_expansions()

    def remove(self, name: Name) -> None:
        """Forget an alias."""
        self._targets.pop(name, None)
        self._restrictions.pop(name, None)
        self.forget_expansions()

    def forget_expansions(self) -> None:
        """Which domains are local has changed."""
        self._expanded.clear()

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def __iter__(self) -> Iterator[Name]:
        return iter(self._targets)

    def place(self, name: Name) -> Place:
        """Split the detail off a name.  A separator at either end separates nothing."""
        local, domain = name
        if self._separator:
            base, separator, detail = local.partition(self._separator)
            if base and separator:
                return Place(name, (base, domain), detail)
        return Place(name, name, "")

    def expand(self, place: Place) -> Expansion | None:
        """Return where an alias leads; None when the place is no alias."""
        if place.name in self._targets:
            return self._expansion(place.name)
        if place.base not in self._targets:
            return None
        leaves, restrictions = self._expansion(place.base)
        detailed = dict.fromkeys(_with_detail(leaf, place.detail, self._separator) for leaf in leaves)
        return Expansion(tuple(detailed), restrictions)

    def leading_to(self, name: Name) -> list[Name]:
        """Return the aliases that lead to an account's name, among other places or only."""
        return [
            alias
            for alias in self._targets
            if any(isinstance(leaf, Place) and name in {leaf.name, leaf.base} for leaf in self._expansion(alias).leaves)
        ]

    def _expansion(self, alias: Name) -> Expansion:
        expansion = self._expanded.get(alias)
        if expansion is None:
            expansion = self._expanded[alias] = self._walk(alias)
        return expansion

    def _walk(self, alias: Name) -> Expansion:
        """Depth first, in the order of the targets; iterative, because a chain may be as long as the settings."""
        leaves: dict[Place | Address, None] = {}
        passed = {alias: None}
        stack: list[tuple[Address, str]] = [(target, "") for target in reversed(self._targets[alias])]
        while stack:
            target, detail = stack.pop()
            key = self._local_key(target.domain)
            if key is None:
                leaves[target] = None
                continue
            place = self.place((fold(target.local_part), key))
            detail = place.detail or detail
            via = place.name if place.name in self._targets else place.base
            if via in self._targets and via not in passed:
                passed[via] = None
                inherited = "" if via == place.name else detail
                stack.extend((further, inherited) for further in reversed(self._targets[via]))
            else:
                leaves[_with_detail(place, detail, self._separator)] = None
        restrictions = [self._restrictions[name] for name in passed if name in self._restrictions]
        return Expansion(tuple(leaves), tuple(restrictions))


def _with_detail(leaf: Place | Address, detail: str, separator: str) -> Place | Address:
    if isinstance(leaf, Address) or leaf.detail or not detail:
        return leaf
    local, domain = leaf.base
    return Place((f"{local}{separator}{detail}", domain), leaf.base, detail)
