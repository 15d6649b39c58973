"""Settings of the mail store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta

from livemail.interfaces.settings import Count, Settings
from livemail.storage.placement import Kind, template_faults

MIB = 1024 * 1024


class StorageSettings(Settings, frozen=True):
    """The ``[storage]`` section.

    message_size_limit: octets of the largest message taken.  memory_content_limit: octets of a content kept in memory
    before it moves to a spool file.  reserve_octets, reserve_percent: new mail is refused when less than the greater of
    both is free on the disk; reserve_inodes: likewise for inodes.  reserve_file: octets of a file given up when even an
    expunge finds the disk full.  segment_octets: a segment file is closed when it is larger.  compact_dead_percent: dead share
    from which a closed segment is emptied in the background, 0 for never.  map_octets: address space for the index, not disk
    space.  account_quota, account_messages, max_mailboxes: octets, messages and mailboxes one
    account may hold, unless its table or its domain's says otherwise; 0 for no limit.  store_quota, store_messages: octets and
    messages of all accounts together.  quota_warning_percent: of a quota at which its owner and the log are told, 0 for
    never.  over_quota: whether mail over quota is refused for good (552) or for now (452).  change_rows, expunge_rows: commands per account, and expunges per mailbox, whose changes are remembered.
    max_queued: commands waiting for the disk before more are refused; max_queued_octets: likewise their contents' octets in
    memory.  queue_recipients: recipients the queue of outbound mail may hold, 0 for any number; more are refused for now.
    writer: where groups are committed: in a process of its own, beside the reactor's core, or in a thread of the
    server's, which saves some 35 MiB and costs about half of the rate.  default: where accounts without a table of their own or
    their domain's have their messages.  maildir: template of Maildirs' folders, "" for maildir/{domain}/{local}; a
    relative one counts from the data folder.
    undelete: seconds for which expunged messages can be brought back, 0 for not at all.
    story_rows, story_time: mail transactions whose story is kept, at most so many and at most for so long.
    """

    message_size_limit: Count = 256 * MIB
    memory_content_limit: int = 256 * 1024
    reserve_octets: int = 1024 * MIB
    reserve_percent: Annotated[int, Meta(le=99)] = 2
    reserve_inodes: int = 100
    reserve_file: int = 64 * MIB
    segment_octets: Annotated[int, Meta(ge=MIB)] = 256 * MIB
    compact_dead_percent: Annotated[int, Meta(le=100)] = 50
    map_octets: Annotated[int, Meta(ge=16 * MIB)] = 1024 * 1024 * MIB
    account_quota: int = 0
    account_messages: int = 0
    max_mailboxes: Count = 10_000
    store_quota: int = 0
    store_messages: int = 0
    quota_warning_percent: Annotated[int, Meta(le=100)] = 90
    over_quota: Literal["reject", "try_later"] = "reject"
    change_rows: Count = 10_000
    expunge_rows: Count = 10_000
    max_queued: Count = 4096
    max_queued_octets: Count = 64 * MIB
    queue_recipients: int = 5_000_000
    writer: Literal["process", "thread"] = "process"
    undelete: float = 14 * 86400.0
    story_rows: Count = 1_000_000
    story_time: float = 30 * 86400.0
    default: Kind = "lmdb"
    maildir: str = ""

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong with it and what to write instead)."""
        if self.maildir:
            yield from template_faults(self.maildir, needs_local=True)
