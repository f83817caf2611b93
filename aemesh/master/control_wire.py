"""What both ends of the control API share: its requests.

It imports neither starlette nor hypercorn, so that a client stays cheap.
"""

from __future__ import annotations

import msgspec

from aemesh.model.view import Delegate


class OpenGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/groups``."""

    name: str
    engine: str = "dask"


class Move(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/moves``."""

    worker: str
    group: str


class Drain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/drains``; `haste` is a `Haste` by value."""

    workers: tuple[str, ...]
    by_after: float = 30.0
    haste: str = "soon"


class Certify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/groups/NAME/certificates``; `life_after` 0 is longest."""

    csr: str
    life_after: float = 0.0


class Exec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/groups/NAME/exec``."""

    argv: tuple[str, ...]
    env: dict[str, str] = {}
    delegate: Delegate | None = None
