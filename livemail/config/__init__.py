"""One TOML file, typed: `load` reads it, `show` prints it, `local_profile` is what runs without one.

`model` is what may be said, `read` how it is read with every error at once, `rules` what does not go together, `locate`
on which line a key stands.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import tomli_w

from livemail.config.model import SERVICES, Config, Listen, Place, parse_place
from livemail.config.read import ConfigError, Fault, build, parse, read_text
from livemail.config.rules import check
from livemail.delivery.settings import DeliverySettings
from livemail.directory.settings import DirectorySettings
from livemail.imap.settings import IMAPSettings
from livemail.net.settings import TLSSettings
from livemail.pop3.settings import POP3Settings
from livemail.smtp.settings import SMTPSettings
from livemail.storage.settings import StorageSettings

__all__ = [
    "EX_CONFIG",
    "LOCAL_PORTS",
    "SERVICES",
    "Config",
    "ConfigError",
    "Fault",
    "Listen",
    "Place",
    "data_folder",
    "load",
    "loads",
    "local_profile",
    "parse_place",
    "show",
    "verdict",
]

EX_CONFIG: Final = 78
"""Exit status of a configuration error.  sysexits.h."""

LOCAL_PORTS: Final[dict[str, int]] = {
    "smtp": 2525,
    "submission": 2587,
    "submissions": 2465,
    "lmtp": 2424,
    "imap": 2143,
    "imaps": 2993,
    "pop3": 2110,
    "pop3s": 2995,
}


def loads(text: str, path: str, data: str | None = None, *, is_server: bool = True) -> Config:
    """Read and check a configuration.  path: its name in messages; relative paths in it count from its folder.

    data: used instead of the file's data folder.  is_server: it must say where to listen.  Raises ConfigError with everything
    that is wrong.
    """
    table, source = parse(text, path)
    if data is not None:
        table["data"] = data
    config = build(Config, table, source)
    config = _absolute(config, Path(path).absolute().parent)
    check(config, source, is_server=is_server)
    if source.faults:
        raise ConfigError(path, source.faults)
    return config


def load(path: str | Path, data: str | None = None, *, is_server: bool = True) -> Config:
    """Read and check a configuration file.  Raises ConfigError."""
    return loads(read_text(Path(path)), str(path), data, is_server=is_server)


def _absolute(config: Config, folder: Path) -> Config:
    """Paths without a leading slash count from the file's folder, wherever the server is started."""

    def place(text: str) -> str:
        return str(folder / Path(text).expanduser()) if text else ""

    more = tuple(
        msgspec.structs.replace(each, certificate=place(each.certificate), key=place(each.key))
        for each in config.tls.more
    )
    routes = tuple(msgspec.structs.replace(each, password_file=place(each.password_file)) for each in config.route)
    listen = tuple(
        msgspec.structs.replace(each, address=f"unix:{place(each.address[5:])}")
        if each.address.startswith("unix:")
        else each
        for each in config.listen
    )
    return msgspec.structs.replace(
        config,
        data=place(config.data),
        listen=listen,
        tls=msgspec.structs.replace(
            config.tls, certificate=place(config.tls.certificate), key=place(config.tls.key), more=more
        ),
        log=msgspec.structs.replace(config.log, file=place(config.log.file)),
        relay=msgspec.structs.replace(
            config.relay, tls_ca=place(config.relay.tls_ca), password_file=place(config.relay.password_file)
        ),
        route=routes,
    )


def show(config: Config) -> str:
    """The configuration as TOML, every key written out; `loads` makes the same configuration of it."""
    table: dict[str, Any] = msgspec.to_builtins(config)
    return tomli_w.dumps(table)


def verdict(config: Config, path: str | None) -> str:
    """What ``check`` says of a configuration without errors.  path: its file, None for the local profile."""
    count = len(config.listen)
    listeners = f"{count} listener" + "s" * (count != 1)
    text = f"{path or 'local profile'}: no errors; {listeners}, data in {config.data}"
    if path and not Path(config.data).is_dir():
        text += f", which must be made before the start (install -d -m 700 {shlex.quote(config.data)})"
    return text


# ------------------------------------------------------------------------------------------------ the local profile


def data_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The data folder of the local profile: LIVEMAIL_DATA, else XDG_DATA_HOME/livemail, else ~/.local/share/livemail."""
    named = environment.get("LIVEMAIL_DATA", "")
    if named:
        return Path(named).expanduser().absolute()
    share = environment.get("XDG_DATA_HOME", "")
    return (Path(share) if share else Path.home() / ".local" / "share") / "livemail"


def local_profile(data: Path, environment: Mapping[str, str] = os.environ) -> Config:
    """What runs without a file: loopback only, high ports, own certificates, nothing is ever sent to another host.

    LIVEMAIL_PORT_OFFSET is added to every port.  Raises ConfigError when it is not a number that fits.
    """
    written = environment.get("LIVEMAIL_PORT_OFFSET", "0")
    highest = 65535 - max(LOCAL_PORTS.values())
    if not written.isascii() or not written.isdigit() or int(written) > highest:
        fault = Fault(0, f"LIVEMAIL_PORT_OFFSET is {written!r}; write a whole number from 0 to {highest}, or unset it")
        raise ConfigError("environment", [fault])
    offset = int(written)
    return Config(
        data=str(data.absolute()),
        hostname="localhost",
        listen=tuple(
            Listen(service=service, address=f"127.0.0.1:{LOCAL_PORTS[service] + offset}") for service in SERVICES
        ),
        tls=TLSSettings(local_ca=True),
        # A laptop's disk may be nearly full and this still be worth trying.
        storage=StorageSettings(reserve_octets=64 * 1024 * 1024, reserve_percent=0, reserve_file=8 * 1024 * 1024),
        directory=DirectorySettings(local_domains=("localhost",)),
        delivery=DeliverySettings(capture_outbound=True),
        submission=SMTPSettings(allow_cleartext_auth=True),
        imap=IMAPSettings(cleartext_login=True),
        pop3=POP3Settings(cleartext_login=True),
    )
