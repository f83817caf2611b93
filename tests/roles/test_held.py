"""What a worker does for the master that holds it, when things cross."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from aemesh import limits
from aemesh.errors import BadMessage, RefusedError
from aemesh.model.key import KeyId
from aemesh.model.names import JobId
from aemesh.policy.lease import Tenancy
from aemesh.protocol import wire
from aemesh.testing.memory_jobs import MemoryJob, MemoryJobs
from aemesh.worker.held import Held

WORKER, DESK, OTHER = (KeyId(bytes([n]) * 32) for n in range(3))


class SlowJob(MemoryJob):
    """A job that takes its time to end."""

    async def end(self, *, term_after):
        await trio.sleep(term_after)
        return await super().end(term_after=term_after)


class SlowJobs(MemoryJobs):
    """Jobs that take a second to come up."""

    async def start(self, job_id, spec, *, tls=None, answer=None):
        await trio.sleep(1)
        job = self.jobs[job_id] = SlowJob(spec, tls or {})
        return job


@asynccontextmanager
async def open_held():
    jobs = SlowJobs()
    remembered: list[int] = []
    held = Held(Tenancy(WORKER), jobs, remembered.append)
    async with trio.open_nursery() as nursery:
        held.crew = nursery
        yield held, jobs
        held.tenancy.check()
        nursery.cancel_scope.cancel()
    assert remembered == sorted(remembered)


@asynccontextmanager
async def starting(held: Held, job: str):
    """Let a job be on its way up meanwhile; its order is refused in the end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_refused, held, start(job, 1))
        await trio.testing.wait_all_tasks_blocked()
        yield


def assign(generation: int, group: str = "A") -> wire.Assign:
    return wire.Assign(group=group, generation=generation)


def start(job: str, generation: int) -> wire.Start:
    return wire.Start(job=job, generation=generation, argv=("sleep",))


def release(generation: int) -> wire.Release:
    return wire.Release(generation=generation, term_after=2.0)


async def test_a_job_runs_under_its_lease_and_ends_with_it(autojump_clock):
    async with open_held() as (held, jobs):
        assert isinstance(await held.handle(DESK, assign(1)), wire.Assigned)
        await held.handle(DESK, start("j1", 1))
        assert len(jobs.running) == 1

        assert await held.handle(DESK, release(1)) == wire.Done()

        assert jobs.running == []
        assert held.tenancy.lease is None


@pytest.mark.parametrize(
    ("master", "body"),
    [
        (OTHER, assign(2)),
        (OTHER, start("j2", 1)),
        (OTHER, wire.End(job="j1", term_after=0.0)),
        (DESK, start("j2", 0)),
        (DESK, start("j2", 2)),
        (DESK, start("j1", 1)),
        (DESK, assign(1)),
    ],
)
async def test_what_is_late_or_of_another_master_is_refused(
    autojump_clock, master, body
):
    async with open_held() as (held, jobs):
        await held.handle(DESK, assign(1))
        await held.handle(DESK, start("j1", 1))

        with pytest.raises(RefusedError):
            await held.handle(master, body)

        assert len(jobs.running) == 1
        held.tenancy.check()


@pytest.mark.parametrize(
    "body",
    [assign(1, "../etc"), wire.End(job="-rf", term_after=0.0), assign(1, "a b")],
)
async def test_a_name_that_is_none_is_a_bad_message(autojump_clock, body):
    async with open_held() as (held, _):
        with pytest.raises(BadMessage):
            await held.handle(DESK, body)


async def test_a_lease_that_is_assigned_again_is_no_turn_of_others(autojump_clock):
    """Shows: G5; its jobs have ended, and what is late is refused."""
    async with open_held() as (held, jobs):
        await held.handle(DESK, assign(1))
        await held.handle(DESK, start("j1", 1))

        body = wire.Release(generation=1, term_after=2.0, again=True)
        assert await held.handle(DESK, body) == wire.Done()
        assert jobs.running == []
        with pytest.raises(RefusedError):
            await held.handle(DESK, start("j2", 1))
        with pytest.raises(RefusedError):
            await held.handle(OTHER, assign(2, "B"))
        await held.handle(DESK, assign(2, "C"))
        await held.handle(DESK, start("j2", 2))

        assert len(jobs.running) == 1


async def test_a_release_of_another_master_ends_nothing(autojump_clock):
    async with open_held() as (held, jobs):
        await held.handle(DESK, assign(1))
        await held.handle(DESK, start("j1", 1))

        assert await held.handle(OTHER, release(1)) == wire.Done()
        assert await held.handle(DESK, release(0)) == wire.Done()

        assert len(jobs.running) == 1


async def test_a_release_that_overtakes_a_start_leaves_no_job(autojump_clock):
    async with open_held() as (held, jobs):
        await held.handle(DESK, assign(1))

        async with starting(held, "j1"):
            await held.handle(DESK, release(1))

        assert jobs.running == []


async def test_an_end_that_overtakes_a_start_leaves_no_job(autojump_clock):
    """Whoever asked for it was cancelled, and nobody will attach to it."""
    async with open_held() as (held, jobs):
        await held.handle(DESK, assign(1))

        async with starting(held, "j1"):
            with pytest.raises(RefusedError):
                await held.handle(OTHER, wire.End(job="j1", term_after=0.0))
            await held.handle(DESK, wire.End(job="j1", term_after=0.0))

        assert jobs.running == []
        await held.handle(DESK, start("j1", 1))
        assert len(jobs.running) == 1


async def test_what_starts_under_an_old_lease_does_not_come_up_beside_the_new(
    autojump_clock,
):
    async with open_held() as (held, jobs):
        await held.handle(DESK, assign(1))
        async with starting(held, "j1"):
            await held.handle(DESK, assign(2))
            assert jobs.running == []
            await held.handle(DESK, start("j1", 2))

        assert len(jobs.running) == 1


async def test_two_starts_of_one_job_run_it_once(autojump_clock):
    async with open_held() as (held, _):
        await held.handle(DESK, assign(1))
        outcomes = []

        async def one():
            try:
                outcomes.append(await held.handle(DESK, start("j1", 1)))
            except RefusedError:
                outcomes.append(None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)

        assert outcomes.count(None) == 1


async def test_a_lease_that_comes_while_the_old_one_ends_is_kept(autojump_clock):
    """A master that was cut off is back before its old jobs have ended."""
    async with open_held() as (held, jobs):
        await held.handle(DESK, assign(1))
        await held.handle(DESK, start("old", 1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(held.let_go, 2.0)
            await trio.sleep(0.5)
            assert isinstance(await held.handle(DESK, assign(2)), wire.Assigned)
            assert jobs.running == []  # nothing of the old one lives beside the new
            await held.handle(DESK, start("new", 2))
        await trio.testing.wait_all_tasks_blocked()

        assert held.tenancy.holds(DESK, 2)
        assert [job.exit for job in jobs.running] == [None]
        await held.handle(DESK, release(2))
        assert jobs.running == []


async def test_a_worker_that_is_let_go_takes_no_further_job(autojump_clock):
    async with open_held() as (held, jobs):
        await held.handle(DESK, assign(1))
        await held.handle(DESK, start("j1", 1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(held.let_go, 2.0)
            await trio.sleep(0.5)
            await _refused(held, start("j2", 1))

        assert jobs.running == []


async def test_an_older_assignment_that_is_overtaken_is_refused(autojump_clock):
    async with open_held() as (held, _):
        await held.handle(DESK, assign(1))
        await held.handle(DESK, start("j1", 1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_refused, held, assign(2))
            await trio.testing.wait_all_tasks_blocked()
            await held.handle(DESK, assign(3))

        assert held.tenancy.holds(DESK, 3)


async def test_a_job_that_nobody_attaches_to_is_ended(autojump_clock):
    async with open_held() as (held, jobs):
        await held.handle(DESK, assign(1))
        await held.handle(DESK, start("j1", 1))
        await trio.sleep(limits.ATTACH_AFTER + 1)

        assert jobs.running == []
        with pytest.raises(RefusedError):
            held.leased.attach(DESK, JobId("j1"))


async def test_a_job_is_attached_once_and_by_its_master(autojump_clock):
    async with open_held() as (held, jobs):
        await held.handle(DESK, assign(1))
        await held.handle(DESK, start("j1", 1))

        with pytest.raises(RefusedError):
            held.leased.attach(OTHER, JobId("j1"))
        assert held.leased.attach(DESK, JobId("j1")).job is jobs.running[0]
        with pytest.raises(RefusedError):
            held.leased.attach(DESK, JobId("j1"))


async def test_what_is_no_command_is_unsupported(autojump_clock):
    async with open_held() as (held, _):
        answer = await held.handle(DESK, wire.Left(moved=0, lost=0))

    assert answer == wire.Unsupported(what="left")


async def _refused(held: Held, body: wire.Body) -> None:
    with pytest.raises(RefusedError):
        await held.handle(DESK, body)
