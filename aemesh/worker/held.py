"""What a worker does for the master that holds it: assign, start, end, release."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import trio

from aemesh import limits
from aemesh.errors import RefusedError
from aemesh.model.address import Address
from aemesh.model.job import PROXY_FILE, JobSpec
from aemesh.model.key import KeyId
from aemesh.model.names import JobId, group_name_untrusted, job_id_untrusted
from aemesh.protocol import wire
from aemesh.worker.answers import Answers
from aemesh.worker.delegated import DelegatedKeys
from aemesh.worker.groupkey import GroupKey, make_group_key
from aemesh.worker.jobstream import JobStream
from aemesh.worker.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping

    from aemesh.plugin import Job
    from aemesh.policy.lease import Tenancy
    from aemesh.worker.notebook import Notebook

_log = logging.getLogger(__name__)


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


class Held:
    """The worker's lease and the jobs that run under it.

    Every command names its generation; `policy.lease.Tenancy` refuses what is late.
    """

    def __init__(  # noqa: PLR0913 - what it is made of, by name
        self,
        tenancy: Tenancy,
        jobs: Jobs,
        remember_generation: Callable[[int], None],
        *,
        wall: Callable[[], float] = time.time,
        is_linked: Callable[[KeyId], bool] = lambda _: False,
        notebook: Notebook | None = None,
    ) -> None:
        self.tenancy = tenancy
        self.port = 0  # where heirs come in, if they may
        # Seconds until we leave, as agreed; None without an end.
        self.leaves_after: Callable[[], float | None] = lambda: None
        self._jobs = jobs
        self._remember = remember_generation
        self._wall = wall
        self._is_linked = is_linked
        self._notebook = notebook  # a keeper's
        self._keeper: wire.Keeper | None = None  # of the master that holds us
        self._key: GroupKey | None = None
        self._delegated = DelegatedKeys()
        self._running: dict[JobId, Running] = {}
        self._starting: dict[JobId, Starting] = {}
        self.crew: trio.Nursery | None = None
        self.changed = trio.Event()  # the lease was taken, or given back

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
        self.tenancy.assign(
            master,
            group,
            body.generation,
            heirs=frozenset(map(KeyId.parse_untrusted, body.heirs)),
            kept_after=body.kept_after,
        )
        self._keeper = body.keeper
        self._remember(body.generation)  # before it is acted on
        self.tell_changed()
        await self.end_jobs(limits.TERM_AFTER)  # of a generation that was cut off
        self.tenancy.holds(master, body.generation)  # still, after that time
        self._delegated.clear()
        self._key = make_group_key()
        _log.info("serves group %s in generation %d", group, body.generation)
        return wire.Assigned(csr=self._key.csr_pem, port=self.port)

    async def adopt(self, master: KeyId, body: wire.Adopt) -> wire.Body:
        """Go on with the lease for the master that is back, or for its heir."""
        group = group_name_untrusted(body.group)
        lease = self.tenancy.lease
        here = lease is not None and self._is_linked(lease.master)
        if self._key is None:
            what = "there is no lease to adopt yet"
            raise RefusedError(what, why="the jobs of the one before are ending")
        self.tenancy.adopt(
            master,
            group,
            body.generation,
            holder_is_here=here,
            heirs=frozenset(map(KeyId.parse_untrusted, body.heirs)),
            kept_after=body.kept_after,
        )
        if body.kept_after is not None:
            self._keeper = body.keeper
        self.tell_changed()
        _log.info("group %s goes on with the master %s", group, master)
        return wire.Assigned(csr=self._key.csr_pem, port=self.port)

    def orphaned(self, master: KeyId) -> wire.Orphaned | None:
        """Return what a master that links is told of the lease that it may adopt."""
        lease = self.tenancy.lease
        if lease is None:
            return None
        is_heir = master in lease.heirs and not self._is_linked(lease.master)
        if lease.master != master and not is_heir:
            return None
        return wire.Orphaned(
            master=str(lease.master),
            group=lease.group,
            generation=lease.generation,
            jobs=tuple(self._running),
            keeper=self._keeper,
        )

    @property
    def outlives(self) -> float:
        """How long the lease goes on without its master, in seconds."""
        lease = self.tenancy.lease
        lasting = any(running.stream.lasting for running in self._running.values())
        if lease is None or not lasting:
            return limits.ORPHANED_JOB_AFTER
        return max(lease.kept_after, limits.ORPHANED_JOB_AFTER)

    def hang_up(self) -> None:
        """The master is out of sight: lasting jobs wait for no stream of it."""
        for running in self._running.values():
            if running.stream.lasting:
                running.stream.hang_up()

    async def keep(self, master: KeyId, body: wire.Keep) -> wire.Body:
        """Keep something for whoever adopts what this master leaves."""
        self._of_keeper(master).keep(body.key, body.data)
        return wire.Done()

    async def recall(self, master: KeyId, body: wire.Recall) -> wire.Body:
        """Tell a page of what was kept to the master that holds us now."""
        return self._of_keeper(master).page(body.after)

    def _of_keeper(self, master: KeyId) -> Notebook:
        lease = self.tenancy.lease
        if self._notebook is None or lease is None or lease.master != master:
            what = "nothing is kept here for this master"
            raise RefusedError(what)
        return self._notebook

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
        known = self._running.keys() | self._starting.keys()
        if job_id in known or len(known) >= limits.JOBS_PER_WORKER:
            what = f"job {job_id} is not started"
            raise RefusedError(what, why="it runs, or too many do")
        spec = JobSpec(
            argv=body.argv,
            env=body.env,
            files=body.files,
            tls=body.tls,
            lasting=body.lasting,
            preload=body.preload,
        )
        files = {**self._tls_files(body), **self._proxy_file(job_id, body)}
        relay = Relay()
        answers = Answers(
            job_id,
            lease=lambda: self.tenancy.lease,
            worker=str(self.tenancy.worker),
            leaves_after=self.leaves_after,
            relay=relay if body.asks else None,
        )
        # No await before this: an end that comes behind the order must meet it.
        with self._under_way(job_id, body.generation) as starting:
            job = await self._jobs.start(job_id, spec, tls=files, answer=answers.answer)
            stream = JobStream(job, lasting=body.lasting, relay=relay)
            running = Running(stream, body.generation)
            await self._take_in(master, job_id, running, starting)
        assert self.crew is not None, "commands come while the worker runs"
        self.crew.start_soon(self._await_stream, job_id, running)
        return wire.Started()

    async def end(self, master: KeyId, body: wire.End) -> wire.Body:
        """End one job, or call it off while it starts."""
        job_id = job_id_untrusted(body.job)
        running = self._running.get(job_id)
        if running is not None:
            self.tenancy.holds(master, running.generation)
            await running.job.end(term_after=_bounded(body.term_after))
        elif starting := self._starting.get(job_id):
            self.tenancy.holds(master, starting.generation)
            starting.is_called_off = True
        return wire.Done()

    async def release(self, master: KeyId, body: wire.Release) -> wire.Body:
        """End the lease's jobs and give it back, or keep it for its master's next."""
        if self.tenancy.ends(master, body.generation):
            await self.let_go(_bounded(body.term_after), again=body.again)
        return wire.Done()

    async def let_go(self, term_after: float, *, again: bool = False) -> None:
        """Forget the lease and its key, and end all jobs.

        With `again` the lease stands, vacant, until its master replaces it.
        """
        # The lease goes first: whoever takes the next one while jobs end here waits
        # for their end in `assign`, and must not lose it to us.
        lease = self.tenancy.lease
        self._key = self._keeper = None
        self._delegated.clear()
        if self._notebook is not None:
            self._notebook.clear()
        if lease is not None:
            end = self.tenancy.vacate if again else self.tenancy.release
            end(lease.master, lease.generation)
            self.tell_changed()
        await self.end_jobs(term_after)
        if lease is not None:
            _log.info("left group %s", lease.group)

    async def end_fleeting(self, term_after: float) -> None:
        """End the jobs that do not outlive their master's absence."""
        await self._end_those(
            {k: one for k, one in self._running.items() if not one.stream.lasting},
            term_after,
        )

    async def end_jobs(self, term_after: float) -> None:
        """End every job that runs or starts here now, all at one time."""
        coming = tuple(self._starting.values())
        for starting in coming:
            starting.is_called_off = True
        await self._end_those(dict(self._running), term_after)
        for starting in coming:
            await starting.over.wait()

    async def _end_those(self, ending: dict[JobId, Running], term_after: float) -> None:
        async with trio.open_nursery() as nursery:
            for running in ending.values():
                nursery.start_soon(_end, running.job, term_after)
        for job_id, running in ending.items():
            self._forget(job_id, running)

    def attach(self, master: KeyId, body: wire.Attach) -> JobStream:
        """Return the job whose stream has come; raises `RefusedError`."""
        running = self._running.get(job_id_untrusted(body.job))
        if running is None or not running.stream.is_free:
            msg = "no such job waits for a stream"
            raise RefusedError(msg)
        self.tenancy.holds(master, running.generation)
        running.stream.take()
        return running.stream

    async def port_address(self, master: KeyId, body: wire.Forward) -> Address:
        """Return where a job of the lease listens on a port that others may reach.

        Raises `RefusedError` for any other port of this machine, and for whoever does
        not hold it.
        """
        self.tenancy.holds(master, body.generation)
        jobs = {
            k for k, one in self._running.items() if one.generation == body.generation
        }
        host = await self._jobs.listening_at(jobs, body.port)
        self.tenancy.holds(master, body.generation)
        if host is None:
            what = f"port {body.port} is not forwarded"
            raise RefusedError(what, why="no job of this group listens there")
        return Address(host, body.port)

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
            await running.stream.attached.wait()
        if scope.cancelled_caught:
            await running.job.end(term_after=0.0)
        await running.job.wait()
        self._forget(job_id, running)

    async def _take_in(
        self, master: KeyId, job_id: JobId, running: Running, starting: Starting
    ) -> None:
        """Note a job that has come up, if all still stands as when it was asked for."""
        if starting.is_called_off:
            await running.job.end(term_after=0.0)
            what = f"job {job_id} is not started"
            raise RefusedError(what, why="it was called off")
        try:
            self.tenancy.holds(master, running.generation)
        except RefusedError:
            await running.job.end(term_after=0.0)
            raise
        self._running[job_id] = running

    @contextmanager
    def _under_way(self, job_id: JobId, generation: int) -> Iterator[Starting]:
        starting = self._starting[job_id] = Starting(generation)
        try:
            yield starting
        finally:
            del self._starting[job_id]
            starting.over.set()

    def tell_changed(self) -> None:
        """Let those who tell masters of us look again."""
        self.changed.set()
        self.changed = trio.Event()

    def _forget(self, job_id: JobId, running: Running) -> None:
        if self._running.get(job_id) is running:
            del self._running[job_id]


def _bounded(term_after: float) -> float:
    return min(term_after, limits.TERM_CAP_AFTER)


async def _end(job: Job, term_after: float) -> None:
    await job.end(term_after=term_after)


_HANDLERS: dict[type[wire.Body], Callable[..., Awaitable[wire.Body | None]]] = {
    wire.Assign: Held.assign,
    wire.Adopt: Held.adopt,
    wire.Keep: Held.keep,
    wire.Recall: Held.recall,
    wire.Delegate: Held.delegate,
    wire.Start: Held.start,
    wire.End: Held.end,
    wire.Release: Held.release,
}
