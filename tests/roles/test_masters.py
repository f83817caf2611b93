"""Several masters and their workers, in memory: one lease at a time, first come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import trio

from aemesh.errors import EngineError
from aemesh.host.keys.keystore import Identity
from aemesh.host.store import open_store
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.master.master import Master
from aemesh.model.address import Seed
from aemesh.model.group import Demand, MemberState
from aemesh.model.names import GroupName
from aemesh.model.trust import KnownPeer, Mode, Role, Terms
from aemesh.model.view import WorkerView
from aemesh.policy.discovery import New, News, Updated
from aemesh.policy.trust import TrustPolicy
from tests.roles.mesh import Machine, Mesh, announcement, open_mesh

A, B, C = GroupName("A"), GroupName("B"), GroupName("C")


@dataclass
class Desk:
    """One more master, of another user."""

    identity: Identity
    master: Master = field(init=False)

    def __post_init__(self) -> None:
        self.tell, self.heard = trio.open_memory_channel[News](100)

    async def news(self) -> AsyncIterator[News]:
        async for news in self.heard:
            yield news

    def hear(self, machine: Machine, *, again: bool = False) -> None:
        self.tell.send_nowait((Updated if again else New)(announcement(machine)))

    def view(self, name: str) -> WorkerView | None:
        return next((v for v in self.master.workers() if v.name == name), None)


@asynccontextmanager
async def second_master(mesh: Mesh, ip: str, *groups: str) -> AsyncIterator[Desk]:
    """Another user's master, with these groups."""
    desk = Desk(Identity.ephemeral("mary"))
    with open_store(None) as store:
        for name in groups:
            store.put_group(GroupName(name), "memory")
        desk.master = mesh.new_master(ip, store, finder=desk, identity=desk.identity)
        async with trio.open_nursery() as nursery:
            await nursery.start(desk.master.run)
            yield desk
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_two() -> AsyncIterator[tuple[Mesh, Desk]]:
    """Two masters, the mesh's own with group A and mary's with B."""
    async with (
        open_mesh("A") as mesh,
        second_master(mesh, "10.0.1.1", "B") as mary,
    ):
        yield mesh, mary


def trusts(*identities: Identity) -> TrustPolicy:
    keys = frozenset(identity.key_id for identity in identities)
    return TrustPolicy(role=Role.WORKER, trusted_keys=keys)


async def until(look) -> None:
    with trio.fail_after(120):
        while not look():
            await trio.sleep(0.05)


def wish(**changed):
    return partial(replace, **changed)


def is_held(view: WorkerView | None, by: str) -> bool:
    return view is not None and view.held_by == by


async def test_every_master_hears_who_holds_a_worker_and_when_it_is_free(
    autojump_clock,
) -> None:
    """Shows: G5; the second takes it when it is free, and asks once until then."""
    async with open_two() as (mesh, mary):
        machine = await mesh.start_worker(
            "office-1", policy=trusts(mesh.master_id, mary.identity)
        )
        await mesh.wait_worker("office-1", lambda v: v.held_by == "laptop")
        mary.hear(machine)
        await until(lambda: is_held(mary.view("office-1"), "laptop"))
        view = mary.view("office-1")
        assert view is not None
        assert (view.state, view.group, view.held_group) == ("trusted", None, "A")
        assert view.held_key == str(mesh.master_id.key_id)

        await trio.sleep(60)
        assert not [e async for e in mary.master.events(0, follow=False) if e.worker]
        await mesh.master.close_group(A)

        await until(lambda: is_held(mary.view("office-1"), "mary"))
        view = await mesh.wait_worker("office-1", lambda v: v.held_by == "mary")
        assert (view.held_group, view.state) == ("B", "trusted")
        assert machine.generation == 2


async def test_two_that_ask_at_once_are_told_who_was_first(autojump_clock) -> None:
    """Shows: G5."""
    async with open_two() as (mesh, mary):
        policy = trusts(mesh.master_id, mary.identity)
        machines = [
            await mesh.start_worker(f"office-{n}", policy=policy, announce=False)
            for n in range(6)
        ]
        for machine in machines:
            mesh.announce(machine)
            mary.hear(machine)
        for machine in machines:
            await mesh.wait_worker(machine.name, lambda v: bool(v.held_by))
            await until(lambda name=machine.name: bool((mary.view(name)).held_by))
        await trio.sleep(120)

        kinds = [e.kind async for e in mary.master.events(0, follow=False)]
        assert "worker.failed" not in kinds + await mesh.events()
        for machine in machines:
            theirs, ours = (
                mary.view(machine.name),
                mesh.master.roster.find(machine.name),
            )
            assert theirs is not None
            assert theirs.held_by == ours.view().held_by
            assert (theirs.group, ours.view().group).count(None) == 1


async def test_a_master_whose_line_has_other_groups_does_not_hear_the_groups_name(
    autojump_clock,
) -> None:
    async with open_two() as (mesh, mary):
        machine = await mesh.start_worker("office-1")
        assert isinstance(machine.desk, TrustDesk)
        machine.desk.memory.keep(
            KnownPeer(
                name=mary.identity.name,
                key=mary.identity.public,
                via="command",
                added="20261125",
                mode=Mode.LEAP,
                terms=Terms(groups=("B",)),
            )
        )
        await mesh.wait_worker("office-1", lambda v: v.held_by == "laptop")
        mary.hear(machine)

        await until(lambda: is_held(mary.view("office-1"), "laptop"))
        view = mary.view("office-1")
        assert view is not None
        assert view.held_group is None


def held(mesh: Mesh, mary: Desk) -> tuple[list[str], list[str]]:
    """The members of A and of B; nobody is in both."""
    (ours,) = mesh.master.groups()
    (theirs,) = mary.master.groups()
    assert not set(ours.members) & set(theirs.members)
    return sorted(ours.members), sorted(theirs.members)


async def three_workers(mesh: Mesh, mary: Desk, **parts) -> None:
    """Three workers, all of which the first master takes; both know them."""
    for number in range(3):
        machine = await mesh.start_worker(
            f"office-{number}", policy=trusts(mesh.master_id, mary.identity), **parts
        )
        await until(lambda name=machine.name: name in held(mesh, mary)[0])
    for machine in mesh.machines.values():
        mary.hear(machine)


def work(mesh: Mesh, group: GroupName, *, on: int) -> None:
    """Let so many members of a group be at work."""
    running = mesh.engine.running[group]
    running.busy = set(sorted(running.nodes)[:on])


async def test_a_master_gives_back_what_it_does_not_use(autojump_clock) -> None:
    """Shows: G5 (idle); the second gets what it needs, and no more to no purpose."""
    async with open_two() as (mesh, mary):
        await three_workers(mesh, mary)
        work(mesh, A, on=3)
        await trio.sleep(60)
        assert len(held(mesh, mary)[0]) == 3  # all are at work
        work(mesh, A, on=1)
        await until(lambda: len(held(mesh, mary)[1]) == 1)
        await trio.sleep(120)
        assert [len(names) for names in held(mesh, mary)] == [2, 1]

        work(mesh, B, on=1)
        await until(lambda: len(held(mesh, mary)[1]) == 2)
        work(mesh, B, on=2)
        await trio.sleep(120)

        assert [len(names) for names in held(mesh, mary)] == [1, 2]
        assert "worker.failed" not in await mesh.events()


async def test_at_the_end_of_its_span_a_lease_changes_hands(autojump_clock) -> None:
    """Shows: G5 (span); the master that is at work does not get it back at once."""
    async with open_two() as (mesh, mary):
        await three_workers(mesh, mary, lease_after=300.0)
        work(mesh, A, on=3)
        await trio.sleep(200)
        assert len(held(mesh, mary)[0]) == 3
        await until(lambda: bool(held(mesh, mary)[1]))

        assert trio.current_time() >= 300
        await trio.sleep(60)
        assert [len(names) for names in held(mesh, mary)] == [2, 1]


async def test_a_lease_that_nobody_waits_for_goes_on(autojump_clock) -> None:
    """Shows: G5 (span)."""
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1", lease_after=60.0)
        await mesh.wait_worker("office-1", lambda v: v.state == "leased")
        await trio.sleep(3600)

        assert machine.generation == 1
        assert machine.worker is not None
        machine.worker.wishes.turns.check()


async def busy_and_wanted(mesh: Mesh, mary: Desk, **parts) -> Machine:
    """One worker, at work in A, which the second master wants."""
    mesh.master.set_group(A, wish(min=0))
    await mesh.master.open_group(C, "memory", wish=wish(min=0, max=0))
    policy = trusts(mesh.master_id, mary.identity)
    machine = await mesh.start_worker("office-1", policy=policy, **parts)
    await mesh.wait_worker("office-1", lambda view: view.group == "A")
    mary.hear(machine)
    work(mesh, A, on=1)
    record = mesh.master.roster.find("office-1")
    await until(lambda: mary.identity.key_id in record.wanted)
    return machine


async def test_a_busy_worker_is_moved_and_nobody_else_gets_it_meanwhile(
    autojump_clock,
) -> None:
    """Shows: G2, G5; a lease that is neither idle nor over is no turn of others."""
    async with open_two() as (mesh, mary):
        machine = await busy_and_wanted(mesh, mary)
        mesh.master.set_group(C, wish(max=1))
        await mesh.master.move("office-1", C)
        work(mesh, C, on=1)
        await trio.sleep(60)

        view = mesh.master.roster.find("office-1").view()
        assert (view.group, view.held_by, machine.generation) == ("C", "laptop", 2)
        assert "worker.held" not in await mesh.events()


async def test_a_worker_that_is_shared_anew_stays_with_its_master(
    autojump_clock,
) -> None:
    """Shows: G5; two of ours change their groups, each into the other's place."""
    async with open_two() as (mesh, mary):
        machine = await busy_and_wanted(mesh, mary)
        mesh.master.set_group(C, wish(min=1, max=1))
        await mesh.wait_worker("office-1", lambda view: view.group == "C")
        work(mesh, C, on=1)
        await trio.sleep(60)

        assert machine.generation == 2
        assert mesh.master.roster.find("office-1").view().group == "C"


async def test_a_worker_whose_engine_broke_is_brought_up_anew_by_its_master(
    autojump_clock,
) -> None:
    """Shows: G5."""
    async with open_two() as (mesh, mary):
        machine = await busy_and_wanted(mesh, mary)
        running = mesh.engine.running[A]
        (member,) = running.members.values()
        running.group.member_broken(member, "the test said so")
        await until(lambda: machine.generation == 2)
        await mesh.wait_worker("office-1", lambda view: view.group == "A")
        work(mesh, A, on=1)
        await trio.sleep(60)

        assert machine.generation == 2
        assert mesh.master.roster.find("office-1").view().group == "A"


async def test_a_move_whose_join_fails_brings_the_worker_back_against_others(
    autojump_clock,
) -> None:
    """Shows: G2 (a failed join), G5."""
    async with open_two() as (mesh, mary):
        machine = await busy_and_wanted(mesh, mary)
        mesh.engine.fails_on.add("C")
        mesh.master.set_group(C, wish(max=1))
        with pytest.raises(EngineError, match="the test said so"):
            await mesh.master.move("office-1", C)
        await mesh.wait_worker("office-1", lambda view: view.group == "A")
        work(mesh, A, on=1)
        await trio.sleep(60)

        assert machine.generation == 3
        assert mesh.master.roster.find("office-1").view().held_by == "laptop"


async def test_a_worker_that_comes_up_nowhere_is_free_for_others(
    autojump_clock,
) -> None:
    """Shows: G2 (a failed join frees it), G5."""
    async with open_two() as (mesh, mary):
        await busy_and_wanted(mesh, mary)
        running = mesh.engine.running[A]
        (member,) = running.members.values()
        mesh.engine.fails_on.add("A")
        running.group.member_broken(member, "the test said so")

        await until(lambda: is_held(mary.view("office-1"), by="mary"))


async def test_a_worker_that_has_no_place_after_all_is_free_for_others(
    autojump_clock,
) -> None:
    """The group that it was moved to is full, and its own one takes nobody more."""
    async with open_two() as (mesh, mary):
        await busy_and_wanted(mesh, mary)
        mesh.engine.retire_takes["office-1"] = 2.0
        mesh.master.set_group(C, wish(max=1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mesh.master.move_all, ["office-1"], C)
            await mesh.wait_state("office-1", MemberState.DRAINING)
            mesh.master.set_group(A, wish(max=0))
            mesh.master.set_group(C, wish(max=0))

        await until(lambda: is_held(mary.view("office-1"), by="mary"))


async def test_a_move_does_not_begin_the_owners_span_anew(autojump_clock) -> None:
    """Shows: G5 (span); else a master that moves it now and then keeps it for good."""
    async with open_two() as (mesh, mary):
        await busy_and_wanted(mesh, mary, lease_after=300.0)
        mesh.master.set_group(C, wish(max=1))
        for group in (C, A, C, A):
            await trio.sleep(60)
            await mesh.master.move("office-1", group)
            work(mesh, group, on=1)
        assert trio.current_time() < 300
        await until(lambda: is_held(mary.view("office-1"), by="mary"))

        assert 300 <= trio.current_time() < 360


async def test_a_worker_that_waits_for_room_is_kept_and_not_for_ever(
    autojump_clock,
) -> None:
    """Shows: G5; who makes room needs its time, but not that of a whole afternoon."""
    async with (
        open_mesh("A", "C") as mesh,
        second_master(mesh, "10.0.1.1", "B") as mary,
    ):
        for group in (A, C):
            mesh.master.set_group(group, wish(max=1))
        policy = trusts(mesh.master_id, mary.identity)
        machines = [
            await mesh.start_worker(name, policy=policy)
            for name in ("office-1", "office-2")
        ]
        await until(lambda: all(len(g.members) == 1 for g in mesh.master.groups()))
        (mover,) = next(g.members for g in mesh.master.groups() if g.name == "A")
        (other,) = next(g.members for g in mesh.master.groups() if g.name == "C")
        for group in (A, C):
            work(mesh, group, on=1)
        for machine in machines:
            mary.hear(machine)
        record = mesh.master.roster.find(mover)
        await until(lambda: mary.identity.key_id in record.wanted)

        mesh.engine.retire_takes[other] = 25.0
        await mesh.master.move(mover, C)
        assert trio.current_time() > 25.0
        for group in (A, C):
            work(mesh, group, on=1)
        assert not is_held(mary.view(mover), by="mary")


async def test_a_turn_that_nobody_takes_ends(autojump_clock) -> None:
    """The one that wanted it is cut off: the first has the worker again."""
    async with open_two() as (mesh, mary):
        await three_workers(mesh, mary, lease_after=100.0)
        work(mesh, A, on=3)
        await trio.sleep(95)
        mesh.segment.cut.add("10.0.1.1")
        await trio.sleep(120)

        assert len(held(mesh, mary)[0]) == 3


async def test_a_worker_that_leaves_one_master_is_not_taken_by_the_next(
    autojump_clock,
) -> None:
    """It would be lost there at once, with the work that it got."""
    async with open_two() as (mesh, mary):
        policy = trusts(mesh.master_id, mary.identity)
        machine = await mesh.start_worker("office-1", policy=policy)
        await mesh.wait_worker("office-1", lambda view: view.state == "leased")
        mary.hear(machine)
        work(mesh, A, on=1)
        await until(lambda: is_held(mary.view("office-1"), by="laptop"))
        assert machine.worker is not None
        machine.worker.leave("lunch")
        with trio.fail_after(60):
            while machine.departure is None:
                await trio.sleep(0.05)

        assert machine.departure.moved == 1
        assert machine.generation == 1
        history = mary.master.events(0, follow=False)
        assert [event.kind async for event in history][-1:] == ["worker.left"]


async def test_a_master_that_has_enough_says_so_and_is_silent(autojump_clock) -> None:
    """Shows: D10; it announces itself again when it wants more."""
    async with open_mesh("A", port=7472, announcer=Calls()) as mesh:
        calls = mesh.master._parts.announcer
        assert isinstance(calls, Calls)
        store = mesh.master._parts.store
        store.put_demand(A, Demand(max=1))
        await until(lambda: calls.is_announced)
        seed = Seed("10.0.0.1", 7472)
        await mesh.start_worker("office-1", announce=False, seeds=(seed,))
        await mesh.wait_worker("office-1", lambda v: v.state == "leased")
        await until(lambda: not calls.is_announced)
        late = await mesh.start_worker("office-2", announce=False, seeds=(seed,))
        announced = await mesh.start_worker("office-3")
        dialled = mesh.segment.dialled
        await trio.sleep(90)
        assert late.worker is not None
        assert announced.worker is not None
        assert not late.worker.links
        assert not announced.worker.links
        assert len([one for one in dialled if one.host == "10.0.0.1"]) <= 4

        store.put_demand(A, Demand(max=3))
        mesh.master.invitation.look()
        await until(lambda: calls.is_announced)
        for name in ("office-2", "office-3"):
            await mesh.wait_worker(name, lambda v: v.state == "leased")


class Calls:
    """Notes whether the master is announced."""

    is_announced = False

    async def announce(self, *, port: int) -> None:
        assert port == 7472
        self.is_announced = True
        try:
            await trio.sleep_forever()
        finally:
            self.is_announced = False

    def announce_again(self) -> None:
        pass
