"""How many files the system lets the process have open, and how many connections that is.

A connection is a file, and a large message it brings in is a second one, in the spool; not all do so at once.  Debian
gives a process 1,024 and lets it ask for more; what is asked for here is what ``max_connections`` needs.  Where the system
says no, fewer connections are taken and the rest are told so: an accept that fails for want of a file says nothing.
"""

from __future__ import annotations

import resource
from typing import Final

OWN_FILES: Final = 128
"""The store's, the log's, the listeners', the threads'; open segments are 64 of them at most."""

LEAST_CONNECTIONS: Final = 8


def connections_possible(wanted: int) -> int:
    """Raise the limit of open files as far as ``wanted`` connections need and the system allows.

    Returns how many connections there may be: ``wanted``, or fewer.
    """
    needed = OWN_FILES + wanted + wanted // 2
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return min(wanted, max(LEAST_CONNECTIONS, (allowed - OWN_FILES) * 2 // 3))
