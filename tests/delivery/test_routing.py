import random
from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from livemail.delivery.ourselves import Ourselves, is_local_address
from livemail.delivery.routing import Routing
from livemail.delivery.secret import SecretError
from livemail.delivery.settings import RouteSettings, RoutingSettings
from livemail.interfaces.relay import Answer, Hops
from livemail.mail.errors import MailError
from livemail.net.coroutines import run

FAILS = MailError("DNS lookup failed", code=451, enhanced="4.4.3")
NONE = Answer((), exists=False)


class Zone:
    """DNS as a table: "mx:NAME" and "NAME" to what is there."""

    def __init__(self, **table: Any) -> None:
        self.table = {name.replace("__", ":").replace("_", "."): value for name, value in table.items()}
        self.asked: list[str] = []

    async def _get(self, key: str, families: Sequence[int] = (6, 4)) -> Answer:
        self.asked.append(key)
        value = self.table.get(key, NONE)
        if isinstance(value, MailError):
            raise value
        if isinstance(value, Answer):
            return value
        if not key.startswith("mx:"):
            value = [each for family in families for each in value if (":" in each) == (family == 6)]
        return Answer(tuple(value), seconds=300.0, canonical=key.removeprefix("mx:"))

    async def mx(self, name: str) -> Answer:
        return await self._get(f"mx:{name}")

    async def addresses(self, name: str, families: Sequence[int] = (6, 4)) -> Answer:
        return await self._get(name, families)


def routing(
    zone: Zone,
    *routes: RouteSettings,
    relay: RoutingSettings | None = None,
    listeners: Any = (("::", 25),),
    seed: int = 1,
) -> Routing:
    ourselves = Ourselves(
        ["mail.example.org", *(relay.own_names if relay else ())],
        listeners,
        is_local=lambda address: address == "192.0.2.99",
    )
    return Routing(
        relay or RoutingSettings(), routes, resolver=zone, ourselves=ourselves, shuffle=random.Random(seed).shuffle
    )  # fmt: skip


def found(of: Routing, domain: str) -> Hops:
    ended: list[Any] = []
    run(of.hops(domain), lambda result, error: ended.append((result, error)))
    [(result, error)] = ended
    if error is not None:
        raise error
    return result


def refusal(of: Routing, domain: str) -> str:
    with pytest.raises(MailError) as caught:
        found(of, domain)
    return f"{caught.value.code} {caught.value.enhanced}"


def names(hops: Hops) -> list[str]:
    return [hop.host for hop in hops.hops]


A = ("192.0.2.1",)


def test_mx_hosts_come_by_preference_each_with_its_addresses() -> None:
    zone = Zone(
        mx__a_test=[(20, "two.test"), (10, "one.test")], one_test=["192.0.2.1", "2001:db8::1"], two_test=["192.0.2.2"]
    )
    hops = found(routing(zone), "a.test")
    assert [(hop.host, hop.addresses, hop.port, hop.tls, hop.reference) for hop in hops.hops] == [
        ("one.test", ("2001:db8::1", "192.0.2.1"), 25, "may", "one.test"),
        ("two.test", ("192.0.2.2",), 25, "may", "two.test"),
    ]
    assert (hops.destination, hops.seconds) == ("a.test", 300.0)


def test_equal_preferences_are_shuffled_and_better_ones_stay_first() -> None:
    hosts = [f"h{n}.test" for n in range(5)]
    zone = Zone(mx__a_test=[(10, name) for name in hosts] + [(5, "first.test")], first_test=A)
    zone.table |= dict.fromkeys(hosts, A)
    orders = {tuple(names(found(routing(zone, seed=seed), "a.test"))) for seed in range(20)}
    assert len(orders) > 10
    assert all(order[0] == "first.test" and sorted(order[1:]) == hosts for order in orders)
    assert names(found(routing(zone, seed=7), "a.test")) == names(found(routing(zone, seed=7), "a.test"))


def test_without_mx_the_domain_itself_is_the_host() -> None:
    assert names(found(routing(Zone(mx__a_test=[], a_test=A)), "A.test.")) == ["a.test"]


@pytest.mark.parametrize(
    ("table", "answer"),
    [
        ({}, "550 5.1.2"),
        ({"mx__a_test": [(0, "")]}, "556 5.1.10"),
        ({"mx__a_test": [], "a_test": Answer(())}, "550 5.1.2"),
        ({"mx__a_test": FAILS}, "451 4.4.3"),
        ({"mx__a_test": [], "a_test": FAILS}, "451 4.4.3"),
        ({"mx__a_test": [(1, "x.test")]}, "550 5.4.4"),
        ({"mx__a_test": [(1, "x.test"), (2, "y.test")], "y_test": FAILS}, "451 4.4.3"),
        ({"mx__a_test": [(1, "x test"), (2, "-x.test"), (3, "x\\032y.test")]}, "550 5.4.4"),
        (
            {"mx__a_test": [(1, "x.test")], "x_test": ["0.0.0.0", "224.0.0.1", "fe80::1", "::", "::ffff:0.0.0.0"]},
            "550 5.4.4",
        ),
        ({"mx__a_test": [(1, "mail.example.org")]}, "550 5.4.6"),
        ({"mx__a_test": [(1, "x.test")], "x_test": ["192.0.2.99"]}, "550 5.4.6"),
        ({"mx__a_test": [], "a_test": ["192.0.2.99"]}, "550 5.4.6"),
    ],
)
def test_what_cannot_be_sent_to_says_why(table: dict[str, Any], answer: str) -> None:
    assert refusal(routing(Zone(**table)), "a.test") == answer


def test_a_null_mx_beside_others_is_left_out() -> None:
    zone = Zone(mx__a_test=[(0, ""), (10, "one.test")], one_test=A)
    assert names(found(routing(zone), "a.test")) == ["one.test"]


def test_a_host_that_cannot_be_looked_up_is_passed_over_and_asked_again_soon() -> None:
    hops = found(routing(Zone(mx__a_test=[(1, "x.test"), (2, "y.test")], x_test=FAILS, y_test=A)), "a.test")
    assert (names(hops), hops.seconds) == (["y.test"], 0.0)


@pytest.mark.parametrize(
    "us", ["mail.example.org", "by-address.test", "by-alias.test", "also.test", "behind-nat.test", "203.0.113.9"]
)
def test_a_backup_mx_sends_to_better_hosts_only(us: str) -> None:
    zone = Zone(mx__a_test=[(10, "best.test"), (20, "peer.test"), (20, us), (30, "worse.test")])
    zone.table |= {"best.test": A, "peer.test": A, "worse.test": A, "by-address.test": ["192.0.2.99", "192.0.2.98"]}
    zone.table["by-alias.test"] = Answer(A, canonical="mail.example.org")
    zone.table["behind-nat.test"] = ["203.0.113.9"]
    relay = RoutingSettings(own_names=("Also.test", "203.0.113.9"))
    assert names(found(routing(zone, relay=relay), "a.test")) == ["best.test"]


def test_another_port_of_this_machine_is_somebody_else() -> None:
    zone = Zone(mx__a_test=[(1, "x.test")], x_test=["192.0.2.99"])
    assert names(found(routing(zone, listeners=[("::", 2525)]), "a.test")) == ["x.test"]
    assert names(found(routing(zone, listeners=[("192.0.2.98", 25)]), "a.test")) == ["x.test"]
    assert refusal(routing(zone, listeners=[("192.0.2.99", 25)]), "a.test") == "550 5.4.6"


def test_at_most_twenty_hosts_are_looked_at_and_sixteen_addresses_of_each_used() -> None:
    zone = Zone(mx__a_test=[(n, f"h{n}.test") for n in range(100)])
    zone.table |= {f"h{n}.test": [f"192.0.2.{m}" for m in range(1, 50)] for n in range(100)}
    hops = found(routing(zone), "a.test").hops
    assert [hop.host for hop in hops] == [f"h{n}.test" for n in range(20)]
    assert {len(hop.addresses) for hop in hops} == {16}
    assert len(zone.asked) == 21


def test_families_and_forbidden_networks_choose_addresses() -> None:
    zone = Zone(mx__a_test=[(1, "x.test"), (2, "y.test")], x_test=["10.1.2.3", "2001:db8::1"], y_test=["192.0.2.7"])
    relay = RoutingSettings(families=("ipv4",), forbidden_networks=("10.0.0.0/8",))
    assert [(hop.host, hop.addresses) for hop in found(routing(zone, relay=relay), "a.test").hops] == [
        ("y.test", ("192.0.2.7",))
    ]
    relay = RoutingSettings(families=("ipv4", "ipv6"))
    assert found(routing(zone, relay=relay), "a.test").hops[0].addresses == ("10.1.2.3", "2001:db8::1")
    mapped = Zone(mx__a_test=[(1, "x.test")], x_test=["::ffff:10.1.2.3"])
    assert refusal(routing(mapped, relay=RoutingSettings(forbidden_networks=("10.0.0.0/8",))), "a.test") == "550 5.4.4"


def test_address_literals_are_their_own_hosts() -> None:
    of = routing(Zone())
    assert [(hop.host, hop.addresses, hop.port) for hop in found(of, "[192.0.2.1]").hops] == [("192.0.2.1", A, 25)]
    assert found(of, "[IPv6:2001:DB8::1]").hops[0].addresses == ("2001:db8::1",)
    assert refusal(of, "[192.0.2.99]") == "550 5.4.6"
    assert refusal(of, "[0.0.0.0]") == "550 5.4.4"
    assert refusal(of, "[192.0.2]") == "550 5.1.2"
    assert refusal(of, "a..b") == "550 5.1.2"


def test_domains_are_one_in_all_their_spellings() -> None:
    zone = Zone()
    zone.table = {"mx:xn--mnchen-3ya.test": [(1, "x.test")], "x.test": A}
    assert found(routing(zone), "München.test").destination == "xn--mnchen-3ya.test"
    assert routing(zone).destination("MÜNCHEN.test") == "xn--mnchen-3ya.test"


def test_the_most_precise_route_wins_wherever_it_stands() -> None:
    def to(host: str, *domains: str) -> RouteSettings:
        return RouteSettings(domains=domains, next_hop=(f"{host}:26",))

    routes = [
        to("any.test", "*"),
        to("below.test", ".example.net"),
        to("deep.test", "*.b.example.net"),
        to("exact.test", "example.net", "a.B.example.net"),
        to("literal.test", "[192.0.2.1]"),
    ]
    of = routing(Zone(), *routes)
    for domain, host in {
        "example.net": "exact.test",
        "x.example.net": "below.test",
        "b.example.net": "below.test",
        "x.b.example.net": "deep.test",
        "a.b.example.net": "exact.test",
        "net": "any.test",
        "notexample.net": "any.test",
        "[192.0.2.1]": "literal.test",
        "[192.0.2.2]": "any.test",
    }.items():
        assert of.destination(domain) == f"{host}:26", domain


def test_a_smarthost_is_asked_by_its_addresses_and_never_by_mx() -> None:
    zone = Zone(mx__smart_test=[(1, "wrong.test")], smart_test=A)
    relay = RoutingSettings(smarthost="Smart.test:587", login="me", password="secret", source=("192.0.2.50",))
    of = routing(zone, relay=relay)
    hops = found(of, "anything.test")
    [hop] = hops.hops
    assert (hop.host, hop.port, hop.addresses, hop.login, hop.password) == ("smart.test", 587, A, "me", "secret")
    assert (hop.tls, hop.reference, hop.source, hop.implicit_tls) == ("verify", "smart.test", ("192.0.2.50",), False)
    assert hops.destination == of.destination("other.test") == "smart.test:587 as me"
    assert zone.asked == ["smart.test"]
    assert "secret" not in repr(hops) + repr(of._table.way("x"))
    assert names(found(routing(zone, relay=RoutingSettings(smarthost="[smart.test]:25")), "a.test")) == ["smart.test"]


def test_a_route_can_lead_to_mx_hosts_to_sockets_and_past_the_smarthost() -> None:
    zone = Zone(mx__other_test=[(1, "o.test")], o_test=A, mx__plain_test=[(1, "p.test")], p_test=A)
    of = routing(
        zone,
        RouteSettings(domains=("a.test",), next_hop=("mx:other.test",)),
        RouteSettings(domains=("b.test",), next_hop=("unix:/run/lmtp",), protocol="lmtp"),
        RouteSettings(domains=("plain.test",), next_hop=("mx",), tls="encrypt"),
        RouteSettings(domains=("c.test",), next_hop=("mx:other.test:2500",)),
        relay=RoutingSettings(smarthost="192.0.2.7:465"),
    )
    assert names(found(of, "a.test")) == ["o.test"]
    assert found(of, "a.test").destination == "mx:other.test"
    assert found(of, "c.test").hops[0].port == 2500
    [lmtp] = found(of, "b.test").hops
    assert (lmtp.path, lmtp.protocol, lmtp.host) == ("/run/lmtp", "lmtp", "")
    assert found(of, "b.test").destination == "lmtp:unix:/run/lmtp"
    [plain] = found(of, "plain.test").hops
    assert (plain.host, plain.tls, found(of, "plain.test").destination) == ("p.test", "encrypt", "plain.test")
    assert found(of, "d.test").hops[0].implicit_tls


def test_several_next_hops_are_tried_in_order_and_one_without_address_is_passed_over() -> None:
    zone = Zone(two_test=A, three_test=FAILS)
    route = RouteSettings(domains=("a.test",), next_hop=("one.test:25", "two.test:26", "three.test:25", "[::1]:27"))
    hops = found(routing(zone, route), "a.test")
    assert [(hop.host, hop.port) for hop in hops.hops] == [("two.test", 26), ("::1", 27)]
    assert hops.seconds == 0.0
    nowhere = RouteSettings(domains=("a.test",), next_hop=("one.test:25", "three.test:25"))
    assert refusal(routing(zone, nowhere), "a.test") == "451 4.3.5"


def test_a_route_to_this_server_itself_keeps_the_mail_waiting() -> None:
    assert refusal(routing(Zone(), relay=RoutingSettings(smarthost="192.0.2.99:25")), "a.test") == "451 4.3.5"
    both = Zone(s_test=["192.0.2.99", "192.0.2.1"])
    assert found(routing(both, relay=RoutingSettings(smarthost="s.test:25")), "a.test").hops[0].addresses == A


def test_a_next_hop_on_another_port_of_a_host_with_our_name_is_somebody_else() -> None:
    zone = Zone(mail_example_org=["192.0.2.99"])
    relay = RoutingSettings(smarthost="mail.example.org:2526", own_names=("192.0.2.99",))
    [hop] = found(routing(zone, relay=relay), "a.test").hops
    assert (hop.host, hop.port, hop.addresses) == ("mail.example.org", 2526, ("192.0.2.99",))
    relay = RoutingSettings(smarthost="mail.example.org:25")
    assert refusal(routing(zone, relay=relay), "a.test") == "451 4.3.5"


def test_fallback_relays_come_behind_and_stand_in_when_dns_is_silent() -> None:
    zone = Zone(mx__a_test=[(1, "x.test")], x_test=A, mx__b_test=FAILS, mx__c_test=[(0, "")], f_test=["192.0.2.5"])
    named = RouteSettings(name="way", next_hop=("192.0.2.6:587",), login="me", password="secret")
    of = routing(zone, named, relay=RoutingSettings(fallback=("f.test:25", "route:way", "gone.test:25")))
    hops = found(of, "a.test")
    assert [(hop.host, hop.port, hop.login, hop.tls) for hop in hops.hops] == [
        ("x.test", 25, "", "may"),
        ("f.test", 25, "", "may"),
        ("192.0.2.6", 587, "me", "verify"),
    ]
    assert names(found(of, "b.test")) == ["f.test", "192.0.2.6"]
    assert found(of, "b.test").seconds == 0.0
    assert refusal(of, "c.test") == "556 5.1.10"
    gone = routing(zone, relay=RoutingSettings(fallback=("gone.test:25",)))
    assert refusal(gone, "b.test") == "451 4.4.3"


def test_what_needs_no_lookup_is_found_once_and_a_fallback_that_fails_is_tried_again() -> None:
    of = routing(Zone(), relay=RoutingSettings(smarthost="192.0.2.1:587"))
    assert found(of, "a.test") is found(of, "a.test")
    zone = Zone(f_test=FAILS)
    of = routing(zone, relay=RoutingSettings(smarthost="192.0.2.1:587", fallback=("f.test:25",)))
    assert names(found(of, "a.test")) == ["192.0.2.1"]
    zone.table["f.test"] = ["192.0.2.5"]
    assert names(found(of, "a.test")) == ["192.0.2.1", "f.test"]


def test_the_login_of_a_smarthost_is_not_told_to_its_fallback() -> None:
    relay = RoutingSettings(smarthost="192.0.2.1:587", login="me", password="secret", fallback=("192.0.2.2:25",))
    assert [hop.password for hop in found(routing(Zone(), relay=relay), "a.test").hops] == ["secret", ""]


def test_passwords_are_read_from_their_files_and_again_on_reload(tmp_path: Any) -> None:
    file = tmp_path / "password"
    file.write_text("one\r\nrest\n")
    relay = RoutingSettings(smarthost="192.0.2.1:587", login="me", password_file=str(file))
    of = routing(Zone(), relay=relay)
    assert found(of, "a.test").hops[0].password == "one"
    file.write_text("two")
    of.reload()
    assert found(of, "a.test").hops[0].password == "two"
    file.write_text("")
    with pytest.raises(SecretError, match="is empty"):
        of.reload()
    assert found(of, "a.test").hops[0].password == "two"


def test_addresses_are_asked_for_side_by_side() -> None:
    class Slow(Zone):
        def __init__(self, **table: Any) -> None:
            super().__init__(**table)
            self.waiting: dict[str, Deferred[Any]] = {}

        async def addresses(self, name: str, families: Sequence[int] = (6, 4)) -> Answer:
            self.waiting[name] = Deferred()
            await self.waiting[name]
            return Answer(A, seconds=5.0, canonical=name)

    zone = Slow(mx__a_test=[(1, "x.test"), (2, "y.test")])
    ended: list[Any] = []
    run(routing(zone).hops("a.test"), lambda result, error: ended.append(result))
    assert set(zone.waiting) == {"x.test", "y.test"}
    zone.waiting["y.test"].callback(None)
    assert not ended
    zone.waiting["x.test"].callback(None)
    assert names(ended[0]) == ["x.test", "y.test"]


def test_the_kernel_knows_this_machines_addresses() -> None:
    assert is_local_address("127.0.0.1")
    assert is_local_address("127.9.9.9")
    assert is_local_address("::1")
    assert not is_local_address("192.0.2.1")
    assert not is_local_address("2001:db8::1")
