"""The base of every typed settings struct: each package keeps its own, `livemail.config` composes them.

Sizes are octets, times are seconds.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
"""How many, or how much: at 0 nothing at all would be let through."""

Duration = Annotated[float, msgspec.Meta(gt=0)]
"""Seconds: at 0 everybody would be too late."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=False):
    """One section of the configuration; every field has a default that is safe on the open Internet."""
