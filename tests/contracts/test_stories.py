"""The storage contract: stories of mail transactions are kept with the commit that files the message, found, and bounded."""

from __future__ import annotations

from livemail.interfaces.storage import Delivery
from livemail.interfaces.story import StoryPlace
from tests.contracts.stores import content, message


def key(number, seconds=1_700_000_000):
    return f"{seconds:x}-{number:x}.1"


def file(rig, account, transaction, story, *mailboxes, octets=None):
    made = rig.wait(content(rig.store, octets or message(subject=transaction)))
    rig.store.note(transaction, story, made.digest)
    results = rig.wait(rig.store.deliver([Delivery(account.id, name, made) for name in mailboxes or ("INBOX",)]))
    made.close()
    return results


def test_a_story_goes_with_the_message_and_knows_where_it_went(rig, account):
    first, second = file(rig, account, key(1), b"one", "INBOX", "Junk")
    kept = rig.wait(rig.store.story(key(1)))
    assert kept.story == b"one"
    assert set(kept.places) == {StoryPlace(each.account, each.mailbox, each.uid) for each in (first, second)}
    assert rig.wait(rig.store.story(key(2))) is None


def test_a_later_story_replaces_the_first_and_the_places_stay(rig, account):
    (filed,) = file(rig, account, key(1), b"one")
    rig.store.note(key(1), b"one, and what came of it")
    rig.store.flush_stories()
    rig.new_account()
    kept = rig.wait(rig.store.story(key(1)))
    assert kept.story == b"one, and what came of it"
    assert [place.uid for place in kept.places] == [filed.uid]


def test_a_story_without_a_message_is_there_at_once_and_kept_with_the_next_commit(rig, account):
    rig.store.note(key(7), b"refused")
    assert rig.wait(rig.store.story(key(7))).story == b"refused"
    assert [kept.story for kept in rig.wait(rig.store.find_stories(b"fuse", 5))] == [b"refused"]
    file(rig, account, key(8), b"taken")
    assert rig.wait(rig.store.story(key(7))).story == b"refused"


def test_a_story_whose_message_never_came_is_kept_too(rig, account):
    rig.store.note(key(1), b"hopeful", b"no such digest..")
    for _ in range(3):
        rig.store.flush_stories()
    rig.new_account()
    assert rig.wait(rig.store.story(key(1))).story == b"hopeful"


def test_stories_are_found_by_what_they_contain_the_latest_first(rig, account):
    for number in range(1, 60):
        file(rig, account, key(number), b"<even@x>" if number % 2 == 0 else b"<odd@x> %d" % number)
    found = rig.wait(rig.store.find_stories(b"<odd@x>", 3))
    assert [kept.story for kept in found] == [b"<odd@x> 59", b"<odd@x> 57", b"<odd@x> 55"]
    assert all(kept.places for kept in found)


def test_there_are_never_many_more_than_configured_and_the_oldest_go(make_rig):
    rig = make_rig(story_rows=100)
    account = rig.new_account()
    for number in range(1, 400):
        rig.store.note(key(number), b"x" * 20)
        if number % 20 == 0:
            file(rig, account, key(number + 1000), b"y")
    kept = rig.wait(rig.store.find_stories(b"", 1000))
    assert 100 <= len(kept) < 200
    assert rig.wait(rig.store.story(key(1))) is None
    assert rig.wait(rig.store.story(key(380))) is not None


def test_a_story_on_its_way_to_the_disk_is_told_all_the_same(rig, account):
    file(rig, account, key(1), b"one")
    rig.store.note(key(2), b"<two@x> refused")
    rig.store.flush_stories()  # handed to the writer, not yet answered
    for _ in range(50):
        assert rig.wait(rig.store.story(key(2))).story == b"<two@x> refused"
        assert [kept.story for kept in rig.wait(rig.store.find_stories(b"<two@x>", 5))] == [b"<two@x> refused"]
