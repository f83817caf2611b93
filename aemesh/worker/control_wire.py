"""What both ends of a worker's control socket share: the one request with a body."""

from __future__ import annotations

import msgspec


class Agree(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/departure``; `end` is seconds since 1970, 0.0 is soon."""

    end: float = 0.0
    haste: str = "soon"
