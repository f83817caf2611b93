"""What this master wants of workers that others hold, and what it gives back to them.

Once a second, while there is a reason: a worker of another's, or a wish of another's
for one of ours.  What is decided is in `aemesh.policy.masters`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from aemesh import limits
from aemesh.errors import AemeshError
from aemesh.master.group import Group
from aemesh.master.record import Order, WorkerRecord
from aemesh.master.remote import ask
from aemesh.model.group import Demand, MemberState
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName
from aemesh.net.link import Link
from aemesh.policy.masters import Lent, Need, give_back, wanted
from aemesh.protocol import wire

# A worker that is idle changes hands this much later, at worst.
_LOOK_EVERY = 1.0
_OURS = frozenset({MemberState.LEASED, MemberState.SUSPECT})


@dataclass(slots=True, kw_only=True)
class Neighbours:
    """One master among several."""

    key_id: KeyId  # ours
    records: Mapping[KeyId, WorkerRecord]
    groups: Mapping[GroupName, Group]
    demand: Callable[[GroupName], Demand]
    holders: Callable[[GroupName], int]
    _told: dict[Link, int] = field(default_factory=dict)  # what each link was told
    _given: dict[KeyId, KeyId] = field(default_factory=dict)  # worker -> for whom

    async def run(self) -> None:
        """Want and give, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(_LOOK_EVERY)
                theirs = [r for r in self.records.values() if self._is_theirs(r)]
                wishes = any(record.wanted for record in self.records.values())
                self._forget_ended(theirs)
                if not theirs and not wishes and not self._given:
                    continue
                idle = await self._idle()
                self._tell(theirs, idle, nursery)
                self._give(idle)

    def _is_theirs(self, record: WorkerRecord) -> bool:
        link = record.link
        if link is None:
            return False
        return record.is_held_by_other(self.key_id) or self._told.get(link, 0) > 0

    def _forget_ended(self, theirs: list[WorkerRecord]) -> None:
        links = {record.link for record in theirs}
        self._told = {link: n for link, n in self._told.items() if link in links}
        # Taken, gone, or ours again: it is not on its way any more.
        self._given = {
            key: master
            for key, master in self._given.items()
            if key in self.records and self._is_on_the_way(self.records[key])
        }

    @staticmethod
    def _is_on_the_way(record: WorkerRecord) -> bool:
        return record.order is not None or record.waits

    async def _idle(self) -> dict[KeyId, tuple[GroupName, float]]:
        """Return each member's group, and since when it is idle."""
        idle: dict[KeyId, tuple[GroupName, float]] = {}
        for name, group in list(self.groups.items()):
            if group.state != "ready" or not group.members:
                continue
            if self.holders(name):  # it uses them all, whatever its engine knows
                idle.update(dict.fromkeys(group.members, (name, 0.0)))
                continue
            try:
                with trio.move_on_after(limits.ANSWER_AFTER):
                    for key, after in (await group.idle_after()).items():
                        idle[key] = name, after
            except AemeshError:
                continue  # its engine is about to fail; nothing is given meanwhile
        return idle

    def _tell(
        self,
        theirs: list[WorkerRecord],
        idle: Mapping[KeyId, tuple[GroupName, float]],
        nursery: trio.Nursery,
    ) -> None:
        """Tell each worker of another's how many we want, if that has changed."""
        count = wanted(self._needs(idle))
        for record in theirs:
            link = record.link
            assert link is not None, "theirs are linked"
            holder = record.holder
            # One that is free is wanted still: it is not ours before it says so.
            ours = holder is not None and holder.master == self.key_id
            mine = 0 if ours else count
            if self._told.get(link, 0) != mine:
                self._told[link] = mine
                nursery.start_soon(self._tell_one, link, mine)

    async def _tell_one(self, link: Link, count: int) -> None:
        try:
            body = wire.Want(workers=count)
            await ask(link, body, wire.Done, within=limits.ANSWER_AFTER)
        except AemeshError:
            return  # an older worker, or one that is gone

    def _needs(self, idle: Mapping[KeyId, tuple[GroupName, float]]) -> list[Need]:
        needs = []
        for name, group in self.groups.items():
            if group.state != "ready" or self.holders(name):
                continue
            spans = [after for where, after in idle.values() if where == name]
            busy = bool(spans) and not any(spans)
            needs.append(Need(group.size, self.demand(name), busy=busy))
        return needs

    def _give(self, idle: Mapping[KeyId, tuple[GroupName, float]]) -> None:
        lent = [
            Lent(
                key=key,
                group=name,
                idle_after=after,
                wanted=self.records[key].wanted,
                over=self.records[key].over,
            )
            for key, (name, after) in idle.items()
            if key in self.records and self._may_give(self.records[key])
        ]
        minima = {name: self.demand(name).min for name in self.groups}
        on_the_way = Counter(self._given.values())
        for key, taker in give_back(lent, minima, on_the_way=on_the_way).items():
            self._given[key] = taker
            why = "another master wants it"
            order = Order(why=why, by_after=limits.RETIRE_AFTER)
            self.records[key].give(order)

    @staticmethod
    def _may_give(record: WorkerRecord) -> bool:
        return record.membership.state in _OURS and record.order is None
