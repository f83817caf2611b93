"""Several masters and the workers of one office: who wants more, who gives back.

A free worker goes to whoever asks first.  A master that needs more than it has says so
to the workers that others hold, and they tell their holders.  A holder gives back what
it does not use; the owner of a worker may set an end to each lease (`aemesh worker
--lease`), after which it changes hands even from a master that is at work.

Two masters that are both idle must not hand one worker to and fro, so *wanting* takes a
need: fewer workers than the group's min (one, at least), or all of them at work.
Nothing is wanted for the sake of having it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aemesh import limits
from aemesh.model.group import Demand
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName


@dataclass(frozen=True, slots=True)
class Need:
    """One group: how many workers it has, what it wants, whether all are at work."""

    size: int
    demand: Demand
    busy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """A worker that we hold, and that somebody else may want."""

    key: KeyId
    group: GroupName
    idle_after: float  # seconds since its last work, 0.0 while it works
    wanted: Mapping[KeyId, int]  # by master: how many workers it wants, in all
    over: bool = False  # its owner's span of lease is over


def has_enough(needs: Iterable[Need]) -> bool:
    """Whether a master wants nobody more: it has groups, each of them at its max."""
    rooms = [need.demand.max is not None and _room(need) <= 0 for need in needs]
    return bool(rooms) and all(rooms)


def wanted(needs: Iterable[Need]) -> int:
    """Return how many workers a master would take from other masters."""
    return sum(map(_wanted, needs))


def give_back(
    lent: Iterable[Lent],
    minima: Mapping[GroupName, int],
    *,
    on_the_way: Mapping[KeyId, int],
) -> dict[KeyId, KeyId]:
    """Return the workers to give back now, and for whom; the longest idle first.

    `lent` are all the members of each group.  No group comes below its min by giving
    idle ones; one whose lease is over is given all the same.  `on_the_way` counts, by
    master, those that were given back for it and that it has not taken yet.
    """
    members = sorted(
        lent, key=lambda one: (not one.over, -one.idle_after, str(one.key))
    )
    sizes: dict[GroupName, int] = {}
    for one in members:
        sizes[one.group] = sizes.get(one.group, 0) + 1
    promised = dict(on_the_way)
    given: dict[KeyId, KeyId] = {}
    for one in members:
        taker = _taker(one, promised)
        idle = one.idle_after >= limits.IDLE_GIVEN_AFTER
        spare = sizes[one.group] > minima.get(one.group, 0)
        if taker is None or not (one.over or (idle and spare)):
            continue
        promised[taker] = promised.get(taker, 0) + 1
        sizes[one.group] -= 1
        given[one.key] = taker
    return given


def _taker(one: Lent, promised: Mapping[KeyId, int]) -> KeyId | None:
    """Return the master whose wish is the least fulfilled, if any is open."""
    open_wishes = [
        (-(count - promised.get(master, 0)), str(master), master)
        for master, count in one.wanted.items()
        if count > promised.get(master, 0)
    ]
    return min(open_wishes)[2] if open_wishes else None


def _room(need: Need) -> float:
    most = need.demand.max
    return float("inf") if most is None else most - need.size


def _wanted(need: Need) -> int:
    missing = max(need.demand.min, 1) - need.size
    more = missing if missing > 0 else int(need.busy)
    return int(max(0, min(more, _room(need))))
