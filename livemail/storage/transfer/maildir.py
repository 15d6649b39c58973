"""A Maildir to import: Maildir++ or one folder in another, UIDs and keywords by Dovecot's files."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path

from livemail.storage.maildir.folders import list_folder
from livemail.storage.maildir.keywords import Keywords
from livemail.storage.maildir.lines import message_chunks
from livemail.storage.maildir.names import mailbox_name, read_letters, split_name
from livemail.storage.maildir.uidlist import FILE, walk_uidlist
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
        return SourceMailbox(name, str(folder), "", count, _uid_validity(folder))

    def messages(self, mailbox: SourceMailbox, known: AbstractSet[bytes]) -> Iterator[SourceMessage | Skipped]:
        """In the order of their UIDs, then of the times in their names."""
        folder = Path(mailbox.path)
        keywords = Keywords.read(folder)
        for name, uid in zip(*_in_order(folder), strict=True):
            id_ = short_id(os.fsencode(base_of(name)))
            if id_ in known:
                continue
            path = folder / name
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
                    uid=uid,
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


def base_of(name: str) -> str:
    """Return what never changes of a name such as `list_folder` gives."""
    return name[4:].partition(":")[0]


def _uid_validity(folder: Path) -> int:
    """Return what Dovecot's list says, 0 without one."""
    try:
        with (folder / FILE).open("rb") as file:
            return walk_uidlist(file)[0]
    except (OSError, ValueError):
        return 0


def _in_order(folder: Path) -> tuple[list[str], array[int]]:
    """Return the files with their UIDs, 0 for those that have none.

    Dovecot's list is in the order that is wanted: read line by line it need not be held, nor sorted.  A folder of 200,000 messages
    took 90 MB as two dicts and sort keys, and takes a third.
    """
    listed = list_folder(folder)
    names: list[str] = []
    uids = array("I")
    try:
        with (folder / FILE).open("rb") as file:
            for base, uid in walk_uidlist(file)[2]:
                name = listed.pop(base, None)
                if name is not None:
                    names.append(name)
                    uids.append(uid)
    except (OSError, ValueError):
        pass  # What it did not say goes by time.
    names += [listed[base] for base in sorted(listed, key=_order)]
    uids.extend(bytes(len(names) - len(uids)))
    return names, uids


def _order(base: str) -> tuple[int, str]:
    seconds = base.partition(".")[0]
    return int(seconds) if seconds.isdigit() and len(seconds) < 12 else 0, base
