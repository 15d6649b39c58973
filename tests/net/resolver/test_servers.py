import itertools
from pathlib import Path

from twisted.internet.task import Clock

from livemail.net.resolver.servers import Servers, read_hosts, read_resolv_conf
from livemail.net.resolver.settings import Server

ONE, TWO, THREE = (Server(f"192.0.2.{n}") for n in (1, 2, 3))


def test_servers_that_answer_are_asked_in_the_configured_order() -> None:
    servers = Servers([ONE, TWO, ONE, THREE], Clock().seconds)
    assert servers.order() == [ONE, TWO, THREE]
    assert not servers.answered(TWO)
    assert servers.order() == [ONE, TWO, THREE]


def test_one_that_does_not_answer_goes_behind_until_it_does() -> None:
    clock = Clock()
    servers = Servers([ONE, TWO, THREE], clock.seconds)
    assert servers.failed(ONE)
    assert not servers.failed(ONE)
    clock.advance(1000)
    assert servers.order() == [TWO, THREE, ONE]
    assert servers.answered(ONE)
    assert servers.order() == [ONE, TWO, THREE]


def test_a_dead_server_is_probed_now_and_then_and_ever_more_rarely() -> None:
    clock = Clock()
    servers = Servers([ONE, TWO], clock.seconds)
    assert servers.due() is None
    servers.failed(ONE)
    probes = []
    for _ in range(2000):
        clock.advance(1)
        if servers.due() == ONE:
            probes.append(clock.seconds())
            servers.failed(ONE)
    assert probes[:4] == [5, 15, 35, 75]
    assert {later - earlier for earlier, later in itertools.pairwise(probes[7:])} == {300}


def test_when_all_are_dead_there_is_no_probe_and_all_are_asked() -> None:
    clock = Clock()
    servers = Servers([ONE, TWO], clock.seconds)
    servers.failed(ONE)
    clock.advance(1)
    servers.failed(TWO)
    clock.advance(1000)
    assert servers.due() is None
    assert servers.order() == [ONE, TWO]


def test_resolv_conf_is_read_as_libc_does(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# c\nsearch x\nnameserver 192.0.2.1 # comment\n;nameserver 192.0.2.9\nnameserver bad\n nameserver\t::1\n"
    )
    assert read_resolv_conf(str(file)) == [Server("192.0.2.1"), Server("::1")]
    file.write_text("search x\n")
    assert read_resolv_conf(str(file)) == read_resolv_conf(str(tmp_path / "none")) == [Server("127.0.0.1")]


def test_the_hosts_file_gives_addresses_by_name(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_bytes(b"127.0.0.1 localhost Box.\n::1 localhost # six\nnonsense here\n192.0.2.1\tbox\n\xff\xfe\n")
    assert read_hosts(str(file)) == {"localhost": ("127.0.0.1", "::1"), "box": ("127.0.0.1", "192.0.2.1")}
    assert read_hosts(str(tmp_path / "none")) == {}
