"""Taking into the index what another program has done to an account's folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from livemail.mail.changes import Added, FlagsChanged, MailboxDeleted, Subscribed
from livemail.mail.flags import DELETED, SEEN
from livemail.mail.ids import AccountId, MailboxId, UIDSet
from livemail.storage.lmdb.files.changes import MaildirFiles
from livemail.storage.lmdb.files.compare import Found
from livemail.storage.lmdb.files.records import File, base_key, unpack_file
from livemail.storage.lmdb.opening import lower_unseen
from livemail.storage.lmdb.operations.deliveries import Item, add_message
from livemail.storage.lmdb.operations.group import AccountState, Group, MailboxState, has_uids_for
from livemail.storage.lmdb.operations.keywords import assign_keywords
from livemail.storage.lmdb.operations.mailboxes import make_mailbox
from livemail.storage.lmdb.operations.messages import note_expunged, remove_all, remove_rows
from livemail.storage.lmdb.records import MESSAGE_KEY, MUTABLE, MUTABLE_FROM, MUTABLE_TO, STATE, name_key
from livemail.storage.maildir.folders import list_folder
from livemail.storage.maildir.keywords import Keywords
from livemail.storage.maildir.names import read_letters, split_name


class TakeIn:
    """Bring one mailbox up to date.  What was true when the folder was read is looked at again: we may have changed it since."""

    def __init__(
        self,
        account: AccountId,
        mailbox: MailboxId,
        added: Sequence[Found],
        gone: Sequence[int],
        changed: Sequence[int],
        stamp: bytes = b"",
        uid_validity: int = 0,
        uid_next: int = 0,
    ) -> None:
        """stamp, uid_next: with the last batch.  uid_validity, uid_next: Dovecot's, 0 where there is no list."""
        self._account = account
        self._mailbox = mailbox
        self._added = added
        self._gone = gone
        self._changed = changed
        self._stamp = stamp
        self._uid_validity = uid_validity
        self._uid_next = uid_next

    def run(self, group: Group) -> int:
        """Return how many messages were taken in, taken out or changed."""
        account = group.account(self._account)
        mailbox = group.mailbox(self._account, self._mailbox)
        files = group.files_of(self._account)
        assert files is not None
        folder = files.folder(mailbox)
        keywords = Keywords.read(folder)
        listed = list_folder(folder) if self._gone or self._changed else {}
        if self._uid_validity and mailbox.uid_next == 1:
            # Nobody was told another one yet.
            group.write_record(mailbox, msgspec.structs.replace(mailbox.record, uid_validity=self._uid_validity))
        touched = self._take_out(group, account, mailbox, files, listed)
        touched += self._take_flags(group, account, mailbox, files, listed, keywords)
        touched += self._take_in(group, account, mailbox, files, keywords)
        if self._stamp:
            group.txn.put(mailbox.key, self._stamp, db=group.tables.mdir)
        return touched

    def _take_out(
        self,
        group: Group,
        account: AccountState,
        mailbox: MailboxState,
        files: MaildirFiles,
        listed: dict[str, str],
    ) -> int:
        rows, uids = [], []
        for uid, file, row in _known(group, mailbox, (*self._gone, *self._changed)):
            if file.base not in listed:
                rows.append(row)
                uids.append(uid)
        if uids:
            remove_rows(group, account, mailbox, rows, files_stay=True)
            note_expunged(group, account, mailbox, group.next_modseq(account), UIDSet.of(uids))
        return len(uids)

    def _take_flags(
        self,
        group: Group,
        account: AccountState,
        mailbox: MailboxState,
        files: MaildirFiles,
        listed: dict[str, str],
        keywords: Keywords,
    ) -> int:
        renamed = [
            (uid, File(listed[file.base], file.is_raw), row)
            for uid, file, row in _known(group, mailbox, self._changed)
            if listed.get(file.base, file.name) != file.name
        ]
        modseq = account.modseq + 1
        changed = []
        for uid, file, row in renamed:
            files.know(mailbox, uid, file)
            _, flags, before, _ = STATE.unpack(row)
            new_flags, bits = _flags_of(group, mailbox, file.name, keywords)
            bits |= before & _without_letter(mailbox, keywords)
            if (new_flags, bits) == (flags, before):
                continue
            changed.append((uid, new_flags, bits))
            mailbox.unseen += bool(flags & SEEN) - bool(new_flags & SEEN)
            if flags & SEEN and not new_flags & SEEN:
                lower_unseen(group, account.id, mailbox.id, uid, modseq)
            mailbox.deleted += bool(new_flags & DELETED) - bool(flags & DELETED)
            group.txn.put(
                MESSAGE_KEY.pack(account.id, mailbox.id, uid),
                row[:MUTABLE_FROM] + MUTABLE.pack(new_flags, bits, modseq) + row[MUTABLE_TO:],
                db=group.tables.msg,
            )
        if changed:
            group.next_modseq(account)
            group.touch(mailbox, modseq)
            group.log_changed(mailbox, modseq, UIDSet.of([row[0] for row in changed]).ranges)
            change = FlagsChanged(mailbox.id, modseq, tuple(sorted(changed)), mailbox.record.keywords)
            group.emit(account.id, modseq, change)
        return len(renamed)

    def _take_in(
        self, group: Group, account: AccountState, mailbox: MailboxState, files: MaildirFiles, keywords: Keywords
    ) -> int:
        uids: list[int] = []
        modseq = account.modseq + 1
        for found in self._added:
            known = group.txn.get(base_key(mailbox.key, found.file.base), db=group.tables.fbase)
            if known is not None or not has_uids_for(mailbox, 1):
                continue
            flags, bits = _flags_of(group, mailbox, found.file.name, keywords)
            mailbox.uid_next = max(mailbox.uid_next, found.uid)
            item = Item(self._account, mailbox.record.name, found.prepared, b"", flags, (), found.date, 0)
            uid = add_message(group, account, mailbox, modseq, item, bits)
            files.know(mailbox, uid, found.file)
            uids.append(uid)
        if self._uid_next > mailbox.uid_next:
            mailbox.uid_next = self._uid_next
            mailbox.is_dirty = True
        if uids:
            group.next_modseq(account)
            group.log_changed(mailbox, modseq, UIDSet.of(uids).ranges)
            group.emit(account.id, modseq, Added(mailbox.id, modseq, tuple(uids)))
        return len(uids)


def _known(group: Group, mailbox: MailboxState, uids: Iterable[int]) -> list[tuple[int, File, bytes]]:
    """Return (uid, file, row of ``msg``) of the messages that are still there."""
    known = []
    for uid in uids:
        key = MESSAGE_KEY.pack(mailbox.account, mailbox.id, uid)
        row, file = group.txn.get(key, db=group.tables.msg), group.txn.get(key, db=group.tables.file)
        if row is not None and file is not None:
            known.append((uid, unpack_file(file), row))
    return known


def _flags_of(group: Group, mailbox: MailboxState, name: str, keywords: Keywords) -> tuple[int, int]:
    """Return the flags and keyword bits a file's name says."""
    flags, letters = read_letters(split_name(name)[1])
    names = keywords.of_letters(letters)
    if not names:
        return flags, 0
    record, (bits,) = assign_keywords(mailbox.record, [names])
    if record is not mailbox.record:
        group.write_record(mailbox, record)
    return flags, bits


def _without_letter(mailbox: MailboxState, keywords: Keywords) -> int:
    """Return the bits of keywords that no file name can say: the index alone has them."""
    names = mailbox.record.keywords
    return sum(1 << at for at, name in enumerate(names) if name.lower() not in keywords.letters)


class AdoptMailbox:
    """A folder somebody else made becomes a mailbox, subscribed to."""

    def __init__(self, account: AccountId, name: str) -> None:
        self._account = account
        self._name = name

    def run(self, group: Group) -> None:
        """Make the rows; the folder is taken as it is."""
        account = group.account(self._account)
        if group.find_mailbox(self._account, self._name) is not None:
            return
        made = make_mailbox(group, account, self._name, "")
        group.txn.put(name_key(self._account, self._name), self._name.encode(), db=group.tables.sub)
        group.emit(account.id, made.record.created, Subscribed(made.record.created, self._name, is_subscribed=True))


class DropMailbox:
    """A mailbox whose folder somebody else removed."""

    def __init__(self, account: AccountId, name: str) -> None:
        self._account = account
        self._name = name

    def run(self, group: Group) -> None:
        """Remove the rows, if the folder is still missing."""
        account = group.account(self._account)
        mailbox = group.find_mailbox(self._account, self._name)
        files = group.files_of(self._account)
        if mailbox is None or files is None or files.folder(mailbox).exists():
            return
        modseq = group.next_modseq(account)
        remove_all(group, account, mailbox)
        files.forget_mailbox(mailbox)
        group.remove_mailbox(mailbox)
        group.emit(account.id, modseq, MailboxDeleted(mailbox.id, modseq, self._name))
