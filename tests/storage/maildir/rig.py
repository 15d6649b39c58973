"""A store whose accounts are in Maildirs that the test works on as another program would."""

from __future__ import annotations

from pathlib import Path

from tests.contracts.stores import message
from tests.storage.lmdb_rig import FolderRig


def listed(folder: Path) -> list[str]:
    """Names in a folder."""
    return [path.name for path in folder.iterdir()]


class MaildirFolderRig(FolderRig):
    """One account is made at once: ``account``, its folder ``root``."""

    def __init__(self, folder: Path, **settings) -> None:
        super().__init__(folder, **settings)
        self.account = self.new_account()
        self.root = self.folder / "mail" / self.account.name
        self._foreign = 0

    def maildir_of(self, name: str) -> Path | None:
        return self.folder / "mail" / name

    def path(self, mailbox: str) -> Path:
        return self.root if mailbox == "INBOX" else self.root / f".{mailbox}"

    def files(self, mailbox: str = "INBOX") -> list[str]:
        """Names in cur and new, with the flags, without what is unique."""
        found = []
        for part in ("cur", "new"):
            found += [f"{part}:{name.partition(':2,')[2]}" for name in sorted(listed(self.path(mailbox) / part))]
        return found

    def paths(self, mailbox: str = "INBOX") -> list[Path]:
        return [path for part in ("cur", "new") for path in sorted((self.path(mailbox) / part).iterdir())]

    def put(
        self, octets: bytes | None = None, mailbox: str = "INBOX", flags: str | None = None, base: str = ""
    ) -> Path:
        """Deliver as procmail does: into new, or into cur with flags."""
        self._foreign += 1
        base = base or f"{1_700_000_000 + self._foreign}.foreign{self._foreign}.host"
        name = f"new/{base}" if flags is None else f"cur/{base}:2,{flags}"
        path = self.path(mailbox) / name
        path.write_bytes(message(f"f{self._foreign}").replace(b"\r\n", b"\n") if octets is None else octets)
        return path

    def state(self, mailbox: str = "INBOX") -> dict[int, tuple[int, tuple[str, ...]]]:
        """Flags and keywords by UID, as a client sees them now."""
        self.wait(self.account.select(mailbox, False))
        fetched = self.fetch(self.account, mailbox)
        names = fetched.get("keywords", [])
        return {row[0]: (row[1], tuple(n for at, n in enumerate(names) if row[2] >> at & 1)) for row in fetched["rows"]}

    def octets(self, uid: int, mailbox: str = "INBOX", piece: int = 1 << 20) -> bytes | None:
        return self.read(self.account, self.info(self.account, mailbox).id, uid, piece)
