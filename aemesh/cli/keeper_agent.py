"""The keeper: runs the heads of one master's groups beside it, and outlives it.

It is a worker that only its master, and those whom that names as heirs, can have.
Without a lease it has no use, and ends.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.cli.keeping import NAME, SOCKET_FILE, desk_of, leap_shakers
from aemesh.cli.node import obey, start_logging
from aemesh.host.control.sockets import listening
from aemesh.host.generation import read_generation, write_generation
from aemesh.host.keys.keystore import load_or_make
from aemesh.host.statedir import state_root
from aemesh.model.machine import Facts
from aemesh.model.trust import Role
from aemesh.net.local import LocalNetwork
from aemesh.net.tcp import KEEPER_PORT, TcpNetwork
from aemesh.net.wallclock import chance
from aemesh.tasks.nursery import open_crew
from aemesh.worker.notebook import Notebook
from aemesh.worker.worker import Parts, Silence, Worker

if TYPE_CHECKING:
    from aemesh.cli.settings import KeeperOptions
    from aemesh.host.guard import Guard
    from aemesh.host.jobs import JobRunner
    from aemesh.host.statedir import StateDir

_log = logging.getLogger(__name__)
_UP = b"."


async def run(
    options: KeeperOptions, state: StateDir, guard: Guard, jobs: JobRunner
) -> int:
    """Keep heads until no master has a use for them; return the exit code."""
    start_logging(verbose=options.verbose)
    master = load_or_make(state_root(options.state) / Role.MASTER.value, "master")
    identity = load_or_make(state.folder, NAME)
    heirs = options.heir_keys()
    worker = Worker(
        Parts(
            shaker=leap_shakers(Role.WORKER, NAME, identity),
            desk=desk_of(Role.WORKER, {master.key_id, *heirs}),
            network=LocalNetwork(
                listen=partial(listening, state.folder / SOCKET_FILE),
                also=TcpNetwork(KEEPER_PORT) if heirs else None,
            ),
            announcer=Silence(),
            jobs=jobs,
            facts=Facts(0, 0, "none", "none"),
            chance=chance,
            generation=read_generation(state.folder),
            remember_generation=partial(write_generation, state.folder),
            notebook=Notebook(),
            hosts=(options.host,) if options.host else (),
        ),
        key_id=identity.key_id,
    )
    async with open_crew() as crew:
        crew.start_soon(
            partial(obey, guard, jobs, leave=worker.leave, scope=crew.cancel_scope)
        )
        await crew.start(worker.run)
        os.write(options.ready, _UP)
        os.close(options.ready)
        await _wait_useless(worker)
        crew.cancel_scope.cancel()
    return 0


async def _wait_useless(worker: Worker) -> None:
    """Wait until nobody holds the keeper any more, or has not within a while."""
    held = worker.held
    with trio.move_on_after(limits.KEEPER_IDLE_AFTER):
        while held.tenancy.lease is None:
            await held.changed.wait()
    while held.tenancy.lease is not None:
        await held.changed.wait()
    _log.info("no master holds the keeper: it ends")
