"""The way of a worker through a group, as a table.

::

    announced -> linked -> trusted -> leased -> draining -> left
                    suspect <-> leased, and from all behind linked -> lost

What the table does not name does not happen: `step` raises `BugError`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from aemesh.errors import BugError
from aemesh.model.group import MemberState as S
from aemesh.model.names import GroupName


class Happening(enum.Enum):
    """What can happen to a worker, as its master sees it."""

    ANNOUNCED = "announced"
    LINKED = "linked"  # TLS and HELLO; verdicts are pending
    ACCEPTED = "accepted"  # both verdicts are ok
    ASSIGNED = "assigned"
    SILENT = "silent"
    HEARD = "heard"
    LEAVING = "leaving"  # it asked, or it is moved
    STAYS = "stays"  # it does not leave after all
    RETIRED = "retired"  # the engine let it go; it serves nobody
    PARTED = "parted"  # it said good-bye
    BROKEN = "broken"  # the link closed or fell silent for too long


H = Happening
TRANSITIONS: dict[tuple[S, H], S] = {
    (S.ANNOUNCED, H.ANNOUNCED): S.ANNOUNCED,
    (S.ANNOUNCED, H.LINKED): S.LINKED,
    (S.LINKED, H.ACCEPTED): S.TRUSTED,
    (S.LINKED, H.BROKEN): S.ANNOUNCED,
    (S.TRUSTED, H.ASSIGNED): S.LEASED,
    (S.TRUSTED, H.SILENT): S.TRUSTED,
    (S.TRUSTED, H.HEARD): S.TRUSTED,
    (S.TRUSTED, H.LEAVING): S.DRAINING,
    (S.TRUSTED, H.BROKEN): S.LOST,
    (S.LEASED, H.SILENT): S.SUSPECT,
    (S.LEASED, H.HEARD): S.LEASED,
    (S.LEASED, H.LEAVING): S.DRAINING,
    (S.LEASED, H.BROKEN): S.LOST,
    (S.SUSPECT, H.SILENT): S.SUSPECT,
    (S.SUSPECT, H.HEARD): S.LEASED,
    (S.SUSPECT, H.LEAVING): S.DRAINING,
    (S.SUSPECT, H.BROKEN): S.LOST,
    (S.DRAINING, H.SILENT): S.DRAINING,
    (S.DRAINING, H.HEARD): S.DRAINING,
    (S.DRAINING, H.LEAVING): S.DRAINING,
    (S.DRAINING, H.STAYS): S.LEASED,
    (S.DRAINING, H.RETIRED): S.TRUSTED,
    (S.DRAINING, H.PARTED): S.LEFT,
    (S.DRAINING, H.BROKEN): S.LOST,
    (S.TRUSTED, H.PARTED): S.LEFT,
    (S.LEASED, H.PARTED): S.LEFT,
    (S.SUSPECT, H.PARTED): S.LEFT,
    # A worker that was gone comes back like a new one; an announcement of one
    # that is linked changes nothing, and is not told to this table.
    (S.LOST, H.ANNOUNCED): S.ANNOUNCED,
    (S.LEFT, H.ANNOUNCED): S.ANNOUNCED,
    (S.LOST, H.LINKED): S.LINKED,
    (S.LEFT, H.LINKED): S.LINKED,
}

LINKED_STATES = frozenset({S.LINKED, S.TRUSTED, S.LEASED, S.DRAINING, S.SUSPECT})
SERVING_STATES = frozenset({S.LEASED, S.SUSPECT, S.DRAINING})


@dataclass(slots=True)
class Membership:
    """Where one worker is, and in which generation of which group."""

    state: S = S.ANNOUNCED
    group: GroupName | None = None
    generation: int = 0
    since: float = field(default=0.0)

    def step(self, happening: Happening, *, now: float) -> S:
        """Take what happened; return the new state."""
        new = TRANSITIONS.get((self.state, happening))
        if new is None:
            msg = f"a worker that is {self.state.value} cannot be {happening.value}"
            raise BugError(msg)
        if happening is Happening.STAYS and self.group is None:
            new = S.TRUSTED  # it served nobody before
        if new is not self.state:
            self.since = now
        self.state = new
        if new not in SERVING_STATES:
            self.group = None
        return new

    def assign(self, group: GroupName, *, now: float) -> int:
        """Put the worker into `group`; return the new generation."""
        self.step(Happening.ASSIGNED, now=now)
        self.group = group
        self.generation += 1
        return self.generation

    def adopt(self, group: GroupName, generation: int, *, now: float) -> None:
        """Find the worker in `group` already, in the generation that it is held in."""
        self.step(Happening.ASSIGNED, now=now)
        self.group = group
        self.know_generation(generation)

    def know_generation(self, seen: int) -> None:
        """Never fall behind what the worker itself, or the past, has seen."""
        self.generation = max(self.generation, seen)

    def check(self) -> None:
        """Assert what always holds."""
        assert (self.group is None) or self.state in SERVING_STATES
        assert self.generation >= 0
