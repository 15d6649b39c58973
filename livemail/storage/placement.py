"""Where a new account's messages go: into segments, or into a Maildir, and which."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from livemail.interfaces.settings import Settings

Kind = Literal["lmdb", "maildir"]

DEFAULT_MAILDIR: Final = "maildir/{domain}/{local}"
"""Below the data folder."""

_FIELD: Final = re.compile(r"\{([^{}]*)\}")
_FIELDS: Final = frozenset({"domain", "local", "name"})


class PlacementSettings(Settings, frozen=True, kw_only=True):
    """One ``[[domain]]`` or ``[[account]]`` table: where accounts made from now on have their messages.

    name: of the domain, or of the account.  storage: "lmdb" or "maildir".  maildir: its folder, "" for what [storage] says.
    """

    name: str
    storage: Kind
    maildir: str = ""

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong with it and what to write instead)."""
        if self.maildir and self.storage != "maildir":
            yield "maildir", 'names a folder, but storage is "lmdb"; write storage = "maildir", or remove it'
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
        found = self._accounts.get(name) or self._domains.get(domain)
        if (found.storage if found is not None else self._default) != "maildir":
            return None
        template = found.maildir if found is not None and found.maildir else self._template
        # A name never becomes a path: what could lead elsewhere is written as %2F and the like.
        filled = {"domain": domain, "local": local, "name": name}
        return self._data / _FIELD.sub(lambda field: quote(filled[field.group(1)], safe="@+=!#$&'*^`{|}~"), template)
