"""Our own changes to a Maildir account: the folder is changed when the operation runs, before the index is committed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from livemail.mail.content import Content
from livemail.storage.lmdb.deleted.records import FOLDER
from livemail.storage.lmdb.deleted.records import file_name as kept_name
from livemail.storage.lmdb.files.effects import Effects
from livemail.storage.lmdb.files.records import File, base_key, unpack_file
from livemail.storage.lmdb.records import MESSAGE_KEY, U32, Message
from livemail.storage.maildir.folders import list_folder, make_folder, name_folder, stamp
from livemail.storage.maildir.keywords import Keywords, add_keywords
from livemail.storage.maildir.lines import write_file
from livemail.storage.maildir.names import (
    file_name,
    folder_name,
    new_base,
    split_name,
    write_letters,
)

if TYPE_CHECKING:
    from livemail.storage.lmdb.operations.group import Group, MailboxState

_HOST: Final = socket.gethostname()


class MaildirFiles:
    """The files of one account, for the operations of one group."""

    _made = 0

    def __init__(self, group: Group, root: Path, effects: Effects, contents: Mapping[bytes, Content]) -> None:
        """contents: what the group brings, by digest."""
        self.root = root
        self._group = group
        self._effects = effects
        self._contents = contents
        self._keywords: dict[int, Keywords] = {}
        self._listed: dict[int, dict[str, str]] = {}
        self._stamped: set[int] = set()

    # ------------------------------------------------------------------------------------------------------ mailboxes

    def folder(self, mailbox: MailboxState) -> Path:
        """The mailbox's folder."""
        return self.root / folder_name(mailbox.record.name)

    def make_mailbox(self, mailbox: MailboxState) -> None:
        """Make the folder; one that is there is taken as it is, and compared later.  Raises OSError."""
        make_folder(self.folder(mailbox), mailbox.record.name, self._effects.made)

    def rename_mailbox(self, mailbox: MailboxState, before: str) -> None:
        """The mailbox has a new name.  Raises OSError."""
        folder = self.folder(mailbox)
        self._effects.rename(self.root / folder_name(before), folder)
        name_folder(folder, mailbox.record.name)

    def remove_mailbox(self, mailbox: MailboxState) -> None:
        """Remove the folder with its rows.  Raises OSError."""
        self._effects.remove(self.folder(mailbox), self.root / "tmp")
        self.forget_mailbox(mailbox)

    def forget_mailbox(self, mailbox: MailboxState) -> None:
        """Remove the rows."""
        tables = self._group.tables
        for table in (tables.file, tables.fbase, tables.mdir):
            self._group.delete_prefix(table, mailbox.key)

    def remove_account(self, key: bytes) -> None:
        """Remove everything.  key: the account's.  Raises OSError."""
        if self.root.exists():
            self._effects.remove(self.root, self.root.parent)
        group = self._group
        for table in (group.tables.file, group.tables.fbase, group.tables.mdir):
            group.delete_prefix(table, key)
        group.txn.delete(key, db=group.tables.mroot)

    # ------------------------------------------------------------------------------------------------------ messages

    def place(
        self, mailbox: MailboxState, uid: int, prepared: Any, prefix: bytes, flags: int, keywords: int, date: int
    ) -> None:
        """Write a new message's file.  date: its internal date.  Raises OSError."""
        folder = self.folder(mailbox)
        content = self._contents[prepared.digest]
        is_raw = prepared.has_bare_newline or b"\n" in prefix.replace(b"\r\n", b"")
        self._begin(mailbox)
        unique = self._unique()
        draft = folder / "tmp" / f"{self._group.now}.{unique}"
        octets = write_file(draft, prefix, content, is_raw=is_raw)
        self._effects.made(draft)
        os.utime(draft, (date, date))
        base = new_base(self._group.now, unique, _HOST, octets, prepared.size + len(prefix))
        letters = write_letters(flags, self._letters(mailbox, keywords))
        name = f"cur/{file_name(base, letters)}" if letters else f"new/{base}"
        self._effects.rename(draft, folder / name)
        self._write(mailbox, uid, File(name, is_raw))

    def set_flags(self, mailbox: MailboxState, rows: Iterable[tuple[int, int, int]]) -> None:
        """Rename the files of messages whose flags are now these.  rows: (uid, flags, keyword bits).  Raises OSError."""
        self._begin(mailbox)
        for uid, flags, keywords in rows:
            found = self._find(mailbox, uid)
            if found is None:
                continue
            base, theirs = split_name(found.name[4:])
            letters = write_letters(flags, self._letters(mailbox, keywords), theirs)
            name = f"cur/{file_name(base, letters)}"
            known = self._known(mailbox, uid)
            before = split_name(known.name[4:])[1] if known is not None else theirs
            if before != theirs:
                # Renamed by another program since we looked: both changes stand.  The row says what the index says,
                # so that the next comparison takes theirs.
                merged = (set(theirs) | (set(letters) - set(before))) - (set(before) - set(letters))
                self._rename(mailbox, uid, found, f"cur/{file_name(base, ''.join(sorted(merged)))}")
                self._put(mailbox, uid, File(name, found.is_raw))
            else:
                self._rename(mailbox, uid, found, name)

    def copy(
        self, source: MailboxState, target: MailboxState, uids: Sequence[tuple[int, int]], flags: Mapping[int, Any]
    ) -> None:
        """Give messages a second file.  uids: (in the source, in the target); flags: (flags, bits) by target UID.

        Raises OSError.
        """
        self._transfer(source, target, uids, flags, is_move=False)

    def move(
        self, source: MailboxState, target: MailboxState, uids: Sequence[tuple[int, int]], flags: Mapping[int, Any]
    ) -> None:
        """Rename messages' files into another folder.  Arguments as `copy`.  Raises OSError."""
        self._transfer(source, target, uids, flags, is_move=True)

    def _transfer(
        self,
        source: MailboxState,
        target: MailboxState,
        uids: Sequence[tuple[int, int]],
        flags: Mapping[int, Any],
        *,
        is_move: bool,
    ) -> None:
        self._begin(source)
        self._begin(target)
        for old, new in uids:
            found = self._find(source, old)
            if found is None:
                continue
            system, keywords = flags[new]
            # The file's times and octets stay; a new base, because UIDs are given to bases.
            mark = found.base.partition(",")
            base = f"{self._group.now}.{self._unique()}.{_HOST}{mark[1]}{mark[2]}"
            letters = write_letters(system, self._letters(target, keywords), split_name(found.name[4:])[1])
            name = f"cur/{file_name(base, letters)}" if letters else f"new/{base}"
            change = self._effects.rename if is_move else self._effects.link
            try:
                change(self.folder(source) / found.name, self.folder(target) / name)
            except FileNotFoundError:
                continue  # Somebody has removed it this instant: the comparison will say so.
            self._write(target, new, File(name, found.is_raw))
            if is_move:
                self._forget(source, old, found)

    def present(self, mailbox: MailboxState, messages: Sequence[Message]) -> list[Message]:
        """Return those of the messages whose file is still there."""
        return [message for message in messages if self._find(mailbox, message.uid) is not None]

    def remove(self, mailbox: MailboxState, uids: Iterable[int]) -> None:
        """Remove messages' files.  Raises OSError."""
        self._begin(mailbox)
        folder = self.folder(mailbox)
        for uid in uids:
            found = self._find(mailbox, uid)
            if found is not None:
                self._effects.remove(folder / found.name, folder / "tmp")
            self._forget(mailbox, uid, found or self._known(mailbox, uid))

    def put_by(self, mailbox: MailboxState, uid: int, key: bytes, *, folder_goes: bool) -> File | None:
        """Put a message's file where kept messages wait; None when it is gone.

        key: of ``gone``.  folder_goes: the mailbox's is removed next, and gets no stamp.  Raises OSError.
        """
        if not folder_goes:
            self._begin(mailbox)
        found = self._find(mailbox, uid)
        self._forget(mailbox, uid, found or self._known(mailbox, uid))
        if found is None:
            return None
        waiting = self.root / FOLDER
        if not waiting.is_dir():
            waiting.mkdir(0o700)
            self._effects.made(waiting)
        name = kept_name(key, found.base)
        try:
            self._effects.rename(self.folder(mailbox) / found.name, waiting / name)
        except FileNotFoundError:
            return None  # Somebody has removed it this instant.
        return File(name, found.is_raw)

    def has_put_by(self, name: str) -> bool:
        """Whether a kept message's file is there."""
        return (self.root / FOLDER / name).is_file()

    def take_back(self, mailbox: MailboxState, uid: int, name: str, flags: int, keywords: int, *, is_raw: bool) -> None:
        """A kept message is in a mailbox again.  Raises OSError."""
        self._begin(mailbox)
        mark = name.partition(",")
        base = f"{self._group.now}.{self._unique()}.{_HOST}{mark[1]}{mark[2]}"
        letters = write_letters(flags, self._letters(mailbox, keywords))
        new = f"cur/{file_name(base, letters)}" if letters else f"new/{base}"
        # A second name first: if the group does not happen, its row still has its file.
        self._effects.link(self.root / FOLDER / name, self.folder(mailbox) / new)
        self._effects.remove_later(self.root / FOLDER / name)
        self._write(mailbox, uid, File(new, is_raw))

    def drop_put_by(self, name: str) -> None:
        """Remove a kept message's file."""
        self._effects.remove_later(self.root / FOLDER / name)

    def forget(self, mailbox: MailboxState, uids: Iterable[int]) -> None:
        """Remove the rows of messages whose files are gone already."""
        for uid in uids:
            self._forget(mailbox, uid, self._known(mailbox, uid))

    def know(self, mailbox: MailboxState, uid: int, file: File) -> None:
        """Note the file of a message."""
        self._write(mailbox, uid, file)

    # ------------------------------------------------------------------------------------------------------ details

    def _unique(self) -> str:
        MaildirFiles._made += 1
        return f"P{os.getpid()}Q{MaildirFiles._made}R{os.urandom(4).hex()}"

    def _begin(self, mailbox: MailboxState) -> None:
        """Have the stamp follow our own change, unless somebody else has changed the folder since it was compared."""
        if mailbox.id in self._stamped:
            return
        self._stamped.add(mailbox.id)
        group, folder = self._group, self.folder(mailbox)
        if group.txn.get(mailbox.key, db=group.tables.mdir) == stamp(folder):
            group.before_commit.append(lambda: group.txn.put(mailbox.key, stamp(folder), db=group.tables.mdir))

    def _letters(self, mailbox: MailboxState, bits: int) -> str:
        if not bits:
            return ""
        names = [name for at, name in enumerate(mailbox.record.keywords) if bits >> at & 1]
        known = self._keywords.get(mailbox.id)
        if known is None or any(name.lower() not in known.letters for name in names):
            known = self._keywords[mailbox.id] = add_keywords(self.folder(mailbox), names)
        return known.of_names(names)

    def _known(self, mailbox: MailboxState, uid: int) -> File | None:
        key = MESSAGE_KEY.pack(mailbox.account, mailbox.id, uid)
        row = self._group.txn.get(key, db=self._group.tables.file)
        return unpack_file(row) if row is not None else None

    def _find(self, mailbox: MailboxState, uid: int) -> File | None:
        """Return a message's file under the name it has now; None when it is gone."""
        known = self._known(mailbox, uid)
        if known is None:
            return None
        folder = self.folder(mailbox)
        if (folder / known.name).exists():
            return known
        listed = self._listed.get(mailbox.id)
        if listed is None:
            listed = self._listed[mailbox.id] = list_folder(folder)
        name = listed.get(known.base)
        return File(name, known.is_raw) if name is not None and (folder / name).exists() else None

    def _rename(self, mailbox: MailboxState, uid: int, found: File, name: str) -> None:
        folder = self.folder(mailbox)
        if name != found.name:
            try:
                self._effects.rename(folder / found.name, folder / name)
            except FileNotFoundError:
                return  # Somebody has renamed or removed it this instant: the comparison will say so.
        self._put(mailbox, uid, File(name, found.is_raw))

    def _put(self, mailbox: MailboxState, uid: int, file: File) -> None:
        key = MESSAGE_KEY.pack(mailbox.account, mailbox.id, uid)
        self._group.txn.put(key, file.pack(), db=self._group.tables.file)

    def _write(self, mailbox: MailboxState, uid: int, file: File) -> None:
        self._put(mailbox, uid, file)
        self._group.txn.put(base_key(mailbox.key, file.base), U32.pack(uid), db=self._group.tables.fbase)

    def _forget(self, mailbox: MailboxState, uid: int, file: File | None) -> None:
        group = self._group
        group.txn.delete(MESSAGE_KEY.pack(mailbox.account, mailbox.id, uid), db=group.tables.file)
        if file is not None:
            group.txn.delete(base_key(mailbox.key, file.base), db=group.tables.fbase)
