"""The jobs that run under the worker's lease: started, attached, called off, ended."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import trio

from aemesh import limits
from aemesh.errors import BusyError, RefusedError
from aemesh.worker.jobstream import JobStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping

    from aemesh.model.job import JobSpec
    from aemesh.model.key import KeyId
    from aemesh.model.names import JobId
    from aemesh.plugin import Job
    from aemesh.policy.lease import Tenancy


class Jobs(Protocol):
    """What runs jobs on this machine; `aemesh.host.jobs` or a fake."""

    async def start(
        self,
        job_id: JobId,
        spec: JobSpec,
        *,
        tls: Mapping[str, bytes] = ...,
        answer: Callable[[bytes], Awaitable[bytes]] | None = ...,
    ) -> Job:
        """Start a job, or hand out a spare; `answer` is for what it asks its agent."""

    async def listening_at(self, job_ids: Collection[JobId], port: int) -> str | None:
        """Return the address at which one of these jobs listens, if one does."""


@dataclass(slots=True)
class Running:
    """A job of the present lease, and whether its stream has come."""

    stream: JobStream
    generation: int

    @property
    def job(self) -> Job:
        """The job itself."""
        return self.stream.job


@dataclass(slots=True)
class Starting:
    """A job that was ordered, and is not up yet."""

    generation: int
    is_called_off: bool = False
    over: trio.Event = field(default_factory=trio.Event)


class LeasedJobs:
    """The table of them; each was ordered in a generation of the lease."""

    def __init__(self, tenancy: Tenancy) -> None:
        self._tenancy = tenancy
        self._running: dict[JobId, Running] = {}
        self._starting: dict[JobId, Starting] = {}

    def __repr__(self) -> str:
        return f"<LeasedJobs: {len(self._running)} run, {len(self._starting)} start>"

    @property
    def running(self) -> tuple[Running, ...]:
        """Those that are up."""
        return tuple(self._running.values())

    def ids(self, generation: int | None = None) -> tuple[JobId, ...]:
        """Return the ids of those that are up, of one generation or of all."""
        return tuple(
            job_id
            for job_id, one in self._running.items()
            if generation in (None, one.generation)
        )

    def check_room(self, job_id: JobId) -> None:
        """Raise `RefusedError` if it is there, `BusyError` if as many are as may be."""
        known = self._running.keys() | self._starting.keys()
        what = f"job {job_id} is not started"
        if job_id in known:
            raise RefusedError(what, why="it runs")
        if len(known) >= limits.JOBS_PER_WORKER:
            raise BusyError(what, why=f"{len(known)} run, and no more may")

    async def start(
        self,
        master: KeyId,
        job_id: JobId,
        generation: int,
        bring_up: Callable[[], Awaitable[JobStream]],
    ) -> Running:
        """Bring a job up, unless it is called off meanwhile, or the lease ends.

        Raises `RefusedError`, and what `bring_up` does.  Nothing is awaited before the
        job is in the table: an end that comes behind its order must meet it there.
        """
        with self._under_way(job_id, generation) as starting:
            running = Running(await bring_up(), generation)
            try:
                self._check_wanted(master, job_id, starting)
            except RefusedError:
                await running.job.end(term_after=0.0)
                raise
            self._running[job_id] = running
            return running

    async def wait_stream(self, job_id: JobId, running: Running) -> None:
        """Forget a job when it is over; end one that nobody attaches to."""
        with trio.move_on_after(limits.ATTACH_AFTER) as scope:
            await running.stream.attached.wait()
        if scope.cancelled_caught:
            await running.job.end(term_after=0.0)
        await running.job.wait()
        self._forget(job_id, running)

    def attach(self, master: KeyId, job_id: JobId) -> JobStream:
        """Return the job whose stream has come; raises `RefusedError`."""
        running = self._running.get(job_id)
        if running is None or not running.stream.is_free:
            msg = "no such job waits for a stream"
            raise RefusedError(msg)
        self._tenancy.holds(master, running.generation)
        running.stream.take()
        return running.stream

    async def end(self, master: KeyId, job_id: JobId, term_after: float) -> None:
        """End one job, or call it off while it starts; raises `RefusedError`."""
        running = self._running.get(job_id)
        if running is not None:
            self._tenancy.holds(master, running.generation)
            await running.job.end(term_after=term_after)
        elif starting := self._starting.get(job_id):
            self._tenancy.holds(master, starting.generation)
            starting.is_called_off = True

    async def end_fleeting(self, term_after: float) -> None:
        """End the jobs that do not outlive their master's absence."""
        await self._end_those(
            {k: one for k, one in self._running.items() if not one.stream.lasting},
            term_after,
        )

    async def end_all(self, term_after: float) -> None:
        """End every job that runs or starts here now, all at one time."""
        coming = tuple(self._starting.values())
        for starting in coming:
            starting.is_called_off = True
        await self._end_those(dict(self._running), term_after)
        for starting in coming:
            await starting.over.wait()

    def hang_up(self) -> None:
        """The master is out of sight: lasting jobs wait for no stream of it."""
        for running in self._running.values():
            if running.stream.lasting:
                running.stream.hang_up()

    async def _end_those(self, ending: dict[JobId, Running], term_after: float) -> None:
        async with trio.open_nursery() as nursery:
            for running in ending.values():
                nursery.start_soon(_end, running.job, term_after)
        for job_id, running in ending.items():
            self._forget(job_id, running)

    def _check_wanted(self, master: KeyId, job_id: JobId, starting: Starting) -> None:
        """Raise `RefusedError` unless all stands as when the job was ordered."""
        if starting.is_called_off:
            what = f"job {job_id} is not started"
            raise RefusedError(what, why="it was called off")
        self._tenancy.holds(master, starting.generation)

    @contextmanager
    def _under_way(self, job_id: JobId, generation: int) -> Iterator[Starting]:
        starting = self._starting[job_id] = Starting(generation)
        try:
            yield starting
        finally:
            del self._starting[job_id]
            starting.over.set()

    def _forget(self, job_id: JobId, running: Running) -> None:
        if self._running.get(job_id) is running:
            del self._running[job_id]


async def _end(job: Job, term_after: float) -> None:
    await job.end(term_after=term_after)
