"""Real masters and workers through stories of faults, drawn by hypothesis.

`tests/policy/test_storm.py` does the same with the policies alone, a hundred times as
often; here TLS, links, couriers, attendants and leases are the real ones, on a network
in memory and a virtual clock.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aemesh import limits
from aemesh.errors import AemeshError, RefusedError
from aemesh.host.store import Store, open_store
from aemesh.model.group import MemberState
from aemesh.model.names import GroupName
from aemesh.protocol import wire
from tests.roles.mesh import Machine, Mesh

MASTER_IP = "10.0.0.1"
GROUPS = ("A", "B", "C")
NAMES = tuple(f"office-{number}" for number in range(1, 5))
# From the last fault until all serve: silence, the grace of a lease, a dial, a join
# that is tried again.
SETTLED_WITHIN = 90.0

names = st.sampled_from(NAMES)
deeds = st.one_of(
    st.tuples(st.just("crash"), names),
    st.tuples(st.just("stop"), names),
    st.tuples(st.just("start"), names),
    st.tuples(st.just("cut"), names),
    st.tuples(st.just("mend"), names),
    st.tuples(st.just("move"), names, st.sampled_from(GROUPS)),
    st.tuples(st.just("break_engine"), names),
    st.tuples(st.just("repeat"), names),
    st.tuples(st.just("crash_master"), st.booleans()),
    st.tuples(
        st.just("network"),
    ),
)
pauses = st.sampled_from([0.0, 0.1, 1.0, 3.0, 6.0])


class Story:
    """A mesh whose master can be killed and started again, and what holds in it."""

    def __init__(self, mesh: Mesh, store: Store) -> None:
        self.mesh = mesh
        self._store = store
        self._scope = trio.CancelScope()
        self._highest: dict[str, int] = {}
        self._leaving: set[str] = set()
        self._ending_since: dict[str, float] = {}

    async def start_master(self) -> None:
        mesh = self.mesh
        mesh.master = mesh.new_master(MASTER_IP, self._store, finder=mesh)
        self._scope = trio.CancelScope()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with self._scope:
                await mesh.master.run(task_status=task_status)

        await mesh.nursery.start(run)
        for machine in mesh.machines.values():
            if self.is_up(machine):
                mesh.announce(machine)

    @staticmethod
    def is_up(machine: Machine) -> bool:
        return machine.worker is not None and not machine.scope.cancel_called

    # --- deeds ---

    async def crash(self, name: str) -> None:
        """Pull the plug: no peer is told anything."""
        machine = self.mesh.machines[name]
        self.mesh.segment.cut.add(machine.ip)
        machine.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        self.mesh.segment.cut.discard(machine.ip)

    async def stop(self, name: str) -> None:
        machine = self.mesh.machines[name]
        if self.is_up(machine):
            assert machine.worker is not None
            machine.worker.leave("its owner is back")
            self._leaving.add(name)

    async def start(self, name: str) -> None:
        """Start it again; one that is about to leave is hurried first."""
        machine = self.mesh.machines[name]
        if name in self._leaving or not self.is_up(machine):
            self._leaving.discard(name)
            machine.scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            await self.mesh.start_worker(name)

    async def cut(self, name: str) -> None:
        self.mesh.segment.cut.add(self.mesh.machines[name].ip)

    async def mend(self, name: str) -> None:
        self.mesh.segment.cut.discard(self.mesh.machines[name].ip)

    async def move(self, name: str, group: str) -> None:
        async def move() -> None:
            # It may be gone, or get another order meanwhile.
            with contextlib.suppress(AemeshError, trio.TooSlowError):
                await self.mesh.master.move(name, GroupName(group))

        self.mesh.nursery.start_soon(move)

    async def break_engine(self, name: str) -> None:
        for running in self.mesh.engine.running.values():
            for label, member in running.members.items():
                if label in running.nodes and member.name == name:
                    running.group.member_broken(member, "the story said so")
                    return

    async def repeat(self, name: str) -> None:
        """What belongs to another generation comes late, and is refused."""
        machine = self.mesh.machines[name]
        if not self.is_up(machine) or machine.generation < 2:
            return
        assert machine.worker is not None
        held, master = machine.worker.held, self.mesh.master_id.key_id
        lease, jobs = held.tenancy.lease, list(machine.jobs.running)
        old = machine.generation - 1
        for body in (
            wire.Assign(group="A", generation=old),
            wire.Start(job="late-1", generation=old, argv=("cat",)),
        ):
            with pytest.raises(RefusedError):
                await held.handle(master, body)
        await held.handle(master, wire.Release(generation=old, term_after=0.0))
        if held.tenancy.lease is lease is not None:
            assert all(job.exit is None for job in jobs)

    async def crash_master(self, silent: bool) -> None:
        cut = self.mesh.segment.cut
        if silent:
            cut.add(MASTER_IP)
        self._scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        cut.discard(MASTER_IP)
        await self.start_master()

    async def network(self) -> None:
        self.mesh.move()

    # --- what holds ---

    def check(self) -> None:
        """Assert what always holds."""
        members = [name for view in self.mesh.master.groups() for name in view.members]
        assert len(members) == len(set(members)), "a worker is in two groups"
        self.mesh.master.roster.check()
        for record in self.mesh.master.roster.records.values():
            record.membership.check()
        for name, machine in self.mesh.machines.items():
            assert machine.generation >= self._highest.get(name, 0)
            self._highest[name] = machine.generation
            if machine.worker is not None:
                tenancy = machine.worker.held.tenancy
                tenancy.check()
                self._check_jobs(name, machine, held=tenancy.lease is not None)

    def _check_jobs(self, name: str, machine: Machine, *, held: bool) -> None:
        """A lease goes first, and its jobs have a span to end; no more of both."""
        assert len(machine.jobs.running) <= 1, f"{name} runs two engines"
        if held or not machine.jobs.running:
            self._ending_since.pop(name, None)
            return
        since = self._ending_since.setdefault(name, trio.current_time())
        ending_after = trio.current_time() - since
        assert ending_after <= limits.TERM_AFTER, f"{name}: a job without a lease"

    def unsettled(self) -> list[str]:
        """Return what is not as it should be once nothing is wrong any more."""
        found = []
        views = {view.name: view for view in self.mesh.master.workers()}
        for name, machine in self.mesh.machines.items():
            view = views.get(name)
            if view is None or view.state != MemberState.LEASED.value:
                found.append(f"{name} is {view.state if view else 'unknown'}")
            elif len(machine.jobs.running) != 1 or machine.worker is None:
                found.append(f"{name} runs {machine.jobs.running}")
            elif machine.generation != view.generation:
                found.append(f"{name} is not in generation {view.generation}")
        count = sum(len(view.members) for view in self.mesh.master.groups())
        return found if count == len(NAMES) else [*found, f"{count} members"]


@asynccontextmanager
async def open_story() -> AsyncIterator[Story]:
    with open_store(None) as store:
        for name in GROUPS:
            store.put_group(GroupName(name), "memory")
        async with trio.open_nursery() as nursery:
            story = Story(Mesh(nursery), store)
            await story.start_master()
            for name in NAMES:
                await story.mesh.start_worker(name)
            yield story
            nursery.cancel_scope.cancel()


# A worker that was started anew while its old link had not ended yet was not heard.
BACK_AT_ONCE = [
    *[(("crash", "office-1"), 0.0)] * 8,
    (("stop", "office-4"), 0.0),
    (("crash_master", True), 0.0),
]


@given(told=st.lists(st.tuples(deeds, pauses), min_size=8, max_size=25))
@example(told=BACK_AT_ONCE)
@settings(max_examples=20)
def test_after_any_story_every_worker_serves_once(told) -> None:
    """Shows: L2, G2, G5."""

    async def run() -> None:
        async with open_story() as story:
            await trio.sleep(3.0)
            for (deed, *words), pause in told:
                await getattr(story, deed)(*words)
                await trio.sleep(pause)
                story.check()
            story.mesh.segment.cut.clear()
            for name in NAMES:
                await story.start(name)
            story.mesh.move()
            with trio.move_on_after(SETTLED_WITHIN):
                while story.unsettled():
                    await trio.sleep(limits.PING_EVERY)
                    story.check()
            assert story.unsettled() == []

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
