"""Another IMAP server to import from: flags, keywords, dates, mailboxes, special uses; only what is new in a later run.

Python's imaplib, in a thread.  TLS is verified, always: a server with a certificate of its own is named with ``--ca FILE``.  A small
message comes in a batch of fifty, a large one in pieces, so that none is held whole.
"""

from __future__ import annotations

import contextlib
import imaplib
import ipaddress
import re
import ssl
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from livemail.mail import utf7
from livemail.mail.errors import InvalidName, WireError
from livemail.mail.flags import system_flag
from livemail.mail.ids import MAX_UID
from livemail.mail.names import INBOX, SPECIAL_USE_ATTRIBUTES
from livemail.storage.transfer.source import Skipped, SourceError, SourceMailbox, SourceMessage

TIMEOUT_SECONDS: Final = 120
BATCH: Final = 50
SMALL_OCTETS: Final = 1024 * 1024
PIECE_OCTETS: Final = 1024 * 1024
WINDOW: Final = 80_000
"""UIDs asked for in one SEARCH: imaplib takes no line of more than a million octets."""

_LIST: Final = re.compile(rb'\((?P<flags>[^)]*)\) (?:"(?P<separator>(?:\\.|[^"\\]))"|NIL) (?P<name>.*)', re.DOTALL)
_DATA: Final = {
    "uid": re.compile(rb"UID (\d+)"),
    "size": re.compile(rb"RFC822\.SIZE (\d+)"),
    "flags": re.compile(rb"FLAGS \(([^)]*)\)"),
}
_VALIDITY: Final = re.compile(rb"UIDVALIDITY (\d+)")
_UIDNEXT: Final = re.compile(rb"UIDNEXT (\d+)")
_MESSAGES: Final = re.compile(rb"MESSAGES (\d+)")


class Login(msgspec.Struct, frozen=True):
    """How to get in.  token: an OAuth bearer token instead of a password.  ca: PEM file of authorities to trust besides the system's."""

    url: str
    password: str = ""
    token: str = ""
    ca: str = ""

    def __repr__(self) -> str:
        """Without secrets."""
        return f"Login({self.url!r})"


class IMAPSource:
    """One account on another server."""

    def __init__(self, login: Login) -> None:
        """url: ``imaps://user@host[:port]``, or ``imap://``, which begins TLS with STARTTLS (loopback may do without).  Raises SourceError."""
        parts = urlsplit(login.url)
        if parts.scheme not in {"imap", "imaps"} or not parts.hostname or not parts.username:
            raise SourceError(f"{login.url} is no IMAP address; write imaps://user@host or imaps://user@host:port")
        if any(ord(character) < 32 for character in unquote(parts.username) + login.password + login.token):
            raise SourceError("the user's name or password has control characters in it")
        if parts.password:
            raise SourceError("a password does not belong in an address; use --password-stdin or --password-file")
        self._login = login
        self._user = unquote(parts.username)
        self._host = parts.hostname
        self._is_implicit = parts.scheme == "imaps"
        self._port = parts.port or (993 if self._is_implicit else 143)
        self.name = f"imap:{self._user}@{self._host}:{self._port}"
        self._client: imaplib.IMAP4 | None = None

    # -------------------------------------------------------------------------------------------------- connection

    def _connect(self) -> imaplib.IMAP4:
        if self._client is not None:
            return self._client
        where = f"{self._host}:{self._port}"
        try:
            context = ssl.create_default_context(cafile=None)
            if self._login.ca:
                context.load_verify_locations(self._login.ca)
            client: imaplib.IMAP4
            if self._is_implicit:
                client = imaplib.IMAP4_SSL(self._host, self._port, ssl_context=context, timeout=TIMEOUT_SECONDS)
            else:
                client = imaplib.IMAP4(self._host, self._port, timeout=TIMEOUT_SECONDS)
                if "STARTTLS" in client.capabilities:
                    client.starttls(context)
                elif not _is_loopback(self._host):
                    client.shutdown()
                    raise SourceError(f"{where} offers no TLS; the password would be readable on the way: use imaps://")
        except ssl.SSLCertVerificationError as error:
            raise SourceError(
                f"{where} shows a certificate that is not trusted ({error.verify_message}); name its authority with --ca FILE"
            ) from error
        except (OSError, imaplib.IMAP4.error) as error:
            raise SourceError(f"{where} cannot be reached: {error}") from error
        try:
            if self._login.token:
                client.authenticate("XOAUTH2", lambda _: self._bearer())
            else:
                client.login(_quoted(self._user.encode()), self._login.password)
        except (OSError, imaplib.IMAP4.error) as error:
            raise SourceError(f"{where} does not let {self._user} in: {_words(error)}") from error
        self._client = client
        return client

    def _bearer(self) -> bytes:
        return f"user={self._user}\x01auth=Bearer {self._login.token}\x01\x01".encode()

    def _ask(self, command: str, *arguments: Any) -> list[Any]:
        """Run a command.  Raises SourceError."""
        client = self._connect()
        try:
            status, data = (
                client.uid(command[4:], *arguments)
                if command.startswith("UID ")
                else getattr(client, command)(*arguments)
            )
        except (OSError, imaplib.IMAP4.error) as error:
            self._client = None
            raise SourceError(
                f"{self._host} failed at {command}: {_words(error)}; run the import again to go on"
            ) from error
        if status != "OK":
            raise SourceError(f"{self._host} refused {command}: {_words(data)}")
        return list(data)

    def close(self) -> None:
        """Log out."""
        if self._client is not None:
            with contextlib.suppress(OSError, imaplib.IMAP4.error):  # It is over either way.
                self._client.logout()
            self._client = None

    # -------------------------------------------------------------------------------------------------- mailboxes

    def mailboxes(self) -> Sequence[SourceMailbox]:
        """Every mailbox that can be selected.  Views of all mail (\\All, \\Flagged) are left out: what is in them is elsewhere too."""
        client = self._connect()
        has_special = "SPECIAL-USE" in client.capabilities or "XLIST" in client.capabilities
        found = []
        for row in _rows(self._ask("list")):
            match = _LIST.match(row)
            if match is None:
                continue
            flags = {flag.decode("ascii", "replace") for flag in match["flags"].split()}
            if {"\\Noselect", "\\NonExistent", "\\All", "\\Flagged"} & flags:
                continue
            raw = _unquoted(match["name"])
            special = next((flag for flag in flags if flag in SPECIAL_USE_ATTRIBUTES), "") if has_special else ""
            separator = (match["separator"] or b"").decode("ascii", "replace").removeprefix("\\")
            found.append(self._mailbox(raw, separator, special))
        return sorted(found, key=lambda mailbox: (mailbox.name != INBOX, mailbox.name))

    def _mailbox(self, raw: bytes, separator: str, special: str) -> SourceMailbox:
        try:
            name = utf7.decode(raw)
        except InvalidName:
            name = raw.decode("utf-8", "replace")
        if separator and separator != "/":
            name = "/".join(part.replace("/", "_") for part in name.split(separator))
        if name.upper().startswith("INBOX/") and separator == ".":
            name = name[6:]  # Courier and Cyrus keep everything below INBOX.
        status = b" ".join(_rows(self._ask("status", _quoted(raw), "(MESSAGES UIDVALIDITY)")))
        validity, messages = _VALIDITY.search(status), _MESSAGES.search(status)
        return SourceMailbox(
            INBOX if name.upper() == INBOX else name,
            raw.decode("latin-1"),
            special,
            int(messages[1]) if messages else -1,
            int(validity[1]) if validity else 0,
        )

    # -------------------------------------------------------------------------------------------------- messages

    def messages(self, mailbox: SourceMailbox, known: AbstractSet[bytes]) -> Iterator[SourceMessage | Skipped]:
        """By UID, ascending.  A connection that breaks is opened again where it stopped, once a message."""
        self._ask("select", _quoted(mailbox.path.encode("latin-1")), True)
        validity = mailbox.uid_validity
        wanted = [uid for uid in self._uids(mailbox) if _id(validity, uid) not in known]
        for start in range(0, len(wanted), BATCH):
            some = wanted[start : start + BATCH]
            heads = self._heads(some)
            small = [uid for uid in some if uid in heads and heads[uid].size <= SMALL_OCTETS]
            bodies = self._bodies(small) if small else {}
            for uid in some:
                where = f"{mailbox.name}, UID {uid}"
                head = heads.get(uid)
                if head is None:
                    continue  # expunged meanwhile
                if uid in bodies:
                    yield head.message(where, _id(validity, uid), uid, iter([bodies.pop(uid)]))
                elif head.size > SMALL_OCTETS:
                    yield head.message(where, _id(validity, uid), uid, self._pieces(uid, head.size))
                else:
                    yield Skipped(where, "the server did not send it")

    def _uids(self, mailbox: SourceMailbox) -> Iterator[int]:
        status = b" ".join(_rows(self._ask("status", _quoted(mailbox.path.encode("latin-1")), "(UIDNEXT)")))
        following = _UIDNEXT.search(status)
        last = int(following[1]) if following else MAX_UID
        for low in range(1, last, WINDOW):
            rows = self._ask("UID SEARCH", None, "UID", f"{low}:{min(last, low + WINDOW - 1)}")
            yield from sorted(int(each) for each in b" ".join(_rows(rows)).split() if each.isdigit())

    def _heads(self, uids: Sequence[int]) -> dict[int, _Head]:
        heads = {}
        for row in self._ask("UID FETCH", _set(uids), "(UID FLAGS INTERNALDATE RFC822.SIZE)"):
            if not isinstance(row, bytes):
                continue
            found = {name: pattern.search(row) for name, pattern in _DATA.items()}
            uid, size, flags = found["uid"], found["size"], found["flags"]
            if uid is not None and size is not None:
                date, zone = _internal_date(row)
                heads[int(uid[1])] = _Head(int(size[1]), flags[1].split() if flags else [], date, zone)
        return heads

    def _bodies(self, uids: Sequence[int]) -> dict[int, bytes]:
        bodies = {}
        for row in self._ask("UID FETCH", _set(uids), "(UID BODY.PEEK[])"):
            if isinstance(row, tuple) and (uid := _DATA["uid"].search(row[0])) is not None:
                bodies[int(uid[1])] = row[1]
        return bodies

    def _pieces(self, uid: int, size: int) -> Iterator[bytes]:
        at = 0
        while at < size:
            rows = self._ask("UID FETCH", str(uid), f"(BODY.PEEK[]<{at}.{PIECE_OCTETS}>)")
            piece = next((row[1] for row in rows if isinstance(row, tuple)), b"")
            if not piece:
                return
            yield piece
            at += len(piece)


class _Head:
    """What a FETCH says of a message."""

    def __init__(self, size: int, flags: list[bytes], date: int | None, zone: int) -> None:
        self.size = size
        self._flags = flags
        self._date = date
        self._zone = zone

    def message(self, where: str, id_: bytes, uid: int, chunks: Iterator[bytes]) -> SourceMessage:
        """Return the message."""
        bits, keywords = 0, []
        for flag in self._flags:
            text = flag.decode("ascii", "replace")
            if not text.startswith("\\"):
                keywords.append(text)
                continue
            try:
                bits |= system_flag(text)
            except WireError:
                continue  # \Recent, and what other servers have made up
        return SourceMessage(where, lambda: chunks, id_, bits, tuple(keywords), self._date, self._zone, uid)


def _internal_date(row: bytes) -> tuple[int | None, int]:
    parsed = imaplib.Internaldate2tuple(row)
    found = re.search(rb'INTERNALDATE "[^"]* ([+-])(\d\d)(\d\d)"', row)
    if parsed is None or found is None:
        return None, 0
    zone = int(found[2]) * 60 + int(found[3])
    return int(time.mktime(parsed)), -zone if found[1] == b"-" else zone


def _id(validity: int, uid: int) -> bytes:
    return b"%d.%d" % (validity, uid)


def _set(uids: Sequence[int]) -> str:
    return ",".join(map(str, uids))


def _rows(data: Sequence[Any]) -> list[bytes]:
    """Join literals to the lines they belong to."""
    rows = []
    for row in data:
        if isinstance(row, tuple):
            rows.append(row[0].rpartition(b"{")[0] + _quoted(row[1]).encode("latin-1"))
        elif isinstance(row, bytes):
            rows.append(row)
    return rows


def _quoted(raw: bytes) -> str:
    return '"' + raw.decode("latin-1").replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquoted(raw: bytes) -> bytes:
    if raw[:1] == b'"' and raw[-1:] == b'"':
        return re.sub(rb"\\(.)", rb"\1", raw[1:-1])
    return raw.strip()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _words(said: object) -> str:
    """Return what a server said, printable and short."""
    text = (
        " ".join(each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in said)
        if isinstance(said, list)
        else str(said)
    )
    return "".join(character if character.isprintable() else " " for character in text)[:200]
