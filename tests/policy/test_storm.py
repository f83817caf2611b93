"""Thousands of steps of faults on memberships, leases and sessions, in virtual time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from aemesh import limits
from aemesh.model.group import Demand
from aemesh.model.key import PublicKey
from aemesh.model.names import GroupName
from aemesh.protocol import wire
from tests.policy.storm import COMMANDS, DELAYS, Office, SimMaster, SimWorker

MASTERS = {"laptop": ("A", "B"), "desk": ("C",)}
WORKERS = 4
DEMANDS = (
    Demand(),
    Demand(min=2),
    Demand(min=0, max=1),
    Demand(min=1, max=2, weight=3),
    Demand(min=0, max=0),
)
QUIET_AFTER = 60.0

masters = st.sampled_from(sorted(MASTERS))
workers = st.integers(0, WORKERS - 1)


class Storm(RuleBasedStateMachine):
    """Two masters with three groups, four workers, and what can go wrong."""

    @initialize()
    def open(self) -> None:
        self.office = office = Office()
        for number, (name, groups) in enumerate(MASTERS.items()):
            key = PublicKey(bytes([number + 1]) * 32).key_id
            office.masters.append(
                SimMaster(name, key, {GroupName(group): Demand() for group in groups})
            )
        for number in range(WORKERS):
            key = PublicKey(bytes([number + 100]) * 32).key_id
            office.workers.append(SimWorker(f"office-{number}", key))
        for one in (*office.masters, *office.workers):
            one.start()
        office.advance(5.0)

    def master(self, name: str) -> SimMaster:
        return next(one for one in self.office.masters if one.name == name)

    @rule(seconds=st.sampled_from([0.25, 1.0, 3.0, 8.0]))
    def wait(self, seconds: float) -> None:
        self.office.advance(seconds)

    @rule(number=workers, silent=st.booleans())
    def kill_worker(self, number: int, *, silent: bool) -> None:
        if self.office.workers[number].alive:
            self.office.kill(self.office.workers[number], silent=silent)

    @rule(number=workers)
    def start_worker(self, number: int) -> None:
        if not self.office.workers[number].alive:
            self.office.workers[number].start()

    @rule(name=masters, silent=st.booleans())
    def kill_master(self, name: str, *, silent: bool) -> None:
        if self.master(name).alive:
            self.office.kill(self.master(name), silent=silent)

    @rule(name=masters)
    def start_master(self, name: str) -> None:
        if not self.master(name).alive:
            self.master(name).start()

    @rule(name=masters, number=workers)
    def cut(self, name: str, number: int) -> None:
        self.office.cut.add(frozenset((name, f"office-{number}")))

    @rule(name=masters, number=workers)
    def mend(self, name: str, number: int) -> None:
        self.office.cut.discard(frozenset((name, f"office-{number}")))

    @rule()
    def heal(self) -> None:
        self.office.cut.clear()
        self.office.slow.clear()

    @rule(name=masters, number=workers, delay=st.sampled_from(DELAYS))
    def slow(self, name: str, number: int, delay: float) -> None:
        self.office.slow[frozenset((name, f"office-{number}"))] = delay

    @rule(name=masters, number=workers, group=st.integers(0, 1))
    def move(self, name: str, number: int, group: int) -> None:
        """A person moves a worker, and means it until the next time."""
        master, key = self.master(name), self.office.workers[number].key
        names = sorted(master.demands)
        master.pinned[key] = names[group % len(names)]

    @rule(name=masters)
    def unpin(self, name: str) -> None:
        self.master(name).pinned.clear()

    @rule(name=masters, group=st.integers(0, 1), demand=st.sampled_from(DEMANDS))
    def want(self, name: str, group: int, demand: Demand) -> None:
        demands = self.master(name).demands
        demands[sorted(demands)[group % len(demands)]] = demand

    @rule(name=masters, number=workers)
    def leave(self, name: str, number: int) -> None:
        master, key = self.master(name), self.office.workers[number].key
        if key in master.links:
            master.leaves.add(key)

    @rule(name=masters, number=workers)
    def put_off(self, name: str, number: int) -> None:
        """Who is on its way out of a group goes later."""
        self.office.put_off(self.master(name), self.office.workers[number])

    @rule(name=masters, number=workers)
    def stay(self, name: str, number: int) -> None:
        self.office.stay(self.master(name), self.office.workers[number])

    @rule(
        number=workers,
        group=st.integers(0, 1),
        demand=st.sampled_from(DEMANDS),
        after=st.sampled_from([0.25, 1.0, 2.0]),
    )
    def move_on_the_way(
        self, number: int, group: int, demand: Demand, after: float
    ) -> None:
        """What is wanted where a worker goes changes while it is under way."""
        self.move("laptop", number, group)
        self.office.advance(after)
        self.office.check()
        self.want("laptop", group, demand)

    @rule(by=st.sampled_from([-86400.0, -3600.0, 3600.0, 86400.0]))
    def jump(self, by: float) -> None:
        """The time of day is set; what is measured must not be."""
        self.office.wall_off += by

    @precondition(lambda self: bool(self.old()))
    @rule(choice=st.integers(0, 1000))
    def repeat(self, choice: int) -> None:
        """A command comes once more, late, behind what was said since."""
        old = self.old()
        master, worker, body = old[choice % len(old)]
        self.office.repeat(master, worker, body)
        self.office.turn()

    def old(
        self, *kinds: type[wire.Body]
    ) -> list[tuple[SimMaster, SimWorker, wire.Body]]:
        """Return what was said to workers that have gone on since."""
        known = {one.key: one for one in self.office.workers}
        return [
            (master, known[key], body)
            for master in self.office.masters
            for key, body in master.said
            if isinstance(body, kinds or COMMANDS)
            and key in master.links
            and body.generation < known[key].generation
        ]

    @precondition(lambda self: bool(self.old(wire.Start)))
    @rule(choice=st.integers(0, 1000))
    def repeat_start(self, choice: int) -> None:
        """The order to start a job comes once more, in another generation."""
        old = self.old(wire.Start)
        self.office.repeat(*old[choice % len(old)])
        self.office.turn()

    @rule(name=masters, number=workers)
    def poach(self, name: str, number: int) -> None:
        """A master has not heard that another holds it, or does not care."""
        self.office.poach(self.master(name), self.office.workers[number])

    @invariant()
    def time_goes_on(self) -> None:
        """Between any two of these, something may come about; and all holds."""
        if hasattr(self, "office"):
            self.office.check()
            self.office.advance(0.5)
            self.office.check()

    def teardown(self) -> None:
        """After healing, and quiet, every worker serves one group of one master."""
        if not hasattr(self, "office"):
            return
        office = self.office
        self.heal()
        for one in (*office.masters, *office.workers):
            if not one.alive:
                one.start()
        for _ in range(int(QUIET_AFTER / limits.LOST_AFTER)):
            office.advance(limits.LOST_AFTER)
            office.check()
        office.settled()


Storm.TestCase.settings = settings(
    max_examples=80, stateful_step_count=50, deadline=None
)
TestStorm = Storm.TestCase
