from __future__ import annotations

import sys

import pytest

from livemail.config import ConfigError, loads, show
from livemail.config.filters import filter_specs

HEAD = 'data = "/tmp"\n[[listen]]\nservice = "lmtp"\naddress = "127.0.0.1:2400"\n'

MODULE = """
import msgspec
from livemail.filters import Filter

class Mine(Filter):
    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        words: frozenset[str]
        limit_octets: int = 5
        pause: float = 1.0
        def faults(self):
            if "bad" in self.words:
                yield "words", "cannot hold bad; write good"

class Clash(Filter):
    class Config(msgspec.Struct, frozen=True):
        timeout: int = 3

class Wide(Filter):
    class Config(msgspec.Struct, frozen=True):
        must: bytes
        odd: dict[str, int] = {}

not_a_filter = 5
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "some_filters.py").write_text(MODULE)
    (tmp_path / "broken_filters.py").write_text("x = 1\n1/0\n")
    (tmp_path / "wrong_filters.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("some_filters", "broken_filters", "wrong_filters"):
        sys.modules.pop(name, None)


def faults(text):
    with pytest.raises(ConfigError) as caught:
        loads(HEAD + text, "x.toml")
    return [f"{fault.line - 4}: {fault.text}" for fault in caught.value.faults]


def test_tables_become_specifications_in_their_order(module):
    config = loads(
        HEAD
        + """
[[filter]]
use = "some_filters:Mine"
name = "words"
words = ["a", "b"]
limit_octets = "1 KiB"
pause = "2 min"
on_failure = "skip"
timeout = "1 min"
services = ["smtp", "lmtp"]
domains = ["Example.ORG"]
accounts = ["Ann@example.org"]
isolation = "process"
memory_limit = "100 MiB"

[[filter]]
use = "limits"
max_octets = "10 MiB"

[[filter]]
use = "some_filters.Mine"
words = []
shadow = true
""",
        "x.toml",
    )
    one, two, three = filter_specs(config.filter)
    assert (one.name, one.filter.__name__, one.on_failure, one.timeout) == ("words", "Mine", "skip", 60.0)
    assert (one.config.words, one.config.limit_octets, one.config.pause) == (frozenset("ab"), 1024, 120.0)
    assert (one.services, one.domains, one.accounts) == ({"smtp", "lmtp"}, {"example.org"}, {"ann@example.org"})
    assert (one.isolation, one.memory) == ("process", 100 << 20)
    assert (two.name, two.config.max_octets) == ("limits", 10 << 20)
    assert (three.name, three.shadow) == ("some_filters.Mine", True)
    assert loads(show(config), "x.toml").filter == config.filter


def test_everything_wrong_with_all_of_them_is_said_at_once_with_its_line(module):
    assert faults(
        """[[filter]]
use = "some_filters:Mine"
words = ["bad"]
servces = ["smtp"]
limt_octets = 3
[[filter]]
use = "limts"
[[filter]]
use = "some_filters:Mne"
[[filter]]
use = "some_filters:not_a_filter"
[[filter]]
use = "nowhere.at_all:Filter"
[[filter]]
use = "broken_filters:Mine"
[[filter]]
use = "wrong_filters:Mine"
[[filter]]
words = []
[[filter]]
use = "some_filters:Clash"
[[filter]]
use = "limits"
timeout = 0
accounts = ["ann"]
domains = ["a@b"]
isolation = "process"
memory_limit = 5
[[filter]]
use = "limits"
max_parts = 1
[[filter]]
use = "limits"
max_parts = 2
[[filter]]
use = "a b"
"""
    ) == [
        "3: `words` cannot hold bad; write good",
        "4: unknown key `servces` in [[filter]]; did you mean `services`?",
        "5: unknown key `limt_octets` in [[filter]]; did you mean `limit_octets`?",
        '7: there is no filter "limts"; did you mean "limits"?  A class of your own is written "package.module:Class"',
        "9: some_filters has no Mne; did you mean Mine?",
        "11: some_filters:not_a_filter is not a subclass of livemail.filters.Filter",
        "13: there is no module nowhere; install its package where the server runs, or add its folder to PYTHONPATH",
        "15: broken_filters cannot be imported: ZeroDivisionError: division by zero (line 2 of broken_filters.py)",
        "17: wrong_filters cannot be imported: SyntaxError: invalid syntax (wrong_filters.py, line 1) (line 1 of wrong_filters.py)",
        '18: [[filter]] has no use; add a line `use = "…"`',
        "20: some_filters:Clash wants keys of its own that every filter has: timeout",
        "22: `max_octets` is 0 and so is every other limit; write max_octets, max_recipients, max_parts or max_line_octets",
        '24: `timeout` cannot be 0; write seconds, such as 30, or a time such as "1 min"',
        '25: `accounts` names "ann"; write whole addresses, such as "ann@example.org"',
        '26: `domains` names "a@b"; write domains, such as "example.org"',
        '28: `memory_limit` is too small for a Python process; write "96 MiB" or more',
        '29: the filter of line 26 is named "limits" already; add name = "…" to one of them',
        '32: the filter of line 26 is named "limits" already; add name = "…" to one of them',
        '36: "a b" is neither a name nor "package.module:Class"',
    ]


def test_a_table_that_is_no_table_and_a_key_that_must_be_there(module):
    assert faults('[[filter]]\nuse = "some_filters:Mine"\n') == ['1: [[filter]] has no words; add a line `words = "…"`']
    assert faults('[[filter]]\nuse = "some_filters:Wide"\nodd = 3\nmust = ""\n')


def test_a_scope_that_could_never_fit_is_told_with_what_could(module):
    """A filter whose scope is misspelt would never be asked."""
    assert faults(
        """[[filter]]
use = "limits"
max_parts = 1
services = ["smtp", "submision"]
domains = ["exa mple", "*.example.org", "example.org", "bücher.example", "xn--bcher-kva.example"]
[[filter]]
use = "limits"
name = "two"
max_parts = 1
services = "smtp"
accounts = ["ann@example.org", "@example.org", "ann@"]
"""
    ) == [
        '4: `services` cannot hold "submision"; did you mean "submission"? allowed are smtp, submission, submissions, lmtp',
        '5: `domains` names "*.example.org"; write domains, such as "example.org"',
        '5: `domains` names "exa mple"; write domains, such as "example.org"',
        '10: `services` cannot be "smtp"; write a list, such as ["smtp", "submission"]',
        '11: `accounts` names "@example.org"; write whole addresses, such as "ann@example.org"',
        '11: `accounts` names "ann@"; write whole addresses, such as "ann@example.org"',
    ]


def test_a_scope_holds_every_spelling_of_a_domain(module):
    (spec,) = filter_specs(
        [{"use": "limits", "max_parts": 1, "domains": ["Bücher.example."], "accounts": ["Ann@bücher.example"]}]
    )
    assert spec.domains == {"bücher.example", "xn--bcher-kva.example"}
    assert spec.accounts == {"ann@bücher.example", "ann@xn--bcher-kva.example"}
