"""The user's identity in the jobs of a group, from the master to the worker."""

from __future__ import annotations

import pytest
import trio

from aemesh.errors import SettingsError
from aemesh.master.delegation import Delegation
from aemesh.master.delegations import Delegations
from aemesh.model.group import MemberState
from aemesh.model.job import PROXY_FILE
from aemesh.model.names import GroupName
from aemesh.model.view import Delegate
from aemesh.testing.user_credential import make_grid
from tests.roles.mesh import open_mesh

A = GroupName("A")
GRID = make_grid(now=1.7e9)


async def test_jobs_of_a_master_that_delegates_get_the_identity(autojump_clock) -> None:
    """Shows: T9."""
    async with open_mesh("A", delegation=Delegation(GRID.user, 3600.0)) as mesh:
        machine = await mesh.start_worker("office-1")
        await mesh.wait_event("worker.joined")

        (job,) = machine.jobs.running
        pem = job.tls[PROXY_FILE]
        # Proxy, key, and the rest of the chain, as tools of grids want it.
        kinds = [line for line in pem.splitlines() if line.startswith(b"-----BEGIN")]
        assert kinds == [
            b"-----BEGIN CERTIFICATE-----",
            b"-----BEGIN RSA PRIVATE KEY-----",
            b"-----BEGIN CERTIFICATE-----",
        ]


async def test_without_being_asked_nothing_is_handed_on(autojump_clock) -> None:
    """Shows: T9."""
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await mesh.wait_event("worker.joined")
        (job,) = machine.jobs.running
        assert PROXY_FILE not in job.tls


async def test_a_group_starts_anew_with_the_identity_and_without(
    autojump_clock, tmp_path
) -> None:
    """Shows: T9."""
    source = str(GRID.write(tmp_path))
    async with open_mesh("A") as mesh:
        machines = [await mesh.start_worker(f"office-{n}") for n in range(2)]
        for n in range(2):
            await mesh.wait_state(f"office-{n}", MemberState.LEASED)

        async def wait_all(*, have: bool) -> None:
            with trio.fail_after(60):
                while not all(
                    [PROXY_FILE in j.tls for j in m.jobs.running] == [have]
                    for m in machines
                ):
                    await trio.sleep(0.05)

        await wait_all(have=False)
        told = mesh.master.delegate(A, Delegate(life_after=3600.0, source=source))
        assert "Alice" in told.subject
        await wait_all(have=True)
        mesh.master.delegate(A, Delegate(life_after=0.0))
        await wait_all(have=False)


async def test_one_command_gets_the_identity_and_the_group_does_not(
    autojump_clock, tmp_path
) -> None:
    """Shows: T9."""
    wish = Delegate(life_after=3600.0, source=str(GRID.write(tmp_path)))
    async with open_mesh("A") as mesh:
        machine = await mesh.start_worker("office-1")
        await mesh.wait_event("worker.joined")
        said = mesh.master.exec(A, ("echo", "hello"), {}, delegate=wish)
        codes = [piece.code async for piece in said]
        assert codes[-1] == 0
        node, command = machine.jobs.jobs.values()
        assert PROXY_FILE not in node.tls
        assert PROXY_FILE in command.tls


async def test_the_end_of_a_script_brings_back_what_was_before(
    autojump_clock, tmp_path
) -> None:
    source = str(GRID.write(tmp_path))
    before = Delegation(GRID.user, 3600.0)
    async with open_mesh("A", delegation=before) as mesh:
        group = mesh.master._groups[A]
        mesh.master.delegate(A, Delegate(life_after=60.0, source=source, lasting=False))
        during = group.delegation
        mesh.master.delegate(A, Delegate(life_after=0.0, lasting=False))
        after = group.delegation
        mesh.master.delegate(A, Delegate(life_after=0.0))

        assert during is not None
        assert during.life_after == 60.0
        assert after is before
        assert group.delegation is None, "off is off"


async def test_nothing_is_handed_on_where_nobody_is_authenticated(
    autojump_clock, tmp_path
) -> None:
    wish = Delegate(life_after=60.0, source=str(GRID.write(tmp_path)))
    async with open_mesh("A") as mesh:
        mesh.master._delegations = Delegations("open", None)

        with pytest.raises(SettingsError, match="mode open"):
            mesh.master.delegate(A, wish)
