"""What both ends of the control API share: its requests.

It imports neither starlette nor hypercorn, so that a client stays cheap.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from aemesh import limits
from aemesh.model.view import Delegate
from aemesh.protocol.questions import ValueHead

if TYPE_CHECKING:
    from aemesh.model.group import Demand


class SetGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``PATCH /v1/groups/NAME``: what changes of a `Demand`."""

    min: int | UnsetType = UNSET
    max: int | UnsetType | None = UNSET
    weight: int | UnsetType = UNSET
    wait_after: float | UnsetType = UNSET
    require: str | UnsetType = UNSET
    preload: tuple[str, ...] | UnsetType = UNSET
    settings: dict[str, str | None] | UnsetType = UNSET

    def on(self, demand: Demand) -> Demand:
        """Return `demand` with what is given here in its place."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        if self.settings is not UNSET:
            merged = {**demand.settings, **self.settings}
            given["settings"] = {k: v for k, v in merged.items() if v is not None}
        return replace(
            demand, **{name: v for name, v in given.items() if v is not UNSET}
        )


class OpenGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/groups``."""

    name: str
    engine: str = "dask"
    demand: SetGroup | None = None


class Move(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/moves``; without a group they are shared again."""

    workers: tuple[str, ...]
    group: str | None


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
    workers: tuple[str, ...] = ()  # on these members alone; none: on each


class RunJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first frame of ``POST /v1/jobs``: one job on one member.

    `worker` is a label, a name, a fingerprint or an address.  The job runs in a folder
    of its own with `files` in it, as `model.job.JobSpec` has it.
    """

    worker: str
    argv: tuple[str, ...]
    group: str | None = None  # None: the one in which the worker is
    env: dict[str, str] = {}
    files: dict[str, bytes] = {}
    delegate: Delegate | None = None


class OpenRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/runs``: a key, and what is computed under it."""

    group: str
    key: str
    fingerprint: Annotated[str, Meta(max_length=200)]
    title: str = ""
    total: Annotated[int, Meta(ge=0, le=limits.RUN_ITEMS)] = 0
    fresh: bool = False


class AskValues(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/runs/GROUP/KEY/values``."""

    items: Annotated[tuple[str, ...], Meta(max_length=limits.RUN_BATCH_ITEMS)]
    life: int = 0


class CommitValues(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The words of the parcel in ``POST /v1/runs/GROUP/KEY/commit``."""

    items: Annotated[tuple[ValueHead, ...], Meta(max_length=limits.RUN_BATCH_ITEMS)]
    life: int = 0
    worker: Annotated[str, Meta(max_length=limits.RUN_TITLE_LENGTH)] = ""
