"""ID.  RFC 2971."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from twisted.logger import Logger

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done
from livemail.mail.errors import WireError

if TYPE_CHECKING:
    from livemail.imap.session import Session

MAX_FIELD_OCTETS: Final = 30
MAX_VALUE_OCTETS: Final = 1024

log = Logger("livemail.imap")


class Id(msgspec.Struct, frozen=True):
    """What the client says of itself, unchecked."""

    pairs: tuple[tuple[bytes, bytes | None], ...]


def parse(cursor: Cursor) -> Id:
    """Parse NIL or a list of field-value pairs; field 30, value 1,024 octets at most (RFC 2971 §3.3)."""
    cursor.space()
    pairs: list[tuple[bytes, bytes | None]] = []
    if cursor.take(b"("):
        while not cursor.take(b")"):
            if pairs:
                cursor.space()
            field = cursor.string()
            cursor.space()
            value = cursor.nstring()
            if len(field) > MAX_FIELD_OCTETS or len(value or b"") > MAX_VALUE_OCTETS:
                raise WireError("A field of ID is too long")
            pairs.append((field, value))
    else:
        cursor.expect(b"NIL")
    cursor.end()
    return Id(tuple(pairs))


async def run(session: Session, command: Id) -> Done:
    """Note who the client is, and say who we are: the name only, a version is for attackers.

    Raises WireError for more pairs than allowed.
    """
    if len(command.pairs) > session.site.settings.max_id_pairs:
        raise WireError("Too many fields")
    if command.pairs:
        # ascii() escapes what a terminal or a log reader could stumble over.
        client = {field.decode("latin-1"): (value or b"").decode("latin-1")[:80] for field, value in command.pairs}
        log.info(
            "{session} {peer}: client is {client}",
            session=session.connection.session_id,
            peer=session.connection.peer,
            client=ascii(client),
        )
    session.send(b'* ID ("name" "livemail")\r\n')
    return Done("ID completed")
