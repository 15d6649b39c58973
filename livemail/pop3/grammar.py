"""A command line's parts.  RFC 1939 §3, RFC 2449 §4."""

from __future__ import annotations

from livemail.mail.errors import WireError
from livemail.pop3.state import RULES, Rule


def parse_command(line: bytes) -> tuple[str, Rule, list[bytes]]:
    """Parse a line into keyword (upper-case), its rule and its arguments.

    Raises WireError for an unknown keyword and a wrong number of arguments.
    """
    word, space, rest = line.partition(b" ")
    keyword = word.upper().decode("ascii", "replace")
    rule = RULES.get(keyword)
    if rule is None:
        raise WireError("Unknown command")
    if rule.most == -1:
        # A password may begin and end with spaces; only the one behind the keyword is not its own.
        arguments = [rest] if rest else []
    else:
        arguments = rest.split() if space else []
    if len(arguments) < rule.fewest:
        raise WireError(f"{keyword} takes {'an argument' if rule.fewest == 1 else f'{rule.fewest} arguments'}")
    if 0 <= rule.most < len(arguments):
        raise WireError(f"{keyword} takes {rule.most or 'no'} argument{'' if rule.most == 1 else 's'}")
    return keyword, rule, arguments


def parse_number(octets: bytes) -> int:
    """Parse a message number or a number of lines: decimal digits.

    Raises WireError for anything else, and for more than ten digits: no maildrop has as many messages.
    """
    if not octets.isdigit() or len(octets) > 10:
        raise WireError("Not a number this server can mean")
    return int(octets)


def parse_text(octets: bytes) -> str:
    """Decode a user name or password.  RFC 6856 §2.2.  Raises WireError when it is not UTF-8."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise WireError("Names and passwords are UTF-8") from None
