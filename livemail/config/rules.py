"""What each setting allows and all of them together do not."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import msgspec

from livemail.config.filters import check_filters
from livemail.config.locate import KeyPath
from livemail.config.model import IMPLICIT_TLS, LOGIN_SECTION, Config, Place
from livemail.config.placement import check_placement
from livemail.config.read import Source
from livemail.config.ways import check_routes
from livemail.net.tls import CertificateError, Files, load
from livemail.net.tls_client import ClientTLS

MAX_SOCKET_PATH: Final = 107
"""Octets, without the NUL.  unix(7)."""
_HOSTNAME: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*\Z")
CLEARTEXT_KEY: Final = {"submission": "allow_cleartext_auth", "imap": "cleartext_login", "pop3": "cleartext_login"}


def check(config: Config, source: Source, *, is_server: bool = True) -> None:
    """Note every impossible combination.  is_server: somebody must be able to connect."""
    if config.hostname and not _HOSTNAME.match(config.hostname):
        source.fault(("hostname",), f'"{config.hostname}" is not a host name; write one such as "mail.example.org"')
    if not config.data and not source.is_doubtful(("data",)):
        source.fault(("data",), '`data` is empty; write the path of a folder, such as "/var/lib/livemail"')
    if any(not character.isprintable() for character in config.data):
        source.fault(("data",), "`data` has control characters in it; write a path without")
    elif config.data and Path(config.data).exists() and not Path(config.data).is_dir():
        source.fault(("data",), f"{config.data} is a file; write the path of a folder")
    for part in msgspec.structs.fields(config):
        own_faults = getattr(getattr(config, part.name), "faults", None)
        if own_faults is not None:
            # What could not be read is told already; the rest is a list before anything is noted.
            told = [(name, text) for name, text in own_faults() if not source.is_doubtful((part.name, name))]
            for name, text in told:
                source.fault((part.name, name), f"`{name}` {text}")
    _check_log(config, source)
    check_routes(config, source)
    _check_authorities(config, source)
    check_placement(config, source)
    _check_certificates(config, source)
    _check_sizes(config, source)
    check_filters(config.filter, source)
    for section, settings in (("smtp", config.smtp), ("lmtp", config.lmtp)):
        if settings.allow_cleartext_auth:
            source.fault(
                (section, "allow_cleartext_auth"),
                f"nobody logs in to [{section}]; remove it, or write it in [submission]",
            )
    if is_server and not config.listen and not source.is_doubtful(("listen",)):
        source.fault(
            (), 'nothing to listen on; add [[listen]] with service = "imaps" and address = "*:993" and the like'
        )
    taken: dict[Place, int] = {}
    for position, _ in enumerate(config.listen):
        if source.is_doubtful(("listen", position)):
            continue
        _check_listener(config, source, position, taken)


def _check_log(config: Config, source: Source) -> None:
    if config.log.file and not Path(config.log.file).parent.is_dir():
        source.fault(("log", "file"), f"{Path(config.log.file).parent} is not a folder; make it, or name another file")


def has_certificate(config: Config) -> bool:
    """Whether TLS can be spoken at all."""
    return bool(config.tls.certificate or config.tls.local_ca)


def _check_certificates(config: Config, source: Source) -> None:
    tls = config.tls
    if source.is_doubtful(("tls",)):
        return
    if tls.certificate and tls.local_ca:
        source.fault(
            ("tls", "local_ca"), "`local_ca` makes a certificate and `certificate` names one; keep one of the two"
        )
    if bool(tls.certificate) != bool(tls.key):
        missing = "key" if tls.certificate else "certificate"
        source.fault(("tls",), f'[tls] has no `{missing}`; add {missing} = "/path/to/{missing}.pem"')
    elif tls.certificate:
        _check_files(Files(tls.certificate, tls.key), tls.minimum, ("tls", "certificate"), source)
    if tls.more and not has_certificate(config):
        source.fault(
            ("tls", "more"), "`more` without a first certificate; write the first as certificate and key in [tls]"
        )
    for position, each in enumerate(tls.more):
        _check_files(Files(each.certificate, each.key), tls.minimum, ("tls", "more", position), source)


def _check_authorities(config: Config, source: Source) -> None:
    if config.relay.tls_ca:
        try:
            ClientTLS(config.relay.tls_ca)
        except CertificateError as error:
            source.fault(("relay", "tls_ca"), str(error))


def _check_files(files: Files, minimum: str, path: KeyPath, source: Source) -> None:
    try:
        load(files, minimum)
    except CertificateError as error:
        source.fault(path, str(error))


def _check_sizes(config: Config, source: Source) -> None:
    largest = config.storage.message_size_limit
    sizes = [
        (("smtp", "max_message_octets"), config.smtp.max_message_octets),
        (("submission", "max_message_octets"), config.submission.max_message_octets),
        (("lmtp", "max_message_octets"), config.lmtp.max_message_octets),
        (("imap", "append_limit"), config.imap.append_limit),
    ]
    for path, size in sizes:
        if size > largest:
            place: KeyPath = path if path in source.lines else ("storage", "message_size_limit")
            source.fault(
                place,
                f"[{path[0]}] {path[1]} is {size}, but [storage] message_size_limit is {largest} octets;"
                " lower the first or raise the second",
            )


def _check_listener(config: Config, source: Source, position: int, taken: dict[Place, int]) -> None:
    listen = config.listen[position]
    at: KeyPath = ("listen", position)
    try:
        place = listen.place
    except ValueError as error:
        source.fault((*at, "address"), f'`address` cannot be "{listen.address}"; {error}')
        return
    if len(os.fsencode(place.path)) > MAX_SOCKET_PATH:
        source.fault(
            (*at, "address"), f"a Unix socket's path has at most {MAX_SOCKET_PATH} octets; write a shorter one"
        )
    for other, first in taken.items():
        if _clash(other, place):
            line = source.lines.get(("listen", first, "address"), 0)
            source.fault(
                (*at, "address"), f"{listen.address} is taken by the {config.listen[first].service} of line {line}"
            )
    taken[place] = position
    # A fault in [tls] is told there; that there is no certificate then would be its echo.
    has_tls = has_certificate(config) or source.is_doubtful(("tls",))
    if listen.service in IMPLICIT_TLS and not has_tls:
        source.fault((*at, "service"), f"{listen.service} needs a certificate; {_CERTIFICATE}")
    section = LOGIN_SECTION.get(listen.service)
    if section is None:
        return
    key = CLEARTEXT_KEY[section]
    if config.allows_cleartext(section) and not place.is_loopback and listen.service not in IMPLICIT_TLS:
        source.fault(
            (section, key),
            f"[{section}] {key} would let passwords cross {listen.address} unencrypted;"
            f" remove it, or let {listen.service} listen on 127.0.0.1 only",
        )
    elif not config.allows_cleartext(section) and listen.service not in IMPLICIT_TLS and not has_tls:
        source.fault((*at, "service"), f"nobody can log in to {listen.service} without TLS; {_CERTIFICATE}")


_CERTIFICATE: Final = 'write certificate = "/path/to/chain.pem" and key = "/path/to/key.pem" in [tls]'


def _clash(one: Place, other: Place) -> bool:
    if one.path or other.path:
        return one.path == other.path
    if one.port != other.port:
        return False
    every = {"::", "0.0.0.0"}  # noqa: S104 (compared, not bound)
    return one.host == other.host or "::" in {one.host, other.host} or bool(every & {one.host, other.host})
