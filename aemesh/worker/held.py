"""What a worker does for the master that holds it: assign, start, end, release."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

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
from aemesh.worker.leasedjobs import Jobs, LeasedJobs
from aemesh.worker.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aemesh.policy.lease import Tenancy
    from aemesh.worker.notebook import Notebook

_log = logging.getLogger(__name__)


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
        self.leased = LeasedJobs(tenancy)
        self.crew: trio.Nursery | None = None
        self.changed = trio.Event()  # the lease was taken, or given back

    def __repr__(self) -> str:
        return f"<Held {self.tenancy!r}, {self.leased!r}>"

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
        await self.leased.end_all(limits.TERM_AFTER)  # of a generation that was cut off
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
            jobs=self.leased.ids(),
            keeper=self._keeper,
        )

    @property
    def outlives(self) -> float:
        """How long the lease goes on without its master, in seconds."""
        lease = self.tenancy.lease
        lasting = any(running.stream.lasting for running in self.leased.running)
        if lease is None or not lasting:
            return limits.ORPHANED_JOB_AFTER
        return max(lease.kept_after, limits.ORPHANED_JOB_AFTER)

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
        self.leased.check_room(job_id)
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

        async def bring_up() -> JobStream:
            job = await self._jobs.start(job_id, spec, tls=files, answer=answers.answer)
            return JobStream(job, lasting=body.lasting, relay=relay)

        running = await self.leased.start(master, job_id, body.generation, bring_up)
        assert self.crew is not None, "commands come while the worker runs"
        self.crew.start_soon(self.leased.wait_stream, job_id, running)
        return wire.Started()

    async def end(self, master: KeyId, body: wire.End) -> wire.Body:
        """End one job, or call it off while it starts."""
        job_id = job_id_untrusted(body.job)
        await self.leased.end(master, job_id, _bounded(body.term_after))
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
        await self.leased.end_all(term_after)
        if lease is not None:
            _log.info("left group %s", lease.group)

    async def port_address(self, master: KeyId, body: wire.Forward) -> Address:
        """Return where a job of the lease listens on a port that others may reach.

        Raises `RefusedError` for any other port of this machine, and for whoever does
        not hold it.
        """
        self.tenancy.holds(master, body.generation)
        jobs = self.leased.ids(body.generation)
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

    def tell_changed(self) -> None:
        """Let those who tell masters of us look again."""
        self.changed.set()
        self.changed = trio.Event()


def _bounded(term_after: float) -> float:
    return min(term_after, limits.TERM_CAP_AFTER)


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
