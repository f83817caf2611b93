"""Masters say what workers do well to have warm, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from aemesh.errors import RequestFailedError, UsageError
from aemesh.master.control_wire import SetGroup
from aemesh.model.group import MemberState
from aemesh.model.job import NodeKind
from aemesh.model.names import GroupName
from aemesh.protocol import wire
from tests.roles.mesh import open_mesh
from tests.roles.test_masters import second_master, trusts

A, B = GroupName("A"), GroupName("B")
PLAIN = NodeKind("memory")


@dataclass
class Oven:
    """Notes what is wanted warm, and tells what a test says."""

    wanted: list[NodeKind] = field(default_factory=list)
    spares: tuple[int, int] = (0, 0)
    changed: trio.Event = field(default_factory=trio.Event)

    def told(self) -> tuple[int, int]:
        return self.spares

    def plain(self) -> tuple[NodeKind, ...]:
        return (PLAIN,)

    def want(self, kinds: Sequence[NodeKind]) -> None:
        self.wanted = list(kinds)

    def tell(self, number: int, memory: int) -> None:
        self.spares = number, memory
        self.changed.set()
        self.changed = trio.Event()


def kind(*preload: str) -> NodeKind:
    return NodeKind("memory", preload)


async def test_a_worker_is_told_what_the_groups_import_to_which_it_may_go(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Shows: L4."""
    async with open_mesh("A", "B", "C") as mesh:
        oven = Oven()
        await mesh.start_worker("office-1", warm=oven, groups=frozenset((A, B)))
        await mesh.wait_state("office-1", MemberState.LEASED)
        here = (await mesh.wait_state("office-1", MemberState.LEASED)).group
        there = A if here == B else B
        await trio.sleep(1)
        assert oven.wanted == [PLAIN]

        mesh.master.set_group(there, SetGroup(preload=("array", "wave.form")).on)
        await trio.sleep(1)
        assert oven.wanted == [kind("array", "wave.form"), PLAIN]

        await mesh.master.move("office-1", there)  # the likeliest is the other one now
        await trio.sleep(1)
        assert oven.wanted == [PLAIN, kind("array", "wave.form")]

        mesh.master.set_group(there, SetGroup(preload=()).on)
        await trio.sleep(1)
        assert oven.wanted == [PLAIN]


async def test_the_wishes_of_another_master_come_last_and_go_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Shows: L4."""
    async with open_mesh("A") as mesh:
        mesh.master.set_group(A, SetGroup(preload=("array",)).on)
        oven = Oven()
        async with second_master(mesh, "10.0.1.1", "A") as other:
            policy = trusts(mesh.master_id, other.identity)
            machine = await mesh.start_worker("office-1", policy=policy, warm=oven)
            await mesh.wait_state("office-1", MemberState.LEASED)
            other.master.set_group(A, SetGroup(preload=("wave",)).on)
            other.hear(machine)
            await trio.sleep(5)
            assert oven.wanted == [kind("array"), kind("wave")]
        await trio.sleep(5)
        assert oven.wanted == [kind("array")]


async def test_what_spares_take_is_shown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Shows: L4."""
    async with open_mesh("A") as mesh:
        oven = Oven()
        await mesh.start_worker("office-1", warm=oven)
        await mesh.wait_state("office-1", MemberState.LEASED)
        oven.tell(2, 90 * 2**20)
        await trio.sleep(1)

        (view,) = mesh.master.workers()
    assert (view.spares, view.spare_memory) == (2, 90 * 2**20)


async def test_a_holder_that_names_no_modules_has_plain_nodes_before_what_others_name(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Shows: L4."""
    async with open_mesh("A") as mesh:
        oven = Oven()
        async with second_master(mesh, "10.0.1.1", "A") as other:
            policy = trusts(mesh.master_id, other.identity)
            machine = await mesh.start_worker("office-1", policy=policy, warm=oven)
            await mesh.wait_state("office-1", MemberState.LEASED)
            other.master.set_group(A, SetGroup(preload=("wave",)).on)
            other.hear(machine)
            await trio.sleep(5)

            assert oven.wanted == [PLAIN, kind("wave")]


@pytest.mark.parametrize("module", ["", "a b", "../a", ".a", "a;b", "ä", "a" * 101])
async def test_a_master_names_modules_and_nothing_else(
    module: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Shows: L4."""
    async with open_mesh("A") as mesh:
        oven = Oven()
        machine = await mesh.start_worker("office-1", warm=oven)
        await mesh.wait_state("office-1", MemberState.LEASED)
        link = mesh.master.roster.records[machine.identity.key_id].link
        assert link is not None
        if 0 < len(module) <= 100:
            bad = wire.Warm(kinds=(wire.WarmKind(engine="memory", preload=(module,)),))
            with pytest.raises(RequestFailedError, match="module"):
                await link.request(bad, wire.Done)
        with pytest.raises(UsageError, match="module"):
            mesh.master.set_group(A, SetGroup(preload=(module,)).on)
    assert oven.wanted == [PLAIN]
