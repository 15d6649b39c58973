"""The account handle of the memory back end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from zope.interface import implementer

from livemail.interfaces.storage import (
    FLAGS,
    KEYWORDS,
    MODSEQ,
    Appended,
    AppendItem,
    Changes,
    Copied,
    FetchBatch,
    FetchWant,
    IAccount,
    IChangeListener,
    IContentReader,
    IWatch,
    MailboxInfo,
    MailboxList,
    Selected,
    Stored,
)
from livemail.interfaces.transfer import IImportTarget, ImportItem
from livemail.interfaces.undelete import DeletedMessage, IUndelete, Kept
from livemail.mail.changes import Added, Change, Expunged, FlagsChanged, MailboxDeleted, MailboxRenamed, Subscribed
from livemail.mail.errors import LimitReached, MailboxExists, NoSuchAccount, NoSuchMailbox, NotPermitted
from livemail.mail.flags import DELETED, FlagChange
from livemail.mail.ids import MAX_UID, UID, AccountId, MailboxId, ModSeq, UIDSet
from livemail.mail.names import INBOX, SEPARATOR, canonical_name
from livemail.storage.memory.batches import batches
from livemail.storage.memory.content import BodyReader
from livemail.storage.memory.mailbox import Mailbox, keyword_bits
from livemail.storage.memory.state import AccountState, Watch, octets_of

if TYPE_CHECKING:
    from livemail.storage.memory.store import MemoryStore


@implementer(IAccount, IImportTarget, IUndelete)
class MemoryAccount:
    """One session's handle on an account."""

    def __init__(self, store: MemoryStore, state: AccountState) -> None:
        self.id: AccountId = state.record.id
        self.name: str = state.record.name
        self._store = store
        self._kept = state

    @property
    def _state(self) -> AccountState:
        """The account, if it may still be asked.  Raises StorageFailed (closed), NoSuchAccount (removed)."""
        self._store.check_open()
        if self._kept.is_removed:
            raise NoSuchAccount
        return self._kept

    # ------------------------------------------------------------------------------------------------ mailboxes

    async def mailboxes(self) -> MailboxList:
        """Return every mailbox with its counters, and the subscriptions."""
        state = self._state
        return MailboxList(
            tuple(state.by_name[name].info() for name in sorted(state.by_name)), frozenset(state.subscribed)
        )

    async def mailbox(self, name: str) -> MailboxInfo:
        """Return one mailbox."""
        return self._state.named(name).info()

    async def create_mailbox(self, name: str, special_use: str = "") -> MailboxInfo:
        """Create a mailbox and its missing superiors."""
        state = self._state
        name = canonical_name(name)
        names = state.missing(name)
        state.publish(self, state.create(names, special_use, state.next_modseq()))
        return state.by_name[name].info()

    async def rename_mailbox(self, old: str, new: str) -> None:
        """Rename with all inferiors; INBOX gives its messages away instead.  RFC 9051 §6.3.6."""
        state = self._state
        mailbox = state.named(old)
        new = canonical_name(new)
        if new in state.by_name:
            raise MailboxExists
        if old == INBOX:
            self._empty_inbox_into(mailbox, new)
            return
        below = old + SEPARATOR
        if new.startswith(below):
            raise NotPermitted("A mailbox cannot be moved below itself")
        moved = [name for name in state.by_name if name == old or name.startswith(below)]
        # The longest of the new names may be one that no mailbox can have.
        renamed = {name: canonical_name(new + name[len(old) :]) for name in sorted(moved)}
        names = state.missing(new)[:-1]
        modseq = state.next_modseq()
        changes: list[Change] = [*state.create(names, "", modseq)] if names else []
        for name, to in renamed.items():
            box = state.by_name.pop(name)
            box.name = to
            state.by_name[to] = box
            changes.append(MailboxRenamed(box.id, modseq, name, to))
        state.publish(self, changes)

    def _empty_inbox_into(self, inbox: Mailbox, new: str) -> None:
        state = self._state
        names = state.missing(new)
        modseq = state.next_modseq()
        changes: list[Change] = [*state.create(names, "", modseq)]
        if inbox.messages:
            messages = list(inbox.messages.values())
            changes.append(state.transfer(messages, inbox, state.by_name[new], self._store.seconds(), modseq))
            changes.append(self._remove(inbox, list(inbox.uids), modseq))
        state.publish(self, changes)

    async def delete_mailbox(self, name: str) -> None:
        """Delete a mailbox and its messages."""
        state = self._state
        mailbox = state.named(name)
        if name == INBOX:
            raise NotPermitted("INBOX cannot be deleted")
        below = name + SEPARATOR
        if any(other.startswith(below) for other in state.by_name):
            raise NotPermitted("The mailbox has inferior mailboxes")
        state.put_by(mailbox, mailbox.uids, self._store.seconds())
        del state.by_name[name], state.by_id[mailbox.id]
        state.publish(self, [MailboxDeleted(mailbox.id, state.next_modseq(), name)])

    async def subscribe(self, name: str, is_subscribed: bool) -> None:
        """Add or remove a name from the subscriptions."""
        state = self._state
        if (name in state.subscribed) == is_subscribed:
            return
        (state.subscribed.add if is_subscribed else state.subscribed.remove)(name)
        state.publish(self, [Subscribed(state.next_modseq(), name, is_subscribed)])

    async def select(self, name: str, claim_recent: bool) -> Selected:
        """Open a mailbox."""
        mailbox = self._state.named(name)
        selected = Selected(mailbox.info(), mailbox.uids[:], mailbox.first_unseen())
        if claim_recent:
            mailbox.recent_from = mailbox.uid_next
        return selected

    async def claim_recent(self, mailbox: MailboxId, up_to: UID) -> UID:
        """Take the \\Recent of messages below ``up_to``; return recent_from as it was before."""
        box = self._state.numbered(mailbox)
        before = box.recent_from
        box.recent_from = max(before, min(up_to, box.uid_next))
        return before

    # ------------------------------------------------------------------------------------------------- messages

    async def append(self, mailbox: str, items: Sequence[AppendItem]) -> Appended:
        """Append messages, all or none."""
        state = self._state
        box = state.named(mailbox)
        if not items:
            return Appended(box.id, box.uid_validity, ())
        table = box.with_keywords(name for item in items for name in item.keywords)
        box.check_room(len(items))
        state.check_quota(sum(item.content.size for item in items), len(items))
        bodies = [self._store.body(item.content) for item in items]
        box.keywords = table
        modseq, saved = state.next_modseq(), self._store.seconds()
        uids: list[UID] = []
        for item, body in zip(items, bodies, strict=True):
            bits = keyword_bits(table, item.keywords)
            date = (saved if item.internal_date is None else item.internal_date, item.zone)
            uids.append(box.add(state.columns(body, b"", (item.flags, bits, modseq), date, saved), b"", body))
        state.publish(self, [Added(box.id, modseq, tuple(uids))])
        return Appended(box.id, box.uid_validity, tuple(uids))

    async def import_messages(
        self, mailbox: str, source: str, items: Sequence[ImportItem], uid_validity: int = 0
    ) -> Sequence[UID]:
        """Append what the source has not brought before."""
        state = self._state
        box = state.named(mailbox)
        known = state.imported.setdefault(source, set())
        new: dict[bytes, ImportItem] = {}
        for one in items:
            if one.source_id not in known:
                new.setdefault(one.source_id, one)
        state.check_quota(sum(one.content.size for one in new.values()), len(new))
        table = box.with_keywords(name for one in new.values() for name in one.keywords)
        if max(box.uid_next, *(one.uid for one in new.values()), 0) + len(new) > MAX_UID:
            raise LimitReached("The mailbox has given out all its UIDs")
        if uid_validity and box.uid_next == 1:
            box.uid_validity = uid_validity
        given: dict[bytes, UID] = {}
        if new:
            box.keywords = table
            modseq, saved = state.next_modseq(), self._store.seconds()
            for id_, one in new.items():
                body = self._store.body(one.content)
                date = (saved if one.internal_date is None else one.internal_date, one.zone)
                flags = (one.flags, keyword_bits(table, one.keywords), modseq)
                box.uid_next = max(box.uid_next, one.uid)
                given[id_] = box.add(state.columns(body, b"", flags, date, saved), b"", body)
            known.update(given)
            state.publish(self, [Added(box.id, modseq, tuple(given.values()))])
        return [given.pop(one.source_id, 0) for one in items]

    async def imported(self, source: str) -> frozenset[bytes]:
        """Return the ids of everything the source has brought."""
        return frozenset(self._state.imported.get(source, ()))

    async def fetch(self, mailbox: MailboxId, uids: UIDSet, want: FetchWant) -> AsyncIterator[FetchBatch]:
        """Read messages in UID order; each batch is one snapshot."""
        for batch in batches(self._state.numbered(mailbox), uids, want):
            yield batch
            if mailbox not in self._state.by_id:
                raise NoSuchMailbox

    async def open_content(self, mailbox: MailboxId, uid: UID) -> IContentReader | None:
        """Open one message for reading."""
        box = self._state.by_id.get(mailbox)
        message = box.messages.get(uid) if box else None
        return BodyReader(message.prefix, message.body) if message else None

    async def store(
        self, mailbox: MailboxId, uids: UIDSet, change: FlagChange, unchanged_since: ModSeq | None = None
    ) -> Stored:
        """Change flags."""
        state = self._state
        box = state.numbered(mailbox)
        table = box.keywords if change.op == "remove" else box.with_keywords(change.keywords)
        flags, bits = change.flags, keyword_bits(table, change.keywords)
        named: list[tuple[UID, int, int]] = []
        changed: list[tuple[UID, int, int]] = []
        modified: list[UID] = []
        for uid in box.chosen(uids):
            row = box.messages[uid].row
            if unchanged_since is not None and row[MODSEQ] > unchanged_since:
                modified.append(uid)
                continue
            if change.op == "add":
                after = (uid, row[FLAGS] | flags, row[KEYWORDS] | bits)
            elif change.op == "remove":
                after = (uid, row[FLAGS] & ~flags, row[KEYWORDS] & ~bits)
            else:
                after = (uid, flags, bits)
            named.append(after)
            if after[1] != row[FLAGS] or after[2] != row[KEYWORDS]:
                changed.append(after)
        modseq = 0
        if changed:
            box.keywords = table
            modseq = state.next_modseq()
            box.set_flags(modseq, changed)
            state.publish(self, [FlagsChanged(box.id, modseq, tuple(changed), table)])
        return Stored(tuple(named), modseq, UIDSet.of(modified), box.keywords)

    async def copy(self, mailbox: MailboxId, uids: UIDSet, target: str) -> Copied:
        """Copy with flags, keywords and internal date, all or none."""
        return self._transfer(mailbox, uids, target, is_move=False)

    async def move(self, mailbox: MailboxId, uids: UIDSet, target: str) -> Copied:
        """Move in one transaction."""
        return self._transfer(mailbox, uids, target, is_move=True)

    def _transfer(self, mailbox: MailboxId, uids: UIDSet, target: str, *, is_move: bool) -> Copied:
        state = self._state
        to, source = state.named(target), state.numbered(mailbox)
        chosen = source.chosen(uids)
        if not chosen:
            return Copied(to.id, to.uid_validity, (), ())
        messages = [source.messages[uid] for uid in chosen]
        if not is_move:
            state.check_quota(octets_of(messages), len(messages))
        modseq = state.modseq + 1
        added = state.transfer(messages, source, to, self._store.seconds(), modseq)
        state.next_modseq()
        state.publish(self, [added, self._remove(source, chosen, modseq)] if is_move else [added])
        return Copied(to.id, to.uid_validity, tuple(chosen), added.uids)

    async def expunge(self, mailbox: MailboxId, uids: UIDSet | None, only_deleted: bool = True) -> UIDSet:
        """Remove messages that have \\Deleted, or without that condition."""
        state = self._state
        box = state.numbered(mailbox)
        if only_deleted and not box.deleted:
            return UIDSet()
        chosen = [uid for uid in box.chosen(uids) if not only_deleted or box.messages[uid].row[FLAGS] & DELETED]
        if not chosen:
            return UIDSet()
        state.put_by(box, chosen, self._store.seconds())
        expunged = self._remove(box, chosen, state.next_modseq())
        state.publish(self, [expunged])
        return expunged.uids

    def _remove(self, box: Mailbox, chosen: list[UID], modseq: ModSeq) -> Expunged:
        return Expunged(box.id, modseq, box.remove(modseq, chosen, self._kept.settings.expunge_rows))

    # ------------------------------------------------------------------------------------------------- undelete

    async def kept(self) -> Kept:
        """How much of this account was expunged and is kept."""
        return self._state.deleted.total()

    async def deleted(self, after: bytes = b"", limit: int = 1000) -> Sequence[DeletedMessage]:
        """The kept messages behind a key, the longest kept first."""
        return self._state.deleted.page(after, limit)

    async def undelete(self, keys: Sequence[bytes], mailbox: str) -> Sequence[tuple[bytes, UID]]:
        """Bring messages back, all or none of those still kept."""
        state = self._state
        chosen = state.deleted.choose(keys)
        if not chosen:
            return []
        uids, changes = state.take_back(list(chosen.values()), mailbox, self._store.seconds())
        state.deleted.let_go(chosen)
        state.publish(self, changes)
        return list(zip(chosen, uids, strict=True))

    async def forget_deleted(self, keys: Sequence[bytes]) -> Kept:
        """Remove kept messages for good."""
        return self._state.deleted.let_go(keys)

    # -------------------------------------------------------------------------------------------------- changes

    async def changes(self, mailbox: MailboxId, since: ModSeq) -> Changes:
        """What changed above ``since``."""
        return self._state.numbered(mailbox).changes(since)

    def watch(self, listener: IChangeListener) -> IWatch:
        """Subscribe to this account's changes."""
        return Watch(self._state.watches, listener)
