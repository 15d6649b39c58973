"""Who has which maildrop.  RFC 1939 §4: exclusive access, so that what a session deletes is what it has seen.

The lock is against other POP3 sessions only.  IMAP and deliveries go on: UIDs make that safe.
"""

from __future__ import annotations

from livemail.mail.ids import AccountId


class MaildropLocks:
    """The maildrops taken in this process."""

    def __init__(self) -> None:
        self._taken: set[AccountId] = set()

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, account: AccountId) -> bool:
        """Take a maildrop; False when another session has it.  RFC 2449 §8.1.1 IN-USE."""
        if account in self._taken:
            return False
        self._taken.add(account)
        return True

    def give_back(self, account: AccountId) -> None:
        """Let the next session have it."""
        self._taken.discard(account)
