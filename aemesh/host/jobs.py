"""Runs jobs: each in a session and a folder of its own, all ended with the block.

A *spare* is a job that was started before anybody asked for it, so that what is
slow about it (importing an engine) is done when somebody does.  It becomes the
first job that asks for the same; its certificates are put into its folder then, so
its program must not look for them before it is told to on its input.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import secrets
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import EngineError, JobRefusedError
from aemesh.host.callers import Callers
from aemesh.host.folders import make_private, remove_tree
from aemesh.host.jobroom import add_tls, check_spec, checkpoint_folder, tls_file
from aemesh.host.jobsocket import Answer, job_socket, serve_job_socket
from aemesh.host.jobstart import Start, launch
from aemesh.host.leftovers import note_jobs
from aemesh.host.listeners import Listeners
from aemesh.host.localjob import LocalJob
from aemesh.host.orphans import adopts, bury, end_orphans, find_strangers
from aemesh.host.reaper import Reaper
from aemesh.host.spares import Spares
from aemesh.model.job import PROXY_FILE
from aemesh.model.names import JobId, job_id_untrusted
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Mapping
    from pathlib import Path

    from aemesh.host.sandbox import Sandbox
    from aemesh.model.job import JobSpec

logger = logging.getLogger(__name__)

# Dead orphans cost one entry of the process table each, until they are buried.
_TEND_EVERY = 5.0


class JobRunner:
    """Starts jobs in a run folder and watches each until its whole tree is gone."""

    def __init__(
        self,
        folder: Path,
        nursery: trio.Nursery,
        *,
        spares: int,
        sandbox: Sandbox | None = None,
    ) -> None:
        self._folder = folder
        self._sandbox = sandbox
        self._rooms = folder / "jobs"
        self._nursery = nursery
        self._marker = secrets.token_hex(limits.MARKER_LENGTH // 2)
        self._numbers = itertools.count(1)
        self._jobs: dict[JobId, LocalJob] = {}
        self.warm = Spares(self._launch_spare, nursery, count=spares)
        self._starting: set[JobId] = set()
        self._large = trio.Semaphore(limits.JOB_LARGE_AT_ONCE)  # questions of jobs
        self._callers = Callers()
        self._reaper = Reaper()
        self._due = trio.Event()  # orphans are to be looked for
        self._closing = False
        self._listeners = Listeners()

    @property
    def jobs(self) -> tuple[LocalJob, ...]:
        """The jobs whose tree is not gone yet; spares are none."""
        return tuple(self._jobs.values())

    @property
    def spares(self) -> tuple[LocalJob, ...]:
        """The spares that wait."""
        return tuple(spare.job for spare in self.warm.waiting)

    async def start(
        self,
        job_id: JobId,
        spec: JobSpec,
        *,
        tls: Mapping[str, bytes] | None = None,
        env: Mapping[str, str] | None = None,
        answer: Answer | None = None,
    ) -> LocalJob:
        """Start a job; raises `JobRefusedError`, or `EngineError` if it cannot start.

        `tls` are files for its folder ``tls/``; `env` are variables beyond those of
        `spec`.  An equal spare that waits is taken (never with `env`, which a spare
        cannot get), and replaced a little later.  With a `PROXY_FILE` in `tls` the job
        is told by $X509_USER_PROXY, so no spare will do either.  `answer` is for
        what it asks over its socket.
        """
        job_id_untrusted(job_id)
        tls, env = tls or {}, env or {}
        check_spec(spec, tls=tls)
        with self._reserved(job_id):
            job = None if env or PROXY_FILE in tls else self.warm.take(spec)
            if job is None:
                job = await self._launch(job_id, spec, tls=tls, env=env)
            elif tls:
                with trio.CancelScope(shield=True):  # it is in neither table now
                    await _add_tls(job, tls)
            job.id, job.answer = job_id, answer
            self._jobs[job_id] = job
        return job

    async def start_spare(self, spec: JobSpec) -> None:
        """Start a job that waits to be taken; beyond their number, do nothing."""
        await self.warm.start(spec)

    async def _launch_spare(self, spec: JobSpec) -> None:
        check_spec(spec, tls={})
        spare_id = JobId(f"spare-{next(self._numbers)}")
        with self._reserved(spare_id):
            self.warm.add(spec, await self._launch(spare_id, spec, tls={}, env={}))

    async def listening_at(self, job_ids: Collection[JobId], port: int) -> str | None:
        """Return the address at which one of these jobs listens on a TCP port, if any.

        Its whole tree counts, and nobody else: not a service of this machine.
        """
        trees = [job.tree for job in self.jobs if job.id in job_ids]
        try:
            return await trio.to_thread.run_sync(self._listeners.find, trees, port)
        except OSError as error:  # files have run out
            logger.warning("who listens on port %d is not known: %s", port, error)
            return None

    def end_all(self, *, term_after: float, reason: str) -> None:
        """Ask all jobs to end, without waiting; spares end at once."""
        for job in self.jobs:
            job.end_nowait(term_after=term_after, reason=reason)
        for spare in self.spares:
            spare.end_nowait(term_after=0, reason=reason)

    @contextlib.contextmanager
    def _reserved(self, job_id: JobId) -> Iterator[None]:
        """Keep a place for a job that is being started, or refuse it."""
        running = len(self._jobs) + len(self._starting)
        if self._closing:
            what = f"job {job_id} comes too late"
            raise JobRefusedError(what, why="the agent is ending")
        if job_id in self._jobs or job_id in self._starting:
            what = f"job {job_id} cannot start"
            raise JobRefusedError(what, why="one of this name runs already")
        if running >= limits.JOBS_PER_WORKER:
            what = f"job {job_id} cannot start"
            raise JobRefusedError(what, why=f"{running} jobs run already")
        self._starting.add(job_id)
        try:
            yield
        finally:
            self._starting.discard(job_id)
            self._due.set()  # what could not be done while this was starting

    async def _launch(
        self,
        job_id: JobId,
        spec: JobSpec,
        *,
        tls: Mapping[str, bytes],
        env: Mapping[str, str],
    ) -> LocalJob:
        # A name may be used again while its last folder is still being removed.
        number = next(self._numbers)
        room = self._rooms / f"{job_id}.{number}"
        if PROXY_FILE in tls:
            env = {**env, "X509_USER_PROXY": str(tls_file(room, PROXY_FILE))}
        start = Start(
            job=job_id,
            spec=spec,
            room=room,
            marker=f"{self._marker}.{number}",
            tls=tls,
            env=env,
            sandbox=self._sandbox,
        )
        job = LocalJob(job_id, await launch(start), self._reaper)
        self._nursery.start_soon(self._watch, job)
        return job

    async def _watch(self, job: LocalJob) -> None:
        """See a job to its end, whatever is cancelled around us."""
        with trio.CancelScope(shield=True):
            self._note()
            if self._closing:
                job.end_nowait(term_after=0, reason="the agent is ending")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answer, job)
                remaining = await job.watch()
                self._drop(job)
                nursery.cancel_scope.cancel()
            if remaining:
                logger.warning("processes %s of %r cannot be ended", remaining, job)
            for folder in (job.room, checkpoint_folder(job.room)):
                await trio.to_thread.run_sync(remove_tree, folder)
            job_socket(job.room).unlink(missing_ok=True)

    async def _answer(self, job: LocalJob) -> None:
        await serve_job_socket(
            job.socket, lambda: job.answer, large=self._large, callers=self._callers
        )

    def _drop(self, job: LocalJob) -> None:
        self._jobs = {name: other for name, other in self._jobs.items() if other != job}
        self.warm.drop(job)
        self._note()
        self._due.set()

    def _note(self) -> None:
        trees = [job.tree for job in (*self.jobs, *self.spares)]
        try:
            note_jobs(self._folder, self._marker, trees)
        except OSError as error:  # a full disk: the warden still ends all
            logger.warning("jobs are not noted in %s: %s", self._folder, error)

    async def tend(self) -> None:
        """Bury the orphans of jobs now and then, until cancelled."""
        while adopts():
            with trio.move_on_after(_TEND_EVERY):
                await self._due.wait()
            self._due = trio.Event()
            with contextlib.suppress(OSError):  # files have run out: next time
                await self._tend()

    async def _tend(self) -> None:
        """Bury the dead orphans; end the living ones if no job has a tree."""
        found = await trio.to_thread.run_sync(find_strangers)
        if self._starting:  # its leader is not known yet
            return
        leaders = {job.pid for job in (*self.jobs, *self.spares)}
        alive = bury(process for process in found if process.pid not in leaders)
        if alive and not self.jobs:
            spares = [spare.tree for spare in self.spares]
            await trio.to_thread.run_sync(end_orphans, alive, spares)

    def close(self) -> None:
        """Refuse new jobs, and ask those that run to end."""
        self._closing = True
        self.end_all(term_after=limits.TERM_AFTER, reason="the agent is ending")

    def __repr__(self) -> str:
        return f"JobRunner({len(self._jobs)} jobs, {self.warm!r})"


async def _add_tls(job: LocalJob, tls: Mapping[str, bytes]) -> None:
    """Give a spare its certificates, or end it and raise `EngineError`."""
    try:
        await trio.to_thread.run_sync(add_tls, job.room, tls)
    except OSError as error:
        await job.end(term_after=0, reason="it takes no certificates")
        what = f"{job.id} cannot become a job"
        raise EngineError(what, why=error.strerror or str(error)) from error


@contextlib.asynccontextmanager
async def open_jobs(
    folder: Path,
    *,
    spares: int = 1,
    replaces_spares: bool = True,
    sandbox: Sandbox | None = None,
) -> AsyncIterator[JobRunner]:
    """Run jobs in a run folder; at the end of the block none of them is left.

    There are up to so many `spares`.  `replaces_spares` is for those who will be asked
    again; a single run is not.  With a `sandbox` each job runs in one.
    """
    make_private(folder)
    make_private(folder / "jobs")
    async with open_crew() as nursery:
        runner = JobRunner(folder, nursery, spares=spares, sandbox=sandbox)
        nursery.start_soon(runner.tend)
        if replaces_spares:
            nursery.start_soon(runner.warm.run)
        try:
            yield runner
        finally:
            runner.close()
            nursery.cancel_scope.cancel()  # the watches are shielded
