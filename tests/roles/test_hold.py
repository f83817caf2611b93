"""A group that is held keeps its size, whoever else wants its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from aemesh import limits
from aemesh.client.mesh import Mesh as ClientMesh
from aemesh.errors import EngineError, RefusedError, UnknownNameError
from aemesh.model.group import Haste
from aemesh.testing.memory_control import MemoryControl
from tests.roles.mesh import Mesh, open_mesh
from tests.roles.test_control import asked
from tests.roles.test_control import serving as served
from tests.roles.test_masters import (
    A,
    B,
    held,
    second_master,
    three_workers,
    until,
    work,
)
from tests.roles.test_sharing import counts, members, settled, start, wish

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.model.view import HoldView


@asynccontextmanager
async def hold(mesh: Mesh, group: str = "A"):
    """Hold a group while the block lasts; give what its holder is told."""
    told: list[HoldView] = []
    async with trio.open_nursery() as nursery:

        async def follow() -> None:
            async for view in mesh.master.hold(group):
                told.append(view)  # noqa: PERF401 - one by one, as they come

        nursery.start_soon(follow)
        await until(lambda: told)
        yield told
        nursery.cancel_scope.cancel()


def names(view: HoldView) -> list[str]:
    return [one.name for one in view.members]


async def test_nothing_of_ours_changes_a_held_group(autojump_clock) -> None:
    """Shows: E3."""
    async with open_mesh("A", "B") as mesh:
        await start(mesh, 1, 2, 3, 4)
        await settled(mesh, A=2, B=2)
        before = members(mesh, "A")
        other = members(mesh, "B")[0]

        async with hold(mesh) as told:
            assert mesh.master.groups()[0].held == 1
            mesh.master.set_group(A, wish(min=0, max=1))
            mesh.master.set_group(B, wish(min=3))
            await start(mesh, 5)
            await settled(mesh, A=2, B=3)
            mesh.master.set_group(A, wish(min=5, max=None, weight=9))
            mesh.master.set_group(A, wish(require="cores >= 99"))
            for worker, group in ((before[0], B), (other, A)):
                with pytest.raises(RefusedError, match="A is held as it is"):
                    await mesh.master.move(worker, group)
            await settled(mesh, A=2, B=3)

            assert [names(view) for view in told] == [list(before)]
            assert members(mesh, "A") == before
            (first, _) = told[0].members
            assert (first.label, first.address) == (f"{first.name}.1", "10.0.0.2")
            mesh.master.set_group(A, wish(require="", weight=1))

        assert mesh.master.groups()[0].held == 0
        mesh.master.set_group(A, wish(min=0, max=1))
        await settled(mesh, A=1, B=4)


async def test_the_holder_is_told_at_once_of_who_is_lost_or_leaves(
    autojump_clock,
) -> None:
    async with open_mesh("A") as mesh:
        await start(mesh, 1, 2, 3)
        await until(lambda: counts(mesh) == {"A": 3})

        async with hold(mesh) as told:
            began = trio.current_time()
            mesh.segment.cut.add(mesh.machines["office-2"].ip)
            await until(lambda: len(told) == 2)
            assert trio.current_time() - began < limits.LOST_AFTER + 1
            await mesh.master.drain(("office-1",), by_after=1.0, haste=Haste.NOW)
            await until(lambda: len(told) == 3)

    expected = [["office-1", "office-2", "office-3"], ["office-1", "office-3"]]
    assert [names(view) for view in told] == [*expected, ["office-3"]]


async def test_a_hold_ends_with_its_group(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        await start(mesh, 1)
        await until(lambda: counts(mesh) == {"A": 1})
        with pytest.raises(UnknownNameError):
            await anext(mesh.master.hold("C"))

        views = mesh.master.hold(A)
        await anext(views)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mesh.master.close_group, A)
            with pytest.raises((EngineError, UnknownNameError)):
                while True:
                    await anext(views)

        assert not mesh.master.sharing.holders(A)


async def test_two_may_hold_one_group(autojump_clock) -> None:
    async with open_mesh("A", "B") as mesh:
        await start(mesh, 1, 2)
        await settled(mesh, A=1, B=1)
        async with hold(mesh):
            async with hold(mesh):
                assert mesh.master.groups()[0].held == 2
            mesh.master.set_group(A, wish(min=0))
            mesh.master.set_group(B, wish(min=2))
            await settled(mesh, A=1, B=1)

        await settled(mesh, A=0, B=2)


async def test_a_held_group_gives_no_worker_to_another_master(autojump_clock) -> None:
    async with (
        open_mesh("A") as mesh,
        second_master(mesh, "10.0.1.1", "B") as mary,
    ):
        await three_workers(mesh, mary)
        async with hold(mesh):
            work(mesh, A, on=0)  # for all that the engine knows
            await trio.sleep(120)
            assert [len(them) for them in held(mesh, mary)] == [3, 0]

        await until(lambda: len(held(mesh, mary)[1]) == 1)


# --- through the control API --------------------------------------------------


async def test_a_client_holds_a_group_as_long_as_it_likes(tmp_path: Path):
    api = MemoryControl(members={"o-1": "A", "o-2": "A"}, engines={"A": "command"})
    async with served(api, tmp_path):
        mesh = ClientMesh(tmp_path)
        holding = await asked(mesh.hold, "A")
        with holding:
            assert [one.name for one in holding.members] == ["o-1", "o-2"]
            assert (await asked(mesh.groups))[0].held == 1
            changes = holding.changes()
            api.members["o-2"] = None
            api.tell("worker.lost", "o-2 is lost")
            assert names(await asked(next, changes)) == ["o-1"]

        with trio.fail_after(10):
            while api.held["A"]:
                await trio.sleep(0.01)
        with pytest.raises(UnknownNameError):
            await asked(mesh.hold, "C")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_a_hold_ends_with_its_client(tmp_path: Path, number: signal.Signals):
    api = MemoryControl(members={"office-1": "A"}, engines={"A": "command"})
    async with served(api, tmp_path):
        argv = [sys.executable, "-m", "aemesh", "--state", str(tmp_path)]
        argv += ["group", "hold", "A", "--json"]
        with trio.fail_after(20):
            process = await trio.lowlevel.open_process(argv, stdout=subprocess.PIPE)
            assert process.stdout is not None
            assert b'"name":"office-1"' in await process.stdout.receive_some()
            assert api.held["A"] == 1
            shown = await asked(ClientMesh(tmp_path).group_status, "A")
            assert shown.group.held == 1
            os.kill(process.pid, number)
            while api.held["A"]:
                await trio.sleep(0.01)
            await process.wait()
            await process.stdout.aclose()
