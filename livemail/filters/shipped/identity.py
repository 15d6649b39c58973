"""Sender identity: strangers who write in our name, or in several, or hide an address behind a name that looks like another.

For mail from outside.  Mail that users submit is held to their account by the submission rules.  Put a filter that verifies DKIM
or DMARC before this one where own mail comes back through lists or forwarders, and name those in ``trusted``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from livemail.filters import CONTINUE, Filter, Message, Quarantine, Reject, Transaction, Verdict

_ADDRESS: Final = re.compile(r"[\w.+-]{1,64}@([\w-]{1,63}(?:\.[\w-]{1,63})+)")


class SenderIdentity(Filter):
    """Refuse, quarantine or mark mail whose author is not who it seems."""

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """own_domains: a stranger's author is at a domain of ours.  several_authors: several From fields (RFC 5322 §3.6 allows one).

        no_author: no address in From.  display_address: the display name holds an address of another domain.  envelope: the
        reverse-path is at a domain of ours.  trusted: networks that may do all this.  action: what happens then.
        """

        own_domains: bool = True
        several_authors: bool = True
        no_author: bool = True
        display_address: bool = True
        envelope: bool = False
        trusted: tuple[str, ...] = ()
        action: Literal["reject", "quarantine", "mark"] = "reject"

        def faults(self) -> Iterable[tuple[str, str]]:
            """Networks that are none."""
            for each in self.trusted:
                try:
                    ipaddress.ip_network(each, strict=False)
                except ValueError:
                    yield "trusted", f'names "{each}", which is no network; write one such as "192.0.2.0/24"'

    async def headers(self, tx: Transaction, message: Message) -> Verdict:
        """Look at who says to have written it."""
        connection = tx.connection
        if (
            connection.authcid
            or connection.service in {"submission", "submissions"}
            or self._is_trusted(connection.peer)
        ):
            return CONTINUE
        why = self._why(tx, message)
        if not why:
            return CONTINUE
        if self.config.action == "reject":
            return Reject("5.7.1", why)
        if self.config.action == "quarantine":
            return Quarantine(why)
        message.add_header("X-Sender-Identity", why)
        return CONTINUE

    def _is_trusted(self, peer: str) -> bool:
        if not peer:
            return True
        address = ipaddress.ip_address(peer)
        return any(address in ipaddress.ip_network(each, strict=False) for each in self.config.trusted)

    def _why(self, tx: Transaction, message: Message) -> str:
        config = self.config
        fields = message.values("From")
        authors = message.addresses("From", 100)
        if config.several_authors and len(fields) > 1:
            return "A message has one From field"
        if config.no_author and not authors:
            return "A message needs an author's address in From"
        if config.own_domains and any(self._is_ours(each.rpartition("@")[2]) for each in authors):
            return "Log in to send as a user of this server"
        address = tx.reverse_path.path.address if tx.reverse_path is not None else None
        if config.envelope and address is not None and self._is_ours(address.domain):
            return "Log in to send from an address of this server"
        if config.display_address and authors:
            shown = _ADDRESS.search(message.text("From").partition("<")[0])
            domains = {each.rpartition("@")[2].lower() for each in authors}
            if shown is not None and "<" in message.text("From") and shown.group(1).lower() not in domains:
                return "The name of the author holds another address"
        return ""

    def _is_ours(self, domain: str) -> bool:
        directory = self.server.directory
        return directory is not None and directory.is_local_domain(domain)
