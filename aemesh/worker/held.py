"""What a worker does for the master that holds it: assign, start, end, release."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import trio

from aemesh import limits
from aemesh.errors import RefusedError
from aemesh.model.job import PROXY_FILE, JobSpec
from aemesh.model.names import JobId, group_name_untrusted, job_id_untrusted
from aemesh.plugin import Job
from aemesh.protocol import wire
from aemesh.worker.delegated import DelegatedKeys
from aemesh.worker.groupkey import GroupKey, make_group_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aemesh.model.key import KeyId
    from aemesh.policy.lease import Tenancy

_log = logging.getLogger(__name__)


class Jobs(Protocol):
    """What runs jobs on this machine; `aemesh.host.jobs` or a fake."""

    async def start(
        self, job_id: JobId, spec: JobSpec, *, tls: Mapping[str, bytes] = ...
    ) -> Job:
        """Start a job, or hand out a spare that waits for just this."""


@dataclass(slots=True)
class Running:
    """A job of the present lease, and whether its stream has come."""

    job: Job
    generation: int
    attached: trio.Event = field(default_factory=trio.Event)


class Held:
    """The worker's lease and the jobs that run under it.

    Every command names its generation; `policy.lease.Tenancy` refuses what is late.
    """

    def __init__(
        self,
        tenancy: Tenancy,
        jobs: Jobs,
        remember_generation: Callable[[int], None],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.tenancy = tenancy
        self._jobs = jobs
        self._remember = remember_generation
        self._wall = wall
        self._key: GroupKey | None = None
        self._delegated = DelegatedKeys()
        self._running: dict[JobId, Running] = {}
        self.crew: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Held {self.tenancy!r}, {len(self._running)} jobs>"

    async def handle(self, master: KeyId, body: wire.Body) -> wire.Body | None:
        """Do what a master asks; raises `RefusedError` or `EngineError`."""
        handler = _HANDLERS.get(type(body))
        if handler is None:
            return wire.Unsupported(what=wire.NAMES[type(body)])
        return await handler(self, master, body)

    async def assign(self, master: KeyId, body: wire.Assign) -> wire.Body:
        """Take a lease and answer with the request for its certificate."""
        group = group_name_untrusted(body.group)
        self.tenancy.assign(master, group, body.generation)
        self._remember(body.generation)  # before it is acted on
        await self.end_jobs(limits.TERM_AFTER)  # of a generation that was cut off
        self.tenancy.holds(master, body.generation)  # still, after that time
        self._delegated.clear()
        self._key = make_group_key()
        _log.info("serves group %s in generation %d", group, body.generation)
        return wire.Assigned(csr=self._key.csr_pem)

    async def delegate(self, master: KeyId, body: wire.Delegate) -> wire.Body:
        """Make a key for the user's identity in a job of the lease."""
        self.tenancy.holds(master, body.generation)
        job_id = job_id_untrusted(body.job)
        csr = self._delegated.request(job_id, body.generation)
        return wire.Delegated(csr=csr)

    async def start(self, master: KeyId, body: wire.Start) -> wire.Body:
        """Start a job of the lease."""
        self.tenancy.holds(master, body.generation)
        job_id = job_id_untrusted(body.job)
        if job_id in self._running or len(self._running) >= limits.JOBS_PER_WORKER:
            what = f"job {job_id} is not started"
            raise RefusedError(what, why="it runs, or too many do")
        spec = JobSpec(argv=body.argv, env=body.env, files=body.files, tls=body.tls)
        files = {**self._tls_files(body), **self._proxy_file(job_id, body)}
        job = await self._jobs.start(job_id, spec, tls=files)
        running = Running(job, body.generation)
        await self._take_in(master, job_id, running)
        assert self.crew is not None, "commands come while the worker runs"
        self.crew.start_soon(self._await_stream, job_id, running)
        return wire.Started()

    async def end(self, master: KeyId, body: wire.End) -> wire.Body:
        """End one job."""
        running = self._running.get(job_id_untrusted(body.job))
        if running is not None:
            self.tenancy.holds(master, running.generation)
            await running.job.end(term_after=_bounded(body.term_after))
        return wire.Done()

    async def release(self, master: KeyId, body: wire.Release) -> wire.Body:
        """End the lease's jobs and give it back."""
        lease = self.tenancy.lease
        if lease and lease.master == master and lease.generation == body.generation:
            await self.let_go(_bounded(body.term_after))
        return wire.Done()

    async def let_go(self, term_after: float) -> None:
        """Forget the lease and its key, and end all jobs."""
        # The lease goes first: whoever takes the next one while jobs end here waits
        # for their end in `assign`, and must not lose it to us.
        lease = self.tenancy.lease
        self._key = None
        self._delegated.clear()
        if lease is not None:
            self.tenancy.release(lease.master, lease.generation)
        await self.end_jobs(term_after)
        if lease is not None:
            _log.info("left group %s", lease.group)

    async def end_jobs(self, term_after: float) -> None:
        """End every job that runs here now, all at one time."""
        ending = dict(self._running)
        async with trio.open_nursery() as nursery:
            for running in ending.values():
                nursery.start_soon(_end, running.job, term_after)
        for job_id, running in ending.items():
            self._forget(job_id, running)

    def attach(self, master: KeyId, body: wire.Attach) -> Job:
        """Return the job whose stream has come; raises `RefusedError`."""
        running = self._running.get(job_id_untrusted(body.job))
        if running is None or running.attached.is_set():
            msg = "no such job waits for a stream"
            raise RefusedError(msg)
        self.tenancy.holds(master, running.generation)
        running.attached.set()
        return running.job

    def _tls_files(self, body: wire.Start) -> dict[str, bytes]:
        if not body.tls:
            return {}
        if self._key is None or not body.certificate or not body.authority:
            msg = "the job needs the group's certificate; none came"
            raise RefusedError(msg)
        return {
            "ca.pem": body.authority.encode(),
            "cert.pem": body.certificate.encode(),
            "key.pem": self._key.private_pem,
        }

    def _proxy_file(self, job_id: JobId, body: wire.Start) -> dict[str, bytes]:
        """Return the job's file of the user's identity, if it was handed on."""
        if not body.proxy:
            self._delegated.drop(job_id, body.generation)
            return {}
        now = self._wall()
        data = self._delegated.take(job_id, body.generation, body.proxy, now=now)
        return {PROXY_FILE: data}

    async def _await_stream(self, job_id: JobId, running: Running) -> None:
        """Forget a job when it is over; end one that nobody attaches to."""
        with trio.move_on_after(limits.ATTACH_AFTER) as scope:
            await running.attached.wait()
        if scope.cancelled_caught:
            await running.job.end(term_after=0.0)
        await running.job.wait()
        self._forget(job_id, running)

    async def _take_in(self, master: KeyId, job_id: JobId, running: Running) -> None:
        """Note a job that has come up, if all still stands as when it was asked for."""
        if job_id in self._running:
            await running.job.end(term_after=0.0)
            what = f"job {job_id} is not started"
            raise RefusedError(what, why="it runs")
        try:
            self.tenancy.holds(master, running.generation)
        except RefusedError:
            await running.job.end(term_after=0.0)
            raise
        self._running[job_id] = running

    def _forget(self, job_id: JobId, running: Running) -> None:
        if self._running.get(job_id) is running:
            del self._running[job_id]


def _bounded(term_after: float) -> float:
    return min(term_after, limits.TERM_CAP_AFTER)


async def _end(job: Job, term_after: float) -> None:
    await job.end(term_after=term_after)


_HANDLERS: dict[type[wire.Body], Callable[..., Awaitable[wire.Body | None]]] = {
    wire.Assign: Held.assign,
    wire.Delegate: Held.delegate,
    wire.Start: Held.start,
    wire.End: Held.end,
    wire.Release: Held.release,
}
