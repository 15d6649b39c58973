"""The commands: one module each, with `parse` and `run`, and the table of all of them.

To add a command, write its module, give it a row in `livemail.imap.state.RULES` and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from livemail.imap.commands import (
    append,
    authenticate,
    capability,
    check,
    close,
    copy,
    create,
    delete,
    enable,
    examine,
    expunge,
    fetch,
    idle,
    login,
    logout,
    lsub,
    move,
    namespace,
    noop,
    rename,
    search,
    select,
    starttls,
    status,
    store,
    subscribe,
    unselect,
    unsubscribe,
)
from livemail.imap.commands import id as id_command
from livemail.imap.commands import list as list_command
from livemail.imap.outcome import Dialogue, Done
from livemail.imap.state import RULES, Rule


class Entry(msgspec.Struct, frozen=True):
    """parse(cursor), or parse(cursor, is_uid) where the rule knows a UID form; run(session, what parse returned)."""

    rule: Rule
    parse: Callable[..., Any]
    run: Callable[[Any, Any], Coroutine[Any, Any, Done | Dialogue]]


def _entries(*modules: Any) -> dict[str, Entry]:
    """Modules named as their word."""
    table = {}
    for module in modules:
        word = module.__name__.rpartition(".")[2].upper()
        table[word] = Entry(RULES[word], module.parse, module.run)
    return table


TABLE: Final[dict[str, Entry]] = _entries(
    append,
    authenticate,
    capability,
    check,
    close,
    copy,
    create,
    delete,
    enable,
    examine,
    expunge,
    fetch,
    id_command,
    idle,
    list_command,
    login,
    logout,
    lsub,
    move,
    namespace,
    noop,
    rename,
    search,
    select,
    starttls,
    status,
    store,
    subscribe,
    unselect,
    unsubscribe,
)
