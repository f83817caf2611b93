"""Groups: who works for which analysis, in which generation."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypedDict

from aemesh.model.address import Address
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName, NodeName


@dataclass(frozen=True, slots=True)
class Lease:
    """Worker `worker` serves `group` of `master` in this generation.

    The worker holds it, so two masters cannot both have it.  Generations of one
    worker only rise; a message of an older one is refused.  When the master is out of
    sight the lease goes on for `kept_after` seconds, for this master or one of its
    `heirs` to take it up again.
    """

    master: KeyId
    worker: KeyId
    group: GroupName
    generation: int
    heirs: frozenset[KeyId] = frozenset()
    kept_after: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a group's user asked for: how many workers, which, and its engine's set-up.

    A group gets `min` before any other gets more than its own, and never more than
    `max`; in between the groups share by `weight`.  `preload` are modules that its
    nodes have imported before work comes; `settings` are the engine's own, by name.
    """

    min: int = 1
    max: int | None = None
    weight: int = 1
    wait_after: float = 30.0  # seconds that who needs the group waits for `min`
    require: str = ""  # what each worker must have; see `policy.require`
    preload: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


# What a group's user asks for, as a change of what it was.
Wish: TypeAlias = Callable[[Demand], Demand]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a worker now, as the worker tells each master that it is linked to.

    `group` is None where the worker's owner does not let the listener know it.
    """

    master: KeyId
    name: NodeName
    group: GroupName | None
    generation: int

    def __str__(self) -> str:
        return self.name if self.group is None else f"{self.name} ({self.group})"


@dataclass(frozen=True, slots=True)
class Orphan:
    """A lease whose master was out of sight, as its worker tells of it.

    `keeper` is where the heads of that master go on, and the key there, as it signed.
    """

    master: KeyId
    group: GroupName
    generation: int
    keeper: tuple[Address, KeyId] | None = None


class DemandChange(TypedDict, total=False):
    """What changes of what a group wants: fields of `Demand`.

    `settings` are added to those that are there; one of None is taken back.
    """

    min: int
    max: int | None
    weight: int
    wait_after: float
    require: str
    preload: tuple[str, ...]
    settings: dict[str, str | None]


class MemberState(enum.Enum):
    """Where a worker is on its way through a group; see `policy.membership`."""

    ANNOUNCED = "announced"
    LINKED = "linked"
    TRUSTED = "trusted"
    LEASED = "leased"
    DRAINING = "draining"
    LEFT = "left"
    SUSPECT = "suspect"
    LOST = "lost"


class Haste(enum.Enum):
    """How a member leaves: how much of the time until then it may still use."""

    LATE = "late"  # it works until its data has to move
    SOON = "soon"  # nothing new is begun; it goes as soon as its data has moved
    NOW = "now"  # nothing is moved


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a departure came to."""

    member: NodeName
    group: GroupName
    graceful: bool
    moved: int = 0  # pieces of data that were moved to others
    lost: int = 0  # pieces that were not, and are computed again
    took_after: float = 0.0  # seconds
    moved_bytes: int = 0
    finished: int = 0  # tasks that ended there during the departure
    restarted: int = 0  # tasks that were cut off, and begin anew elsewhere


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a departure is: what only the member has, and what has moved."""

    pieces: int = 0
    bytes: int = 0
    needs_after: float = 0.0  # seconds that moving these takes, as measured so far
    fits: bool = True  # all of them can be moved in time
    moving: bool = False  # the time for work is over
    moved: int = 0
    moved_bytes: int = 0
    running: int = 0  # tasks that are with the member


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, as the history and the event stream tell it."""

    at: float  # seconds since 1970
    kind: str  # worker.joined, worker.lost, group.ready, trust.request, …
    text: str  # one line for people
    worker: NodeName | None = None
    group: GroupName | None = None
