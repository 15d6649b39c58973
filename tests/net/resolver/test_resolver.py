import random
from collections.abc import Callable
from typing import Any

import dns.flags
import msgspec
import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from livemail.interfaces.relay import Answer
from livemail.mail.errors import MailError
from livemail.net.coroutines import run
from livemail.net.resolver.exchange import NoAnswer
from livemail.net.resolver.message import FORMERR, NXDOMAIN, REFUSED, SERVFAIL, Garbage, Query, Reply, read
from livemail.net.resolver.resolver import Resolver
from livemail.net.resolver.settings import ResolverSettings, Server
from tests.net.resolver.wire import SOA, reply_to

MX_LINE = "a.test. 300 IN MX 10 x.test."


class World:
    """Servers as a function, a clock, and a resolver between them."""

    def __init__(self, answer: Callable[[Server, Query], Any], **settings: Any) -> None:
        self.answer = answer
        self.clock = Clock()
        self.asked: list[tuple[str, str]] = []
        self.queries: list[Query] = []
        settings = {"servers": ("127.0.0.1:53", "192.0.2.2:53"), "hosts_file": "", **settings}
        self.settings = ResolverSettings(**settings)
        self.resolver = Resolver(self.settings, self._ask, self.clock.seconds, random.Random(1).getrandbits)

    async def _ask(self, server: Server, query: Query, patience: float) -> Reply:
        assert patience == self.settings.timeout
        self.asked.append((server.host, str(query.question)))
        self.queries.append(query)
        result = self.answer(server, query)
        if isinstance(result, Deferred):
            result = await result
        if isinstance(result, str):
            raise NoAnswer(result)
        try:
            reply = read(query, result)
        except Garbage as error:
            raise NoAnswer(str(error)) from None
        assert reply is not None
        return reply

    def start(self, what: str, *arguments: Any) -> list[Any]:
        ended: list[Any] = []
        run(getattr(self.resolver, what)(*arguments), lambda result, error: ended.append(error or result))
        return ended

    def get(self, what: str, *arguments: Any) -> Answer:
        [result] = self.start(what, *arguments)
        if isinstance(result, BaseException):
            raise result
        return result

    def refusal(self, what: str, *arguments: Any) -> str:
        with pytest.raises(MailError) as caught:
            self.get(what, *arguments)
        assert (caught.value.code, caught.value.enhanced) == (451, "4.4.3")
        return caught.value.reason


def zone(*lines: str) -> Callable[[Server, Query], bytes]:
    """A server that has these records, and says so for others."""

    def answered(_server: Server, query: Query) -> bytes:
        kind = str(query.question).split()[1]
        mine = [line for line in lines if line.split()[0] == f"{query.question.name}."]
        of_type = [line for line in mine if line.split()[3] in {kind, "CNAME"}]
        return reply_to(query, *of_type, authority=() if of_type else (SOA,), rcode=0 if mine else NXDOMAIN)

    return answered


def test_records_come_with_name_time_and_order() -> None:
    world = World(zone("a.test. 300 IN MX 20 y.test.", "a.test. 200 IN MX 10 x.test."))
    answer = world.get("mx", "A.Test.")
    assert answer == Answer(((10, "x.test"), (20, "y.test")), exists=True, seconds=200.0, canonical="a.test")


def test_an_answer_is_remembered_for_its_time_and_counts_down() -> None:
    world = World(zone(MX_LINE))
    world.get("mx", "a.test")
    world.clock.advance(299)
    assert world.get("mx", "a.test").seconds == 1.0
    assert len(world.asked) == 1
    world.clock.advance(1)
    world.get("mx", "a.test")
    assert len(world.asked) == 2


def test_times_are_held_between_their_bounds() -> None:
    world = World(zone("a.test. 0 IN MX 1 x.test.", "b.test. 9999999 IN MX 1 x.test."), ttl_min=5, ttl_max=1000)
    assert world.get("mx", "a.test").seconds == 5.0
    assert world.get("mx", "b.test").seconds == 1000.0


def test_that_there_is_none_is_remembered_too() -> None:
    world = World(zone(MX_LINE), negative_ttl_max=30)
    assert world.get("mx", "b.test") == Answer((), exists=False, seconds=30.0, canonical="b.test")
    assert world.get("txt", "a.test") == Answer((), exists=True, seconds=30.0, canonical="a.test")
    world.get("mx", "b.test")
    world.get("txt", "a.test")
    assert len(world.asked) == 2
    without_soa = World(lambda _server, query: reply_to(query, rcode=NXDOMAIN))
    assert without_soa.get("mx", "b.test").seconds == 60.0


def test_equal_questions_in_flight_are_asked_once() -> None:
    held: Deferred[bytes] = Deferred()
    world = World(lambda _server, _query: held)
    first, second, other = world.start("mx", "a.test"), world.start("mx", "A.TEST"), world.start("txt", "a.test")
    assert len(world.asked) == 2
    assert not first + second + other
    held.callback(reply_to(world.queries[0], MX_LINE))
    assert first == second != []


def test_one_who_gives_up_waiting_takes_nothing_from_the_others() -> None:
    held: Deferred[bytes] = Deferred()
    world = World(lambda _server, _query: held)
    results: list[Any] = []
    impatient = run(world.resolver.mx("a.test"), lambda _, error: results.append(error))
    patient = world.start("mx", "a.test")
    impatient.cancel()
    assert isinstance(results[0], CancelledError)
    held.callback(reply_to(world.queries[0], MX_LINE))
    assert patient[0].records == ((10, "x.test"),)


def test_questions_wait_when_too_many_are_open() -> None:
    held: list[Deferred[bytes]] = []
    world = World(lambda _server, _query: held.append(Deferred()) or held[-1], lookups_at_once=2)
    ended = [world.start("mx", f"{letter}.test") for letter in "abc"]
    assert len(world.asked) == 2
    held[0].callback(reply_to(world.queries[0], MX_LINE))
    assert len(world.asked) == 3
    assert ended[0]


@pytest.mark.parametrize("trouble", ["silence", SERVFAIL, REFUSED, "referral", "garbage", "circle"])
def test_a_server_that_does_not_know_sends_us_to_the_next(trouble: Any) -> None:
    def answered(server: Server, query: Query) -> Any:
        if server.host == "192.0.2.2":
            return reply_to(query, MX_LINE)
        if isinstance(trouble, int):
            return reply_to(query, rcode=trouble)
        return {
            "silence": "no answer in 3 s",
            "referral": reply_to(query, authority=("a.test. 300 IN NS ns.b.test.",)),
            "garbage": reply_to(query, MX_LINE)[:-15],
            "circle": reply_to(query, f"{query.question.name}. 1 IN CNAME {query.question.name}."),
        }[trouble]

    world = World(answered)
    assert world.get("mx", "a.test").records == ((10, "x.test"),)
    world.asked.clear()
    world.get("mx", "b.test")
    learnt = [host for host, _ in world.asked]
    known_to_work = trouble in {SERVFAIL, "circle"}  # it is the name's fault, not the server's
    assert learnt == (["127.0.0.1", "192.0.2.2"] if known_to_work else ["192.0.2.2"])


def test_a_dead_server_is_asked_beside_others_until_it_answers_again() -> None:
    dead = {"127.0.0.1"}

    def answered(server: Server, query: Query) -> Any:
        return "no answer" if server.host in dead else reply_to(query, f"{query.question.name}. 300 IN MX 1 x.test.")

    world = World(answered)
    world.get("mx", "a.test")
    assert [host for host, _ in world.asked] == ["127.0.0.1", "192.0.2.2"]
    world.clock.advance(6)
    world.asked.clear()
    world.get("mx", "b.test")  # the probe is a question of its own, and nobody waits for it
    assert [host for host, _ in world.asked] == ["127.0.0.1", "192.0.2.2"]
    dead.clear()
    world.clock.advance(400)
    world.get("mx", "c.test")
    world.asked.clear()
    world.get("mx", "d.test")
    assert [host for host, _ in world.asked] == ["127.0.0.1"]


def test_when_nobody_knows_it_is_said_and_remembered_shortly() -> None:
    world = World(lambda _server, query: reply_to(query, rcode=SERVFAIL), attempts=3, failure_ttl=7)
    assert world.refusal("mx", "a.test") == "127.0.0.1:53: SERVFAIL; 192.0.2.2:53: SERVFAIL"
    assert len(world.asked) == 6
    world.clock.advance(6.9)
    world.refusal("mx", "a.test")
    assert len(world.asked) == 6
    world.answer = zone(MX_LINE)
    world.clock.advance(0.1)
    assert world.get("mx", "a.test").records == ((10, "x.test"),)


def test_aliases_that_leave_the_answer_are_asked_for() -> None:
    world = World(zone("a.test. 300 IN CNAME b.test.", "b.test. 40 IN CNAME c.test.", "c.test. 90 IN MX 1 x.test."))
    answer = world.get("mx", "a.test")
    assert (answer.records, answer.canonical, answer.seconds) == (((1, "x.test"),), "c.test", 40.0)
    assert [name for _, name in world.asked] == ["a.test MX", "b.test MX", "c.test MX"]


def test_an_alias_of_nobody_does_not_exist() -> None:
    answer = World(zone("a.test. 300 IN CNAME b.test.")).get("mx", "a.test")
    assert (answer.records, answer.exists, answer.canonical) == ((), False, "b.test")


def test_aliases_in_a_circle_or_without_end_are_given_up() -> None:
    world = World(zone("a.test. 300 IN CNAME b.test.", "b.test. 300 IN CNAME a.test."))
    assert "circle" in world.refusal("mx", "a.test")
    assert len(world.asked) == 2
    endless = World(lambda _, query: reply_to(query, f"{query.question.name}. 9 IN CNAME x{query.question.name}."))
    assert "circle" in endless.refusal("mx", "a.test")
    assert len(endless.asked) == 13


def secure(_server: Server, query: Query) -> bytes:
    return reply_to(query, MX_LINE, flags=dns.flags.QR | dns.flags.RA | dns.flags.AD)


def test_dnssec_is_believed_from_trusted_servers_only() -> None:
    assert World(secure).get("mx", "a.test").is_secure
    assert not World(secure, servers=("192.0.2.2:53",)).get("mx", "a.test").is_secure
    assert World(secure, servers=("192.0.2.2:53",), trusted=("192.0.2.0/24",)).get("mx", "a.test").is_secure
    assert not World(zone(MX_LINE)).get("mx", "a.test").is_secure


def test_a_chain_is_as_secure_as_its_weakest_answer() -> None:
    def answered(_server: Server, query: Query) -> bytes:
        if query.question.name == "a.test":
            return reply_to(query, "a.test. 9 IN CNAME b.test.")
        return reply_to(query, "b.test. 9 IN MX 1 x.test.", flags=dns.flags.QR | dns.flags.AD | dns.flags.RA)

    assert not World(answered).get("mx", "a.test").is_secure
    assert World(answered).get("mx", "b.test").is_secure


def test_addresses_come_in_the_families_order_from_two_questions() -> None:
    world = World(zone("a.test. 90 IN A 192.0.2.1", "a.test. 300 IN AAAA 2001:db8::1", "b.test. 90 IN A 192.0.2.2"))
    assert world.get("addresses", "a.test") == Answer(("2001:db8::1", "192.0.2.1"), seconds=90.0, canonical="a.test")
    assert world.get("addresses", "a.test", (4, 6)).records == ("192.0.2.1", "2001:db8::1")
    assert world.get("addresses", "b.test").records == ("192.0.2.2",)
    world.asked.clear()
    assert world.get("addresses", "c.test", (4,)) == Answer((), exists=False, seconds=60.0, canonical="c.test")
    assert [name for _, name in world.asked] == ["c.test A"]


def test_one_family_that_fails_does_not_hide_the_other() -> None:
    def answered(server: Server, query: Query) -> Any:
        return (
            "no answer"
            if "AAAA" in str(query.question)
            else zone("a.test. 90 IN A 192.0.2.1", "b.test. 9 IN TXT x")(server, query)
        )

    world = World(answered)
    answer = world.get("addresses", "a.test")
    assert (answer.records, answer.seconds) == (("192.0.2.1",), 0.0)
    world.refusal("addresses", "b.test")  # no IPv4 address, and whether there is an IPv6 one nobody knows


def test_addresses_localhost_and_the_hosts_file_are_not_asked_for(tmp_path: Any) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.7 Relay.test\n::7 relay.test\n")
    world = World(zone(), hosts_file=str(hosts))
    assert world.get("addresses", "192.0.2.1").records == ("192.0.2.1",)
    assert world.get("addresses", "2001:DB8::1").records == ("2001:db8::1",)
    assert world.get("addresses", "2001:db8::1", (4,)).records == ()
    assert world.get("addresses", "localhost", (4, 6)).records == ("127.0.0.1", "::1")
    assert world.get("addresses", "RELAY.test").records == ("::7", "192.0.2.7")
    assert not world.asked


def test_reload_reads_hosts_again_and_forgets_answers(tmp_path: Any) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.7 relay.test\n")
    world = World(zone(MX_LINE), hosts_file=str(hosts))
    world.get("mx", "a.test")
    hosts.write_text("192.0.2.8 relay.test\n")
    world.resolver.reload()
    assert world.get("addresses", "relay.test").records == ("192.0.2.8",)
    world.get("mx", "a.test")
    assert len(world.asked) == 2


def test_other_types_and_names_in_other_letters_are_asked_for_as_they_should() -> None:
    world = World(
        zone(
            "_25._tcp.x.test. 300 IN TLSA 3 1 0 aabb",
            "1.2.0.192.in-addr.arpa. 300 IN PTR host.a.test.",
            'xn--mnchen-3ya.test. 300 IN TXT "v=spf1" " -all"',
        )
    )
    assert world.get("tlsa", "_25._tcp.x.test").records == ((3, 1, 0, b"\xaa\xbb"),)
    assert world.get("ptr", "192.0.2.1").records == ("host.a.test",)
    assert world.get("txt", "MÜNCHEN.test").records == (b"v=spf1 -all",)


def test_what_is_no_name_does_not_exist_and_is_not_asked_for() -> None:
    world = World(zone())
    for name in ("", ".", "a..test", "x" * 64 + ".test", ".".join(["a" * 60] * 5), "ü" * 300):
        assert world.get("mx", name).exists is False
    assert not world.asked


def test_a_server_from_before_edns_is_asked_without_it_and_remembered() -> None:
    def answered(_server: Server, query: Query) -> bytes:
        return (
            reply_to(query, rcode=FORMERR)
            if query.has_edns
            else reply_to(query, f"{query.question.name}. 9 IN MX 1 x.test.")
        )

    world = World(answered)
    world.get("mx", "a.test")
    world.get("mx", "b.test")
    assert [query.has_edns for query in world.queries] == [True, False, False]


def test_ids_and_case_are_not_repeated() -> None:
    world = World(zone(), cache_entries=0)
    for _ in range(50):
        world.get("mx", "mail.example.test")
    assert len({query.id for query in world.queries}) > 45
    assert len({query.section for query in world.queries}) > 45


def test_memory_of_what_was_asked_is_bounded() -> None:
    world = World(zone(), cache_entries=100)
    for n in range(500):
        world.get("mx", f"{n}.test")
    assert len(world.resolver._cache) == 100
    assert not world.resolver._flights
    assert msgspec.structs.asdict(world.settings)["cache_entries"] == 100
