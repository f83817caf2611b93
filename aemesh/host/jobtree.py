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

import math
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
    from collections.abc import Iterable, Mapping

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
        younger = [p for p in table.values() if p.started >= self.started]
        roots = {p.pid for p in younger if self._of_leader(p, table)}
        known = roots | descendants(table, roots)
        others = (p for p in younger if p.pid not in known)
        away = {p.pid for p in marked(others, f"{MARKER}={self.marker}\0")}
        pids = known | away | descendants(table, away)
        return [table[pid] for pid in sorted(pids) if table[pid].alive]

    def _of_leader(self, process: Process, table: Mapping[int, Process]) -> bool:
        if self.leader not in {process.session, process.group}:
            return False
        # The kernel gives no number away that still names a session; so if a
        # younger process has it, the session of our leader is gone.
        now = table.get(self.leader)
        return now is None or now.started == self.started


def marked(processes: Iterable[Process], text: str) -> list[Process]:
    """Return those that were started with `text` in their environment, and run.

    One in the midst of an exec shows none for a moment: all such are waited for at one
    time, so that a thousand that will never have one cost no more than one.
    """
    found, waiting = [], [one for one in processes if one.alive]
    until, again = math.inf, False
    while waiting:
        hidden = []
        for process in waiting:
            shown = _environment(process, again=again)
            if shown is None:
                hidden.append(process)
            elif b"\0" + text.encode() in b"\0" + shown:
                found.append(process)
        now = time.monotonic()
        if now > until:
            break
        if not again:  # the first look takes as long as it takes
            until = now + _EXEC_WITHIN
        waiting, again = hidden, True
        os.sched_yield()
    return found


def _environment(process: Process, *, again: bool) -> bytes | None:
    """Return what a process was started with; None if it may be in an exec just now.

    Then it has no arguments either; those come a moment earlier, so they say so only
    when it is looked at again.
    """
    folder = f"/proc/{process.pid}"
    try:
        found = _read(f"{folder}/environ")
        if found or process.parent == _KERNEL:
            return found
        if again and _read(f"{folder}/cmdline"):
            return _read(f"{folder}/environ")
    except OSError:  # gone, or another user's
        return b""
    now = read_process(process.pid)
    return None if now is not None and now.alive else b""


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def kill_tree(tree: JobTree) -> list[Process]:
    """End all that runs of a tree; return what there was: call until it is empty."""
    members = tree.members(all_processes())
    kill_all(members)
    return members
