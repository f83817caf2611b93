"""What ends while something else is under way ends alone: the master goes on."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from aemesh.errors import AemeshError, EngineError, UnreachableError
from aemesh.master.attend import Attendant
from aemesh.model.group import Haste, MemberState
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName
from aemesh.plugin import Member
from aemesh.protocol import wire
from aemesh.testing.memory_engine import RunningMemory
from aemesh.worker.held import _HANDLERS, Held
from tests.roles.mesh import Mesh, open_mesh

A, B = GroupName("A"), GroupName("B")
_LONG_AFTER = 20.0  # seconds in which whatever was under way has ended


async def wait_coming(mesh: Mesh) -> None:
    """Wait until somebody is on the way into A, to the tick."""
    with trio.fail_after(30):
        while not mesh.master._groups[A]._coming:
            await trio.lowlevel.checkpoint()


def members(mesh: Mesh) -> tuple[str, ...]:
    (group,) = mesh.master.groups()
    return group.members


@pytest.mark.parametrize("ticks", range(12))
async def test_a_group_that_closes_while_a_worker_joins_ends_alone(
    autojump_clock, ticks: int
) -> None:
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await wait_coming(mesh)
        for _ in range(ticks):
            await trio.lowlevel.checkpoint()
        await mesh.master.close_group(A)
        await mesh.wait_state("office-1", MemberState.TRUSTED)
        assert machine.jobs.running == []

        await mesh.master.open_group(B, "memory")
        await mesh.wait_worker("office-1", lambda view: view.group == "B")
        assert "worker.failed" not in await mesh.events()


async def test_an_engine_that_dies_while_a_worker_joins_is_not_the_workers_fault(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assign = Held.assign

    async def slow(held: Held, master: KeyId, body: wire.Assign) -> wire.Body:
        await trio.sleep(1)
        return await assign(held, master, body)

    monkeypatch.setitem(_HANDLERS, wire.Assign, slow)
    async with open_mesh("A") as mesh:
        await mesh.start_worker("office-1")
        await wait_coming(mesh)
        mesh.engine.dies.set()

        await mesh.wait_worker("office-1", lambda view: view.name in members(mesh))
        assert mesh.engine.told.count("open A") == 2
        assert "worker.failed" not in await mesh.events()
        assert mesh.master.roster.find("office-1").barred == {}


@pytest.mark.parametrize("error", [EngineError("no"), trio.TooSlowError(), KeyError(1)])
async def test_who_waits_for_a_worker_is_told_of_its_loss_whatever_the_engine_says(
    autojump_clock, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def lost(_running: RunningMemory, _member: Member) -> None:
        raise error

    monkeypatch.setattr(RunningMemory, "lost", lost)
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await mesh.start_worker("office-2")
        for name in mesh.machines:
            await mesh.wait_state(name, MemberState.LEASED)
        mesh.engine.retire_takes["office-1"] = _LONG_AFTER
        told: list[AemeshError] = []

        async def drain() -> None:
            with pytest.raises(UnreachableError) as caught:
                await mesh.master.drain(
                    ("office-1",), by_after=2 * _LONG_AFTER, haste=Haste.SOON
                )
            told.append(caught.value)

        mesh.nursery.start_soon(drain)
        await trio.sleep(1)
        machine.scope.cancel()
        await trio.sleep(_LONG_AFTER)

        assert [error.what for error in told] == ["office-1 is gone"]
        (group,) = mesh.master.groups()
        assert (group.state, group.members) == ("ready", ("office-2",))


async def test_a_node_that_dies_at_once_is_brought_up_ever_more_slowly(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = RunningMemory.add

    async def frail(running: RunningMemory, member: Member) -> None:
        await add(running, member)

        async def die() -> None:
            await trio.sleep(0.05)
            running.group.member_broken(member, "it died")

        mesh.nursery.start_soon(die)

    async with open_mesh("A") as mesh:
        monkeypatch.setattr(RunningMemory, "add", frail)
        for name in ("office-1", "office-2"):
            await mesh.start_worker(name)
        await trio.sleep(60)
        joined = Counter(await mesh.events())["worker.joined"]
        assert 2 * 4 <= joined <= 2 * 8

        monkeypatch.setattr(RunningMemory, "add", add)  # and then it is well
        await trio.sleep(60)
        members = list(mesh.master._groups[A].members.values())
        told = len(mesh.engine.told)
        for member in members:
            mesh.master._groups[A].member_broken(member, "it died once")
        await trio.sleep(0.1)
        added = [one for one in mesh.engine.told[told:] if one.startswith("add ")]
        assert len(members) == len(added) == 2


async def test_who_serves_does_not_look_again_at_each_that_joins(
    autojump_clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Attendant] = []
    look = Attendant._round

    async def counted(attendant: Attendant) -> None:
        looks.append(attendant)
        await look(attendant)

    monkeypatch.setattr(Attendant, "_round", counted)
    count = 40
    async with open_mesh("A") as mesh:
        for number in range(count):
            await mesh.start_worker(f"office-{number}")
        for name in mesh.machines:
            await mesh.wait_state(name, MemberState.LEASED)
        assert len(looks) <= 8 * count
