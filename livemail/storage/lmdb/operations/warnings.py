"""The message that tells an account's owner that the quota is nearly used up, in the very commit that made it so.

It is filed past everything that could answer, forward or refuse it, and past the quota.  It makes the account fuller, never
emptier, so it cannot be the reason for another.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from livemail.mail.ids import AccountId
from livemail.mail.names import INBOX
from livemail.storage.lmdb.ledger import Due
from livemail.storage.lmdb.operations.deliveries import Item, add_message, place_file, prepare
from livemail.storage.lmdb.operations.group import Group, has_uids_for
from livemail.storage.quota import quota_warning
from livemail.storage.spool import DIGEST_OCTETS, MemoryContent


class Warned(NamedTuple):
    """One message to file.  in_segment: whether its content goes there, or into a file of its own."""

    due: Due
    content: MemoryContent
    in_segment: bool


def write_warnings(group: Group, dues: Sequence[Due], hash_key: bytes) -> list[Warned]:
    """Write the messages.  hash_key: of the store's digests."""
    warnings = []
    for due in dues:
        account = due.account
        inbox = group.find_mailbox(account.id, INBOX)
        if inbox is None or not has_uids_for(inbox, 1):
            continue
        used = (account.octets, account.messages)
        octets = quota_warning(
            group.ledger.quotas, (due.name, account.id), due.limits, used, group.now, account.next_email
        )
        digest = blake2b(octets, key=hash_key, digest_size=DIGEST_OCTETS).digest()
        content = MemoryContent(octets, digest, zlib.crc32(octets))
        warnings.append(Warned(due, content, group.files_of(account.id) is None))
    return warnings


def file_warnings(group: Group, warnings: Sequence[Warned]) -> None:
    """File them; their contents are written."""
    group.origin = None
    for due, content, _ in warnings:
        account = due.account
        mailbox = group.mailbox_named(account.id, INBOX)
        item = Item(AccountId(account.id), INBOX, prepare(content), b"", 0, (), None, 0)
        modseq = group.delivery_modseq(account)
        uid = add_message(group, account, mailbox, modseq, item, 0)
        if not place_file(group, mailbox, uid, item, 0):
            group.reference(content.digest, 1)
        group.log_delivered(mailbox, modseq, uid)
