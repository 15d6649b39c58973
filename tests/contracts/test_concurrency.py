"""The storage contract under eight sessions at once: whatever the interleaving, every view comes out the same."""

from __future__ import annotations

import random

import pytest
from twisted.internet.defer import Deferred

from livemail.interfaces.storage import FLAGS, MODSEQ, AppendItem, Delivered, Delivery
from livemail.mail.errors import MailboxExists, NoSuchMailbox, NotPermitted
from livemail.mail.flags import DELETED, SEEN, FlagChange
from livemail.mail.ids import UIDSet
from tests.contracts.rig import EXAMPLES
from tests.contracts.stores import fetch_all, message
from tests.contracts.view import View

SESSIONS, COMMANDS = 8, 40
NAMES = ("INBOX", "Sent", "Archive")
WORDS = tuple(f"k{at}" for at in range(6))


class Session:
    """One handle, one view, and a random mind."""

    def __init__(self, rig, account_id, dice, contents):
        self.rig, self.dice, self.contents = rig, dice, contents
        self.account = rig.handle(account_id)
        self.view = View()
        self.given = []
        """(mailbox, UID) of every message this session's commands made."""

    async def pause(self):
        """Let the other sessions go on."""
        turn = Deferred()
        self.rig.pump.call_from_thread(turn.callback, None)
        await turn

    async def run(self):
        self.watch = await self.view.start(self.account)
        for _ in range(COMMANDS):
            await self.pause()
            await self.command()

    async def command(self):
        dice, account = self.dice, self.account
        name, to = dice.choice(NAMES), dice.choice(NAMES)
        box = (await account.mailbox(name)).id
        first = dice.randrange(1, 60)
        uids = UIDSet([(first, first + dice.randrange(12))])
        match dice.randrange(9):
            case 0 | 1:
                made = [dice.choice(self.contents) for _ in range(dice.randrange(1, 4))]
                results = await self.rig.store.deliver(
                    [Delivery(account.id, dice.choice(NAMES), each) for each in made]
                )
                self.given += [(each.mailbox, each.uid) for each in results if isinstance(each, Delivered)]
            case 2:
                items = [AppendItem(each, SEEN, (dice.choice(WORDS),)) for each in dice.sample(self.contents, 2)]
                appended = await account.append(name, items)
                self.given += [(box, uid) for uid in appended.uids]
            case 3 | 4:
                op, flags = dice.choice(["add", "remove", "replace"]), dice.randrange(32)
                since = None if dice.random() < 0.7 else self.view.modseq
                await account.store(box, uids, FlagChange(op, flags, (dice.choice(WORDS),)), since)
            case 5:
                copied = await account.copy(box, uids, to)
                self.given += [(copied.mailbox, uid) for uid in copied.target]
            case 6:
                copied = await account.move(box, uids, to)
                self.given += [(copied.mailbox, uid) for uid in copied.target]
            case 7:
                await account.expunge(box, uids, dice.random() < 0.5)
            case _:
                await self.move_mailboxes()

    async def move_mailboxes(self):
        """Names nobody else's messages are in, fought over by all sessions."""
        names = ["x", "x/y", "z"]
        self.dice.shuffle(names)
        try:
            match self.dice.randrange(3):
                case 0:
                    await self.account.create_mailbox(names[0])
                case 1:
                    await self.account.rename_mailbox(names[0], names[1])
                case _:
                    await self.account.delete_mailbox(names[0])
        except (MailboxExists, NoSuchMailbox, NotPermitted):  # another session was there before
            pass


@pytest.mark.parametrize("seed", range(max(3, EXAMPLES // 20)))
def test_eight_sessions_agree_in_the_end(rig, seed):
    account = rig.new_account()
    contents = [rig.content(message(str(at), body="x" * at)) for at in range(5)]
    start = {name: rig.info(account, name).highest_modseq for name in NAMES}
    sessions = [Session(rig, account.id, random.Random(f"{seed} {at}"), contents) for at in range(SESSIONS)]
    rig.pump.gather([session.run() for session in sessions])
    given = [each for session in sessions for each in session.given]
    assert len(given) == len(set(given)), "a UID was given twice"
    for session in sessions:
        assert rig.wait(session.view.differences(account)) == []
    for name in NAMES:
        info = rig.info(account, name)
        rows = rig.wait(fetch_all(account, info.id, contents=True))
        found = rows["rows"]
        modseqs = [row[MODSEQ] for row in found]
        assert info.exists == len(found)
        assert info.unseen == sum(not row[FLAGS] & SEEN for row in found)
        assert info.deleted == sum(bool(row[FLAGS] & DELETED) for row in found)
        assert info.size == sum(map(len, rows["contents"]))
        assert info.highest_modseq >= max(modseqs, default=0)
        assert max((uid for box, uid in given if box == info.id), default=0) == info.uid_next - 1
        changes = rig.wait(account.changes(info.id, start[name]))
        there = {row[0] for row in found}
        assert set(changes.changed) == there
        assert there | set(changes.vanished) == {uid for box, uid in given if box == info.id}
        assert not there & set(changes.vanished)
        for session in sessions:
            told = session.view.states[info.id]
            for row in found:
                if row[0] in told:
                    words = frozenset(word for bit, word in enumerate(info.keywords) if row[2] >> bit & 1)
                    assert told[row[0]] == (row[FLAGS], words)
    for session in sessions:
        session.watch.stop()
