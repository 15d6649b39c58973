"""A Maildir to import: Maildir++ or one folder in another, UIDs and keywords by Dovecot's files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from livemail.storage.maildir.folders import list_folder
from livemail.storage.maildir.keywords import Keywords
from livemail.storage.maildir.lines import message_chunks
from livemail.storage.maildir.names import mailbox_name, read_letters, split_name
from livemail.storage.maildir.uidlist import UIDList, read_uidlist
from livemail.storage.transfer.source import Skipped, SourceError, SourceMailbox, SourceMessage, short_id


class MaildirSource:
    """One account's Maildir."""

    def __init__(self, root: Path) -> None:
        """Raises SourceError."""
        self.name = f"maildir:{root}"
        self._root = root
        if not (root / "cur").is_dir() and not any(_has_cur(each) for each in _folders(root)):
            raise SourceError(f"{root} is no Maildir: neither it nor a folder in it has a folder cur")

    def mailboxes(self) -> Sequence[SourceMailbox]:
        """INBOX is the folder itself; ``.a.b`` is a/b; a folder without a dot is what its path says."""
        found = []
        if _has_cur(self._root):
            found.append(self._mailbox("INBOX", self._root))
        waiting = [(folder, "") for folder in _folders(self._root)]
        while waiting:
            folder, above = waiting.pop()
            if folder.name in {"cur", "new", "tmp"}:
                continue
            name = mailbox_name(folder.name) if folder.name.startswith(".") and not above else above + folder.name
            if name is None:
                name = folder.name.lstrip(".").replace(".", "/") or folder.name
            if _has_cur(folder):
                found.append(self._mailbox(name, folder))
            if not folder.name.startswith("."):
                waiting += [(each, f"{name}/") for each in _folders(folder)]
        return sorted(found, key=lambda mailbox: (mailbox.name != "INBOX", mailbox.name))

    def _mailbox(self, name: str, folder: Path) -> SourceMailbox:
        try:
            count = sum(1 for part in ("cur", "new") for _ in os.scandir(folder / part))
        except OSError as error:
            raise SourceError(f"{folder} cannot be read: {error.strerror}") from error
        uidlist = read_uidlist(folder)
        return SourceMailbox(name, str(folder), "", count, uidlist.uid_validity if uidlist is not None else 0)

    def messages(self, mailbox: SourceMailbox, known: frozenset[bytes]) -> Iterator[SourceMessage | Skipped]:
        """In the order of their UIDs, then of the times in their names."""
        folder = Path(mailbox.path)
        uidlist = read_uidlist(folder) or UIDList(0, 0, {})
        keywords = Keywords.read(folder)
        listed = list_folder(folder)
        for base in sorted(listed, key=lambda base: _order(base, uidlist)):
            id_ = short_id(os.fsencode(base))
            if id_ in known:
                continue
            path = folder / listed[base]
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError as error:
                yield Skipped(str(path), error.strerror or "cannot be opened")
                continue
            try:
                state = os.fstat(fd)
                if not os.path.isfile(f"/proc/self/fd/{fd}"):  # noqa: PTH113
                    yield Skipped(str(path), "is no file")
                    continue
                flags, letters = read_letters(split_name(path.name)[1])
                yield SourceMessage(
                    str(path),
                    partial(message_chunks, fd, is_raw=False),
                    id_,
                    flags,
                    keywords.of_letters(letters),
                    int(state.st_mtime),
                    uid=uidlist.uids.get(base, 0),
                )
            finally:
                os.close(fd)

    def close(self) -> None:
        """Nothing is held."""


def _has_cur(folder: Path) -> bool:
    return (folder / "cur").is_dir() and (folder / "new").is_dir()


def _folders(folder: Path) -> list[Path]:
    try:
        return [each for each in folder.iterdir() if each.is_dir() and not each.is_symlink()]
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}") from error


def _order(base: str, uidlist: UIDList) -> tuple[int, int, str]:
    seconds = base.partition(".")[0]
    return uidlist.uids.get(base, 1 << 33), int(seconds) if seconds.isdigit() and len(seconds) < 12 else 0, base
