"""Ports of members that connections do not come through to, in a mesh in memory."""

from __future__ import annotations

import pytest
import trio

from aemesh.errors import EngineError
from aemesh.master.reach import MemberReach
from aemesh.master.remote import RemoteMember
from aemesh.model.address import Address, Seed
from aemesh.model.group import Haste, MemberState
from aemesh.model.machine import Forward
from aemesh.model.names import GroupName
from aemesh.net.transport import Connection
from aemesh.testing.memory_network import MemoryNetwork
from tests.roles.mesh import PORT, Machine, Mesh, open_mesh

SEED = Seed("10.0.0.1", PORT)
ENGINE = 5000  # a port of the engine on the worker


async def start(
    mesh: Mesh, name: str, *, closed: bool, forward: Forward = Forward.AUTO
) -> Machine:
    """Start a worker that dials its master, perhaps because nobody dials it."""
    if not closed:
        machine = await mesh.start_worker(name, forward=forward)
    else:
        machine = await mesh.start_worker(
            name, announce=False, seeds=(SEED,), forward=forward
        )
        mesh.segment.closed.add(machine.ip)
    await mesh.wait_state(name, MemberState.LEASED)
    return machine


async def member(mesh: Mesh, name: str) -> RemoteMember:
    """Return a member as its engine has it, once it serves."""
    with trio.fail_after(60):
        while True:
            for one in mesh.engine.running[GroupName("A")].members.values():
                if one.name == name:
                    assert isinstance(one, RemoteMember)
                    return one
            await trio.sleep(0.05)


async def echo(connection: Connection) -> None:
    async with connection.stream as stream:
        async for data in stream:
            await stream.send_all(data)


async def listen(mesh: Mesh, machine: Machine) -> None:
    """Let a job of the machine listen, and say again what it hears."""
    host = mesh.segment.host(machine.ip)
    machine.jobs.listening[ENGINE] = machine.ip
    await mesh.nursery.start(lambda task_status: serve(host, task_status))


async def serve(host: MemoryNetwork, task_status: trio.TaskStatus[int]) -> None:
    await host.serve(echo, port=ENGINE, task_status=task_status)


async def test_an_open_worker_is_reached_at_its_own_address(autojump_clock) -> None:
    """Shows: E7; nothing is carried."""
    async with open_mesh("A", port=PORT) as mesh:
        machine = await start(mesh, "office-1", closed=False)
        one = await member(mesh, "office-1")

        assert await one.reach(ENGINE) == f"{machine.ip}:{ENGINE}"

        (view,) = mesh.master.workers()
        assert view.ports is not None
        assert (view.ports.way, view.ports.bytes) == ("direct", 0)


async def test_a_closed_worker_is_reached_through_its_master(autojump_clock) -> None:
    """Shows: E7; both ways, and until the lease is over."""
    async with open_mesh("A", port=PORT) as mesh:
        machine = await start(mesh, "office-1", closed=True)
        other = await start(mesh, "office-2", closed=False)
        one = await member(mesh, "office-1")
        await listen(mesh, machine)

        at = Address.parse_untrusted(await one.reach(ENGINE))

        assert at.host == "10.0.0.1"
        assert await one.reach(ENGINE) == str(at)
        connection = await mesh.segment.host(other.ip).dial(at)
        await connection.stream.send_all(b"hello")
        assert await connection.stream.receive_some() == b"hello"
        view = await mesh.wait_worker("office-1", lambda _: True)
        assert view.ports is not None
        assert (view.ports.way, view.ports.bytes) == ("forwarded", 10)
        assert "cannot reach" in view.ports.why

        await mesh.master.drain(("office-1",), by_after=1.0, haste=Haste.SOON)

        assert await connection.stream.receive_some() == b""  # in memory, a reset
        assert at not in mesh.segment.listeners
        with pytest.raises(EngineError):
            await one.reach(ENGINE + 1)


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("wish", [Forward.YES, Forward.NO])
async def test_what_a_worker_says_of_its_ports_counts(
    autojump_clock, wish: Forward, closed: bool
) -> None:
    """Shows: E7; its owner may know more than a probe of ours can find out."""
    async with open_mesh("A", port=PORT) as mesh:
        machine = await start(mesh, "office-1", closed=closed, forward=wish)
        one = await member(mesh, "office-1")

        at = Address.parse_untrusted(await one.reach(ENGINE))

        here, there = "10.0.0.1", machine.ip
        assert at.host == (here if wish is Forward.YES else there)
        (view,) = mesh.master.workers()
        assert view.ports is not None
        assert view.ports.why == f"its owner said --forward {wish.value}"


async def test_who_was_reached_through_another_machine_is_brought_up_anew(
    autojump_clock,
) -> None:
    """Shows: L5, E7; at the same address a successor listens again, on those ports."""
    async with open_mesh("A", port=PORT) as mesh:
        await start(mesh, "office-1", closed=True)
        ports = (await member(mesh, "office-1")).ports
        assert isinstance(ports, MemberReach)
        await ports.resume({ENGINE: 45000}, "10.0.0.1")
        assert str(await ports.reach(ENGINE)) == "10.0.0.1:45000"

        with pytest.raises(EngineError):
            await ports.resume({ENGINE + 1: 45001}, "10.0.0.77")
        with pytest.raises(EngineError):
            await ports.resume({ENGINE + 1: 45000}, "10.0.0.1")  # it is taken
