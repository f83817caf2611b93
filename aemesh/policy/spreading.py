"""Which member runs which item of a map of commands.

Each member runs as many as it has cores.  The one with the largest free share is next,
so that all end at one time.  An item that failed goes to another member, where it has
not failed yet, if there is one.  A member on which everything fails at once, while
others do well, gets nothing for a while (`policy.standing`): it is always free, and
would ruin one item after the other.

A member that was lost is no fault of the item; but one that goes on losing its members
is given up, too.  What was not begun, for want of a place or a connection, is nobody's
fault: it waits its turn again, and that member has a rest.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.policy.redial import pause_after
from aemesh.policy.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Losses beyond the retries until an item is held to be their cause.
_LOSSES_BEYOND = 3
# Rests of one member in a row until it is told: some seconds have gone by.
_REFUSALS_TOLD = 5


class After(enum.Enum):
    """What becomes of an item that has ended."""

    DONE = "done"
    AGAIN = "again"
    FAILED = "failed"


@dataclass(slots=True)
class _Member:
    """One member: how many it runs, of how many; and what we think of it."""

    slots: int
    running: int = 0
    starting: int = 0  # of these
    here: bool = True
    standing: Standing = field(default_factory=Standing)
    lost_at: float = float("-inf")  # the last time
    refusals: int = 0  # in a row: it began nothing
    refused: str = ""  # why, the last time
    rests_until: float = float("-inf")

    @property
    def free(self) -> float:
        return 1 - self.running / self.slots

    def takes(self, now: float) -> bool:
        """Whether it may get one more."""
        return (
            self.here
            and self.running < self.slots
            and self.starting < limits.STARTS_AT_ONCE
            and now >= self.rests_until
            and not self.standing.is_aside(now)
        )

    def idle_why(self, now: float) -> str:
        """Return why it gets nothing for longer than a moment, or nothing."""
        if self.standing.is_aside(now):
            return self.standing.why
        resting = now < self.rests_until
        return self.refused if resting and self.refusals >= _REFUSALS_TOLD else ""


class Spreading:
    """The items of one map, by number, and the members, by key."""

    def __init__(self, items: Iterable[int], *, retries: int) -> None:
        self._waiting = deque(items)
        self._retries = retries
        self._running: dict[int, str] = {}
        self._starting: set[int] = set()  # of these
        self._began: dict[int, float] = {}  # when these did, the last time
        self._failures: Counter[int] = Counter()
        self._losses: Counter[int] = Counter()
        self._failed_on: defaultdict[int, set[str]] = defaultdict(set)
        self._well: set[str] = set()  # members that have done something right
        self._members: dict[str, _Member] = {}

    def __repr__(self) -> str:
        return f"<Spreading: {len(self._waiting)} wait, {len(self._running)} run>"

    @property
    def is_over(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._waiting and not self._running

    @property
    def running(self) -> int:
        """How many items run."""
        return len(self._running)

    def see(self, slots: Mapping[str, int]) -> None:
        """Note which members there are now, and how many each may run at one time."""
        for member in self._members.values():
            member.here = False
        for key, count in slots.items():
            member = self._members.setdefault(key, _Member(max(count, 1)))
            member.slots, member.here = max(count, 1), True

    def tries(self, item: int) -> int:
        """Return how often an item was begun and has ended."""
        return self._failures[item] + self._losses[item]

    def aside(self, now: float) -> dict[str, str]:
        """Return the members that get nothing now, and why."""
        return {
            key: why
            for key, member in self._members.items()
            if member.here and (why := member.idle_why(now))
        }

    def next(self, now: float) -> tuple[int, str] | None:
        """Return an item and the member that is to run it, or None for now."""
        free = [key for key, member in self._members.items() if member.takes(now)]
        free.sort(key=lambda key: -self._members[key].free)
        for key in free:
            for place, item in enumerate(self._waiting):
                if self._may_run(item, key, now):
                    del self._waiting[place]
                    self._running[item] = key
                    self._starting.add(item)
                    self._began[item] = now
                    self._members[key].running += 1
                    self._members[key].starting += 1
                    return item, key
        return None

    def begun(self, item: int) -> None:
        """An item has begun: its member may begin the next."""
        if item in self._starting:
            self._starting.remove(item)
            member = self._members[self._running[item]]
            member.starting -= 1
            member.refusals = 0

    def ended(self, item: int, *, ok: bool, took: float, now: float) -> After:
        """An item has ended on its member, well or not."""
        key, member = self._leave(item)
        if ok:
            member.standing.did_well()
            self._well.add(key)
            return After.DONE
        self._failures[item] += 1
        self._failed_on[item].add(key)
        others_well = bool(self._well - {key})
        member.standing.failed("it failed", now=now, took=took, others_well=others_well)
        if self._failures[item] > self._retries:
            return After.FAILED
        self._waiting.appendleft(item)
        return After.AGAIN

    def lost(self, item: int, *, now: float) -> After:
        """An item's member was lost while it ran."""
        member = self._members[self._running[item]]
        if self._began[item] > member.lost_at:  # else it is the same loss once more
            member.lost_at = now
            member.standing.lost(now=now)
        return self.broke(item)

    def broke(self, item: int) -> After:
        """An item was cut off, and nobody knows where."""
        self._leave(item)
        self._losses[item] += 1
        if self._losses[item] > self._retries + _LOSSES_BEYOND:
            return After.FAILED
        self._waiting.appendleft(item)
        return After.AGAIN

    def left(self, item: int) -> None:
        """A member has left, as planned, and gets none until it is seen again."""
        _, member = self._leave(item)
        member.here = False
        self._waiting.appendleft(item)

    def not_begun(self, item: int, why: str, *, now: float) -> None:
        """There was no place for an item: its member rests, ever longer."""
        _, member = self._leave(item)
        if now >= member.rests_until:  # else it was asked together with the last one
            member.refusals += 1
            member.refused = why
            member.rests_until = now + pause_after(member.refusals)
        self._waiting.appendleft(item)

    def put_back(self, item: int) -> None:
        """An item ended with the master: that says nothing of it, nor of its member."""
        self._leave(item)
        self._waiting.appendleft(item)

    def check(self) -> None:
        """Assert what always holds."""
        assert not set(self._waiting) & self._running.keys()
        assert len(set(self._waiting)) == len(self._waiting)
        counted = Counter(self._running.values())
        starting = Counter(self._running[item] for item in self._starting)
        for key, member in self._members.items():
            assert member.running == counted[key]
            assert member.starting == starting[key] <= limits.STARTS_AT_ONCE

    def _leave(self, item: int) -> tuple[str, _Member]:
        key = self._running.pop(item)
        member = self._members[key]
        member.running -= 1
        if item in self._starting:
            self._starting.remove(item)
            member.starting -= 1
        return key, member

    def _may_run(self, item: int, key: str, now: float) -> bool:
        """Whether an item may run there: not where it failed, if it has a choice."""
        failed_on = self._failed_on.get(item)
        if failed_on is None or key not in failed_on:
            return True
        return all(
            other in failed_on
            for other, member in self._members.items()
            if member.here and not member.standing.is_aside(now)
        )
