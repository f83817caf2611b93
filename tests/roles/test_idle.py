"""Which members have nothing to do, as the engine or else the jobs say."""

from __future__ import annotations

import trio

from aemesh.master.plugged import Plugged
from aemesh.model.names import GroupName
from tests.roles.mesh import Mesh, open_mesh

A = GroupName("A")


async def group_with(mesh: Mesh, *names: str):
    for name in names:
        await mesh.start_worker(name)
        await mesh.wait_worker(name, lambda view: view.state == "leased")
    group = mesh.master._groups[A]
    while len(group.members) < len(names):
        await group.changed.wait()
    return group


def key_of(mesh: Mesh, name: str):
    return mesh.machines[name].identity.key_id


async def test_the_engine_says_who_is_idle(autojump_clock):
    async with open_mesh("A") as mesh:
        group = await group_with(mesh, "office-1", "office-2")
        mesh.engine.running[A].busy.add("office-2.1")
        await trio.sleep(100)

        idle = await group.idle_after()

        assert 100 <= idle[key_of(mesh, "office-1")] < 101
        assert idle[key_of(mesh, "office-2")] == 0.0


async def test_a_member_of_which_the_engine_says_nothing_is_not_idle(autojump_clock):
    async with open_mesh("A") as mesh:
        group = await group_with(mesh, "office-1")
        mesh.engine.running[A].nodes.clear()
        await trio.sleep(100)

        assert await group.idle_after() == {key_of(mesh, "office-1"): 0.0}


async def test_a_member_is_busy_while_a_command_runs_there(autojump_clock):
    async with open_mesh("A") as mesh:
        group = await group_with(mesh, "office-1")
        key = key_of(mesh, "office-1")
        await trio.sleep(100)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, mesh, "sleep")
            await trio.sleep(10)
            busy = await group.idle_after()
            nursery.cancel_scope.cancel()
        await trio.sleep(30)

        assert busy == {key: 0.0}
        assert 30 <= (await group.idle_after())[key] < 40


async def test_without_the_engines_word_a_member_is_busy_while_its_job_runs(
    autojump_clock, monkeypatch
):
    async with open_mesh("A") as mesh:
        group = await group_with(mesh, "office-1")
        running = mesh.engine.running[A]
        monkeypatch.setattr(group, "running", Plugged("memory", Silent(running)))
        await trio.sleep(100)
        busy = await group.idle_after()

        await running.nodes["office-1.1"].end(term_after=0.0)
        await trio.sleep(20)

        key = key_of(mesh, "office-1")
        assert busy == {key: 0.0}
        assert 20 <= (await group.idle_after())[key] < 25


class Silent:
    """The memory engine as one that says nothing of its members."""

    def __init__(self, running):
        self.retire, self.lost = running.retire, running.lost


async def run(mesh: Mesh, *argv: str) -> None:
    async for _ in mesh.master.exec(A, argv, {}):
        pass
