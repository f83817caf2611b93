"""A person's commands on single members, through a whole mesh in memory."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from aemesh import limits
from aemesh.errors import EngineError, NotBegunError, UnknownNameError, UsageError
from aemesh.host.keys.keystore import Identity
from aemesh.master.commands import select
from aemesh.model.group import Haste, MemberState, Receipt
from aemesh.model.job import JobExit, JobSpec
from aemesh.model.names import GroupName
from aemesh.plugin import Job
from tests.roles.mesh import Mesh, open_mesh, wall
from tests.roles.test_mesh import A, serving

CAT = JobSpec(argv=("cat",))


async def with_members(mesh: Mesh, *names: str) -> None:
    for name in names:
        await mesh.start_worker(name)
        await serving(mesh, name, "A")


async def test_a_member_is_named_by_what_people_know_of_it(autojump_clock) -> None:
    """Shows: E4."""
    async with open_mesh("A") as mesh:
        await with_members(mesh, "office-1", "office-2")
        two = mesh.machines["office-2"]

        for worker in ("office-2", "office-2.1", two.ip, str(two.identity.key_id)):
            job = await mesh.master.start_job(None, worker, CAT)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(job.wait)
                await job.send(worker.encode())
                await job.close_input()
                said = [chunk.data async for chunk in job.output()]
            assert said == [worker.encode()]

        assert len(two.jobs.jobs) == 5  # and that of the engine
        assert len(mesh.machines["office-1"].jobs.jobs) == 1


def labels(mesh: Mesh) -> list[str]:
    """Return the labels of members: who comes anew has a new one."""
    return [one.label for one in mesh.engine.running[A].members.values()]


async def test_who_is_no_member_runs_nothing(autojump_clock) -> None:
    async with open_mesh("A", "B") as mesh:
        await with_members(mesh, "office-1")

        for group in (None, A):
            with pytest.raises(UnknownNameError, match="known: office-1"):
                await mesh.master.start_job(group, "office-9", CAT)
        with pytest.raises(UnknownNameError):
            await mesh.master.start_job(GroupName("B"), "office-1", CAT)
        with pytest.raises(EngineError, match="no such program"):
            await mesh.master.start_job(A, "office-1", JobSpec(argv=("nonsense",)))


async def test_all_that_two_clients_start_at_once_is_let_in(autojump_clock) -> None:
    """Streams of a trusted master are no strangers at the door of its worker."""
    count = 2 * limits.STARTS_AT_ONCE
    async with open_mesh("A") as mesh:
        await with_members(mesh, "office-1")
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(mesh.master.start_job, A, "office-1", CAT)

        jobs = mesh.machines["office-1"].jobs
        assert len(jobs.running) == 1 + count


@pytest.mark.parametrize(
    ("bound", "most"),
    [("JOBS_PER_WORKER", 3), ("REQUESTS_IN_FLIGHT", 1), ("LINKED_PER_SOURCE", 1)],
)
async def test_a_start_too_many_is_told_apart_from_a_command_that_failed(
    autojump_clock, monkeypatch, bound: str, most: int
) -> None:
    """Whoever asked may ask again: nothing is left of it."""
    not_begun = 0

    async def start() -> None:
        nonlocal not_begun
        try:
            await mesh.master.start_job(A, "office-1", CAT)
        except NotBegunError:
            not_begun += 1

    async with open_mesh("A") as mesh:
        await with_members(mesh, "office-1")
        monkeypatch.setattr(limits, bound, most)
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(start)
        await trio.sleep(limits.ATTACH_AFTER)

        assert 0 < not_begun < 8
        assert len(mesh.machines["office-1"].jobs.running) == 1 + 8 - not_begun
        assert mesh.master.workers()[0].group == "A"


def test_of_two_workers_of_one_name_the_label_tells() -> None:
    first = member("office-1", label="office-1.1", address="10.0.0.2")
    second = member("office-1", label="office-1.2", address="10.0.0.3")
    both: list[Any] = [second, first]

    with pytest.raises(UsageError, match='two workers are called "office-1"') as no:
        select(both, "office-1")
    assert no.value.hint is not None
    assert "office-1.1, office-1.2" in no.value.hint
    assert select(both, "office-1.2") is second
    assert select(both, "10.0.0.3") is second


def test_of_two_workers_at_one_address_either_does() -> None:
    first = member("a", label="a.1", address="10.0.0.2")
    second = member("b", label="b.1", address="10.0.0.2")

    assert select([second, first], "10.0.0.2") is first


def member(name: str, *, label: str, address: str) -> Any:
    peer = SimpleNamespace(key_id=Identity.ephemeral(name).key_id)
    link = SimpleNamespace(peer=peer)
    return SimpleNamespace(name=name, label=label, address=address, link=link)


async def test_a_job_on_a_lost_member_ends_and_says_so(autojump_clock) -> None:
    """A machine that is cut off closes no connection."""
    async with open_mesh("A") as mesh:
        await with_members(mesh, "office-1")
        job = await mesh.master.start_job(A, "office-1", CAT)
        exits: list[JobExit] = []

        async def follow() -> None:
            async for _ in job.output():
                pass
            exits.append(await job.wait())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            began = trio.current_time()
            mesh.segment.cut.add(mesh.machines["office-1"].ip)

        assert trio.current_time() - began < limits.LOST_AFTER + 1
        assert exits[0].code == -1
        assert "office-1 fell silent" in exits[0].reason


@pytest.mark.parametrize("size", [0, 600_000])
async def test_a_client_that_goes_while_its_job_starts_costs_no_member(
    autojump_clock, size: int
) -> None:
    """Whenever it goes: the worker serves on, and the job ends soon, if it began."""
    spec = JobSpec(argv=("sleep",), files={"data": bytes(size)})
    async with open_mesh("A") as mesh:
        await with_members(mesh, "office-1")
        jobs = mesh.machines["office-1"].jobs
        before = labels(mesh)
        for ticks in itertools.count():
            started = None
            async with trio.open_nursery() as nursery:

                async def start() -> None:
                    nonlocal started
                    started = await mesh.master.start_job(A, "office-1", spec)

                nursery.start_soon(start)
                for _ in range(ticks):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            if started is not None:
                break
            await trio.sleep(2 * limits.TERM_AFTER)
            assert len(jobs.running) == 1  # the engine's
            assert labels(mesh) == before

        assert ticks > 10
        assert len(jobs.jobs) > 2  # some began


async def test_exec_runs_on_named_members_alone(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        await with_members(mesh, "office-1", "office-2", "office-3")

        argv, wanted = ("echo", "hello"), ("office-3", "office-1", "office-3")
        said = [o async for o in mesh.master.exec(A, argv, {}, workers=wanted)]
        with pytest.raises(UnknownNameError):
            _ = [o async for o in mesh.master.exec(A, argv, {}, workers=("x",))]

        exits = sorted(one.worker for one in said if one.code == 0)
        assert exits == ["office-1", "office-3"]


async def command_on(mesh: Mesh, name: str, exits: list[JobExit]) -> Job:
    """Run a command that goes on until its input is closed; note how it ends."""
    job = await mesh.master.start_job(A, name, CAT)

    async def follow() -> None:
        async for _ in job.output():
            pass
        exits.append(await job.wait())

    mesh.nursery.start_soon(follow)
    return job


async def test_who_leaves_lets_commands_go_on_until_then_and_begins_none(
    autojump_clock,
) -> None:
    """Shows: E4."""
    async with open_mesh("A") as mesh:
        await with_members(mesh, "office-1", "office-2")
        exits: list[JobExit] = []
        job = await command_on(mesh, "office-1", exits)
        receipts: list[Receipt] = []

        async def drain() -> None:
            receipts.extend(
                await mesh.master.drain(("office-1",), by_after=60.0, haste=Haste.SOON)
            )

        mesh.nursery.start_soon(drain)
        await trio.sleep(5)
        assert exits == []
        with pytest.raises(UnknownNameError, match="known: office-2"):
            await mesh.master.start_job(A, "office-1", CAT)
        await job.close_input()
        await trio.sleep(1)

        assert [one.code for one in exits] == [0]
        (receipt,) = receipts
        assert (receipt.finished, receipt.restarted) == (1, 0)
        assert receipt.took_after == pytest.approx(5.0, abs=0.5)


async def test_what_is_not_over_then_is_cut_off_and_counted(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        await with_members(mesh, "office-1", "office-2")
        exits: list[JobExit] = []
        await command_on(mesh, "office-1", exits)

        (receipt,) = await mesh.master.drain(
            ("office-1",), by_after=60.0, haste=Haste.SOON
        )

        await trio.sleep(1)
        assert len(exits) == 1
        assert (receipt.finished, receipt.restarted) == (0, 1)
        history = mesh.master.events(0, follow=False)
        (told,) = [one async for one in history if one.kind == "worker.retired"]
        assert told.group == "A"
        assert told.text.endswith("1 cut off, in 60.0 s")
        assert receipt.took_after == pytest.approx(60.0, abs=1.0)


async def test_a_group_that_is_closed_ends_its_commands_at_once(autojump_clock) -> None:
    async with open_mesh("A") as mesh:
        await with_members(mesh, "office-1")
        exits: list[JobExit] = []
        await command_on(mesh, "office-1", exits)

        began = trio.current_time()
        await mesh.master.close_group(A)

        assert trio.current_time() - began < 1.0
        await trio.sleep(1)
        assert len(exits) == 1


async def test_a_leave_that_is_called_off_lets_commands_begin_again(
    autojump_clock,
) -> None:
    async with open_mesh("A") as mesh:
        await with_members(mesh, "office-1", "office-2")
        exits: list[JobExit] = []
        await command_on(mesh, "office-1", exits)
        worker = mesh.machines["office-1"].worker
        assert worker is not None
        worker.parting.agree(wall() + 60.0, Haste.SOON, "lunch")
        await mesh.wait_state("office-1", MemberState.DRAINING)

        worker.parting.call_off()
        await mesh.wait_state("office-1", MemberState.LEASED)

        await command_on(mesh, "office-1", exits)
        assert exits == []
