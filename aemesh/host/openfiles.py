"""How many files may be open: as many as can be for an agent, the usual for its jobs.

A link, a stream and a job are some files each, and the usual number is that of the
time of select(2).  Programs that still use that break with a file beyond it, so jobs
have the usual number back.

A job has it back right after its start, for Python has no safe way to do so between
fork and exec when there are threads.  What it forked before has it back, too.  A small
program that asks at once may still be told the higher number; it cannot have opened
that many files by then.
"""

from __future__ import annotations

import contextlib
import resource

from aemesh.host.processes import children

_FILES = resource.RLIMIT_NOFILE


class _Usual:
    """The number that was in force before `take_files`; None if that did nothing."""

    number: int | None = None


def take_files() -> None:
    """Have as many open files in this process as the kernel grants."""
    usual, most = resource.getrlimit(_FILES)
    if usual == most:
        return
    with contextlib.suppress(ValueError, OSError):  # "no limit" can be more than it has
        resource.setrlimit(_FILES, (most, most))
        _Usual.number = usual


def give_usual(leader: int) -> None:
    """Give a process that was just started the usual number, and those below it."""
    usual, waiting = _Usual.number, [leader]
    while usual is not None and waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):  # it is gone, or took another user's rights
            own, most = resource.prlimit(pid, _FILES)
            if own > usual:
                resource.prlimit(pid, _FILES, (usual, most))
            waiting += children(pid)  # later ones have what this one has
