"""Orphans of jobs that the kernel gave to the agent, to bury and to end.

As a subreaper the agent becomes the parent of whoever lost its own.  Only jobs
have sessions other than the agent's, so a child in another session that leads no
job is such an orphan.  Dead ones are buried, or they would fill the process table.
Those that carry no mark of their job any more (see `jobtree`) cannot be told
apart; they are ended when no job is left that they could belong to.  To a spare
they cannot: nothing of a master's runs in it yet.

The looks at processes take time, so they are for a thread.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from aemesh.host.jobtree import find_members
from aemesh.host.processes import (
    Process,
    all_processes,
    children,
    descendants,
    kill_all,
)
from aemesh.host.warden import events_fd

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from aemesh.host.jobtree import JobTree


def adopts() -> bool:
    """Whether orphans become our children.

    Without a warden this process adopts nobody, and its children are not ours to
    judge: it may be the user's own program (laptop mode).
    """
    return events_fd() is not None


def find_strangers() -> list[Process]:
    """Return our children in other sessions: leaders of jobs, and orphans."""
    mine = os.getsid(0)
    return [one for one in children(os.getpid()).values() if one.session != mine]


def bury(orphans: Iterable[Process]) -> list[Process]:
    """Bury the dead; return the others."""
    alive = []
    for process in orphans:
        if process.alive:
            alive.append(process)
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
    return alive


def end_orphans(orphans: Collection[Process], spares: Collection[JobTree]) -> None:
    """End these, and what is below them, but for the spares."""
    table = all_processes()
    members = find_members(spares, table).values()
    kept = {process.pid for each in members for process in each}
    roots = {one.pid for one in orphans if _runs(one, table)} - kept
    pids = (roots | descendants(table, roots)) & table.keys()
    kill_all([table[pid] for pid in sorted(pids) if table[pid].alive])


def _runs(process: Process, table: dict[int, Process]) -> bool:
    now = table.get(process.pid)
    return now is not None and now.started == process.started
