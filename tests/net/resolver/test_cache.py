from twisted.internet.task import Clock

from livemail.net.resolver.cache import Cache, Entry
from livemail.net.resolver.message import A, Question


def question(n: int) -> Question:
    return Question(f"{n}.test", A)


def test_an_answer_is_known_until_its_time_is_over() -> None:
    clock = Clock()
    cache = Cache(clock.seconds, entries=10, octets=10**6)
    cache.put(question(1), Entry(5.0, ("192.0.2.1",)))
    clock.advance(4.9)
    assert cache.get(question(1)) == Entry(5.0, ("192.0.2.1",))
    clock.advance(0.1)
    assert cache.get(question(1)) is None
    assert (len(cache), cache.octets) == (0, 0)


def test_the_one_used_longest_ago_makes_room() -> None:
    cache = Cache(Clock().seconds, entries=3, octets=10**6)
    for n in range(3):
        cache.put(question(n), Entry(9.0))
    cache.get(question(0))
    cache.put(question(3), Entry(9.0))
    assert [cache.get(question(n)) is not None for n in range(4)] == [True, False, True, True]


def test_octets_are_bounded_however_large_the_answers() -> None:
    cache = Cache(Clock().seconds, entries=10**6, octets=100_000)
    for n in range(500):
        cache.put(question(n % 60), Entry(9.0, (b"x" * 3000, (10, "y" * 100))))
        assert cache.octets <= 100_000
    assert 20 < len(cache) < 34
    cache.put(question(1), Entry(9.0, (b"x" * 200_000,)))
    assert (len(cache), cache.octets) == (0, 0)
    cache.put(question(1), Entry(0.0))
    assert len(cache) == 0
