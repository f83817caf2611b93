"""How an agent starts: its spares first, and the rest of it while they load.

The problem: importing an engine takes longer than all else in the start of a node,
and so does, after that, importing what the agent itself is made of.  One after the
other, a machine joins late.

So this file imports no more than it takes to run a job.  With the spares on their way
it imports the agent proper by name, on another core than they.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
from typing import TYPE_CHECKING, Any, Protocol, cast

import trio

from aemesh.cli.settings import KeeperOptions, MasterOptions, WorkerOptions
from aemesh.errors import AlreadyRunningError
from aemesh.host.guard import Guard, open_guard
from aemesh.host.jobs import JobRunner, open_jobs
from aemesh.host.openfiles import take_files
from aemesh.host.plugins import engine_names, find_engine
from aemesh.host.sandbox import find_sandbox
from aemesh.host.statedir import KEEPER, StateDir, held_state
from aemesh.model.trust import Role
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aemesh.model.job import JobSpec

Options = WorkerOptions | MasterOptions | KeeperOptions

# By then a worker has joined, if there is a master: it takes some 30 ms.
_SETTLE_AFTER = 5.0

_AGENTS: dict[type[Options], str] = {
    WorkerOptions: "aemesh.cli.worker_agent",
    MasterOptions: "aemesh.cli.master_agent",
    KeeperOptions: "aemesh.cli.keeper_agent",
}


class Agent(Protocol):
    """What the module of an agent has."""

    async def run(
        self, options: Options, state: StateDir, guard: Guard, jobs: JobRunner
    ) -> int:
        """Run the node until it is told to leave; return the exit code."""


def run_agent(role: str, options: dict[str, Any]) -> int:
    """Run an agent with these options until it leaves; return the exit code."""
    take_files()
    if role == Role.MASTER.value:
        return _run_held(Role.MASTER, MasterOptions(**options))
    if role == KEEPER:
        return _run_keeper(KeeperOptions(**options))
    return _run_held(Role.WORKER, WorkerOptions(**options))


def _run_held(role: Role, options: Options, *, place: str | None = None) -> int:
    with held_state(role, options.state, place=place) as state:
        return trio.run(_run, options, state)


def _run_keeper(options: KeeperOptions) -> int:
    try:
        return _run_held(Role.WORKER, options, place=KEEPER)
    except AlreadyRunningError:
        return 0  # a former master's goes on; it serves the new one


async def _run(options: Options, state: StateDir) -> int:
    kind = options.sandbox if isinstance(options, WorkerOptions) else "none"
    sandbox = find_sandbox(kind, state=state.folder.parent, run=state.run)
    async with (
        open_guard() as guard,
        open_jobs(state.run, spares=options.spares, sandbox=sandbox) as jobs,
        open_crew() as crew,
    ):
        for spec in _spares(options):
            await jobs.start_spare(spec)
        gc.enable()  # it was off while somebody waited: see `guarded`
        agent = cast("Agent", importlib.import_module(_AGENTS[type(options)]))
        crew.start_soon(_settle)
        code = await agent.run(options, state, guard, jobs)
        crew.cancel_scope.cancel()
    return code


async def _settle() -> None:
    """Give back what only the start needed, once nobody waits for us any more."""
    await trio.sleep(_SETTLE_AFTER)
    gc.collect()
    gc.freeze()  # modules stay: no collection needs to go through them
    with contextlib.suppress(AttributeError):  # a libc that keeps nothing back
        ctypes.CDLL(None).malloc_trim(0)


def _spares(options: Options) -> Iterable[JobSpec]:
    """Return what each engine that may be asked for wants to have warm."""
    specs: list[JobSpec | None] = []
    if isinstance(options, WorkerOptions):
        specs = [find_engine(name).spare_node() for name in engine_names()]
    elif isinstance(options, KeeperOptions) or options.keeper is None:
        specs = [find_engine(options.engine).spare_head()]
    return [spec for spec in specs if spec is not None]
