"""A master's facade without a master: `ControlApi` over plain values in memory.

It keeps the contract that the control API's clients see: unknown names raise
`UnknownNameError`, history is numbered from 1, exec ends each member with a code.
A group's authority is a real one, so that certificates can be checked.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import itertools
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from aemesh.errors import EngineError, UnknownNameError
from aemesh.host.ledger.clerk import Clerk
from aemesh.host.ledger.ledger import memory_ledger
from aemesh.model.group import Demand, Haste, Receipt, Wish
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName, JobId, NodeName
from aemesh.model.view import (
    CertificateView,
    ConnectView,
    Delegate,
    DelegationView,
    EventView,
    GroupStatusView,
    GroupView,
    HeldMember,
    HoldView,
    ImposterView,
    MoveView,
    OutputView,
    PlacedView,
    StatusView,
    WorkerView,
)
from aemesh.plugin import Page
from aemesh.policy.demand import check_demand
from aemesh.testing.memory_jobs import MemoryJobs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from aemesh.model.job import JobSpec
    from aemesh.plugin import Job

    StartJob = Callable[[JobId, JobSpec], Awaitable[Job]]

ENGINES = ["command", "dask"]
_STARTED_AT = 1_800_000_000.0  # 2027-01-15, 08:00 UTC
_ADDRESS = "10.77.0.2"  # of all workers
_DAY = dt.timedelta(days=1)


def fake_key(name: str) -> KeyId:
    """Return the same made-up fingerprint for the same name."""
    return KeyId(hashlib.sha256(name.encode()).digest())


@dataclass
class MemoryControl:
    """A control facade whose groups and workers are what a test puts there."""

    state_dir: str = "/nowhere"
    members: dict[str, str | None] = field(default_factory=dict)  # worker: its group
    engines: dict[str, str] = field(default_factory=dict)  # group: its engine
    imposters: list[ImposterView] = field(default_factory=list)
    history: list[EventView] = field(default_factory=list)
    demands: dict[str, Demand] = field(default_factory=dict)  # of groups that have one
    failing: set[str] = field(default_factory=set)  # workers that cannot be moved
    shared: list[str] = field(default_factory=list)  # by `share`
    held: dict[str, int] = field(default_factory=dict)  # by `hold`
    env: dict[str, str] = field(default_factory=lambda: {"TLS": "{tls}/ca.pem"})
    delegated: list[Delegate] = field(default_factory=list)
    output: list[OutputView] | None = None  # what `exec` yields; None: made up
    page: Callable[[], Page] | None = None
    pid: int = field(default_factory=os.getpid)
    failure: Exception | None = None  # what every request meets, if set
    jobs: StartJob = field(default_factory=lambda: MemoryJobs().start)
    stopped: trio.Event = field(default_factory=trio.Event)
    exec_ended: trio.Event = field(default_factory=trio.Event)
    clerk: Clerk = field(
        default_factory=lambda: Clerk(memory_ledger(wall=lambda: _STARTED_AT))
    )
    _more: trio.Event = field(default_factory=trio.Event)
    _job_numbers: Iterator[int] = field(default_factory=itertools.count)
    _authority: _Authority | None = None

    def status(self) -> StatusView:
        """Return a master named laptop."""
        self._fail()
        key = fake_key("laptop")
        return StatusView(
            name="laptop",
            key=str(key),
            words=key.words,
            mode="leap",
            version="0.1.0",
            pid=self.pid,
            state_dir=self.state_dir,
            listening=("10.77.0.1:41234",),
            started_at=_STARTED_AT,
            workers=tuple(self.workers()),
            groups=tuple(self.groups()),
            imposters=tuple(self.imposters),
        )

    def workers(self) -> list[WorkerView]:
        """Return a view of each worker."""
        self._fail()
        return [_worker(name, group) for name, group in self.members.items()]

    def groups(self) -> list[GroupView]:
        """Return a view of each group, with the members that it has now."""
        self._fail()
        return [
            GroupView(
                name=name,
                engine=engine,
                state="ready",
                members=tuple(w for w, group in self.members.items() if group == name),
                cores=4 * sum(group == name for group in self.members.values()),
                address="tls://10.77.0.1:8786",
                demand=self.demands.get(name, Demand()),
                missing=self._missing(name),
                held=self.held.get(name, 0),
            )
            for name, engine in self.engines.items()
        ]

    async def open_group(
        self, name: GroupName, engine: str, *, wish: Wish | None = None
    ) -> None:
        """Make a group."""
        await self._checkpoint()
        demand = check_demand(Demand() if wish is None else wish(Demand()))
        if engine not in ENGINES:
            kind = "engine"
            raise UnknownNameError(kind, engine, ENGINES)
        self.engines[name] = engine
        self.demands[name] = demand
        self.tell("group.ready", f"group {name} is ready", group=name)

    def set_group(self, name: GroupName, wish: Wish) -> GroupView:
        """Change what a group wants."""
        self._fail()
        self._known(name)
        self.demands[name] = check_demand(wish(self.demands.get(name, Demand())))
        return next(view for view in self.groups() if view.name == name)

    def group_status(self, name: GroupName) -> GroupStatusView:
        """Return the group; whoever is no member is elsewhere, or free."""
        self._fail()
        self._known(name)
        placed = [
            PlacedView(
                worker=worker, key=str(fake_key(worker)), group=group, why=_why(group)
            )
            for worker, group in self.members.items()
        ]
        return GroupStatusView(
            group=next(view for view in self.groups() if view.name == name),
            members=tuple(one for one in placed if one.group == name),
            refused=tuple(one for one in placed if one.group != name),
            history=tuple(event for event in self.history if event.group == name),
        )

    async def close_group(self, name: GroupName) -> None:
        """End a group; its workers are in none then."""
        await self._checkpoint()
        self._known(name)
        del self.engines[name]
        for worker, group in self.members.items():
            if group == name:
                self.members[worker] = None

    async def move_all(
        self, workers: Sequence[str], group: GroupName
    ) -> list[MoveView]:
        """Move workers at once; none of `failing` comes up there."""
        await self._checkpoint()
        self._known(group)
        for worker in workers:
            self._known_worker(worker)
        return [
            MoveView(
                worker=worker, error=EngineError(f"no engine on {worker}").fields()
            )
            if worker in self.failing
            else MoveView(worker=worker, receipt=self._move(worker, group))
            for worker in workers
        ]

    def share(self, workers: Sequence[str]) -> list[MoveView]:
        """Note them in `shared`."""
        self._fail()
        for worker in workers:
            self._known_worker(worker)
        self.shared += workers
        return [MoveView(worker=worker) for worker in workers]

    def readmit(self, worker: str) -> WorkerView:
        """Return the worker."""
        self._fail()
        self._known_worker(worker)
        return _worker(worker, self.members[worker])

    def _known_worker(self, worker: str) -> None:
        if worker not in self.members:
            kind = "worker"
            raise UnknownNameError(kind, worker, sorted(self.members))

    def _meant(self, worker: str) -> str:
        """Return a member's name: by name, label, key, or the address of all."""
        if worker == _ADDRESS:
            worker = next(iter(self.members), worker)
        keys = {str(fake_key(name)): name for name in self.members}
        worker = keys.get(worker, worker)
        name = worker.removesuffix(".1")
        self._known_worker(worker if name not in self.members else name)
        return name

    def _move(self, worker: str, group: GroupName) -> Receipt:
        old, self.members[worker] = self.members[worker], group
        self.tell("worker.moved", f"{worker} to {group}", worker=worker, group=group)
        return Receipt(
            NodeName(worker),
            GroupName(old or ""),
            graceful=True,
            moved=3,
            took_after=0.2,
        )

    async def drain(
        self, workers: tuple[str, ...], *, by_after: float, haste: Haste
    ) -> list[Receipt]:
        """Take workers out of their groups at once."""
        await self._checkpoint()
        del by_after
        receipts = []
        for worker in workers:
            if worker not in self.members:
                kind = "worker"
                raise UnknownNameError(kind, worker, sorted(self.members))
            old, self.members[worker] = self.members[worker], None
            receipts.append(
                Receipt(
                    NodeName(worker),
                    GroupName(old or ""),
                    graceful=haste is not Haste.NOW,
                    moved=3,
                    took_after=0.2,
                    moved_bytes=4096,
                    finished=2,
                )
            )
        return receipts

    async def undrain(self, worker: str) -> None:
        """Take a worker's drain back."""
        await self._checkpoint()
        if worker not in self.members:
            kind = "worker"
            raise UnknownNameError(kind, worker, sorted(self.members))
        self.tell("worker.undrained", f"{worker} serves again", worker=worker)

    async def connect(self, group: GroupName, *, members: bool = True) -> ConnectView:
        """Return `env`."""
        del members
        await self._checkpoint()
        return ConnectView(group=group, engine=self._known(group), env=dict(self.env))

    async def open_page(self, group: GroupName) -> Page:
        """Give the page that a test put there."""
        await self._checkpoint()
        self._known(group)
        if self.page is None:
            msg = "the engine has no page to be shown"
            raise EngineError(msg)
        return self.page()

    def certify(
        self, group: GroupName, csr_pem: str, *, life_after: float = 0.0
    ) -> CertificateView:
        """Sign a request with the authority of this facade."""
        del life_after
        self._fail()
        self._known(group)
        if self._authority is None:
            self._authority = _Authority()
        return self._authority.sign(csr_pem)

    def delegate(self, group: GroupName, wish: Delegate) -> DelegationView:
        """Note the wish in `delegated`."""
        self._fail()
        self._known(group)
        self.delegated.append(wish)
        life = wish.life_after
        subject = "CN=Alice" if life > 0 else ""
        return DelegationView(group=group, subject=subject, life_after=life)

    async def exec(
        self,
        group: GroupName,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        *,
        workers: Sequence[str] = (),
        delegate: Delegate | None = None,
    ) -> AsyncIterator[OutputView]:
        """Yield `output`; if none is set, ``argv`` from each member, and 0."""
        if delegate is not None:
            self.delegated.append(delegate)
        chosen = [self._meant(worker) for worker in workers]
        try:
            await self._checkpoint()
            self._known(group)
            for piece in self._made_up(group, argv, env):
                if not chosen or piece.worker in chosen:
                    yield piece
                await trio.lowlevel.checkpoint()
        finally:
            self.exec_ended.set()

    async def start_job(
        self,
        group: GroupName | None,
        worker: str,
        spec: JobSpec,
        *,
        delegate: Delegate | None = None,
    ) -> Job:
        """Start a job where `jobs` says, for whichever worker."""
        del delegate
        await self._checkpoint()
        if group is not None:
            self._known(group)
        self._meant(worker)
        return await self.jobs(JobId(f"job-{next(self._job_numbers)}"), spec)

    async def hold(self, name: GroupName) -> AsyncIterator[HoldView]:
        """Yield the members, and again after each `tell`; note it in `held`."""
        await self._checkpoint()
        self._known(name)
        self.held[name] = self.held.get(name, 0) + 1
        told: HoldView | None = None
        try:
            while True:
                more, view = self._more, self._hold_view(name)
                if view != told:
                    yield view
                    told = view
                await more.wait()
        finally:
            self.held[name] -= 1

    def _hold_view(self, name: GroupName) -> HoldView:
        members = (
            HeldMember(
                name=worker,
                label=f"{worker}.1",
                address=_ADDRESS,
                cores=4,
                memory=8 * 2**30,
            )
            for worker, group in self.members.items()
            if group == name
        )
        return HoldView(group=name, address="10.77.0.1", members=tuple(members))

    async def events(self, after: int, *, follow: bool) -> AsyncIterator[EventView]:
        """Yield the history and what `tell` adds to it."""
        await self._checkpoint()
        at = after
        while True:
            more = self._more
            for event in self.history[at:]:
                yield event
                at = event.number
            if not follow:
                return
            if at >= len(self.history):
                await more.wait()

    def stop(self) -> None:
        """Set `stopped`."""
        self._fail()
        self.stopped.set()

    def tell(
        self,
        kind: str,
        text: str,
        *,
        worker: str | None = None,
        group: str | None = None,
    ) -> None:
        """Add one event to the history, one second after the last."""
        number = len(self.history) + 1
        self.history.append(
            EventView(
                number=number,
                at=_STARTED_AT + number,
                kind=kind,
                text=text,
                worker=worker,
                group=group,
            )
        )
        self._more.set()
        self._more = trio.Event()

    def _made_up(
        self, group: str, argv: tuple[str, ...], env: Mapping[str, str]
    ) -> list[OutputView]:
        if self.output is not None:
            return self.output
        words = [*(f"{name}={value}" for name, value in env.items()), *argv]
        said = OutputView(
            worker="",
            channel="stdout",
            data=base64.b64encode(" ".join(words).encode() + b"\n").decode(),
        )
        names = [worker for worker, own in self.members.items() if own == group]
        return [
            piece
            for name in names
            for piece in (replace(said, worker=name), OutputView(worker=name, code=0))
        ]

    def _missing(self, name: str) -> int:
        least = self.demands.get(name, Demand()).min
        return max(0, least - list(self.members.values()).count(name))

    async def _checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()
        self._fail()

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _known(self, group: str) -> str:
        """Return the engine of a group."""
        if group not in self.engines:
            kind = "group"
            raise UnknownNameError(kind, group, sorted(self.engines))
        return self.engines[group]


def _why(group: str | None) -> str:
    return "no group may have it" if group is None else f"it serves {group}"


def _worker(name: str, group: str | None) -> WorkerView:
    key = fake_key(name)
    return WorkerView(
        name=name,
        key=str(key),
        words=key.words,
        state="leased" if group else "trusted",
        trust="known",
        address=f"{_ADDRESS}:41001",
        group=group,
        generation=1 if group else 0,
        cores=4,
        memory=8 * 2**30,
        spares=1,
        spare_memory=44 * 2**20,
        since=_STARTED_AT,
        placed=group,
        why=_why(group),
        held_by="laptop" if group else "",
        held_key=str(fake_key("laptop")) if group else "",
        held_group=group,
    )


class _Authority:
    """A P-256 authority of one day."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        self._certificate = self._issue(self._name, self._key.public_key(), ca=True)

    def sign(self, csr_pem: str) -> CertificateView:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        assert request.is_signature_valid
        public = request.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return CertificateView(
            certificate=self._issue(request.subject, public, ca=False),
            authority=self._certificate,
        )

    def _issue(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, *, ca: bool
    ) -> str:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(
                x509.BasicConstraints(ca=ca, path_length=None), critical=True
            )
        )
        certificate = builder.sign(self._key, SHA256())
        return certificate.public_bytes(Encoding.PEM).decode()
