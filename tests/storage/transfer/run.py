"""An import and an export in a test, and an account's mail as a plain value to compare."""

from __future__ import annotations

from livemail.interfaces.storage import DATE, FLAGS, KEYWORDS, UID_
from livemail.storage.transfer.exporter import Exporter
from livemail.storage.transfer.importer import Importer, Options


def bring(rig, account, source, progress=lambda *_: None, **options):
    return rig.wait(Importer(rig.store, account, rig.pump.run_blocking, progress, Options(**options)).run(source))


def bring_out(rig, account, kind, target):
    return rig.wait(Exporter(account, rig.pump.run_blocking, lambda *_: None).run(kind, target))


def mail(rig, account):
    """(octets, flags, keywords, date, UID) by mailbox."""
    found = {}
    for info in rig.wait(account.mailboxes()).mailboxes:
        columns = rig.fetch(account, info.name)
        names = columns.get("keywords", [])
        found[info.name] = [
            (
                rig.read(account, info.id, row[UID_]),
                row[FLAGS],
                tuple(sorted(name for at, name in enumerate(names) if row[KEYWORDS] >> at & 1)),
                row[DATE],
                row[UID_],
            )
            for row in columns["rows"]
        ]
    return {name: rows for name, rows in found.items() if rows}
