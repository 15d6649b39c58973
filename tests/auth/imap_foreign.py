"""What a Twisted user has written: an IAccount whose mailboxes keep messages in a list, some calls with Deferreds."""

from __future__ import annotations

import io
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, succeed
from twisted.mail import imap4
from twisted.mail.interfaces import IAccountIMAP, IMailboxIMAP, IMessageIMAP, IMessageIMAPCopier, IMessageIMAPFile
from zope.interface import implementer

from livemail.auth.authenticator import Authenticator
from livemail.auth.foreign.imap_account import served_imap
from livemail.auth.throttle import Throttle
from tests.auth.rig import CHEAP
from tests.imap.rig import ALICE, PASSWORD, Rig


class Part:
    """A part with its headers in a dict, LF line ends."""

    def __init__(self, headers: dict[str, str], body: bytes = b"", parts: tuple[Part, ...] = ()) -> None:
        self.headers = headers
        self.body = body
        self.parts = parts

    def getHeaders(self, negate, *names):
        wanted = {name.lower() for name in names}
        return {name: value for name, value in self.headers.items() if (name in wanted) != negate}

    def getBodyFile(self):
        return io.BytesIO(self.body)

    def getSize(self):
        return len(self.body)

    def isMultipart(self):
        return bool(self.parts)

    def getSubPart(self, part):
        return self.parts[part]


@implementer(IMessageIMAP)
class Message(Part):
    def __init__(self, uid: int, flags: list[str], *args: Any) -> None:
        super().__init__(*args)
        self.uid = uid
        self.flags = flags

    def getUID(self):
        return self.uid

    def getFlags(self):
        return self.flags

    def getInternalDate(self):
        return b"Wed, 17 Jul 1996 02:44:25 -0700"


@implementer(IMessageIMAPFile)
class FileMessage(Message):
    def __init__(self, uid: int, flags: list[str], octets: bytes) -> None:
        super().__init__(uid, flags, {}, octets)

    def open(self):
        return io.BytesIO(self.body)


@implementer(IMailboxIMAP)
class Mailbox:
    def __init__(self, uid_validity: int = 42) -> None:
        self.messages: list[Message] = []
        self.uid_validity = uid_validity
        self.uid_next = 11
        self.listeners: list[Any] = []
        self.is_writeable = True
        self.is_broken = False
        self.flags = ["\\Seen", "\\Deleted"]
        self.waiting: Deferred[None] | None = None
        self.dates: list[Any] = []

    def put(self, make: Any, flags: list[str], *args: Any) -> int:
        uid, self.uid_next = self.uid_next, self.uid_next + 3
        self.messages.append(make(uid, flags, *args))
        return uid

    def arrive(self, make: Any, flags: list[str], *args: Any) -> None:
        self.put(make, flags, *args)
        for listener in self.listeners:
            listener.newMessages(len(self.messages), None)

    def getFlags(self):
        return self.flags

    def getHierarchicalDelimiter(self):
        return "/"

    def getUIDValidity(self):
        return self.uid_validity

    def getUIDNext(self):
        return self.uid_next

    def getUID(self, message):
        return self.messages[message - 1].uid

    def getMessageCount(self):
        return len(self.messages)

    def getRecentCount(self):
        return 0

    def getUnseenCount(self):
        return sum("\\Seen" not in message.flags for message in self.messages)

    def isWriteable(self):
        return self.is_writeable

    def destroy(self):
        pass

    def requestStatus(self, names):
        return imap4.statusRequestHelper(self, names)

    def addListener(self, listener):
        self.listeners.append(listener)

    def removeListener(self, listener):
        self.listeners.remove(listener)

    def addMessage(self, message, flags, date):
        if self.is_broken:
            raise OSError("their disk")
        self.dates.append(date)
        return succeed(self.put(FileMessage, [f for f in flags if f != "\\Recent"], message.read()))

    def expunge(self):
        gone = [n for n, m in enumerate(self.messages, 1) if "\\Deleted" in m.flags]
        self.messages = [m for m in self.messages if "\\Deleted" not in m.flags]
        return succeed(gone)

    def _chosen(self, messages, uid):
        if self.messages:
            messages.last = self.messages[-1].uid if uid else len(self.messages)
        return [(n, m) for n, m in enumerate(self.messages, 1) if (m.uid if uid else n) in messages]

    def fetch(self, messages, uid):
        if self.is_broken:
            raise OSError("their disk")
        chosen = self._chosen(messages, uid)
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            return waiting.addCallback(lambda _: chosen)
        return succeed(chosen)

    def store(self, messages, flags, mode, uid):
        changed = {}
        for n, message in self._chosen(messages, uid):
            if mode == 1:
                message.flags = message.flags + [f for f in flags if f not in message.flags]
            elif mode == -1:
                message.flags = [f for f in message.flags if f not in flags]
            else:
                message.flags = list(flags)
            changed[n] = message.flags
        for listener in self.listeners:
            listener.flagsChanged(changed)
        return changed


@implementer(IMessageIMAPCopier)
class CopierMailbox(Mailbox):
    """Copies by itself."""

    def copy(self, messageObject):
        self.put(FileMessage, [*messageObject.getFlags(), "copied"], messageObject.open().read())


class Account(imap4.MemoryAccount):
    def _emptyMailbox(self, name, id):  # noqa: A002
        return Mailbox(uid_validity=100 + id)


@implementer(IRealm)
class TheirRealm:
    def __init__(self) -> None:
        self.account = Account("alice")
        self.inbox = Mailbox()
        self.account.addMailbox("INBOX", self.inbox)
        self.logouts = 0

    def logout(self) -> None:
        self.logouts += 1

    def requestAvatar(self, avatarId, mind, *interfaces):
        assert IAccountIMAP in interfaces
        return IAccountIMAP, self.account, self.logout


class ForeignRig(Rig):
    """Our IMAP server over their realm."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.realm = TheirRealm()
        self.inbox = self.realm.inbox
        portal = Portal(self.realm, [InMemoryUsernamePasswordDatabaseDontUse(**{ALICE: PASSWORD.encode()})])
        throttle = Throttle(self.clock.seconds, CHEAP)
        self.site.authenticator = Authenticator(portal, throttle, self.clock, foreign=[served_imap])
