"""The note of which jobs run, so that the next start ends what a killed agent left.

The warden ends the jobs of an agent that was killed.  This is for the day when
both were killed at once.  A process number alone would be a trap, for numbers are
used again: it counts only with the same boot and the same start time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aemesh import limits
from aemesh.host.jobtree import MARKER, JobTree, find_members, marked
from aemesh.host.processes import Process, all_processes, kill_all

if TYPE_CHECKING:
    from collections.abc import Iterable

_FILE = "jobs.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Three numbers a job: a file beyond this is not ours.
_FILE_BYTES = 1024 * 1024
_ROUNDS = 20


def note_jobs(folder: Path, marker: str, trees: Iterable[JobTree]) -> None:
    """Write down which leaders run; not synced, since a reboot ends them anyway."""
    note = {
        "boot": _boot_id(),
        "marker": marker,
        "leaders": [[tree.leader, tree.started] for tree in trees],
    }
    fresh = folder / f".{_FILE}"
    fresh.write_text(json.dumps(note), encoding="ascii")
    fresh.replace(folder / _FILE)


def end_leftovers(folder: Path) -> int:
    """End what jobs a killed agent left in this run folder; return how many there were.

    It waits until they are gone, `limits.GONE_AFTER` at most.
    """
    note = _read(folder / _FILE)
    if note is None or note.get("boot") != _boot_id():
        return 0
    seen: set[tuple[int, int]] = set()
    for _ in range(_ROUNDS):
        members = _members(note)
        if not members:
            break
        seen |= {(process.pid, process.started) for process in members}
        kill_all(members)
        _wait_gone(members, within=limits.GONE_AFTER / _ROUNDS)
    return len(seen)


def _members(note: dict[str, Any]) -> list[Process]:
    table = all_processes()
    found: dict[int, Process] = {}
    marker = note["marker"]
    leaders = [JobTree(pid, started, marker) for pid, started in note["leaders"]]
    trees = [
        tree for tree in leaders if tree.leader in table and tree.has_number(table)
    ]
    for members in find_members(trees, table).values():
        found |= {process.pid: process for process in members}
    for process in marked(table.values(), f"{MARKER}={marker}."):
        found[process.pid] = process
    return list(found.values())


def _wait_gone(members: list[Process], *, within: float) -> None:
    """Wait until these processes are dead, for they are not our children."""
    poll = select.poll()
    with contextlib.ExitStack() as stack:
        for process in members:
            try:
                fd = os.pidfd_open(process.pid)
            except OSError:
                continue
            stack.callback(os.close, fd)
            poll.register(fd, select.POLLIN)
        poll.poll(within * 1000)


def _boot_id() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()


def _read(path: Path) -> dict[str, Any] | None:
    """Return the note if it is one; a damaged note names nothing that we may kill."""
    try:
        with path.open("rb") as file:
            note = json.loads(file.read(_FILE_BYTES))
        marker, leaders = note["marker"], note["leaders"]
        sound = isinstance(marker, str) and len(marker) >= limits.MARKER_LENGTH
        if sound and all(type(n) is int for pair in leaders for n in pair):
            return {
                "boot": note["boot"],
                "marker": marker,
                "leaders": [(pid, started) for pid, started in leaders],
            }
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None
    return None
