"""A whole mesh in memory: a master, workers, real TLS and handshakes, virtual time."""

from __future__ import annotations

import base64
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from aemesh.engines.command import CommandEngine
from aemesh.errors import UnknownNameError
from aemesh.host.keys.keystore import Identity
from aemesh.host.ledger.ledger import memory_ledger
from aemesh.host.store import Store, open_store
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.master.delegation import Delegation
from aemesh.master.master import Master
from aemesh.master.parts import Finder
from aemesh.master.parts import Parts as MasterParts
from aemesh.model.address import Address
from aemesh.model.group import MemberState, Receipt
from aemesh.model.machine import Announcement, Facts, Forward
from aemesh.model.names import GroupName, NodeName
from aemesh.model.trust import Mode, Role
from aemesh.model.view import WorkerView
from aemesh.net.rotation import FindNext
from aemesh.net.shake import shakers
from aemesh.plugin import Engine
from aemesh.policy.discovery import New, News, Updated
from aemesh.policy.trust import TrustPolicy
from aemesh.protocol.hello import Ourselves
from aemesh.testing.memory_engine import MemoryEngine
from aemesh.testing.memory_jobs import MemoryJobs
from aemesh.testing.memory_network import MemorySegment
from aemesh.worker.worker import Parts as WorkerParts
from aemesh.worker.worker import Worker

PORT = 7472
FACTS = Facts(cores=2, memory=8 << 30, python="3.11.2", system="linux-x86_64")


def wall() -> float:
    """The time of day that belongs to the virtual clock."""
    return 1.7e9 + trio.current_time()


@dataclass
class Machine:
    """A worker's machine, which outlives the worker that runs on it."""

    name: NodeName
    ip: str
    identity: Identity
    jobs: MemoryJobs = field(default_factory=MemoryJobs)
    generation: int = 0
    run: str = ""  # of the worker's present process
    worker: Worker | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    departure: Receipt | None = None
    desk: TrustDesk | None = None
    labels: tuple[str, ...] = ()
    forward: Forward = Forward.AUTO


class Mesh:
    """What a test holds in its hand."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.segment = MemorySegment()
        self.engine = MemoryEngine()
        self.ledger = memory_ledger(wall=wall)
        self.master_id = Identity.ephemeral("laptop")
        self.machines: dict[str, Machine] = {}
        self.moved = trio.Event()
        self.clients = False  # whether one lives beside the master
        self._runs = itertools.count(1)
        self._ips = (f"10.0.0.{n}" for n in itertools.count(2))
        self._tell, self._news = trio.open_memory_channel[News](100)
        self.master: Master
        self.desk: TrustDesk  # the master's

    def engines(self, name: str) -> Engine:
        """The engines that are installed here."""
        if name == "memory":
            return self.engine
        if name == "command":
            return CommandEngine()
        raise UnknownNameError("engine", name, ["command", "memory"])

    async def news(self) -> AsyncIterator[News]:
        async for news in self._news:
            yield news

    async def wait_move(self) -> None:
        await self.moved.wait()

    def move(self) -> None:
        """Let the master know that its network is another one."""
        self.moved.set()
        self.moved = trio.Event()

    async def start_worker(
        self,
        name: str,
        *,
        policy: TrustPolicy | None = None,
        announce: bool = True,
        groups: frozenset[GroupName] = frozenset(),
        next_key: FindNext = lambda: None,
        labels: tuple[str, ...] = (),
        forward: Forward = Forward.AUTO,
        **parts: Any,
    ) -> Machine:
        """Start a worker, on its old machine if it has one; `parts` are its further."""
        machine = self.machines.get(name)
        if machine is None:
            machine = Machine(NodeName(name), next(self._ips), Identity.ephemeral(name))
            self.machines[name] = machine
        machine.run = self.new_run()
        machine.labels, machine.forward = labels, forward
        machine.desk = TrustDesk(
            policy
            or TrustPolicy(
                role=Role.WORKER, trusted_keys=frozenset({self.master_id.key_id})
            ),
            folder=None,
            wall=wall,
        )
        parts |= {"groups": groups, "next_key": next_key}
        machine.worker = self._worker(machine, machine.desk, parts)
        machine.scope = trio.CancelScope()
        await self.nursery.start(self._run_worker, machine)
        if announce:
            self.announce(machine)
        return machine

    async def start_copy(self, name: str) -> Machine:
        """Start a worker on another machine with a copy of the first one's key."""
        first = self.machines[name]
        copy = Machine(first.name, next(self._ips), first.identity)
        self.machines[f"copy of {name}"] = copy
        return await self.start_worker(f"copy of {name}", announce=False)

    def new_run(self) -> str:
        """Return what tells one more process from all others."""
        raw = next(self._runs).to_bytes(8, "big")
        return base64.b64encode(raw).decode().rstrip("=")

    def new_master(
        self,
        ip: str,
        store: Store,
        *,
        finder: Finder,
        desk: TrustDesk | None = None,
        delegation: Delegation | None = None,
        identity: Identity | None = None,
        **parts: Any,
    ) -> Master:
        """Make a process of the master's key, or of another, at this address."""
        identity = identity or self.master_id
        accepts = TrustPolicy(role=Role.MASTER, accept_new=True)
        ours = _ours(Role.MASTER, identity, self.new_run())
        return Master(
            MasterParts(
                key_id=identity.key_id,
                name=NodeName(identity.name),
                mode="leap",
                version="0",
                state_dir="memory",
                shaker=shakers(ours, identity),
                desk=desk or TrustDesk(accepts, folder=None, wall=wall),
                network=self.segment.host(ip),
                finder=finder,
                jobs=MemoryJobs(),
                store=store,
                ledger=self.ledger,
                engines=self.engines,
                head_address=lambda: ip,
                wall=wall,
                wait_move=self.wait_move,
                delegation=delegation,
                has_clients=lambda: self.clients,
                **parts,
            )
        )

    def announce(self, machine: Machine, *, again: bool = False) -> None:
        """Let the master hear of a worker."""
        kind = Updated if again else New
        self._tell.send_nowait(kind(announcement(machine)))

    def tell(self, news: News) -> None:
        """Let the master hear anything."""
        self._tell.send_nowait(news)

    async def tell_later(self, news: News) -> None:
        """Let the master hear anything, when it has taken what came before."""
        await self._tell.send(news)

    async def wait_event(self, kind: str, *, after: int = 0) -> str:
        """Return the text of the next event of this kind."""
        async with aclosing(self.master.events(after, follow=True)) as events:
            async for event in events:
                if event.kind == kind:
                    return event.text
        raise AssertionError(kind)

    async def wait_state(self, name: str, state: MemberState) -> WorkerView:
        """Wait until the master has a worker in this state."""
        return await self.wait_worker(name, lambda view: view.state == state.value)

    async def wait_worker(
        self, name: str, wanted: Callable[[WorkerView], bool]
    ) -> WorkerView:
        with trio.fail_after(120):
            while True:
                for view in self.master.workers():
                    if view.name == name and wanted(view):
                        return view
                await trio.sleep(0.05)

    async def events(self) -> list[str]:
        """The history so far, kind by kind."""
        return [e.kind async for e in self.master.events(0, follow=False)]

    async def _run_worker(
        self, machine: Machine, *, task_status: trio.TaskStatus[int]
    ) -> None:
        assert machine.worker is not None
        with machine.scope:
            machine.departure = await machine.worker.run(task_status=task_status)

    def _worker(
        self,
        machine: Machine,
        desk: TrustDesk,
        parts: dict[str, Any],
    ) -> Worker:
        def remember(generation: int) -> None:
            machine.generation = generation

        return Worker(
            WorkerParts(
                shaker=shakers(
                    _ours(Role.WORKER, machine.identity, machine.run), machine.identity
                ),
                desk=desk,
                network=self.segment.host(machine.ip),
                announcer=MeshAnnouncer(self, machine),
                jobs=machine.jobs,
                facts=replace(FACTS, labels=machine.labels, forward=machine.forward),
                chance=lambda: 0.999,
                generation=machine.generation,
                remember_generation=remember,
                port=PORT,
                wall=wall,
                **parts,
            ),
            key_id=machine.identity.key_id,
        )


class MeshAnnouncer:
    """Announces again when the worker asks for it."""

    def __init__(self, mesh: Mesh, machine: Machine) -> None:
        self._mesh = mesh
        self._machine = machine

    async def announce(self, facts: Facts, *, port: int) -> None:
        await trio.sleep_forever()

    def announce_again(self) -> None:
        self._mesh.announce(self._machine, again=True)


@asynccontextmanager
async def open_mesh(
    *groups: str,
    policy: TrustPolicy | None = None,
    store: Path | None = None,
    delegation: Delegation | None = None,
    **parts: Any,
) -> AsyncIterator[Mesh]:
    """A master with these groups, and no worker yet."""
    with open_store(store) as state:
        for name in groups:
            state.put_group(GroupName(name), "memory")
        async with trio.open_nursery() as nursery:
            mesh = Mesh(nursery)
            master_policy = policy or TrustPolicy(role=Role.MASTER, accept_new=True)
            mesh.desk = TrustDesk(master_policy, folder=None, wall=wall)
            mesh.master = mesh.new_master(
                "10.0.0.1",
                state,
                finder=mesh,
                desk=mesh.desk,
                delegation=delegation,
                **parts,
            )
            await nursery.start(mesh.master.run)
            yield mesh
            nursery.cancel_scope.cancel()


def announcement(machine: Machine, *, ip: str | None = None) -> Announcement:
    """What the machine's worker announces."""
    now = int(wall())
    return Announcement(
        role=Role.WORKER,
        name=machine.name,
        key=machine.identity.public,
        mode=Mode.LEAP,
        cores=FACTS.cores,
        memory=FACTS.memory,
        addresses=(Address(ip or machine.ip, PORT),),
        signed_at=now,
        expires_at=now + 3600,
        run=machine.run,
    )


def _ours(role: Role, identity: Identity, run: str) -> Ourselves:
    return Ourselves(
        role=role,
        name=NodeName(identity.name),
        key_id=identity.key_id,
        mode=Mode.LEAP,
        run=run,
    )
