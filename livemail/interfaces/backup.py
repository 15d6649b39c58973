"""Backups: a store that can make them while it works provides `IBackupStore` beside `IMailStore`."""

from __future__ import annotations

from pathlib import Path

import msgspec
from zope.interface import Interface

from livemail.interfaces.storage import Progress


class BackupReport(msgspec.Struct, frozen=True):
    """One backup.  octets: of everything that belongs to it; new_octets: of what was written for it."""

    generation: int
    accounts: int
    messages: int
    octets: int
    new_octets: int


class BackupFailed(Exception):
    """The backup cannot be made or used; the text is for the operator and says what to do."""


class IBackupStore(Interface):
    """A store that can be backed up."""

    async def backup(target: Path, recipient: str = "", progress: Progress | None = None) -> BackupReport:
        """Add one consistent backup to a folder.  recipient: public key to encrypt to, "" for the folder's, or in the clear.

        Raises BackupFailed, and StorageFailed when the store is closed meanwhile.
        """
