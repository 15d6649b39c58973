"""Where a new account's messages go: into segments, or into a Maildir, and which; and how many may go there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from livemail.interfaces.settings import Count, Settings

Kind = Literal["lmdb", "maildir"]

DEFAULT_MAILDIR: Final = "maildir/{domain}/{local}"
"""Below the data folder."""

_FIELD: Final = re.compile(r"\{([^{}]*)\}")
_FIELDS: Final = frozenset({"domain", "local", "name"})


class PlacementSettings(Settings, frozen=True, kw_only=True):
    """One ``[[domain]]`` or ``[[account]]`` table: where accounts made from now on have their messages, and their quotas.

    name: of the domain, or of the account.  storage: "lmdb" or "maildir", not written for what [storage] says
    (or, for an account, its domain).  maildir: its folder, "" for the one of [storage].  quota, messages, mailboxes: octets, messages and mailboxes an account
    may hold, 0 for no limit, not written for what [storage] or the domain says.  quota_total, messages_total: of the domain
    as a whole, 0 for no limit.
    """

    name: str
    storage: Kind | None = None
    maildir: str = ""
    quota: int | None = None
    messages: int | None = None
    mailboxes: Count | None = None
    quota_total: int = 0
    messages_total: int = 0

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong with it and what to write instead)."""
        if self.maildir and self.storage != "maildir":
            said = f'storage is "{self.storage}"' if self.storage else "storage is not written"
            yield "maildir", f'names a folder, but {said}; write storage = "maildir", or remove it'
        if "@" in self.name and (self.quota_total or self.messages_total):
            field = "quota_total" if self.quota_total else "messages_total"
            yield field, "is of a domain as a whole; an account has `quota` and `messages`"
        if self.maildir:
            yield from template_faults(self.maildir, needs_local="@" not in self.name)


def template_faults(template: str, *, needs_local: bool) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a folder's template.  needs_local: several accounts share it."""
    for field in _FIELD.findall(template):
        if field not in _FIELDS:
            yield "maildir", f"has {{{field}}}; what is filled in is {{domain}}, {{local}} and {{name}}"
            return
    if needs_local and not {"local", "name"} & set(_FIELD.findall(template)):
        yield "maildir", f'is {template!r}, the same folder for every account; write it with "{{local}}" or "{{name}}"'


class Placement:
    """The folder of every account's Maildir.  An account's own table goes before its domain's, that before the default."""

    def __init__(
        self,
        data: Path,
        default: Kind,
        template: str,
        domains: Sequence[PlacementSettings] = (),
        accounts: Sequence[PlacementSettings] = (),
    ) -> None:
        """data: the data folder.  template: of Maildirs, "" for `DEFAULT_MAILDIR`; a relative one counts from the data folder."""
        self._data = data
        self._default = default
        self._template = template or DEFAULT_MAILDIR
        self._domains = {each.name.lower(): each for each in domains}
        self._accounts = {each.name.lower(): each for each in accounts}

    def maildir_of(self, name: str) -> Path | None:
        """Return the folder of a new account; None for segments.  name: canonical login."""
        local, _, domain = name.rpartition("@")
        tables = (self._accounts.get(name), self._domains.get(domain))
        found = next((table for table in tables if table is not None and table.storage), None)
        if (found.storage if found is not None else self._default) != "maildir":
            return None
        template = found.maildir if found is not None and found.maildir else self._template
        # A name never becomes a path: what could lead elsewhere is written as %2F and the like.
        filled = {"domain": domain, "local": local, "name": name}
        return self._data / _FIELD.sub(lambda field: quote(filled[field.group(1)], safe="@+=!#$&'*^`{|}~"), template)
