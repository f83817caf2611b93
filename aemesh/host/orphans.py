"""Orphans of jobs that the kernel gave to the agent, to bury and to end.

As a subreaper the agent becomes the parent of whoever lost its own.  Only jobs
have sessions other than the agent's, so a child in another session that leads no
job is such an orphan.  Dead ones are buried, or they would fill the process table.
Those that carry no mark of their job any more (see `jobtree`) cannot be told
apart; they are ended when no job is left that they could belong to.  To a spare
they cannot: nothing of a master's runs in it yet.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from aemesh.host.processes import (
    Process,
    all_processes,
    children,
    descendants,
    kill_all,
)
from aemesh.host.warden import events_fd

if TYPE_CHECKING:
    from collections.abc import Collection

    from aemesh.host.jobtree import JobTree


def tend_orphans(trees: Collection[JobTree], spares: Collection[JobTree]) -> None:
    """Bury dead orphans; end the living ones if no job has a tree.

    Without a warden this process adopts nobody, and its children are not ours to
    judge: it may be the user's own program (laptop mode).
    """
    if events_fd() is None:
        return
    leaders = {tree.leader for tree in (*trees, *spares)}
    mine = os.getsid(0)
    orphans = [
        process
        for process in children(os.getpid()).values()
        if process.session != mine and process.pid not in leaders
    ]
    for process in orphans:
        _bury(process)
    alive = [process for process in orphans if process.alive]
    if alive and not trees:
        table = all_processes()
        kept = {process.pid for spare in spares for process in spare.members(table)}
        roots = {process.pid for process in alive} - kept
        pids = (roots | descendants(table, roots)) & table.keys()
        kill_all([table[pid] for pid in sorted(pids) if table[pid].alive])


def _bury(process: Process) -> None:
    if not process.alive:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
