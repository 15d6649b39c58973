"""Settings of the directory."""

from __future__ import annotations

from collections.abc import Iterator

from livemail.directory.aliases import fold
from livemail.interfaces.settings import Settings
from livemail.mail.address import MAX_LOCAL_PART_OCTETS, Address
from livemail.mail.domains import domain_key


class Alias(Settings, frozen=True):
    """One entry of ``[[directory.aliases]]``: an address and where its mail goes.

    address, targets: ``local@domain`` or ``local`` at the default domain, without quotes; targets are here or elsewhere.
    An alias that names its own address among its targets keeps a copy for the account of that name.
    """

    address: str
    targets: tuple[str, ...]


class DirectorySettings(Settings, frozen=True):
    """The ``[directory]`` section.

    local_domains: domains we are the final destination for, A-labels or U-labels; an address literal in brackets, where mail
    to ``user@[192.0.2.1]`` is wanted: it stands for the default domain.  default_domain: of addresses and logins without
    one; "" for the first local domain.  plus_separator: what separates a local part from its detail (RFC 5233), "" for no
    details.  backup_domains: domains whose mail we take and hand to a better MX host of theirs.  postmaster: address that gets the mail for postmaster where no alias or account of that name exists, "" for
    the first account created.  aliases: see `Alias`.
    """

    local_domains: tuple[str, ...] = ("localhost",)
    default_domain: str = ""
    backup_domains: tuple[str, ...] = ()
    plus_separator: str = "+"
    postmaster: str = ""
    aliases: tuple[Alias, ...] = ()

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong with it and what to write instead) for every fault."""
        if not self.local_domains:
            yield "local_domains", "is empty; name at least one domain, for example localhost"
        local: set[str] = set()
        for domain in self.local_domains:
            try:
                key = domain_key(domain)
            except ValueError as error:
                yield "local_domains", f"has {domain!r}, which is not a domain ({error})"
                continue
            if key in local:
                yield "local_domains", f"has {domain!r} twice"
            local.add(key)
        for domain in self.backup_domains:
            try:
                key = domain_key(domain)
            except ValueError as error:
                yield "backup_domains", f"has {domain!r}, which is not a domain ({error})"
                continue
            if key in local or key.startswith("["):
                yield (
                    "backup_domains",
                    f"has {domain!r}, which is among local_domains or an address; keep it in one list",
                )
        if self.default_domain and _key_or_empty(self.default_domain) not in local:
            yield "default_domain", f"is {self.default_domain!r}, which is not among local_domains; add it there"
        if (self.default_domain or "".join(self.local_domains[:1])).startswith("["):
            yield "default_domain", "is an address literal; name a domain"
        if len(self.plus_separator) > 1 or self.plus_separator in {"@", "."}:
            yield (
                "plus_separator",
                f'is {self.plus_separator!r}; write one character, usually "+" or "-", or "" for none',
            )
        if self.postmaster:
            yield from _address_faults("postmaster", self.postmaster)
        yield from self._alias_faults(local)

    def _alias_faults(self, local: set[str]) -> Iterator[tuple[str, str]]:
        seen: set[tuple[str, str]] = set()
        default = _key_or_empty(self.default_domain or "".join(self.local_domains[:1]))
        for alias in self.aliases:
            found = list(_address_faults("aliases", alias.address))
            for target in alias.targets:
                found += _address_faults("aliases", target)
            yield from found
            if not alias.targets:
                yield "aliases", f"has {alias.address!r} without targets; name at least one"
            if found:
                continue
            address = parse_address(alias.address)
            key = (fold(address.local_part), domain_key(address.domain) if address.domain else default)
            if key[1] not in local:
                yield "aliases", f"has {alias.address!r}, whose domain is not among local_domains; add it there"
            if key in seen:
                yield "aliases", f"has {alias.address!r} twice; put all its targets in one entry"
            seen.add(key)


def parse_address(text: str) -> Address:
    """Return the address of a setting; domain "" when there is none.  Raises ValueError."""
    local, at, domain = text.strip().rpartition("@")
    if not at:
        local, domain = domain, ""
    if not local or (at and not domain):
        raise ValueError("write local@domain")
    if any(character.isspace() or not character.isprintable() or character in '"<>' for character in local):
        raise ValueError("the local part has spaces, quotes, angle brackets or control characters")
    if len(local.encode()) > MAX_LOCAL_PART_OCTETS:
        raise ValueError(f"a local part has at most {MAX_LOCAL_PART_OCTETS} octets")
    if domain:
        domain_key(domain)
    return Address(local, domain.lower())


def _address_faults(field: str, text: str) -> Iterator[tuple[str, str]]:
    try:
        parse_address(text)
    except ValueError as error:
        yield field, f"has {text!r}, which is not an address: {error}"


def _key_or_empty(domain: str) -> str:
    try:
        return domain_key(domain)
    except ValueError:
        return ""
