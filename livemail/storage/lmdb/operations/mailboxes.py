"""CREATE, RENAME, DELETE, SUBSCRIBE, and who was told of new messages.  RFC 9051 §6.3.4 ff."""

from __future__ import annotations

import msgspec

from livemail.interfaces.storage import MailboxInfo
from livemail.mail.changes import MailboxCreated, MailboxDeleted, MailboxRenamed, Subscribed
from livemail.mail.errors import LimitReached, MailboxExists, NotPermitted
from livemail.mail.ids import UID, AccountId, MailboxId
from livemail.mail.names import INBOX, SEPARATOR, canonical_name, superiors
from livemail.storage.lmdb.operations.group import AccountState, Group, MailboxState
from livemail.storage.lmdb.operations.messages import move_messages, remove_all
from livemail.storage.lmdb.records import MailboxRecord, name_key


def make_mailbox(
    group: Group, account: AccountState, name: str, special_use: str, modseq: int = 0, *, is_furnishing: bool = False
) -> MailboxState:
    """Create a mailbox and its missing superiors.  Raises MailboxExists, InvalidName, LimitReached before any change.

    modseq: of the command this is part of, 0 to take the next.  is_furnishing: it is one that every account has.
    """
    name = canonical_name(name)
    if group.find_mailbox(account.id, name) is not None:
        raise MailboxExists
    missing = [above for above in superiors(name) if group.find_mailbox(account.id, above) is None]
    # Ids are never reused, so that the next one bounds the number of mailboxes without counting them.
    limit = group.ledger.limits(account.id).mailboxes
    if (
        account.next_mailbox + len(missing) > limit > 0
        and not is_furnishing
        and len(group.all_mailboxes(account.id)) + len(missing) >= limit
    ):
        raise LimitReached(f"An account has at most {limit} mailboxes")
    modseq = modseq or group.next_modseq(account)
    for above in missing:
        _add(group, account, above, "", modseq)
    return _add(group, account, name, special_use, modseq)


def _add(group: Group, account: AccountState, name: str, special_use: str, modseq: int) -> MailboxState:
    # Seconds as UIDVALIDITY, but never one that was given before, whatever the clock says.  RFC 9051 §2.3.1.1.
    record = MailboxRecord(name, special_use, group.next_number(b"uid_validity", group.now), modseq)
    mailbox = group.add_mailbox(account.id, account.next_mailbox, record)
    account.next_mailbox += 1
    files = group.files_of(account.id)
    if files is not None:
        files.make_mailbox(mailbox)
    group.emit(account.id, modseq, MailboxCreated(mailbox.id, modseq, name))
    return mailbox


class CreateMailbox:
    """CREATE."""

    def __init__(self, account: AccountId, name: str, special_use: str) -> None:
        self._account = account
        self._name = name
        self._special_use = special_use

    def run(self, group: Group) -> MailboxInfo:
        """Return the new mailbox."""
        account = group.account(self._account)
        made = make_mailbox(group, account, self._name, self._special_use)
        record = made.record
        return MailboxInfo(
            made.id, record.name, record.special_use, record.uid_validity, 1, 0, 0, 0, 0, record.created, 1, ()
        )


class RenameMailbox:
    """RENAME, with all inferiors.  RFC 9051 §6.3.6."""

    def __init__(self, account: AccountId, old: str, new: str) -> None:
        self._account = account
        self._old = old
        self._new = new

    def run(self, group: Group) -> None:
        """Rename; INBOX gives its messages away instead."""
        account = group.account(self._account)
        new = canonical_name(self._new)
        source = group.mailbox_named(self._account, self._old)
        if group.find_mailbox(self._account, new) is not None:
            raise MailboxExists
        if source.record.name == INBOX:
            self._empty_inbox(group, account, source, new)
            return
        old = source.record.name
        below = old + SEPARATOR
        if new.startswith(below):
            raise NotPermitted("A mailbox cannot be renamed below itself")
        inferiors = [box for box in group.all_mailboxes(self._account) if box.record.name.startswith(below)]
        renamed = [(source, new), *((box, canonical_name(new + box.record.name[len(old) :])) for box in inferiors)]
        if any(group.find_mailbox(self._account, name) is not None for _, name in renamed):
            raise MailboxExists
        modseq = group.next_modseq(account)
        for above in superiors(new):
            if group.find_mailbox(self._account, above) is None:
                make_mailbox(group, account, above, "", modseq)
        files = group.files_of(account.id)
        for mailbox, name in renamed:
            before = mailbox.record.name
            group.remove_name(self._account, before)
            group.write_record(mailbox, msgspec.structs.replace(mailbox.record, name=name))
            group.write_name(mailbox)
            if files is not None:
                files.rename_mailbox(mailbox, before)
            group.emit(account.id, modseq, MailboxRenamed(mailbox.id, modseq, before, name))

    @staticmethod
    def _empty_inbox(group: Group, account: AccountState, inbox: MailboxState, new: str) -> None:
        target = make_mailbox(group, account, new, "")
        modseq = account.modseq
        group.write_record(target, msgspec.structs.replace(target.record, keywords=inbox.record.keywords))
        move_messages(group, account, inbox, target, [(1, inbox.uid_next)], modseq)


class DeleteMailbox:
    """DELETE, with the messages."""

    def __init__(self, account: AccountId, name: str) -> None:
        self._account = account
        self._name = name

    def run(self, group: Group) -> None:
        """Delete; subscriptions stay.  RFC 9051 §6.3.5."""
        account = group.account(self._account)
        mailbox = group.mailbox_named(self._account, self._name)
        name = mailbox.record.name
        if name == INBOX:
            raise NotPermitted("INBOX cannot be deleted")
        below = name + SEPARATOR
        if any(box.record.name.startswith(below) for box in group.all_mailboxes(self._account)):
            raise NotPermitted("The mailbox has inferior mailboxes: delete those first")
        modseq = group.next_modseq(account)
        remove_all(group, account, mailbox, keep=True)
        files = group.files_of(account.id)
        if files is not None:
            files.remove_mailbox(mailbox)
        group.remove_mailbox(mailbox)
        group.emit(account.id, modseq, MailboxDeleted(mailbox.id, modseq, name))


class Subscribe:
    """SUBSCRIBE and UNSUBSCRIBE."""

    def __init__(self, account: AccountId, name: str, is_subscribed: bool) -> None:
        self._account = account
        self._name = name
        self._is_subscribed = is_subscribed

    def run(self, group: Group) -> None:
        """Change the name's place in the list, if it is not there already."""
        account = group.account(self._account)
        name = canonical_name(self._name) if self._is_subscribed else self._name
        key, table = name_key(self._account, name), group.tables.sub
        if (group.txn.get(key, db=table) is not None) == self._is_subscribed:
            return
        if self._is_subscribed:
            group.txn.put(key, name.encode(), db=table)
        else:
            group.txn.delete(key, db=table)
        modseq = group.next_modseq(account)
        group.emit(account.id, modseq, Subscribed(modseq, name, self._is_subscribed))


class ClaimRecent:
    """Take the \\Recent of messages below a UID.  RFC 3501 §2.3.2."""

    def __init__(self, account: AccountId, mailbox: MailboxId, up_to: UID) -> None:
        self._account = account
        self._mailbox = mailbox
        self._up_to = up_to

    def run(self, group: Group) -> UID:
        """Return where \\Recent began before."""
        mailbox = group.mailbox(self._account, self._mailbox)
        before = mailbox.recent_from
        up_to = min(self._up_to, mailbox.uid_next)
        if up_to > before:
            mailbox.recent_from = up_to
            mailbox.is_dirty = True
        return before
