import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemail.config import LOCAL_PORTS, Config, ConfigError, data_folder, load, loads, local_profile, parse_place, show
from livemail.config.filters import filter_specs
from livemail.config.locate import locate
from livemail.net.tls import local_ca
from livemail.storage.quota import Limits


def faults(text: str, tmp_path: Path) -> dict[int, list[str]]:
    with pytest.raises(ConfigError) as caught:
        loads(text, str(tmp_path / "livemail.toml"))
    told: dict[int, list[str]] = {}
    for fault in caught.value.faults:
        told.setdefault(fault.line, []).append(fault.text)
    return told


def flat(told: dict[int, list[str]]) -> str:
    return " ".join(text for texts in told.values() for text in texts)


GOOD = 'data = "d"\n[tls]\nlocal_ca = true\n[[listen]]\nservice = "imaps"\naddress = "127.0.0.1:993"\n'


def test_every_error_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    told = faults(
        """\
hostnam = "a"
[[listen]]
service = "impas"
address = "*:1"
[[listen]]
service = "imaps"
address = "*:143"
[[listen]]
service = "imap"
address = "0.0.0.0:143"
[[listen]]
service = "pop3"
address = "mail:99999"
[imap]
cleartext_login = true
line_limit = "ten"
[tls]
certificate = "/nope.pem"
key = "/nope.key"
[smtp]
max_recipients = -4
max_message_octets = "1 TiB"
[auth]
argon2_memory = "19 MiB"
""",
        tmp_path,
    )
    expected = {
        0: "no data; add a line `data",
        1: "did you mean `hostname`?",
        3: 'did you mean "imaps"?',
        10: "taken by the imaps of line 7",
        13: "99999 is not a port",
        15: "passwords cross 0.0.0.0:143 unencrypted",
        16: "`line_limit` cannot be",
        18: "/nope.pem: No such file",
        21: "cannot be negative",
        22: "message_size_limit is",
        24: "whole number without quotes",
    }
    assert sorted(told) == sorted(expected)
    for line, words in expected.items():
        assert words in told[line][0]


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ("[imap]\ncleartext = true\n", "did you mean `cleartext_login`?"),
        ("[imap]\nlogin_timeout = true\n", "write seconds as a number"),
        ("[imap]\nhidden_capabilities = 3\n", "write a list"),
        ("[smtp]\nrefuse_bare_newlines = 1\n", "write true or false"),
        ("[smtp]\nallow_cleartext_auth = true\n", "nobody logs in to [smtp]"),
        ("[log]\nlevel = 'warning'\n", 'did you mean "warn"?'),
        ("[directory]\nlocal_domains = []\n", "is empty"),
        ("[[listen]]\nservice = 'smtp'\n", "[[listen]] has no address"),
        ("[[listen]]\nservice = 'smtp'\naddress = '25'\n", 'write "HOST:PORT"'),
        ("[[listen]]\nservice = 'smtp'\naddress = 'unix:'\n", "needs a path"),
        ("[imap]\n[[imap.line_limit]]\n", "`line_limit` cannot be"),
        ("[[net]]\n", "is a section; write [net]"),
    ],
)
def test_a_mistake_is_answered_with_what_to_write(added: str, words: str, tmp_path: Path) -> None:
    told = faults(GOOD + added, tmp_path)
    assert words in " ".join(text for texts in told.values() for text in texts)
    assert min(told) > 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('data = "d"\n', "nothing to listen on"),
        (GOOD.replace("local_ca = true", ""), "imaps needs a certificate"),
        (GOOD.replace("local_ca = true", "").replace("imaps", "imap"), "nobody can log in to imap"),
        (GOOD.replace("local_ca = true", 'certificate = "x"'), "no `key`"),
        (GOOD.replace("local_ca", 'certificate="x"\nlocal_ca'), "keep one of the two"),
        ('hostname = "a b"\n' + GOOD, "not a host name"),
    ],
)
def test_impossible_combinations_are_errors(text: str, words: str, tmp_path: Path) -> None:
    assert words in flat(faults(text, tmp_path))


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ("[smtp]\nmax_recipients = 0\n", "`max_recipients` cannot be 0; write 1 or more"),
        ("[smtp]\nidle_timeout = 0\n", "write more than 0"),
        ("[imap]\nline_limit = 99999999999999999999999\n", "9223372036854775807 or less"),
        ('[imap]\nline_limit = "1 B"\n', "`line_limit` cannot be 1; write 256 or more"),
        ("[net]\ndrain_time = nan\n", "cannot be nan"),
        ("[net]\nstall_time = inf\n", "cannot be inf"),
        ("[net]\nbacklog = 0\n", "1 or more"),
        ("[auth]\nargon2_memory = 1\n", "8 or more"),
        ("[auth]\nargon2_memory = 16\nargon2_lanes = 4\n", "write 32 or more"),
        ("[storage]\nreserve_percent = 100\n", "99 or less"),
        ("[storage]\nmap_octets = 4096\n", "16777216 or more"),
        ("[pop3]\nline_limit = 10\n", "255 or more"),
        ("[directory]\naliases = [{address = 'a', targets = []}]\n", "without targets; name at least one"),
        ("[directory]\naliases = [{address = 'a'}]\n", 'has no targets; add a line `targets = ["…"]`'),
        (f"[[listen]]\nservice = 'lmtp'\naddress = 'unix:/{'x' * 120}'\n", "at most 107 octets"),
    ],
)
def test_a_value_that_would_stop_everything_is_an_error_and_told_once(added: str, words: str, tmp_path: Path) -> None:
    told = faults(GOOD + added, tmp_path)
    assert words in flat(told)
    assert sum(map(len, told.values())) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace('data = "d"', 'data = ""'), "`data` is empty"),
        (GOOD.replace('data = "d"', r'data = "a\u0000b"'), "control characters"),
        ("data = " + "[" * 5000 + "]" * 5000, "nested too deep"),
        (GOOD.replace("local_ca = true", 'local_ca = true\nminimum = "1.0"'), 'cannot be "1.0"; allowed are 1.2, 1.3'),
    ],
)
def test_what_no_setting_is(text: str, words: str, tmp_path: Path) -> None:
    told = faults(text, tmp_path)
    assert words in flat(told)
    assert sum(map(len, told.values())) == 1


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("\ufeff" + GOOD, "utf-8")
    assert load(tmp_path / "c.toml") == loads(GOOD, str(tmp_path / "c.toml"))


def test_what_is_not_toml_is_told_with_line_and_column(tmp_path: Path) -> None:
    assert faults("a = 1\nb = = 2\n", tmp_path) == {2: ["column 5: not TOML: Invalid value"]}
    assert "ends in the middle" in faults("a = [1,\n", tmp_path)[2][0]


def test_units_are_understood(tmp_path: Path) -> None:
    text = GOOD + '[imap]\nappend_limit = "50 MiB"\nlogin_timeout = "2 min"\n[net]\ndrain_time = "1.5 s"\n'
    config = loads(text, str(tmp_path / "c"))
    assert (config.imap.append_limit, config.imap.login_timeout, config.net.drain_time) == (50 << 20, 120.0, 1.5)


def test_cleartext_logins_are_allowed_on_loopback_only(tmp_path: Path) -> None:
    text = GOOD.replace("imaps", "imap") + "[imap]\ncleartext_login = true\n"
    assert loads(text, str(tmp_path / "c")).imap.cleartext_login
    assert faults(text.replace("127.0.0.1", "192.0.2.1"), tmp_path)


def test_a_certificate_in_files_is_read_and_relative_paths_count_from_the_file(tmp_path: Path) -> None:
    local_ca(tmp_path / "tls")
    text = GOOD.replace("local_ca = true", 'certificate = "tls/server.pem"\nkey = "tls/server-key.pem"')
    config = loads(text, str(tmp_path / "c.toml"))
    assert config.tls.certificate == str(tmp_path / "tls" / "server.pem")
    assert config.data == str(tmp_path / "d")
    wrong = text.replace("server-key", "ca-key")
    assert "not the key of" in flat(faults(wrong, tmp_path))


def test_show_prints_what_load_reads(tmp_path: Path) -> None:
    for config in (local_profile(tmp_path, {}), loads(GOOD, str(tmp_path / "c"))):
        assert loads(show(config), "/elsewhere/c") == config


def test_the_local_profile_is_on_loopback_and_its_ports_move_together(tmp_path: Path) -> None:
    config = local_profile(tmp_path, {"LIVEMAIL_PORT_OFFSET": "100"})
    assert {each.service: each.place.port for each in config.listen} == {s: p + 100 for s, p in LOCAL_PORTS.items()}
    assert all(each.place.is_loopback for each in config.listen)
    for wrong in ("-1", "x", "65000"):
        with pytest.raises(ConfigError, match="LIVEMAIL_PORT_OFFSET"):
            local_profile(tmp_path, {"LIVEMAIL_PORT_OFFSET": wrong})


def test_the_data_folder_comes_from_the_environment() -> None:
    assert data_folder({"LIVEMAIL_DATA": "/a", "XDG_DATA_HOME": "/b"}) == Path("/a")
    assert data_folder({"XDG_DATA_HOME": "/b"}) == Path("/b/livemail")
    assert data_folder({}) == Path.home() / ".local/share/livemail"


def test_places() -> None:
    assert parse_place("[::1]:25").is_loopback
    assert parse_place("unix:/x").is_loopback
    assert parse_place("localhost:25").host == "127.0.0.1"
    assert (parse_place("*:25").host, parse_place("*:25").is_loopback) == ("::", False)


def test_lines_of_keys() -> None:
    text = 'a = 1 # x = 2\n[b.c]\n"q.r" = """x\n[y]"""\nz = [1,\n {k = 2, l="]"},\n]\n[[d]]\ne = "#"\n[[d]]\ne = \'2\'\n[d.f]\ng.h = 1\n'
    lines = locate(text)
    assert lines[("b", "c", "q.r")] == 3
    assert lines[("b", "c", "z")] == 5
    assert lines[("b", "c", "z", 1, "l")] == 6
    assert (lines[("d", 0, "e")], lines[("d", 1, "e")], lines[("d", 1, "f", "g", "h")]) == (9, 11, 13)


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=6)
LEAVES = st.one_of(st.integers(-(2**40), 2**40), st.booleans(), st.text(max_size=12), st.floats(allow_nan=False))
TABLES = st.dictionaries(
    KEYS,
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(TABLES)
def test_every_key_of_any_toml_has_a_line(table: dict) -> None:
    import tomli_w

    text = tomli_w.dumps(table)
    lines = locate(text)

    def walk(value: object, path: tuple) -> None:
        if path:
            assert 1 <= lines[path] <= text.count("\n") + 1
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in pairs:
            walk(inner, (*path, key))

    walk(tomllib.loads(text), ())


def test_the_reference_has_every_key_with_its_default(tmp_path: Path) -> None:
    import re

    text = (Path(__file__).parents[2] / "conf" / "livemail.toml").read_text()
    loads(text, "conf/livemail.toml")  # as it stands it is a configuration without errors
    stated = tomllib.loads(re.sub(r"^#(?=[a-z0-9_]+ = )", "", text, flags=re.MULTILINE))
    example = {("tls", "local_ca"), ("directory", "local_domains")}
    plain = Config(data="/x")
    for section in msgspec.structs.fields(Config):
        if section.name in {
            "route",
            "domain",
            "account",
        }:  # a table that may stand many times has no defaults to show; see the next test
            continue
        if section.name in {"data", "hostname", "listen", "filter"}:
            assert section.name in stated
            continue
        defaults = getattr(plain, section.name)
        names = {field.name for field in msgspec.structs.fields(defaults)}
        assert set(stated[section.name]) == names, section.name
        said = {name: value for name, value in stated[section.name].items() if (section.name, name) not in example}
        minimal = f'data = "/x"\n{show_section(section.name, said)}'
        with pytest.raises(ConfigError) as caught:
            loads(minimal, "x")
        assert [fault.text[:20] for fault in caught.value.faults] == ["nothing to listen on"], caught.value
        listening = minimal + '\n[[listen]]\nservice = "smtp"\naddress = "127.0.0.1:25"\n'
        assert getattr(loads(listening, "/x"), section.name) == defaults


def test_the_reference_shows_a_route_with_every_key(tmp_path: Path) -> None:
    import re

    text = (Path(__file__).parents[2] / "conf" / "livemail.toml").read_text()
    [table] = re.findall(r"^#   \[\[route\]\]\n(?:#   .*\n)+", text, re.MULTILINE)
    [route] = loads(GOOD + re.sub(r"^#   ", "", table, flags=re.MULTILINE), str(tmp_path / "c.toml")).route
    assert set(tomllib.loads(re.sub(r"^#   ", "", table, flags=re.MULTILINE))["route"][0]) == {
        field.name for field in msgspec.structs.fields(type(route))
    }
    assert route.domains == ("example.net", "*.example.net")


def test_the_reference_shows_filters_that_ship_with_every_key_and_its_default(tmp_path: Path) -> None:
    import re

    text = (Path(__file__).parents[2] / "conf" / "livemail.toml").read_text()
    tables = re.findall(r"^#   \[\[filter\]\]\n(?:#   .*\n)+", text, re.MULTILINE)
    config = loads(GOOD + re.sub(r"^#   ", "", "".join(tables), flags=re.MULTILINE), str(tmp_path / "c.toml"))
    specs = filter_specs(config.filter)
    assert [spec.use for spec in specs] == ["milter", "dkim-sign", "dkim-verify"]
    for table, spec in zip(config.filter, specs, strict=True):
        names = {field.name for field in msgspec.structs.fields(spec.filter.Config)}
        assert names <= set(table)
        required = {"socket": table["socket"]} if "socket" in names else {}
        assert spec.config == spec.filter.Config(**required)


def test_the_reference_shows_where_accounts_have_their_messages(tmp_path: Path) -> None:
    import re

    text = (Path(__file__).parents[2] / "conf" / "livemail.toml").read_text()
    tables = re.findall(r"^#   \[\[(?:domain|account)\]\]\n(?:#   .*\n)+", text, re.MULTILINE)
    config = loads(GOOD + re.sub(r"^#   ", "", "".join(tables), flags=re.MULTILINE), str(tmp_path / "c.toml"))
    place = config.placement()
    assert place.maildir_of("bob@example.org") == Path("/srv/mail/bob")
    assert place.maildir_of("ann@example.org") is None
    assert place.maildir_of("ann@example.net") is None
    for table, tell in zip(tables, (config.domain, config.account), strict=True):
        written = set(re.findall(r"^#   (\w+) = ", table, re.MULTILINE))
        whole = {"quota_total", "messages_total"} if tell is config.account else set()
        assert written == {field.name for field in msgspec.structs.fields(type(tell[0]))} - whole
    quotas = config.quotas()
    assert quotas.of_account("bob@example.org") == Limits(2 << 30, 0, 500)
    assert quotas.of_account("ann@example.org") == Limits(10 << 30, 0, 5000)
    assert quotas.of_account("ann@example.net") == Limits(0, 0, 10_000)
    assert quotas.totals == {"example.org": Limits(100 << 30, 0)}


def test_quotas_of_a_table_go_before_its_domains_and_those_before_the_stores(tmp_path: Path) -> None:
    text = """\
[storage]
account_quota = "1 MiB"
account_messages = 100
store_messages = 1000
over_quota = "try_later"
quota_warning_percent = 0
[[domain]]
name = "Example.ORG"
quota = 0
mailboxes = 20
messages_total = 500
[[account]]
name = "Ann@example.org"
messages = 7
[[account]]
name = "bob@example.net"
quota = "3 MiB"
"""
    config = loads(GOOD + text, str(tmp_path / "c.toml"))
    quotas = config.quotas()
    assert quotas.of_account("eve@example.net") == Limits(1 << 20, 100, 10_000)
    assert quotas.of_account("eve@example.org") == Limits(0, 100, 20)
    assert quotas.of_account("ann@example.org") == Limits(0, 7, 20)
    assert quotas.of_account("bob@example.net") == Limits(3 << 20, 100, 10_000)
    assert quotas.totals == {"example.org": Limits(0, 500), "": Limits(0, 1000)}
    assert (quotas.warning_percent, quotas.is_temporary) == (0, True)
    # A table about quotas says nothing about the place.
    assert config.placement().maildir_of("ann@example.org") is None


def test_every_fault_of_the_quotas_is_told_with_its_line(tmp_path: Path) -> None:
    told = faults(
        GOOD
        + """\
[storage]
quota_warning_percent = 101
over_quota = "bounce"
store_quota = "much"
[[domain]]
name = "example.org"
quota = -1
mailboxes = 0
quota_totals = 5
maildir = "/srv/{local}"
[[account]]
name = "ann@example.org"
quota_total = 5
""",
        tmp_path,
    )
    expected = {
        8: "100 or less",
        9: "allowed are reject, try_later",
        10: 'a size such as "50 MiB"',
        13: "cannot be negative",
        14: "1 or more",
        15: "did you mean `quota_total`",
        19: "an account has `quota` and `messages`",
    }
    for line, words in expected.items():
        assert any(words in text for text in told.get(line, [])), (line, told)
    assert sorted(told) == sorted(expected), told


def test_a_folder_needs_the_word_that_asks_for_one(tmp_path: Path) -> None:
    told = faults(GOOD + '[[domain]]\nname = "example.org"\nmaildir = "/srv/{local}"\n', tmp_path)
    assert any("storage is not written" in text for text in told[9]), told


def test_a_maildirs_folder_is_below_the_data_folder_and_no_name_leads_elsewhere(tmp_path: Path) -> None:
    place = loads(GOOD + '[storage]\ndefault = "maildir"\n', str(tmp_path / "c.toml")).placement()
    folder = tmp_path / "d" / "maildir" / "example.org"
    assert place.maildir_of("ann@example.org") == folder / "ann"
    assert place.maildir_of("../x/y@example.org") == folder / "..%2Fx%2Fy"
    assert place.maildir_of("ä@example.org") == folder / "%C3%A4"


def test_every_fault_of_the_placements_is_told_with_its_line(tmp_path: Path) -> None:
    told = faults(
        GOOD
        + """\
[storage]
maildir = "/srv/{user}"
[[domain]]
name = "ann@example.org"
storage = "mbox"
[[domain]]
name = "example.org"
storage = "maildir"
maildir = "/srv/all"
[[domain]]
name = "ann@example.org"
storage = "lmdb"
[[account]]
name = "ann@example.org"
storage = "lmdb"
maildir = "/srv/ann"
[[account]]
name = "Ann@example.org"
storage = "lmdb"
""",
        tmp_path,
    )
    expected = {
        8: "what is filled in is {domain}, {local} and {name}",
        11: '`storage` cannot be "mbox"',
        15: "the same folder for every account",
        17: '"ann@example.org" is no domain',
        22: 'storage is "lmdb"',
        24: "has a [[account]] already, in line 19",
    }
    for line, words in expected.items():
        assert any(words in text for text in told.get(line, [])), (line, told)
    assert sorted(told) == sorted(expected), told


def show_section(name: str, values: dict) -> str:
    import tomli_w

    return tomli_w.dumps({name: values})


def test_every_fault_of_the_ways_out_is_told_with_its_line_and_advice(tmp_path: Path) -> None:
    told = faults(
        GOOD
        + """\
[relay]
smarthost = "mail.example.net"
login = "me"
source = ["10.0.0.1", "10.0.0.2", "here"]
families = ["ipv6", "ipv6"]
own_names = ["a b"]
forbidden_networks = ["10.0.0.1/8"]
fallback = ["route:none"]
[[route]]
domains = ["example.net", "a*b"]
next_hop = ["unix:relative", "route:x", "[2001:db8::1]:25"]
[[route]]
domains = ["EXAMPLE.net", "*"]
next_hop = ["192.0.2.1:587"]
login = "me"
password = "secret"
tls = "may"
[[route]]
next_hop = []
password_file = "missing"
implicit_tls = true
tls = "none"
[resolver]
servers = ["ns.example.net:53", "192.0.2.1:0", "[2001:db8::1]:53"]
trusted = ["nowhere"]
attempts = 0
ttl_min = 10.0
ttl_max = 5.0
""",
        tmp_path,
    )
    expected = {
        8: "no port",
        9: "no password",
        10: "not an address",
        11: "each family once",
        12: "not a host name",
        13: "not a network",
        14: "names no [[route]]",
        16: "a star stands alone",
        17: "a path from the root",
        24: "domains` is missing",
        25: "next_hop` is missing",
        26: "has no login",
        27: "keep one of the two",
        30: "not an address",
        31: "not a network",
        32: "write 1 or more",
        33: "must not be greater",
    }
    for line, text in expected.items():
        assert text in " ".join(told[line]), (line, told.get(line))
    assert "two addresses of one family" in flat(told)
    assert "stands in a fallback only" in flat(told)
    assert "2001:db8::1" not in flat(told)
    assert set(told) - set(expected) == {19, 23}, told  # a domain twice, and the password that may cross unencrypted


def test_routes_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    told = faults(
        GOOD
        + """\
[relay]
smarthost = "mail.example.net:25"
[[route]]
domains = ["example.net"]
next_hop = ["a.example.net:25"]
name = "one"
[[route]]
domains = ["EXAMPLE.net", "*"]
next_hop = ["192.0.2.1:587"]
name = "one"
login = "me"
password = "secret"
tls = "may"
[[route]]
domains = ["example.org"]
next_hop = ["unix:/run/x"]
login = "me"
password_file = "missing"
""",
        tmp_path,
    )
    assert "both mean every other domain" in " ".join(told[8])
    assert "EXAMPLE.net has a route already, in line 9" in " ".join(told[14])
    assert "is the name of the route of line 9" in " ".join(told[16])
    assert "unencrypted" in " ".join(told[19])
    assert "missing cannot be read" in " ".join(told[24])
    assert "secret" not in flat(told)
    assert set(told) == {8, 14, 16, 19, 24}, told


def test_a_next_hop_that_is_this_server_itself_is_told(tmp_path: Path) -> None:
    told = faults(
        GOOD
        + """\
[[listen]]
service = "smtp"
address = "127.0.0.1:2525"
[[listen]]
service = "lmtp"
address = "unix:/run/livemail/lmtp"
[relay]
smarthost = "localhost:2525"
[[route]]
domains = ["a.test"]
next_hop = ["127.0.0.1:2526", "127.0.0.1:993", "unix:/run/livemail/lmtp"]
protocol = "lmtp"
""",
        tmp_path,
    )
    assert '"localhost:2525" is this server itself' in " ".join(told[14])
    assert '"unix:/run/livemail/lmtp" is this server itself' in " ".join(told[17])
    assert len(told[17]) == 1
    assert set(told) == {14, 17}
