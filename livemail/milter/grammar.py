"""What the data of milter packets says: parsed into values, and rendered from them.

Header values travel with LF line endings inside and, unless HDR_LEADSPC was negotiated, without the space behind the colon.
In this package a header value is what stands behind ``Name:``, octet for octet, with CRLF where it is folded and without its last
CRLF.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from livemail.mail.address import Address, Path
from livemail.mail.envelope import BodyType, Recipient, ReversePath
from livemail.mail.errors import WireError
from livemail.milter import codes
from livemail.milter.wire import split_strings, split_uint, split_uints, strings, uint, uints

MAX_STRINGS: Final = 256
"""Macros, ESMTP parameters, macro stages of one packet."""

_REPLY_LINE: Final = re.compile(rb"([45][0-9]{2})(?:([ -])(?:([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$))?(.*))?", re.DOTALL)
_FIELD_NAME: Final = re.compile(rb"[\x21-\x39\x3b-\x7e]+")
_SHOWN_NAME: Final = re.compile(rb"[^\r\n:]+")
_NOT_A_FOLD: Final = re.compile(rb"\n(?![ \t]*[^ \t\n])|\n(?![ \t])|\r(?!\n)")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"@(.*)', re.DOTALL)
_XTEXT: Final = re.compile(r"\+([0-9A-F]{2})")


def _wrong(text: str) -> WireError:
    return WireError(text, fatal=True)


# ------------------------------------------------------------------------------------------------ negotiation


class Options(msgspec.Struct, frozen=True):
    """One side of a negotiation.  macros: command → names of the macros the filter asks for at it."""

    version: int
    actions: int
    steps: int
    macros: dict[bytes, tuple[bytes, ...]] = {}


def parse_options(data: bytes) -> Options:
    """Parse OPTNEG, of either side.  Raises WireError."""
    version, actions, steps, rest = split_uints(data)
    macros: dict[bytes, tuple[bytes, ...]] = {}
    lists = 0
    while rest:
        lists += 1
        if lists > MAX_STRINGS:
            raise _wrong("too many macro lists in a milter negotiation")
        stage, rest = split_uint(rest)
        names, nul, rest = rest.partition(b"\0")
        if not nul:
            raise _wrong("a macro list without its NUL")
        command = codes.MACRO_STAGES.get(stage)
        if command is not None:
            macros[command] = tuple(names.replace(b",", b" ").split()[:MAX_STRINGS])
    return Options(version, actions, steps, macros)


def render_options(options: Options) -> bytes:
    """Render OPTNEG's data."""
    stages = {command: number for number, command in codes.MACRO_STAGES.items()}
    lists = b"".join(uint(stages[command]) + strings(b" ".join(names)) for command, names in options.macros.items())
    return uints(options.version, options.actions, options.steps) + lists


# ------------------------------------------------------------------------------------------------ MTA → filter


class Peer(msgspec.Struct, frozen=True):
    """CONNECT.  hostname: the client's, or its address in brackets.  address: textual, "" when unknown or local."""

    hostname: str
    address: str = ""
    port: int = 0


def parse_connect(data: bytes) -> Peer:
    """Parse CONNECT.  Raises WireError."""
    hostname, nul, rest = data.partition(b"\0")
    if not nul or not rest:
        raise _wrong("CONNECT without a family")
    family = rest[:1]
    name = hostname.decode("ascii", "backslashreplace")
    if family in {b"U", b"L"}:
        return Peer(name)
    if family not in {b"4", b"6"} or len(rest) < 4 or not rest.endswith(b"\0"):
        raise _wrong("CONNECT with a family or address that is not known")
    address = rest[3:-1].decode("ascii", "backslashreplace")
    return Peer(name, address.removeprefix("IPv6:"), int.from_bytes(rest[1:3], "big"))


def render_connect(peer: Peer) -> bytes:
    """Render CONNECT's data."""
    hostname = strings(peer.hostname.encode("ascii", "replace") or b"localhost")
    if not peer.address:
        return hostname + b"L" + bytes(2) + strings(b"localhost")
    family = b"6" if ":" in peer.address else b"4"
    return hostname + family + peer.port.to_bytes(2, "big") + strings(peer.address.encode())


def parse_macros(data: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Parse MACRO: the command it belongs to, and names (with braces) and values.  Raises WireError."""
    if not data:
        raise _wrong("macros without a command")
    words = split_strings(data[1:])
    if len(words) > 2 * MAX_STRINGS:
        raise _wrong("too many macros")
    # Sendmail sends a lone last name when its value is null.
    return data[:1], dict(zip(words[::2], [*words[1::2], b""][: len(words[::2])], strict=True))


def render_macros(command: bytes, macros: dict[bytes, bytes]) -> bytes:
    """Render MACRO's data."""
    return command + strings(*(word for item in macros.items() for word in item))


def parse_header(data: bytes, *, leading_space: bool) -> tuple[bytes, bytes]:
    """Parse HEADER as the MTA shows it: name and value.  Raises WireError for what could not stand in one field.

    Lenient: real mail has bare CR, blanks before the colon and lines of blanks in its header.
    """
    name, value = _name_and_value(data)
    if not _SHOWN_NAME.fullmatch(name):
        raise _wrong("HEADER with a name that is none")
    value = value.replace(b"\r\n", b"\n")
    if any(line[:1] not in {b" ", b"\t"} for line in value.split(b"\n")[1:]):
        raise _wrong("HEADER with a line that is not a continuation")
    value = value.replace(b"\n", b"\r\n")
    return name, value if leading_space else b" " + value


def parse_field(data: bytes, *, leading_space: bool) -> tuple[bytes, bytes]:
    """Parse the name and value of an edit; an empty value stays empty.  Raises WireError.

    Strict: no edit makes a field that its name and value do not say.
    """
    name, value = _name_and_value(data)
    if not _FIELD_NAME.fullmatch(name):
        raise _wrong("an edit of a header field with a name that is none")
    value = value.replace(b"\r\n", b"\n").rstrip(b"\n")
    if _NOT_A_FOLD.search(value):
        raise _wrong("a header value with a line that is not a continuation")
    value = value.replace(b"\n", b"\r\n")
    return name, value if leading_space or not value else b" " + value


def _name_and_value(data: bytes) -> tuple[bytes, bytes]:
    words = split_strings(data)
    if len(words) != 2:
        raise _wrong("a header field with other than a name and a value")
    return words[0], words[1]


def to_milter_value(value: bytes, *, leading_space: bool) -> bytes:
    """A value as it travels: LF inside, and no space in front unless that was negotiated.  NUL cannot travel."""
    if not leading_space:
        value = value.removeprefix(b" ")
    return value.replace(b"\r\n", b"\n").replace(b"\0", b" ")


# ------------------------------------------------------------------------------------------------ paths and parameters


def parse_path(octets: bytes) -> Path:
    """Parse a path, with or without its angle brackets; UTF-8.  RFC 5321 §4.1.2.  Raises WireError.

    Lenient: the MTA has checked what it sends; local parts are taken as they are.
    """
    text = octets.decode("utf-8", "backslashreplace").strip()
    if text.startswith("<"):
        if not text.endswith(">"):
            raise _wrong("a path without its closing bracket")
        text = text[1:-1]
    if not text:
        return Path.null
    if text.startswith("@"):
        text = text.partition(":")[2]
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        local, domain = re.sub(r"\\(.)", r"\1", quoted[1]), quoted[2]
    else:
        local, _, domain = text.rpartition("@") if "@" in text else (text, "", "")
    if not local or any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise _wrong("a path without a local part, or with control characters")
    return Path(Address(local, domain.lower().removesuffix(".")))


def render_path(path: Path) -> bytes:
    """A path with its angle brackets."""
    return str(path).encode("utf-8", "replace")


def _parameters(words: list[bytes]) -> dict[str, str]:
    if len(words) > MAX_STRINGS:
        raise _wrong("too many ESMTP parameters")
    found: dict[str, str] = {}
    for word in words:
        key, _, value = word.decode("utf-8", "backslashreplace").partition("=")
        found[key.upper()] = value
    return found


def _from_xtext(text: str) -> str:
    return _XTEXT.sub(lambda match: chr(int(match[1], 16)), text)


def parse_mail(data: bytes) -> ReversePath:
    """Parse MAIL.  Parameters that are not known are the MTA's business.  Raises WireError."""
    words = split_strings(data)
    if not words:
        raise _wrong("MAIL without a path")
    path, given = parse_path(words[0]), _parameters(words[1:])
    size = given.get("SIZE", "")
    bodies: dict[str, BodyType] = {"8BITMIME": "8BITMIME", "BINARYMIME": "BINARYMIME"}
    return ReversePath(
        path,
        size=int(size) if size.isascii() and size.isdigit() and len(size) < 20 else 0,
        body=bodies.get(given.get("BODY", "").upper(), "7BIT"),
        smtputf8="SMTPUTF8" in given,
        ret=given.get("RET", "").upper(),
        envid=_from_xtext(given.get("ENVID", "")),
        auth=_from_xtext(given.get("AUTH", "")),
    )


def parse_rcpt(data: bytes) -> Recipient:
    """Parse RCPT, or an added recipient with its parameters.  Raises WireError."""
    words = split_strings(data)
    if not words:
        raise _wrong("RCPT without a path")
    # An added recipient brings its parameters in one string, RCPT each in its own.
    given = _parameters([part for word in words[1:] for part in word.split()])
    notify = frozenset(word for word in given.get("NOTIFY", "").upper().split(",") if word)
    return Recipient(parse_path(words[0]), notify, given.get("ORCPT", ""))


def mail_parameters(reverse_path: ReversePath) -> list[bytes]:
    """ESMTP parameters of MAIL, as the client sent them where that matters."""
    words = [f"SIZE={reverse_path.size}"] if reverse_path.size else []
    words += [f"BODY={reverse_path.body}"] if reverse_path.body != "7BIT" else []
    words += ["SMTPUTF8"] if reverse_path.smtputf8 else []
    words += [f"RET={reverse_path.ret}"] if reverse_path.ret else []
    words += [f"ENVID={_to_xtext(reverse_path.envid)}"] if reverse_path.envid else []
    words += [f"AUTH={_to_xtext(reverse_path.auth)}"] if reverse_path.auth else []
    return [word.encode() for word in words]


def rcpt_parameters(recipient: Recipient) -> list[bytes]:
    """ESMTP parameters of RCPT."""
    words = [f"NOTIFY={','.join(sorted(recipient.notify))}"] if recipient.notify else []
    words += [f"ORCPT={recipient.original}"] if recipient.original else []
    return [word.encode("utf-8", "replace") for word in words]


def _to_xtext(text: str) -> str:
    """RFC 3461 §4."""
    plain = (chr(octet) if 33 <= octet <= 126 and octet not in b"+=" else f"+{octet:02X}" for octet in text.encode())
    return "".join(plain)


# ------------------------------------------------------------------------------------------------ filter → MTA


class HeaderChange(msgspec.Struct, frozen=True):
    """An edit of the header.

    action: add (at the end), insert (index: 0-based position), change (index: 1-based occurrence of the name; an empty
    value removes it).
    """

    action: Literal["add", "insert", "change"]
    name: bytes
    value: bytes
    index: int = 0


class BodyChunk(msgspec.Struct, frozen=True):
    """The next octets of a new body."""

    octets: bytes


class RecipientAdded(msgspec.Struct, frozen=True):
    """One more recipient."""

    recipient: Recipient


class RecipientRemoved(msgspec.Struct, frozen=True):
    """One recipient less."""

    path: Path


class ReversePathChanged(msgspec.Struct, frozen=True):
    """Another reverse-path."""

    path: Path


class Quarantined(msgspec.Struct, frozen=True):
    """The message is to be held.  reason: printable text."""

    reason: str


Edit = HeaderChange | BodyChunk | RecipientAdded | RecipientRemoved | ReversePathChanged | Quarantined


def parse_edit(command: bytes, data: bytes, *, leading_space: bool) -> Edit:
    """Parse an edit.  Raises WireError."""
    if command == codes.REPLBODY:
        return BodyChunk(data)
    if command == codes.ADDHEADER:
        name, value = parse_field(data, leading_space=leading_space)
        return HeaderChange("add", name, value)
    if command in {codes.INSHEADER, codes.CHGHEADER}:
        index, rest = split_uint(data)
        if index >= 1 << 31:
            raise _wrong("a header index out of range")
        name, value = parse_field(rest, leading_space=leading_space)
        if command == codes.INSHEADER:
            return HeaderChange("insert", name, value, index)
        return HeaderChange("change", name, value, max(1, index))
    if command in {codes.ADDRCPT, codes.ADDRCPT_PAR}:
        return RecipientAdded(parse_rcpt(data))
    words = split_strings(data)
    if not words:
        raise _wrong("an edit without its argument")
    if command == codes.DELRCPT:
        return RecipientRemoved(parse_path(words[0]))
    if command == codes.CHGFROM:
        return ReversePathChanged(parse_path(words[0]))
    return Quarantined(printable(words[0]))


def render_edit(edit: Edit, *, leading_space: bool) -> tuple[bytes, bytes]:
    """Render an edit: command and data."""
    match edit:
        case HeaderChange(action, name, value, index):
            words = strings(name, to_milter_value(value, leading_space=leading_space))
            if action == "add":
                return codes.ADDHEADER, words
            return (codes.INSHEADER if action == "insert" else codes.CHGHEADER), uint(index) + words
        case BodyChunk(octets):
            return codes.REPLBODY, octets
        case RecipientAdded(recipient):
            parameters = rcpt_parameters(recipient)
            if parameters:
                return codes.ADDRCPT_PAR, strings(render_path(recipient.path), b" ".join(parameters))
            return codes.ADDRCPT, strings(render_path(recipient.path))
        case RecipientRemoved(path):
            return codes.DELRCPT, strings(render_path(path))
        case ReversePathChanged(path):
            return codes.CHGFROM, strings(render_path(path))
        case Quarantined(reason):
            return codes.QUARANTINE, strings(reason.encode("utf-8", "replace").replace(b"\0", b" ") or b"quarantined")


class ReplyCode(msgspec.Struct, frozen=True):
    """A reply of the filter's own words.  enhanced: "" when it had none.  text: printable; lines joined with a space."""

    code: int
    enhanced: str
    text: str


def parse_reply(data: bytes) -> ReplyCode:
    """Parse REPLYCODE, one line or many.  Raises WireError: no part of a malformed one is used.

    Every line has the same code, 4yz or 5yz, and all but the last a hyphen behind it (RFC 5321 §4.2.1); an enhanced code is
    of the same class.  Percent signs come doubled, because Sendmail takes the text for a format.
    """
    words = split_strings(data)
    if len(words) != 1:
        raise _wrong("REPLYCODE with other than one string")
    lines = words[0].replace(b"\r\n", b"\n").split(b"\n")
    code, enhanced, texts = b"", b"", []
    for at, line in enumerate(lines):
        match = _REPLY_LINE.fullmatch(line)
        is_last = at == len(lines) - 1
        if match is None or (match[2] == b"-") is is_last or (match[2] is None and not is_last) or b"\r" in line:
            raise _wrong("a malformed reply")
        if (code and match[1] != code) or (match[3] and match[3][:1] != match[1][:1]):
            raise _wrong("a reply whose lines do not agree")
        code, enhanced = match[1], enhanced or match[3] or b""
        texts.append(printable(re.sub(rb"%(%?)", rb"\1", match[4] or b"")).strip())
    return ReplyCode(int(code), enhanced.decode(), " ".join(text for text in texts if text))


def render_reply(code: int, enhanced: str, text: str) -> bytes:
    """Render REPLYCODE's data: one line."""
    line = f"{code} {enhanced} {text}" if enhanced else f"{code} {text}"
    return strings(printable(line.encode("ascii", "backslashreplace"))[:480].replace("%", "%%").encode())


def printable(octets: bytes) -> str:
    """Text without control characters."""
    text = octets.decode("utf-8", "backslashreplace")
    return "".join(character if character.isprintable() else "?" for character in text)
