"""The two families of errors that may reach a peer.

`WireError`: the peer's bytes are wrong.  `MailError`: the peer's wish is understood and refused.  Both carry what
every protocol needs to answer (SMTP's code and enhanced code, IMAP's response code), so that no layer translates
texts.  Anything else that is raised is a bug: the protocol's edge logs it with its traceback and answers a temporary
failure that does not contain the exception's text.
"""

from __future__ import annotations


class WireError(Exception):
    """The octets a peer sent are not what its protocol allows.

    text: one public line, ASCII, without CR or LF.
    code, enhanced: SMTP reply code and enhanced status code (RFC 5321 §4.2, RFC 3463).
    fatal: nothing after these octets can be trusted to be a command, so the connection closes after the answer.
    """

    def __init__(self, text: str, *, code: int = 500, enhanced: str = "5.5.2", fatal: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.enhanced = enhanced
        self.fatal = fatal


class MailError(Exception):
    """A refusal.

    text: one public line, shown to the peer.  reason: private detail for the log only.
    code, enhanced: SMTP's answer.  `temporary` is true for 4yz: the same wish may be granted later.
    condition: IMAP response code atom (RFC 5530, RFC 9051 §7.1) without brackets, or "".
    """

    code = 550
    enhanced = "5.0.0"
    condition = ""
    default_text = "refused"

    def __init__(
        self,
        text: str = "",
        *,
        reason: str = "",
        code: int | None = None,
        enhanced: str | None = None,
        condition: str | None = None,
    ) -> None:
        self.text = text or self.default_text
        self.reason = reason
        if code is not None:
            self.code = code
        if enhanced is not None:
            self.enhanced = enhanced
        if condition is not None:
            self.condition = condition
        super().__init__(f"{self.text} ({reason})" if reason else self.text)

    @property
    def temporary(self) -> bool:
        """Whether trying again later can succeed."""
        return self.code < 500


class NoSuchMailbox(MailError):
    """The mailbox does not exist for this account.  RFC 5530 NONEXISTENT; TRYCREATE is the protocol's choice."""

    code, enhanced, condition, default_text = 550, "5.2.0", "NONEXISTENT", "No such mailbox"


class MailboxExists(MailError):
    """A mailbox of this name exists.  RFC 5530 ALREADYEXISTS."""

    code, enhanced, condition, default_text = 550, "5.2.0", "ALREADYEXISTS", "Mailbox exists already"


class InvalidName(MailError):
    """Not a name a mailbox can have.  RFC 5530 CANNOT."""

    code, enhanced, condition, default_text = 550, "5.1.3", "CANNOT", "Not a valid mailbox name"


class NotPermitted(MailError):
    """The operation can never work here, whoever asks (deleting INBOX, …).  RFC 5530 CANNOT."""

    code, enhanced, condition, default_text = 550, "5.7.1", "CANNOT", "Not permitted"


class LimitReached(MailError):
    """A fixed limit of the store (keywords, mailboxes, depth).  RFC 5530 LIMIT."""

    code, enhanced, condition, default_text = 550, "5.3.4", "LIMIT", "Limit reached"


class TooBig(MailError):
    """A message over the size limit.  RFC 7889 §4 TOOBIG, RFC 1870 §6.1."""

    code, enhanced, condition, default_text = 552, "5.3.4", "TOOBIG", "Message too big"


class OverQuota(MailError):
    """The account's quota is used up.  RFC 9208 §4.3 OVERQUOTA."""

    code, enhanced, condition, default_text = 552, "5.2.2", "OVERQUOTA", "Mailbox full"


class StorageFull(MailError):
    """The disk's reserve would be touched.  Temporary: space returns without a restart."""

    code, enhanced, condition, default_text = 452, "4.3.1", "OVERQUOTA", "Insufficient system storage, try again later"


class StorageFailed(MailError):
    """A write or flush failed; the shard does not accept writes until it is reopened."""

    code, enhanced, condition, default_text = 451, "4.3.0", "UNAVAILABLE", "Storage is not available, try again later"


class Overloaded(MailError):
    """Queues inside the server are full.  Temporary."""

    code, enhanced, condition, default_text = 451, "4.3.2", "UNAVAILABLE", "Server busy, try again later"


class NoSuchAccount(MailError):
    """No account of this name."""

    code, enhanced, condition, default_text = 550, "5.1.1", "NONEXISTENT", "No such account"


class AccountExists(MailError):
    """An account of this name exists."""

    code, enhanced, condition, default_text = 550, "5.1.0", "ALREADYEXISTS", "Account exists already"


class CannotCalculate(MailError):
    """Changes since that ModSeq are no longer known; the asker must read everything anew.  RFC 8620 §5.2."""

    code, enhanced, condition, default_text = 550, "5.0.0", "", "Changes that old are no longer known"


class NoSuchDomain(MailError):
    """The store keeps no such domain."""

    code, enhanced, condition, default_text = 550, "5.1.2", "NONEXISTENT", "No such domain"


class DomainExists(MailError):
    """The store keeps a domain of this name."""

    code, enhanced, condition, default_text = 550, "5.1.0", "ALREADYEXISTS", "Domain exists already"


class DomainInUse(MailError):
    """Accounts or aliases of the domain are left; the text says how many."""

    code, enhanced, condition, default_text = 550, "5.1.0", "INUSE", "Domain has accounts or aliases"

    @classmethod
    def of(cls, domain: str, accounts: int, aliases: int) -> DomainInUse:
        """Say what is left of a domain."""
        some = [f"{accounts} account{'' if accounts == 1 else 's'}"] if accounts else []
        some += [f"{aliases} alias{'' if aliases == 1 else 'es'}"] if aliases else []
        return cls(f"{domain} has {' and '.join(some)}")


class NoSuchAlias(MailError):
    """The store keeps no such alias."""

    code, enhanced, condition, default_text = 550, "5.1.1", "NONEXISTENT", "No such alias"


class AliasExists(MailError):
    """The store keeps an alias of this address."""

    code, enhanced, condition, default_text = 550, "5.1.0", "ALREADYEXISTS", "Alias exists already"
