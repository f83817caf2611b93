"""Laptop mode: a master and a worker inside one process, for one script.

The same engine code as in an office, with keys that live as long as the run, a link
over a socket pair, and the engine on the loopback address.  Nothing else listens, and
when it ends nothing is left: the warden sees to it also after a kill -9.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import trio

from aemesh import __version__
from aemesh.client.credentials import Credentials
from aemesh.client.environment import filled, wants_tls
from aemesh.errors import UsageError
from aemesh.host.control.lazily import serve_lazily
from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.host.facts import find_facts
from aemesh.host.guard import Guard, Notice, open_guard
from aemesh.host.jobs import JobRunner, open_jobs
from aemesh.host.keys.keystore import Identity
from aemesh.host.ledger.ledger import open_ledger
from aemesh.host.livefolder import LiveFolder
from aemesh.host.plugins import find_engine
from aemesh.host.statedir import state_root
from aemesh.host.store import open_store
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.master.master import Master
from aemesh.master.parts import Parts as MasterParts
from aemesh.model.address import Address
from aemesh.model.machine import Announcement, Facts, Forward
from aemesh.model.names import GroupName, NodeName
from aemesh.model.trust import Mode, Role
from aemesh.net.pair import PairNetwork
from aemesh.net.shake import Shaker, shakers
from aemesh.net.wallclock import chance
from aemesh.policy.discovery import New, News
from aemesh.policy.trust import TrustPolicy
from aemesh.protocol.hello import Ourselves
from aemesh.tasks.nursery import open_crew
from aemesh.worker.worker import Parts as WorkerParts
from aemesh.worker.worker import Silence, Worker

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Callable,
        Iterator,
        Mapping,
        Sequence,
    )
    from pathlib import Path

    from aemesh.host.control.http import Server
    from aemesh.net.doorman import Doorman

_GROUP = GroupName("laptop")
_NAME = NodeName("laptop")
_LOOPBACK = "127.0.0.1"
_SPARES = 2  # a head and a node


def run_laptop(
    argv: Sequence[str], *, state: str | None = None, engine: str = "dask"
) -> int:
    """Run `argv` with an engine on this machine alone; return its exit code."""
    return trio.run(_run, tuple(argv), state, engine)


async def _run(argv: tuple[str, ...], state: str | None, engine: str) -> int:
    code = 1
    with _folder(state) as folder:
        ledger = folder.parent / "ledger"  # that of all runs alone
        laptop = open_laptop(folder, engine=engine, ledger=ledger)
        async with open_guard() as guard, laptop as env:
            code = await _run_script(argv, {**os.environ, **env}, guard)
    return code


@asynccontextmanager
async def open_laptop(
    folder: Path, *, engine: str, ledger: Path
) -> AsyncIterator[dict[str, str]]:
    """Have an engine on this machine while the block lasts; give a client's variables.

    `folder` holds everything that is written meanwhile, but for what durable runs keep,
    in `ledger`.
    """
    # All is on this machine, and nothing is found out about its network.
    facts = replace(find_facts(), forward=Forward.NO)
    worker_id, master_id = Identity.ephemeral("worker"), Identity.ephemeral("master")
    network = PairNetwork()
    async with (
        open_jobs(folder, spares=_SPARES, replaces_spares=False) as jobs,
        open_crew() as crew,
    ):
        await _start_spares(jobs, engine)
        # Without a durable run, not even its files are made.
        runs = open_ledger(ledger, wall=time.time, lazily=True)
        with open_store(None) as store, runs as kept:
            store.put_group(_GROUP, engine)
            worker = Worker(
                WorkerParts(
                    shaker=_shakers(Role.WORKER, worker_id),
                    desk=_desk(Role.WORKER, master_id),
                    network=network,
                    announcer=Silence(),
                    jobs=jobs,
                    facts=facts,
                    chance=chance,
                    generation=0,
                    remember_generation=lambda _: None,
                ),
                key_id=worker_id.key_id,
            )
            master = Master(
                MasterParts(
                    key_id=master_id.key_id,
                    name=_NAME,
                    mode=Mode.LEAP.value,
                    version=__version__,
                    state_dir=str(folder),
                    shaker=_shakers(Role.MASTER, master_id),
                    desk=_desk(Role.MASTER, worker_id),
                    network=network,
                    finder=_Known(worker_id, facts),
                    jobs=jobs,
                    store=store,
                    ledger=kept,
                    engines=find_engine,
                    head_address=lambda: _LOOPBACK,
                    wall=time.time,
                    dialable=lambda _: True,
                )
            )
            await crew.start(worker.run)
            await crew.start(master.run)
            socket = folder / "master" / SOCKET_FILE  # for `aemesh.connect()`
            await crew.start(serve_lazily, partial(_server, master), socket)
            view = await master.connect(_GROUP)
            if not wants_tls(view):
                yield filled(view, tls=None, state=str(folder))
            else:
                with Credentials(folder, partial(master.certify, _GROUP)) as tls:
                    yield filled(view, tls=tls.folder, state=str(folder))
            crew.cancel_scope.cancel()


def _server(master: Master) -> Server:
    made: Server = import_module("aemesh.master.control").make_server(master)
    return made


@contextmanager
def _folder(state: str | None) -> Iterator[Path]:
    """A private folder for this run only; those of killed runs are removed."""
    folder = LiveFolder(state_root(state) / "laptop")
    try:
        yield folder.path
    finally:
        folder.close()


async def _start_spares(jobs: JobRunner, engine: str) -> None:
    plugin = find_engine(engine)
    for spec in (plugin.spare_head(), plugin.spare_node()):
        if spec is not None:
            await jobs.start_spare(spec)


def _shakers(role: Role, identity: Identity) -> Callable[[Doorman], Shaker]:
    ours = Ourselves(role=role, name=_NAME, key_id=identity.key_id, mode=Mode.LEAP)
    return shakers(ours, identity)


def _desk(role: Role, peer: Identity) -> TrustDesk:
    """Return a desk that trusts the one other, and nobody else."""
    policy = TrustPolicy(role=role, trusted_keys=frozenset({peer.key_id}))
    return TrustDesk(policy, folder=None, wall=time.time)


async def _run_script(
    argv: tuple[str, ...], env: Mapping[str, str], guard: Guard
) -> int:
    """Run the script in our terminal and process group; pass on what we are told."""
    try:
        script = await trio.lowlevel.open_process(list(argv), env=dict(env))
    except OSError as exc:
        msg = f"{argv[0]} cannot be started"
        raise UsageError(msg, why=exc.strerror) from exc
    async with open_crew() as crew:
        crew.start_soon(_pass_on, guard, script)
        try:
            code = await script.wait()
        finally:
            if script.returncode is None:
                script.kill()
        crew.cancel_scope.cancel()
    return code if code >= 0 else 128 - code


async def _pass_on(guard: Guard, script: trio.Process) -> None:
    interrupts = 0
    while True:
        notice = await guard.receive()
        interrupts += notice is Notice.INTERRUPT
        if notice is Notice.INTERRUPT and interrupts == 1 and _typed_here():
            continue  # the terminal told the script too
        number = signal.SIGKILL
        if notice is Notice.INTERRUPT and interrupts == 1:
            number = signal.SIGINT
        elif notice is not Notice.ORPHANED:
            number = signal.SIGTERM
        script.send_signal(number)


def _typed_here() -> bool:
    """Whether we are in the foreground of a terminal, where Ctrl-C reaches all."""
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


class _Known:
    """Knows of the one worker in this process."""

    def __init__(self, identity: Identity, facts: Facts) -> None:
        now = int(time.time())
        self._news = New(
            Announcement(
                role=Role.WORKER,
                name=_NAME,
                key=identity.public,
                mode=Mode.LEAP,
                cores=facts.cores,
                memory=facts.memory,
                addresses=(Address(_LOOPBACK, 1),),
                signed_at=now,
                expires_at=now,
            )
        )

    async def news(self) -> AsyncGenerator[News, None]:
        """Yield the one announcement, and then nothing for good."""
        yield self._news
        await trio.sleep_forever()
