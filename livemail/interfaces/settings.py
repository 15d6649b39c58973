"""The base of every typed settings struct: each package keeps its own, `livemail.config` composes them.

Sizes are octets, times are seconds.
"""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=False):
    """One section of the configuration; every field has a default that is safe on the open Internet."""
