"""``[[filter]]`` tables: which class each means, what it is told, and everything that is wrong with any of them at once.

    [[filter]]
    use = "attachments"          # a name of a dropin, or "package.module:Class"
    services = ["smtp"]          # keys of every filter: `Common`
    refuse = ["exe", "script"]   # the rest is the filter's own: its class's Config

A filter's Config is a msgspec struct with typed fields and defaults; its method ``faults``, where it has one, says what
types cannot.  Relative paths are the filter's own affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from livemail.config.locate import KeyPath
from livemail.config.read import Source, build, unknown
from livemail.filters.find import CannotFind, find
from livemail.filters.plan import DEFAULT_MEMORY, FilterSpec
from livemail.interfaces.settings import Settings
from livemail.mail.domains import domain_key, spellings

MIN_MEMORY: Final = 96 * 1024 * 1024
MAX_FILTERS: Final = 200

Service = Literal["smtp", "submission", "submissions", "lmtp"]


class Common(Settings, frozen=True):
    """The keys of every filter.

    use: a dropin's name, or "package.module:Class".  name: in logs and records; "" is the name it is used by.  on_failure: what a filter that
    raises, hangs or dies means: "defer", the message is refused for now, or "skip", it passes without this filter.  timeout: seconds a stage may
    take.  services, domains, accounts: whom it is asked for; empty is everybody.  shadow: run beside, report, never act.  isolation:
    "process" for a process of its own, with memory_limit octets.
    """

    use: str
    name: str = ""
    on_failure: Literal["defer", "skip"] = "defer"
    timeout: float = 30.0
    services: tuple[Service, ...] = ()
    domains: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    shadow: bool = False
    isolation: Literal["none", "process"] = "none"
    memory_limit: int = DEFAULT_MEMORY


_KEYS: Final = frozenset(Common.__struct_fields__)


def check_filters(tables: Sequence[Mapping[str, Any]], source: Source) -> list[FilterSpec]:
    """Note everything that is wrong with the tables; return what is right of them."""
    specs: list[FilterSpec] = []
    names: dict[tuple[str, bool], int] = {}
    if len(tables) > MAX_FILTERS:
        source.fault(("filter",), f"{len(tables)} filters are too many; {MAX_FILTERS} are allowed")
        return []
    for position, table in enumerate(tables):
        at: KeyPath = ("filter", position)
        spec = _spec(table, source, at)
        if spec is None:
            continue
        known = names.setdefault((spec.name, spec.shadow), position)
        if known != position:
            line = source.lines.get(("filter", known), 0)
            kind = "shadow" if spec.shadow else "filter"
            source.fault(
                (*at, "name"),
                f'the {kind} of line {line} is named "{spec.name}" already; add name = "…" to one of them',
            )
            continue
        specs.append(spec)
    return specs


def filter_specs(tables: Sequence[Mapping[str, Any]]) -> list[FilterSpec]:
    """Make the specifications of tables that `check_filters` found right, in their order.

    Raises CannotFind, ValueError when what was right is not any more (a module was edited).
    """
    source = Source({})
    specs = check_filters(tables, source)
    if source.faults:
        raise ValueError("; ".join(fault.text for fault in source.faults))
    return specs


def _spec(table: Mapping[str, Any], source: Source, at: KeyPath) -> FilterSpec | None:
    # A key of the filter's own never stands among the common ones, whatever it is called: they are one table.
    common = build(Common, {key: value for key, value in table.items() if key in _KEYS}, source, at)
    if source.is_doubtful((*at, "use")):
        return None
    try:
        kind = find(common.use)
    except CannotFind as error:
        source.fault((*at, "use"), str(error))
        return None
    own = {key: value for key, value in table.items() if key not in _KEYS}
    known = {field.encode_name for field in msgspec.structs.fields(kind.Config)}
    if taken := sorted(_KEYS & known):
        source.fault(at, f"{common.use} wants keys of its own that every filter has: {', '.join(taken)}")
        return None
    for key in [key for key in own if key not in known]:
        del own[key]
        source.fault((*at, key), unknown(key, sorted(known | _KEYS), at))
    try:
        settings = build(kind.Config, own, source, at)
        for name, text in _faults(settings):
            source.fault((*at, name), f"`{name}` {text}")
    except Exception as error:
        source.fault(at, f"the configuration of {common.use} cannot be made: {type(error).__name__}: {error}")
        return None
    for key, text in _common_faults(common):
        source.fault((*at, key), f"`{key}` {text}")
    if common.isolation == "process" and "<locals>" in kind.__qualname__:
        source.fault(
            (*at, "isolation"), f"{kind.__qualname__} is made inside a function; a process cannot find it there"
        )
    return FilterSpec(
        name=common.name or common.use,
        filter=kind,
        config=settings,
        on_failure=common.on_failure,
        timeout=common.timeout,
        services=frozenset(common.services),
        domains=frozenset(spelling for domain in common.domains for spelling in _every_spelling(domain)),
        accounts=frozenset(spelling for account in common.accounts for spelling in _every_spelling(account)),
        shadow=common.shadow,
        isolation=common.isolation,
        memory=common.memory_limit,
        use=common.use,
    )


def _faults(settings: msgspec.Struct) -> Iterable[tuple[str, str]]:
    own = getattr(settings, "faults", None)
    return own() if own is not None else ()


def _common_faults(common: Common) -> Iterable[tuple[str, str]]:
    if common.timeout <= 0:
        yield "timeout", 'cannot be 0; write seconds, such as 30, or a time such as "1 min"'
    if common.memory_limit < MIN_MEMORY:
        yield "memory_limit", f'is too small for a Python process; write "{MIN_MEMORY >> 20} MiB" or more'
    for account in common.accounts:
        local_part, _, domain = account.rpartition("@")
        if not local_part or not _is_domain(domain):
            yield "accounts", f'names "{account}"; write whole addresses, such as "ann@example.org"'
    for domain in common.domains:
        if not _is_domain(domain):
            yield "domains", f'names "{domain}"; write domains, such as "example.org"'


def _is_domain(text: str) -> bool:
    try:
        domain_key(text)
    except ValueError:
        return False
    return True


def _every_spelling(text: str) -> tuple[str, ...]:
    """A domain or an account as envelopes may write it; nothing where it is none, which `_common_faults` tells."""
    local_part, at, domain = text.lower().rpartition("@")
    return tuple(f"{local_part}{at}{spelling}" for spelling in spellings(domain)) if _is_domain(domain) else ()
