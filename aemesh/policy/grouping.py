"""Who shares what: which group each worker serves, and why.

The rule, in this order:

1. Nobody serves a group that may not have it, and no group has more than its max.
2. A group comes to its min before another has more than its own.  If not all can, those
   that have it keep it, and then those of more weight come first.
3. What is left is shared by weight; workers count, not their cores, and not those that
   a person moved: nobody goes the other way for one of them.
4. Who serves a group stays there unless that makes one of the above better.

A group that is *held* is none of this: who serves it stays, as long as it may, and
nobody else comes.

`allocate` is one function of what is there now: the same workers and groups give the
same plan, in whatever order they are named, and who follows the plan finds nothing
left to do.  How a flow finds the best of all plans is in `policy.shares`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from aemesh import limits
from aemesh.model.group import Demand
from aemesh.model.names import GroupName
from aemesh.policy.shares import Room, Shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A worker that could serve."""

    key: str  # one of its own; ties are settled by its order
    allowed: frozenset[GroupName]  # that it may serve now
    group: GroupName | None = None  # that it serves, or is on its way to
    last: GroupName | None = None  # that it served before; it likes to come back
    pinned: GroupName | None = None  # where a person moved it to


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a worker is to be, and the reason in a sentence."""

    group: GroupName | None
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What `allocate` decided."""

    placements: Mapping[str, Placement]  # by the worker's key
    missing: Mapping[GroupName, int]  # to the min of each group that has too few

    def moves(self, workers: Iterable[Candidate]) -> list[tuple[str, Placement]]:
        """Return what changes for these workers, by key."""
        return [
            (one.key, self.placements[one.key])
            for one in sorted(workers, key=lambda one: one.key)
            if self.placements[one.key].group != one.group
        ]


EMPTY = Plan({}, {})


def allocate(
    workers: Iterable[Candidate],
    groups: Mapping[GroupName, Demand],
    *,
    held: AbstractSet[GroupName] = frozenset(),
) -> Plan:
    """Return the group of each worker; see above for the rule."""
    everybody = sorted(workers, key=lambda one: one.key)
    stay = {
        one.key: Placement(one.group, f"{one.group} is held as it is")
        for one in everybody
        if one.group in held and one.group in one.allowed
    }
    ordered = [one for one in everybody if one.key not in stay]
    groups = {name: demand for name, demand in groups.items() if name not in held}
    names = sorted(groups)
    shares = _shared(ordered, names, groups)
    before = dict.fromkeys(names, 0)
    for one in ordered:
        if one.group in before:
            before[one.group] += 1
    after = dict(zip(names, shares.counts(), strict=True))
    tell = _Reasons(groups, before, after, held)
    placements = stay
    for one, place in zip(ordered, shares.place, strict=True):
        name = names[place] if place < len(names) else None
        placements[one.key] = Placement(name, tell.why(one, name))
    missing = {
        name: groups[name].min - count
        for name, count in after.items()
        if count < groups[name].min
    }
    return Plan(placements, missing)


def may_serve(one: Candidate, names: Iterable[GroupName]) -> frozenset[GroupName]:
    """Return where a worker may be: only where it is pinned, as long as it can."""
    allowed = one.allowed.intersection(names)
    return frozenset({one.pinned}) if one.pinned in allowed else allowed


def _shared(
    ordered: Sequence[Candidate],
    names: Sequence[GroupName],
    groups: Mapping[GroupName, Demand],
) -> Shares:
    index = {name: number for number, name in enumerate(names)}
    bits = {name: 1 << number for name, number in index.items()}
    allowed, home = [], []
    for one in ordered:
        may = may_serve(one, names)
        allowed.append(sum(map(bits.__getitem__, may)))
        wish = one.group if one.group is not None else one.last
        home.append(index[wish] if wish in may else -1)
    pinned = Counter(one.pinned for one in ordered if one.pinned in one.allowed)
    rooms = [
        Room(
            min=groups[name].min,
            max=limits.GROUP_WORKERS if (most := groups[name].max) is None else most,
            weight=groups[name].weight,
            pinned=pinned[name],
        )
        for name in names
    ]
    runs = [
        one.group is not None and at >= 0 for one, at in zip(ordered, home, strict=True)
    ]
    shares = Shares(rooms, allowed, home, runs)
    shares.settle()
    return shares


@dataclass(frozen=True, slots=True)
class _Reasons:
    """Says why, of each worker, from what the groups want and had."""

    groups: Mapping[GroupName, Demand]
    before: Mapping[GroupName, int]
    after: Mapping[GroupName, int]
    held: AbstractSet[GroupName]

    def why(self, one: Candidate, name: GroupName | None) -> str:
        if name is None:
            return self._why_free(one)
        if one.pinned == name:
            return "it was moved there by hand"
        demand, count = self.groups[name], self.after[name]
        if name == one.group:
            return f"it serves {name}, and nothing is better"
        if self.before[name] < demand.min:
            return f"{name} has {self.before[name]} and wants {demand.min} at least"
        if count > self.before[name]:
            total = sum(self.after.values())
            return f"by weight {demand.weight} {name} gets {count} of {total}"
        return f"it makes room elsewhere, and {name} can use it as well"

    def _why_free(self, one: Candidate) -> str:
        if not self.groups and not self.held:
            return "there is no group"
        may = sorted(may_serve(one, {*self.groups, *self.held}))
        if not may:
            return "no group may have it"
        return ", ".join(
            f"{name} is held as it is"
            if name in self.held
            else f"{name} has its max of {self.groups[name].max}"
            for name in may
        )
