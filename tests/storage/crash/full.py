"""Fills a store until there is no room, then makes room.  Arguments: data folder, "limit" or "disk".

limit: files of this process may have 3 MiB at most (RLIMIT_FSIZE), which every write and the index meet for real, without a
mount.  disk: the folder is on a small file system; an expunge makes the room, the reserve file helps it.
"""

from __future__ import annotations

import resource
import sys

import msgspec

from livemail.interfaces.storage import Delivery
from livemail.mail.errors import MailError, StorageFull
from livemail.mail.flags import SEEN, FlagChange
from livemail.mail.ids import UIDSet
from livemail.storage.lmdb import LMDBStore
from livemail.storage.settings import StorageSettings
from tests.contracts.drive import Pump
from tests.contracts.stores import content, fetch_all, message

LIMIT = 3 * 1024 * 1024
QUIET = StorageSettings(reserve_octets=0, reserve_percent=0, reserve_inodes=0, reserve_file=0, writer="thread")


def main() -> None:
    folder, how = sys.argv[1:]
    settings = QUIET if how == "limit" else msgspec.structs.replace(QUIET, reserve_file=1 << 20, segment_octets=1 << 20)
    pump = Pump()

    def open_store() -> LMDBStore:
        return pump.wait(
            LMDBStore.open(
                folder,
                settings,
                call_from_thread=pump.call_from_thread,
                run_blocking=pump.run_blocking,
                create=True,
            )
        )

    async def deliver(number: int) -> None:
        made = await content(store, message(f"s{number}", body=f"{number} " * 3000))
        try:
            (result,) = await store.deliver([Delivery(record.id, "INBOX", made)])
            if isinstance(result, MailError):
                raise result
        finally:
            made.close()

    store = open_store()
    (record,) = pump.wait(store.add_accounts([("a@localhost", "")]))
    account = pump.wait(store.account(record.id))
    inbox = pump.wait(account.mailbox("INBOX"))
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    taken = 0
    try:
        while taken < 5000:
            pump.wait(deliver(taken))
            taken += 1
    except StorageFull:
        pass
    assert 20 < taken < 5000, taken
    assert pump.wait(account.mailbox("INBOX")).exists == taken
    assert pump.wait(store.check()).problems == ()
    if how == "limit":
        # Flags need no more octets than the index has: they still change.
        pump.wait(account.store(inbox.id, UIDSet([(1, 1)]), FlagChange("add", SEEN)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        left = taken
    else:
        pump.wait(account.expunge(inbox.id, UIDSet([(1, taken * 3 // 4)]), only_deleted=False))
        left = taken - taken * 3 // 4
    for number in range(3):
        pump.wait(deliver(taken + number))
    assert pump.wait(account.mailbox("INBOX")).exists == left + 3
    pump.wait(store.close())
    store = open_store()
    account = pump.wait(store.account(record.id))
    contents = pump.wait(fetch_all(account, inbox.id, contents=True))["contents"]
    first = taken - left
    assert contents == [message(f"s{n}", body=f"{n} " * 3000) for n in range(first, taken + 3)]
    assert pump.wait(store.check()).problems == ()
    pump.wait(store.close())
    sys.stdout.write(f"{taken} taken, {left} left\n")


if __name__ == "__main__":
    main()
