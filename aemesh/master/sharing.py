"""Who is to serve which group: the plan of the moment, and each worker's place in it.

One task makes the plan anew whenever something changed; what each worker is to do is
put into its record, and its attendant does it.  The decisions are those of
`policy.grouping` and `policy.settling`; here is what they look at.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from aemesh.errors import AemeshError
from aemesh.model.group import Demand, MemberState
from aemesh.model.machine import Facts
from aemesh.policy.demand import check_demand
from aemesh.policy.grouping import EMPTY, Candidate, Plan, allocate
from aemesh.policy.lease import allows
from aemesh.policy.require import ANYTHING, Condition, parse_requirement
from aemesh.policy.settling import Settling
from aemesh.policy.terms import allow_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from aemesh.host.store import Store
    from aemesh.master.group import Group
    from aemesh.master.record import WorkerRecord
    from aemesh.model.key import KeyId
    from aemesh.model.names import GroupName
    from aemesh.model.trust import Terms
    from aemesh.net.doorman import Desk

# A group that opens is waited for: else the first that is up would get all workers.
_TAKING = frozenset({"opening", "ready"})
_SERVING = frozenset({MemberState.LEASED, MemberState.SUSPECT})
_PRESENT = _SERVING | {MemberState.TRUSTED, MemberState.DRAINING}
_UNKNOWN = Facts(cores=0, memory=0, python="", system="")


class Sharing:
    """The sharing of one master's workers; `run` it once."""

    def __init__(  # noqa: PLR0913 - what it is made of, by name
        self,
        records: Mapping[KeyId, WorkerRecord],
        groups: Mapping[GroupName, Group],
        *,
        store: Store,
        desk: Desk,
        key_id: KeyId,
        wall: Callable[[], float],
    ) -> None:
        self._records = records
        self._groups = groups
        self._store = store
        self._desk = desk
        self._key_id = key_id  # ours
        self._wall = wall
        self._demands: dict[GroupName, tuple[Demand, Condition]] = {}
        self._holds: Counter[GroupName] = Counter()
        self._settling = Settling()
        self._looked = trio.Event()
        self.plan: Plan = EMPTY

    def __repr__(self) -> str:
        return f"<Sharing of {len(self.plan.placements)} workers>"

    async def run(self) -> None:
        """Make the plan anew when something changed, until cancelled."""
        while True:
            self._looked = trio.Event()
            self._look()
            with trio.move_on_after(max(0.0, self._next_at() - trio.current_time())):
                await self._looked.wait()

    # --- what others say ---

    def look(self) -> None:
        """Something may have changed."""
        self._looked.set()

    def changed(self) -> None:
        """A worker or a group came, went or became another."""
        self._settling.changed(trio.current_time())
        self.look()

    def asked(self) -> None:
        """A person changed what is wanted: it is done at once."""
        self._settling.asked(trio.current_time())
        self.look()

    # --- what groups want ---

    def demand(self, group: GroupName) -> Demand:
        """Return what a group wants."""
        return self._known(group)[0]

    def set_demand(self, group: GroupName, demand: Demand) -> None:
        """Change what a group wants; raises `UsageError` if it makes no sense.

        Whoever was moved to it by hand may be shared again.
        """
        check_demand(demand)
        self._store.put_demand(group, demand)
        self._demands.pop(group, None)
        for record in self._records.values():
            if record.pinned == group:
                self.pin(record, None)
        self.asked()

    def forget(self, group: GroupName) -> None:
        """A group is closed; nobody is held for it any more."""
        self._demands.pop(group, None)
        for record in self._records.values():
            if record.pinned == group:
                self.pin(record, None)
        self.asked()

    def pin(self, record: WorkerRecord, group: GroupName | None) -> None:
        """Keep a worker in a group against the sharing, or let it be shared."""
        self._store.pin(record.key_id, group)
        record.pinned = group
        self.asked()

    def set_aside(self, record: WorkerRecord) -> float:
        """Note that a worker gets no work for a while; return for how long."""
        standing = record.standing
        span = standing.until - trio.current_time()
        until = self._wall() + span
        self._store.put_aside(record.key_id, until, standing.why, standing.times)
        self.changed()
        return span

    def has_room(self, group: Group) -> bool:
        """Whether one more may come in now; others may still be on their way out."""
        most = self.demand(group.name).max
        return most is None or group.claimed < most

    # --- who is to stay ---

    @contextmanager
    def hold(self, group: GroupName) -> Iterator[None]:
        """Let nobody into a group or out of it while the block lasts, as far as we can.

        Who leaves, is lost or is forbidden by its owner goes all the same.
        """
        self._holds[group] += 1
        self.asked()
        try:
            yield
        finally:
            self._holds -= Counter({group: 1})
            self.asked()

    def holders(self, group: GroupName) -> int:
        """Return how many hold this group."""
        return self._holds[group]

    # --- who may serve ---

    def refusal(self, record: WorkerRecord, group: GroupName) -> str:
        """Return why this worker cannot serve this group now; "" if it can."""
        return self._refusal(record, group, self._terms(record))

    def suited(self, record: WorkerRecord) -> list[GroupName]:
        """Return the groups that this worker is one for, now or at another time."""
        if record.link is None:
            return []
        terms = self._terms(record)
        return [
            name
            for name in self._groups
            if not self._forbidden(record, name, terms)
            and not self._lacks(record, name)
        ]

    def _terms(self, record: WorkerRecord) -> tuple[Terms, ...]:
        """Return the terms of its line of trust: one question for all groups."""
        if record.link is None or not self._groups:
            return ()
        return self._desk.terms_of(record.link.peer)

    def _refusal(
        self, record: WorkerRecord, group: GroupName, terms: tuple[Terms, ...]
    ) -> str:
        if record.link is None or record.membership.state not in _PRESENT:
            return record.note or record.membership.state.value
        return (
            self._forbidden(record, group, terms)
            or self._unavailable(record)
            or self._lacks(record, group)
            or self._fault(record, group)
        )

    @staticmethod
    def _forbidden(
        record: WorkerRecord, group: GroupName, terms: tuple[Terms, ...]
    ) -> str:
        if not allows(record.groups, group):
            return f"its owner allows only {', '.join(sorted(record.groups))}"
        if not allow_group(terms, group):
            return "its line of trust has other groups"
        return ""

    def _lacks(self, record: WorkerRecord, group: GroupName) -> str:
        return self._known(group)[1].lacks(record.name, record.facts or _UNKNOWN)

    def _unavailable(self, record: WorkerRecord) -> str:
        """Return why it serves nobody of ours: it goes, or it is another master's."""
        if _leaves(record):
            return record.aside or "it leaves"
        # By our own word, which is newer than its.
        if record.membership.group or not record.is_held_by_other(self._key_id):
            return ""
        if record.waits or record.holder is None:
            return "it is for other masters, which want it"
        return f"it is held by {record.holder.name}"

    @staticmethod
    def _fault(record: WorkerRecord, group: GroupName) -> str:
        """Return what went wrong lately, and keeps it away for a while; or ""."""
        now = trio.current_time()
        if record.standing.is_aside(now):
            return f"set aside: {record.standing.why}"
        barred = record.barred.get(group, now) > now
        return (record.note or "it did not come up there") if barred else ""

    def would_place(
        self, record: WorkerRecord, group: GroupName
    ) -> tuple[GroupName | None, str]:
        """Return where a worker came to if a person moved it to `group`, and why."""
        wanted = {name: self.demand(name) for name in self._groups}
        others = [
            self._candidate(one, pinned=group if one is record else one.pinned)
            for one in self._present()
        ]
        plan = allocate(others, wanted, held=self._holds.keys())
        found = plan.placements.get(str(record.key_id))
        return (None, "it is not linked") if found is None else (found.group, found.why)

    # --- inside ---

    def _known(self, group: GroupName) -> tuple[Demand, Condition]:
        if group not in self._demands:
            demand = self._store.demand(group)
            self._demands[group] = demand, _condition(demand)
        return self._demands[group]

    def _look(self) -> None:
        """Make the plan, and wake those for whom it says something new."""
        now = trio.current_time()
        due = self._settling.due_at() <= now
        workers = [
            self._candidate(record, pinned=record.pinned, stays=not due)
            for record in self._present()
        ]
        open_groups = {
            name: self.demand(name)
            for name, group in self._groups.items()
            if group.state in _TAKING
        }
        self.plan = allocate(workers, open_groups, held=self._holds.keys())
        if due:
            serving = [one for one in workers if one.group is not None]
            self._settling.looked(now, moved=bool(self.plan.moves(serving)))
        for record in list(self._records.values()):
            placement = self.plan.placements.get(str(record.key_id))
            if placement != record.placement:
                record.placement = placement
                record.rouse()

    def _present(self) -> list[WorkerRecord]:
        return [
            record
            for record in self._records.values()
            if record.attended
            and record.membership.state in _PRESENT
            and record.orphan is None  # it goes on where it is, or is given back
            and not _leaves(record)
        ]

    def _candidate(
        self, record: WorkerRecord, *, pinned: GroupName | None, stays: bool = False
    ) -> Candidate:
        state, group = record.membership.state, record.membership.group
        serves = group if state in _SERVING else None
        terms = self._terms(record)
        allowed = frozenset(
            name for name in self._groups if not self._refusal(record, name, terms)
        )
        if serves in self._holds:
            assert serves is not None
            if self._may_stay(record, serves, terms):
                allowed = frozenset({serves})
        elif stays and serves is not None:
            allowed = self._kept(record, serves, allowed)
        return Candidate(
            key=str(record.key_id),
            allowed=allowed,
            group=serves,
            last=record.home,
            pinned=pinned,
        )

    def _may_stay(
        self, record: WorkerRecord, group: GroupName, terms: tuple[Terms, ...]
    ) -> bool:
        """Whether nobody but us had a reason to take a member out of a held group."""
        if record.link is None or self._forbidden(record, group, terms):
            return False
        return not self._unavailable(record)

    @staticmethod
    def _kept(
        record: WorkerRecord, serves: GroupName, allowed: frozenset[GroupName]
    ) -> frozenset[GroupName]:
        """Return where one who serves may be while nobody is moved anew.

        Where the plan had it at last: it may still be on its way there.
        """
        placed = None if record.placement is None else record.placement.group
        return next((frozenset({g}) for g in (placed, serves) if g in allowed), allowed)

    def _next_at(self) -> float:
        """Return when there is something to look at, if nothing happens before."""
        now = trio.current_time()
        moments = [self._settling.due_at()]
        for record in self._records.values():
            moments += [at for at in record.barred.values() if at > now]
            if record.standing.is_aside(now):
                moments.append(record.standing.until)
        return min(moments)


def _leaves(record: WorkerRecord) -> bool:
    """Whether a worker goes or is drained: nobody plans with it."""
    order = record.order
    return bool(record.aside) or (order is not None and (order.leave or order.drain))


def _condition(demand: Demand) -> Condition:
    try:
        return parse_requirement(demand.require)
    except AemeshError:
        return ANYTHING  # of an aemesh that reads more; it was checked when it was set
