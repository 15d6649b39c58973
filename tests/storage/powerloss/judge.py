"""Opening what a power failure left, as the product does at its start, and comparing it with what had been acknowledged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from livemail.interfaces.queue import START, Choice
from livemail.interfaces.storage import FLAGS, KEYWORDS, MODSEQ, UID_, Delivery
from livemail.mail.flags import FLAGGED
from tests.contracts.drive import Pump
from tests.contracts.stores import content, fetch_all
from tests.storage.crash.child import octets_of, open_store
from tests.storage.powerloss.child import PREFIX, QUEUE_PREFIX

EVERY = frozenset({"queued", "deferred", "claimed", "held", "failing", "delivered", "failed"})
AFTER = "after-1"


def lay_out(tree: Mapping[str, bytes | None], root: Path) -> None:
    """Write a tree into an empty folder; a folder stands before what is in it."""
    for name, octets in tree.items():
        if octets is None:
            (root / name).mkdir(mode=0o700)
        else:
            (root / name).write_bytes(octets)


def complaints(root: Path, kind: str, told: Sequence[str], *, goes_on: bool) -> list[str]:
    """Open the store and name everything that was acknowledged and is not so.  goes_on: deliver one more and check again."""
    lines = [json.loads(line) for line in told]
    pump = Pump()
    try:
        store = open_store(pump, str(root), kind)
    except Exception as error:  # Whatever it is, the store does not open.
        return [f"does not open: {error!r}"]
    try:
        return _compare(pump, store, lines, kind, goes_on=goes_on)
    except Exception as error:  # As above.
        return [f"does not work: {error!r}"]
    finally:
        pump.wait(store.close())


def _subject(octets: bytes) -> str:
    return octets.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode("utf-8", "replace")


def _compare(pump: Pump, store: Any, lines: Sequence[dict[str, Any]], kind: str, *, goes_on: bool) -> list[str]:
    wrong: list[str] = []
    record = pump.wait(store.account_named("a@localhost"))
    if record is None:
        return ["the account is lost"] if lines else []
    account = pump.wait(store.account(record.id))
    # In a Maildir the folder may be ahead of the index; it is compared before anybody sees the mailboxes.
    names = [info.name for info in pump.wait(account.mailboxes()).mailboxes]
    wrong += [f"check: {problem}" for problem in pump.wait(store.check()).problems]
    found: dict[str, tuple[str, Any, tuple[str, ...]]] = {}
    counts: Counter[str] = Counter()
    for name in names:
        mailbox = pump.wait(account.mailbox(name))
        columns = pump.wait(fetch_all(account, mailbox.id, contents=True, contents_up_to=1 << 20))
        for row, octets in zip(columns["rows"], columns.get("contents", []), strict=True):
            if octets is None:
                wrong.append(f"{name} UID {row[UID_]}: cannot be read")
                continue
            subject = _subject(octets)
            counts[subject] += 1
            if not subject.startswith("m-") or octets != PREFIX + octets_of(subject):
                wrong.append(f"{name} UID {row[UID_]}: the octets are nobody's")
                continue
            keywords = tuple(word for bit, word in enumerate(columns["keywords"]) if row[KEYWORDS] >> bit & 1)
            found[subject] = (name, row, keywords)
    # A Maildir has no journal: a move nobody was told of may have made the new name and not yet taken the old one away.
    most = {line["subject"]: 2 for line in lines if line["what"] == "moving"} if kind == "maildir" else {}
    most |= {line["subject"]: 1 for line in lines if line["what"] == "moved"}
    wrong += [f"{subject}: there {count} times" for subject, count in counts.items() if count > most.get(subject, 1)]
    wrong += _messages(found, lines)
    wrong += _queue(pump, store, lines)
    if goes_on and not wrong:
        made = pump.wait(content(store, octets_of(AFTER)))
        pump.wait(store.deliver([Delivery(record.id, "INBOX", made, PREFIX)]))
        made.close()
        wrong += [f"check, after one more delivery: {problem}" for problem in pump.wait(store.check()).problems]
    return wrong


def _messages(found: Mapping[str, tuple[str, Any, tuple[str, ...]]], lines: Sequence[dict[str, Any]]) -> list[str]:
    wrong = []
    places: dict[str, tuple[str, int] | None] = {}
    """Where a message must be; None where that is open."""
    gone = set()
    flags: list[dict[str, Any]] = []
    for line in lines:
        match line["what"]:
            case "add":
                places[line["subject"]] = ("INBOX", line["uid"])
            case "moving":
                places[line["subject"]] = None
            case "moved":
                places[line["subject"]] = ("Archive", line["uid"])
            case "going":
                del places[line["subject"]]
            case "gone":
                gone.add(line["subject"])
            case "back":
                gone.discard(line["subject"])
            case "came":
                places[line["subject"]] = ("INBOX", line["uid"])
            case "flag":
                flags.append(line)
    for subject, place in places.items():
        if subject not in found:
            wrong.append(f"{subject}: acknowledged and lost")
        elif place is not None and place != (found[subject][0], found[subject][1][UID_]):
            wrong.append(
                f"{subject}: acknowledged in {place}, is in {found[subject][0]}, UID {found[subject][1][UID_]}"
            )
    wrong += [f"{subject}: expunged and back" for subject in gone & found.keys()]
    for line in flags:
        if line["subject"] in found:
            _, row, keywords = found[line["subject"]]
            if line["keyword"] not in keywords or not row[FLAGS] & FLAGGED or row[MODSEQ] < line["modseq"]:
                wrong.append(f"{line['subject']}: flags {keywords}, ModSeq {row[MODSEQ]}, acknowledged was {line}")
    return wrong


def _queue(pump: Pump, store: Any, lines: Sequence[dict[str, Any]]) -> list[str]:
    async def read() -> dict[int, tuple[bytes, str]]:
        there: dict[int, tuple[bytes, str]] = {}
        after: Any = START
        while after is not None:
            page = await store.queue.find(Choice(states=EVERY), after, 1000)
            for message in page.messages:
                reader = await store.queue.open_content(message.id)
                there[message.id] = (await reader.read(0, reader.size), message.recipients[0].state)
                reader.close()
            after = page.after
        return there

    there = pump.wait(read())
    wrong = []
    settling = {line["id"] for line in lines if line["what"] == "settling"}
    for line in lines:
        match line["what"]:
            case "queued":
                if line["id"] in there and there[line["id"]][0] != QUEUE_PREFIX + octets_of(line["subject"]):
                    wrong.append(f"queue: {line['subject']} has other octets")
                if line["id"] not in settling and there.get(line["id"], (b"", ""))[1] not in {"queued", "deferred"}:
                    wrong.append(f"queue: {line['subject']} was accepted and is lost")
            case "settled":
                if line["id"] in there and there[line["id"]][1] != "delivered":
                    wrong.append(f"queue: message {line['id']} was delivered and waits again")
    return wrong
