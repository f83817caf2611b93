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
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh.host.processes import (
    Process,
    all_processes,
    below,
    check_told,
    families,
    kill_all,
    read_process,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

# The variable that marks a job's processes.  Its value is drawn by each agent, since
# two agents of one user may both have a job "7".
MARKER = "AEMESH_TREE"
_MARK = re.compile(rb"\0%b=([^\0]*)(?=\0)" % MARKER.encode())
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
        return find_members([self], table)[self]

    def has_number(self, table: Mapping[int, Process]) -> bool:
        """Whether the number of its leader still names its session.

        The kernel gives no number away that still names a session; so if a younger
        process has it, the session of our leader is gone.
        """
        now = table.get(self.leader)
        return now is None or now.started == self.started


def find_members(
    trees: Collection[JobTree], table: Mapping[int, Process]
) -> dict[JobTree, list[Process]]:
    """Return those of each tree that still run.

    Of what is none of the leaders' the environment is looked at, once for all trees.
    """
    children = families(table)
    found = _of_leaders(trees, table)
    for pids in found.values():
        pids.update(below(children, pids))
    known = set().union(*found.values())
    for tree, pid in _away(trees, (p for p in table.values() if p.pid not in known)):
        found[tree] |= {pid} | below(children, [pid])
    return {
        tree: [table[pid] for pid in sorted(pids) if table[pid].alive]
        for tree, pids in found.items()
    }


def _of_leaders(
    trees: Iterable[JobTree], table: Mapping[int, Process]
) -> dict[JobTree, set[int]]:
    """Return the session and the group of each leader."""
    found: dict[JobTree, set[int]] = {tree: set() for tree in trees}
    by_number: dict[int, list[JobTree]] = {}
    for tree in found:
        if tree.has_number(table):
            by_number.setdefault(tree.leader, []).append(tree)
    for process in table.values():
        for number in (process.session, process.group):
            for tree in by_number.get(number, ()):
                if process.started >= tree.started:
                    found[tree].add(process.pid)
    return found


def _away(
    trees: Collection[JobTree], processes: Iterable[Process]
) -> Iterator[tuple[JobTree, int]]:
    """Yield those that carry the mark of one of these trees."""
    if not trees:
        return
    by_mark = {tree.marker.encode(): tree for tree in trees}
    oldest = min(tree.started for tree in trees)
    younger = [process for process in processes if process.started >= oldest]
    for process, shown in started_with(younger):
        for mark in _MARK.findall(b"\0" + shown):
            tree = by_mark.get(mark)
            if tree is not None and process.started >= tree.started:
                yield tree, process.pid


def marked(processes: Iterable[Process], text: str) -> list[Process]:
    """Return those that were started with `text` in their environment, and run."""
    mark = b"\0" + text.encode()
    shown = started_with(processes)
    return [process for process, found in shown if mark in b"\0" + found]


def started_with(processes: Iterable[Process]) -> Iterator[tuple[Process, bytes]]:
    """Yield those that run, each with the environment that it was started with.

    One in the midst of an exec shows none for a moment: all such are waited for at one
    time, so that a thousand that will never have one cost no more than one.
    """
    waiting = [one for one in processes if one.alive]
    until, again = math.inf, False
    while waiting:
        hidden = []
        for process in waiting:
            shown = _environment(process, again=again)
            if shown is None:
                hidden.append(process)
            else:
                yield process, shown
        now = time.monotonic()
        if now > until:
            break
        if not again:  # the first look takes as long as it takes
            until = now + _EXEC_WITHIN
        waiting, again = hidden, True
        os.sched_yield()


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
    except OSError as error:  # gone, or another user's
        check_told(error)
        return b""
    now = read_process(process.pid)
    return None if now is not None and now.alive else b""


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def kill_trees(trees: Collection[JobTree]) -> dict[JobTree, list[Process]]:
    """End all that runs of these trees; return what there was: call until it is empty.

    The table is read once for all.
    """
    found = find_members(trees, all_processes())
    kill_all(list({one.pid: one for each in found.values() for one in each}.values()))
    return found
