"""Starts a process that is no child of ours, and outlives us and our warden.

A warden kills all that descends from it (see `warden`), and an orphan below it stays
with it.  So who is to live on is forked twice before there is a warden: then it is the
child of whoever takes in orphans above us.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Given a descriptor to say, by writing to it, that all is up.
Main = Callable[[int], int]
_STREAMS = 3


def start_detached(main: Main, *, log: Callable[[], Path] | None = None) -> int:
    """Run `main` in a session of its own; return a descriptor to wait on.

    It becomes readable when `main` writes to its own, or with the end of file when it
    has ended.  Standard output and error go to `log`, which begins anew, or nowhere;
    where it lies is found out by the new process.  It has no other file of ours: a
    lock or a pipe of whoever started us is not held on to.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    between = os.fork()
    if between == 0:
        code = 1
        try:
            os.close(reading)
            os.setsid()
            if os.fork() == 0:
                _open_ends(log)
                os.closerange(_STREAMS, writing)
                os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))
                code = _run(main, writing)
            else:
                code = 0
        finally:
            os._exit(code)  # nothing of our parent's is to be cleaned up here
    os.close(writing)
    os.waitpid(between, 0)
    return reading


def _run(main: Main, writing: int) -> int:
    """Run `main` with the signals as a new program has them; return its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    try:
        return main(writing)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def _open_ends(log: Callable[[], Path] | None) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    out = null
    if log is not None:
        # Appended to: one that goes on for longer has the file open as well.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW
        out = os.open(log(), flags, 0o600)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for fd in {null, out} - {0, 1, 2}:
        os.close(fd)
