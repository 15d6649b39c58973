"""The first minute of the local profile: an account, its password, three messages, and what to do next.

Order, so that a crash in between loses nothing: first-run.txt with the password is on disk before the account exists, and
the account before its messages.  A start that finds the file and no account goes on where the last one ended.  Ports
and paths in the file follow every start; account and password stay as they were made.
"""

from __future__ import annotations

import os
import secrets
import shlex
import string
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from email.utils import formatdate
from importlib import resources
from pathlib import Path
from typing import Any, Final

from livemail.interfaces.storage import AccountRecord, Delivery, IMailStore
from livemail.net.tls import write_private

FILE: Final = "first-run.txt"
NAME: Final = "you"

_CONSONANTS: Final = "bdfghjklmnprstvz"
_VOWELS: Final = "aeiou"


def make_password() -> str:
    """Five pronounceable pieces of four letters: 60 bits or more, and typed without looking twice."""
    pieces = [
        "".join(secrets.choice(letters) for letters in (_CONSONANTS, _VOWELS, _CONSONANTS, _VOWELS)) for _ in range(5)
    ]
    return "-".join(pieces)


def read_file(folder: Path) -> dict[str, str]:
    """The ``key: value`` lines of first-run.txt; empty when there is none."""
    try:
        text = (folder / FILE).read_text("utf-8", "replace")
    except FileNotFoundError:
        return {}
    return {
        key.strip(): value.strip() for key, _, value in (line.partition(": ") for line in text.splitlines()) if value
    }


def write_file(folder: Path, values: Mapping[str, str]) -> None:
    """Write first-run.txt, mode 0600."""
    write_private(folder / FILE, "".join(f"{key}: {value}\n" for key, value in values.items()).encode())


async def prepare(
    folder: Path,
    places: Mapping[str, str],
    store: IMailStore,
    domain: str,
    hash_password: Callable[[str], Coroutine[Any, Any, str]],
    command: str,
) -> tuple[dict[str, str], bool]:
    """Make the account of the first run if the store has none; return first-run.txt's values, and whether it is new.

    places: service to host:port, and ``ca``.  command: how the livemail command is called here.
    """
    known = read_file(folder)
    account, password = known.get("account", f"{NAME}@{domain}"), known.get("password", "")
    accounts = await store.accounts()
    is_new = not accounts
    if is_new and not password:
        password = make_password()
    values = {"account": account, "password": password} if password else {}
    values |= {**places, "data": str(folder)}
    if values != known:
        write_file(folder, values)
    if is_new:
        [record] = await store.add_accounts([(account, await hash_password(password))])
        if not isinstance(record, AccountRecord):
            raise record
        await _deliver_samples(store, record, {**values, "command": command})
    return values, is_new


async def _deliver_samples(store: IMailStore, record: AccountRecord, values: Mapping[str, str]) -> None:
    local, _, domain = record.name.partition("@")
    words = {
        **values,
        "date": formatdate(time.time(), localtime=True),
        "unique": secrets.token_hex(8),
        "plus": f"{local}+anything@{domain}",
    }
    folder = resources.files("livemail.admin") / "samples"
    deliveries = []
    try:
        for name in sorted(each.name for each in folder.iterdir() if each.name.endswith(".eml")):
            text = string.Template((folder / name).read_text("utf-8")).substitute(words)
            sink = store.new_content()
            sink.write(text.replace("\n", "\r\n").encode())
            deliveries.append(Delivery(record.id, "INBOX", await sink.finish()))
        for result in await store.deliver(deliveries):
            if isinstance(result, Exception):
                raise result
    finally:
        for delivery in deliveries:
            delivery.content.close()


def banner(values: Mapping[str, str], is_new: bool, command: str, accounts: Sequence[str] = ()) -> str:
    """What the terminal shows: where everything is, and lines that work when they are copied."""
    data = values["data"]
    account, password = values.get("account", ""), values.get("password", "")
    if is_new:
        login = f"{account}   password  {password}   (kept in {data}/{FILE})"
    elif password:
        login = f"{account}   its first password is in {data}/{FILE}"
    else:
        login = f"{', '.join(accounts[:3])}   `{command} --data {data} account password NAME` sets a password"
    user = f"{account}:{password}" if is_new else account or "NAME"
    folder = shlex.quote(data)
    send = f"curl --crlf smtp://{values['smtp']} --mail-from me@example.org --mail-rcpt {account or 'NAME'} -T -"
    lines = [
        f"livemail runs, on this machine only; mail to other hosts is captured.  Stop: Ctrl-C, or kill {os.getpid()}",
        f"  account   {login}",
        f"  send      SMTP {values['smtp']}  submission {values['submission']}, TLS {values['submissions']}  LMTP {values['lmtp']}",
        f"  read      IMAP {values['imap']}, TLS {values['imaps']}  POP3 {values['pop3']}, TLS {values['pop3s']}",
        f"  try       curl -u {user} imap://{values['imap']}/INBOX -X 'FETCH 1:* (FLAGS ENVELOPE)'",
        f"            curl -u {user} --cacert {shlex.quote(values['ca'])} pop3s://{_by_name(values['pop3s'])}/1",
        f"            printf 'Subject: hello\\n\\nIt works.\\n' | {send}",
        f"  go on     {command} --data {folder} account add NAME   (also: account list, store check; see {command} --help)",
        f"            {command} --data {folder} config show > my.toml; edit it, stop this; {command} --config my.toml run",
        f"  reset     stop the server, then rm -r {folder}",
    ]
    return "\n".join(lines) + "\n"


def _by_name(place: str) -> str:
    """The certificate's first name is localhost."""
    return place.replace("127.0.0.1", "localhost")
