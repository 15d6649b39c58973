"""The whole configuration as one typed value: every package's settings, and which service listens where."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec

from livemail.auth.settings import AuthSettings
from livemail.delivery.bounce.settings import BounceSettings
from livemail.delivery.queue.settings import QueueSettings
from livemail.delivery.settings import DeliverySettings, RouteSettings
from livemail.directory.settings import DirectorySettings
from livemail.imap.settings import IMAPSettings
from livemail.interfaces.settings import Settings
from livemail.net.resolver.settings import ResolverSettings
from livemail.net.settings import LogSettings, NetSettings, TLSSettings
from livemail.pop3.settings import POP3Settings
from livemail.smtp.relay.settings import RelaySettings
from livemail.smtp.settings import SMTPSettings
from livemail.storage.placement import Placement, PlacementSettings
from livemail.storage.quota import Quotas
from livemail.storage.settings import StorageSettings

Service = Literal["smtp", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s"]

SERVICES: Final[tuple[Service, ...]] = get_args(Service)

IMPLICIT_TLS: Final = frozenset({"submissions", "imaps", "pop3s"})
"""Services whose connections begin with the TLS handshake.  RFC 8314 §3.3."""

LOGIN_SECTION: Final[dict[str, str]] = {
    "submission": "submission",
    "submissions": "submission",
    "imap": "imap",
    "imaps": "imap",
    "pop3": "pop3",
    "pop3s": "pop3",
}
"""The section that says how one logs in to a service."""

_ADDRESS: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]*):([0-9]{1,5})")


class Place(msgspec.Struct, frozen=True):
    """Where to listen: a TCP address, or the path of a Unix socket.  host: "" for every address of the machine."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_place(text: str) -> Place:
    """Read ``HOST:PORT``, ``[IPv6]:PORT``, ``*:PORT`` or ``unix:/path``.  Raises ValueError that says what to write."""
    if text.startswith("unix:"):
        if not text[5:]:
            raise ValueError('a Unix socket needs a path, such as "unix:/run/livemail/lmtp"')
        return Place(path=text[5:])
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError('write "HOST:PORT" such as "0.0.0.0:25" or "[::]:25", or "unix:/path"')
    host, port = match.group(1).strip("[]"), int(match.group(2))
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is not a port; ports are 1 to 65535")
    if host in {"*", ""}:
        return Place("::", port)
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(f"{host} is not an IP address; write the address to listen on, or * for all") from None
    return Place("127.0.0.1" if host == "localhost" else host, port)


class Listen(Settings, frozen=True):
    """One ``[[listen]]`` table.  service: what is spoken.  address: ``HOST:PORT`` (``*`` is every address) or ``unix:/path``."""

    service: Service
    address: str

    @property
    def place(self) -> Place:
        """The address, parsed."""
        return parse_place(self.address)


class Config(Settings, frozen=True):
    """The file.

    data: the data folder; everything the server keeps is in it.  hostname: the name the server gives itself in greetings
    and Received fields; "" is the machine's.  listen: the services.  domain, account: where accounts have their messages, and their quotas.  The rest are the sections of the same name; [smtp] is for
    mail from other servers, [submission] for both services users send through, [lmtp] for local programs; [relay] is for mail we send to other hosts.  filter: the
    [[filter]] tables in their order, as written; `livemail.config.filters` gives them their meaning.
    """

    data: str
    hostname: str = ""
    listen: tuple[Listen, ...] = ()
    net: NetSettings = NetSettings()
    tls: TLSSettings = TLSSettings()
    log: LogSettings = LogSettings()
    storage: StorageSettings = StorageSettings()
    domain: tuple[PlacementSettings, ...] = ()
    account: tuple[PlacementSettings, ...] = ()
    directory: DirectorySettings = DirectorySettings()
    auth: AuthSettings = AuthSettings()
    delivery: DeliverySettings = DeliverySettings()
    bounce: BounceSettings = BounceSettings()
    queue: QueueSettings = QueueSettings()
    relay: RelaySettings = RelaySettings()
    route: tuple[RouteSettings, ...] = ()
    resolver: ResolverSettings = ResolverSettings()
    smtp: SMTPSettings = SMTPSettings()
    submission: SMTPSettings = SMTPSettings()
    lmtp: SMTPSettings = SMTPSettings()
    imap: IMAPSettings = IMAPSettings()
    pop3: POP3Settings = POP3Settings()
    filter: tuple[dict[str, Any], ...] = ()

    @property
    def domains(self) -> list[str]:
        """The local domains, the one that names without domain mean first."""
        default = self.directory.default_domain or self.directory.local_domains[0]
        return [default, *(domain for domain in self.directory.local_domains if domain != default)]

    def placement(self) -> Placement:
        """Where new accounts have their messages."""
        storage = self.storage
        return Placement(Path(self.data), storage.default, storage.maildir, self.domain, self.account)

    def quotas(self) -> Quotas:
        """What accounts, domains and the store may hold."""
        return Quotas.of(self.storage, self.domain, self.account)

    def smtp_settings(self, service: str) -> SMTPSettings:
        """The settings of one of SMTP's four services."""
        return {"smtp": self.smtp, "lmtp": self.lmtp}.get(service, self.submission)

    def allows_cleartext(self, section: str) -> bool:
        """Whether a service of a section takes passwords without TLS."""
        if section == "submission":
            return self.submission.allow_cleartext_auth
        return self.imap.cleartext_login if section == "imap" else self.pop3.cleartext_login
