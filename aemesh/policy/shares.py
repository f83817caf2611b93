"""The arithmetic of sharing: which of n workers serve which of m groups.

The problem: workers satisfy different groups, so who is to serve which one is a flow
and not a sum.  Taking the workers one after the other, as they come, gives a worker
that any group could use to the one group that had others, and the next group starves.

Our way: begin with what runs, and take steps for the better until there is none.  Each
place in a group has a cost: the first ones, up to the group's min, have the least,
those beyond it cost more the further the group is above its share, no place has the
most but one, and a place beyond the max is worse than none.  A step moves one worker
from its place to a cheaper one, directly or by way of others that make room for each
other.  The costs of a group only rise, so when no step is left there is no better
sharing at all, and whoever begins with the result finds no step either.

At last workers change places, if more of them can then stay where they were.

Groups and workers are numbers here, and sets of groups are the bits of a number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heapify, heappop, heappush, heapreplace

Cost = tuple[int, float]
Kind = tuple[int, int]  # where a worker may go, as bits; where it runs, or not

# From the cheapest: up to the min of a group that can come to it; up to the min of one
# that cannot; up to the max; no group; beyond the max.
_MIN, _SHORT, _SHARE, _FREE, _BEYOND = range(5)
_NEVER = (_BEYOND + 1, 0.0)


@dataclass(frozen=True, slots=True)
class Room:
    """What one group wants, in numbers."""

    min: int
    max: int
    weight: int
    pinned: int = 0  # workers that are there by hand: no part of its share


@dataclass(slots=True)
class Shares:
    """A sharing, from what runs to what is best; `settle` it once.

    `allowed` has a worker's groups as bits, `home` the group where it is, or was, or
    -1, and `runs` whether it is still there.
    """

    rooms: Sequence[Room]
    allowed: Sequence[int]
    home: Sequence[int]
    runs: Sequence[bool]
    place: list[int] = field(init=False)  # of each worker; len(rooms) for none
    sure: int = field(init=False)  # bits: groups that can all come to their min
    _free: int = field(init=False)
    _count: list[int] = field(init=False)
    # Workers of each place that are alike; the last one goes first.
    _kinds: list[dict[Kind, dict[int, None]]] = field(init=False)
    _reach: list[int] = field(init=False)  # where workers of each group could go
    _waiting: list[list[int]] = field(init=False)  # for each group; the best at the end
    _crowded: bool = field(init=False)  # whether a group began beyond its max

    def __post_init__(self) -> None:
        self._free = len(self.rooms)
        self.sure = (1 << self._free) - 1
        self.begin()

    def begin(self) -> None:
        """Put every worker where it runs."""
        self._count = [0] * (self._free + 1)
        self._kinds = [{} for _ in self._count]
        self._reach = [0] * self._free
        self._waiting = [[] for _ in self.rooms]
        self.place = [self._free] * len(self.allowed)
        # One that few groups can use goes first, for the others are of use elsewhere.
        ids = range(len(self.allowed))
        for worker in sorted(ids, key=lambda w: (-self.allowed[w].bit_count(), -w)):
            home = self.home[worker]
            stays = self.runs[worker] and self.allowed[worker] >> home & 1
            self._put(worker, home if stays else self._free)
        if any(home >= 0 for home in self.home):
            for group, waiting in enumerate(self._waiting):
                waiting.sort(key=partial(self._likes, group))
        self._crowded = any(
            count > room.max
            for count, room in zip(self._count, self.rooms, strict=False)
        )

    def settle(self) -> None:
        """Take every step for the better."""
        running = self.counts()
        self._improve(range(self._free + 1))
        if any(n < room.min for n, room in zip(self._count, self.rooms, strict=False)):
            self.sure = self._find_sure(running)
            self.begin()
            self._improve(range(self._free + 1))
        self._swap_home()

    def counts(self) -> list[int]:
        """Return how many workers each group has."""
        return self._count[: self._free]

    def _find_sure(self, running: Sequence[int]) -> int:
        """Return groups that can all come to their min, as many as fit.

        Those that have it go first, then those of more weight.  One that cannot come
        to its min takes nothing from one that can.
        """
        rooms = self.rooms

        def rank(group: int) -> tuple[bool, int, int]:
            room = rooms[group]
            return running[group] < room.min, -room.weight, group

        self.begin()
        sure = 0
        for group in sorted(range(self._free), key=rank):
            self.sure = sure | 1 << group
            self._improve([group], until=(_SHORT, 0.0))
            if self._count[group] >= rooms[group].min:
                sure = self.sure
        return sure

    # --- places and their costs ---

    def _cost(self, group: int, number: int) -> Cost:
        """Return what place `number` of a group costs, from 1."""
        if group == self._free:
            return _FREE, 0.0
        room = self.rooms[group]
        # As seats are given to parties (Webster): the group that is furthest below
        # its share comes next.  Equal fractions are equal floats, for these sizes.
        share = (2 * (number - room.pinned) - 1) / room.weight
        if number > room.max:
            return _BEYOND, share
        if number > room.min:
            return _SHARE, share
        return (_MIN, 0.0) if self.sure >> group & 1 else (_SHORT, share)

    def _improve(self, groups: Iterable[int], *, until: Cost = _NEVER) -> None:
        """Fill these groups, the cheapest place first, until no step is left.

        A group that finds nobody is done for good: whoever could get to it has a
        place that is as cheap, and no later step touches those.
        """
        following = [self._cost(g, n + 1) for g, n in enumerate(self._count)]
        heap = [(following[group], group) for group in groups]
        heapify(heap)
        while heap:
            cost, group = heap[0]
            way = None
            if cost == following[group] and cost < until:
                way = self._way_to(group, cost)
            if way is None:
                heappop(heap)
                continue
            for source, target in way:
                self._move(self._pick(source, target), target)
            source = way[-1][0]
            for changed in (group, source):
                following[changed] = self._cost(changed, self._count[changed] + 1)
            heapreplace(heap, (following[group], group))
            if source != self._free and source in groups:
                heappush(heap, (following[source], source))

    def _way_to(self, group: int, cost: Cost) -> list[tuple[int, int]] | None:
        """Return the steps that bring one worker more to `group`, the last one first.

        They begin at the dearest place that is dearer than `cost`, the nearest first.
        """
        # No place is dearer than none, unless a group is beyond its max.
        if not self._crowded and self._waits(group) and cost < (_FREE, 0.0):
            return [(self._free, group)]
        reach = [*self._reach, self._waited_for()]
        count, free = self._count, self._free
        toward = {group: group}
        best, best_cost = -1, cost
        near, far = [group], [g for g in range(free + 1) if g != group]
        while near:
            bits = 0
            for one in near:
                bits |= 1 << one
            came = [g for g in far if reach[g] & bits]
            far = [g for g in far if not reach[g] & bits]
            for one in came:
                toward[one] = next(g for g in near if reach[one] >> g & 1)
                here = self._cost(one, count[one])
                if here > best_cost:
                    best, best_cost = one, here
            near = came
        if best < 0:
            return None
        way = []
        while best != group:
            way.append((best, toward[best]))
            best = toward[best]
        return way[::-1]

    # --- workers and their places ---

    def _waits(self, group: int) -> bool:
        """Whether a free worker may serve this group."""
        if group == self._free:
            return False
        waiting = self._waiting[group]
        while waiting and self.place[waiting[-1]] != self._free:
            waiting.pop()
        return bool(waiting)

    def _likes(self, group: int, worker: int) -> int:
        """Rank a free worker: first who was in the group, then who was in none."""
        home = self.home[worker]
        return 2 if home == group else int(home < 0)

    def _waited_for(self) -> int:
        """Return the groups for which workers wait, as bits."""
        return sum(1 << group for group in range(self._free) if self._waits(group))

    def _loss(self, kind: Kind, source: int, target: int) -> int:
        """Return 1 if such a worker leaves where it runs, -1 if it is brought back."""
        home = kind[1]
        return 0 if home < 0 else (source == home) - (target == home)

    def _pick(self, source: int, target: int) -> int:
        """Return the worker that goes from `source` to `target` at the least loss."""
        if source == self._free and self._waits(target):
            return self._waiting[target][-1]
        return self._pick_alike(source, target)

    def _pick_alike(self, source: int, target: int) -> int:
        kinds = self._kinds[source]
        may = (kind for kind in kinds if kind[0] >> target & 1)
        best = min(
            may,
            key=lambda kind: (self._loss(kind, source, target), kind[0].bit_count()),
        )
        return next(reversed(kinds[best]))

    def _move(self, worker: int, target: int) -> None:
        source, kind = self.place[worker], self._kind(worker)
        self._count[source] -= 1
        kinds = self._kinds[source]
        del kinds[kind][worker]
        if not kinds[kind]:
            del kinds[kind]
            if source != self._free:
                bits = 0
                for allowed, _ in kinds:
                    bits |= allowed
                self._reach[source] = bits
        self._put(worker, target)

    def _put(self, worker: int, place: int) -> None:
        kind = self._kind(worker)
        self.place[worker] = place
        self._count[place] += 1
        self._kinds[place].setdefault(kind, {})[worker] = None
        if place != self._free:
            self._reach[place] |= kind[0]
            return
        for group in _numbers(self.allowed[worker]):
            self._waiting[group].append(worker)

    def _kind(self, worker: int) -> Kind:
        allowed = self.allowed[worker] | 1 << self._free
        return allowed, self.home[worker] if self.runs[worker] else -1

    # --- changing places ---

    def _swap_home(self) -> None:
        """Let workers change places as long as that brings more of them home."""
        while self._any_away():
            ring = self._cheaper_ring()
            if ring is None:
                return
            # Chosen before any of them goes, so that none goes twice.
            picked = [
                (self._pick_alike(source, target), target) for source, target in ring
            ]
            for worker, target in picked:
                self._move(worker, target)

    def _any_away(self) -> bool:
        return any(
            runs and place != home
            for runs, home, place in zip(self.runs, self.home, self.place, strict=True)
        )

    def _cheaper_ring(self) -> list[tuple[int, int]] | None:
        """Return a ring of changes that costs less than nothing, or None.

        Bellman and Ford's search, with a queue.  A place that is reached more cheaply
        by way of itself closes such a ring.
        """
        size = self._free + 1
        losses = [self._losses(place) for place in range(size)]
        dist, before = [0] * size, [-1] * size
        queue = deque(range(size))
        while queue:
            source = queue.popleft()
            for loss, bits in losses[source]:
                reached = dist[source] + loss
                for target in _numbers(bits):
                    if dist[target] <= reached:
                        continue
                    dist[target], before[target] = reached, source
                    ring = _ring(before, target)
                    if ring is not None:
                        return ring
                    queue.append(target)
        return None

    def _losses(self, source: int) -> tuple[tuple[int, int], ...]:
        """Return where one may go from a place for each loss, the least one first."""
        back = away = leaving = 0
        for allowed, home in self._kinds[source]:
            if home == source:
                leaving |= allowed
            else:
                away |= allowed
                back |= 1 << home if home >= 0 else 0
        others = ~(1 << source)
        return (-1, back), (0, away & others), (1, leaving & others)


def _ring(before: Sequence[int], last: int) -> list[tuple[int, int]] | None:
    """Return the steps that lead from `last` to itself, or None if none do."""
    ring, at = [(before[last], last)], before[last]
    while at not in {last, -1}:
        ring.append((before[at], at))
        at = before[at]
    return ring if at == last else None


def _numbers(bits: int) -> Iterator[int]:
    """Yield the numbers of the bits that are set."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low
