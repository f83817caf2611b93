"""All processes of one job, however they tried to get away.

The problem: a job's children may leave its process group (``setpgid``), its
session (``setsid``) and its line of parents (fork twice).  Killing the group, as a
shell does, leaves those running.  So a job's tree is found by three marks, any of
which is enough: the session or group of its leader; descent from such a process;
a marker in the environment, which children inherit and cannot take off after
they were started.  Who loses all three, by starting a program with an emptied
environment from a daemon, is nobody's child; the runner and the warden end those.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh.host.processes import (
    Process,
    all_processes,
    descendants,
    kill_all,
    read_process,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

# The variable that marks a job's processes.  Its value is drawn by each agent, since
# two agents of one user may both have a job "7".
MARKER = "AEMESH_TREE"
# The parent of the kernel's own threads, which have no environment at all.
_KERNEL = 2
# An exec takes a tenth of a millisecond; on a busy machine it waits for its turn.
_EXEC_WITHIN = 0.02


@dataclass(frozen=True, slots=True)
class JobTree:
    """The tree that grew from one leader, which is a session of its own."""

    leader: int
    started: int
    marker: str

    def members(self, table: Mapping[int, Process]) -> list[Process]:
        """Return those of the tree that still run."""
        roots = {p.pid for p in table.values() if self._marked(p, table)}
        pids = roots | descendants(table, roots)
        return [table[pid] for pid in sorted(pids) if table[pid].alive]

    def _marked(self, process: Process, table: Mapping[int, Process]) -> bool:
        if process.started < self.started:
            return False
        if self.leader in {process.session, process.group}:
            # The kernel gives no number away that still names a session; so if a
            # younger process has it, the session of our leader is gone.
            now = table.get(self.leader)
            return now is None or now.started == self.started
        return has_marker(process, f"{MARKER}={self.marker}\0")


def has_marker(process: Process, text: str) -> bool:
    """Return whether a process was started with `text` in its environment.

    One in the midst of an exec shows no environment for a moment: it is waited for.
    """
    until = time.monotonic() + _EXEC_WITHIN
    while True:
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as file:
                found = file.read()
        except OSError:  # gone, or another user's
            return False
        if found or process.parent == _KERNEL or time.monotonic() > until:
            return b"\0" + text.encode() in b"\0" + found
        now = read_process(process.pid)
        if now is None or not now.alive:
            return False
        os.sched_yield()


def kill_tree(tree: JobTree) -> list[Process]:
    """End all that runs of a tree; return what there was: call until it is empty."""
    members = tree.members(all_processes())
    kill_all(members)
    return members
