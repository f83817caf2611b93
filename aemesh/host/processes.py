"""The process table, as ``/proc`` shows it, and signals that cannot hit a stranger.

The standard library's basics only: the warden reads this before anything else is
loaded.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Dead already; only their parent's question for the exit status is missing.
_DEAD = frozenset("ZXx")
# Places in /proc/<pid>/stat after the command's name, which may hold anything.
_STATE, _PARENT, _GROUP, _SESSION, _STARTED = 0, 1, 2, 3, 19
# There was no file left to look with.
_SHORT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))


class Process(NamedTuple):
    """One process at one moment; `pid` with `started` names it for ever."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: int  # clock ticks since boot

    @property
    def alive(self) -> bool:
        """Whether it can still run."""
        return self.state not in _DEAD


def check_told(error: OSError) -> None:
    """Raise the error again if it tells of us, and nothing of the process looked at.

    Who takes it for the end of that would let it run on.
    """
    if error.errno in _SHORT:
        raise error


def read_process(pid: int) -> Process | None:
    """Return what the kernel says of a process, or None when it is gone.

    This and all that looks at processes raises `OSError` when files have run out.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except OSError as error:
        check_told(error)
        return None
    fields = line.rpartition(b") ")[2].split()
    return Process(
        pid,
        fields[_STATE].decode(),
        int(fields[_PARENT]),
        int(fields[_GROUP]),
        int(fields[_SESSION]),
        int(fields[_STARTED]),
    )


def read_memory(pid: int) -> int:
    """Return a process's share of memory in bytes (PSS), 0 when it cannot be read."""
    try:
        text = _read_text(f"/proc/{pid}/smaps_rollup")
    except OSError:  # it is gone, or another user's
        return 0
    found = (line.split()[1] for line in text.splitlines() if line[:4] == "Pss:")
    return 1024 * int(next(found, "0"))


def children(pid: int) -> dict[int, Process]:
    """Return the children of a process, dead ones too."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        texts = [_read_text(f"/proc/{pid}/task/{task}/children") for task in tasks]
    except OSError:  # a kernel without these files, or it is gone
        table = all_processes()
        return {one.pid: one for one in table.values() if one.parent == pid}
    found = (read_process(int(word)) for text in texts for word in text.split())
    return {process.pid: process for process in found if process is not None}


def all_processes() -> dict[int, Process]:
    """Return every process that we may see."""
    found = (read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def descendants(table: Mapping[int, Process], roots: Iterable[int]) -> set[int]:
    """Return the children of `roots`, and theirs; not the roots, unless they are."""
    return below(families(table), roots)


def families(table: Mapping[int, Process]) -> dict[int, list[int]]:
    """Return the children of each parent."""
    found: dict[int, list[int]] = {}
    for process in table.values():
        found.setdefault(process.parent, []).append(process.pid)
    return found


def below(families: Mapping[int, Sequence[int]], roots: Iterable[int]) -> set[int]:
    """Return the descendants of `roots`, of whom these are the families."""
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        for child in families.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def kill_all(processes: Sequence[Process]) -> None:
    """End these processes, and the process groups that they are in, at once."""
    groups = {process.group: process for process in processes}
    for process in groups.values():
        kill_group(process)
    for process in processes:
        kill(process)


def kill(process: Process, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal to this very process, never to a later one of the same number.

    Return False when that is not allowed to us: it took another user's rights.
    """
    try:
        fd = os.pidfd_open(process.pid)
    except OSError as error:
        check_told(error)
        return True
    try:
        now = read_process(process.pid)
        if now is not None and now.started == process.started:
            signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    finally:
        os.close(fd)
    return True


def kill_group(process: Process) -> None:
    """End the process group of this process: at one blow, as fork bombs need.

    One by one, a group that forks faster than we read ``/proc`` would win.
    """
    now = read_process(process.pid)
    if now is None or now.started != process.started or now.group != process.group:
        return
    if now.group in {0, 1, os.getpgid(0)}:
        return
    try:
        os.killpg(now.group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _read_text(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
