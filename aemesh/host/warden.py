"""The warden: after a kill -9 of the agent nothing that it started goes on.

The problem: an agent that is killed cannot end its jobs, and a job that forked
twice and left its session is found by nobody.  A parent-death signal does not
help: it reaches children only, not theirs, and is cleared by set-uid programs.

So the process that the user started becomes the *warden*.  It forks the agent and
does no more than wait.  The kernel gives it (a "child subreaper") all orphans of a
dead agent, whatever they did to get away; it kills what it has until it has no
child left, and ends as the agent ended.  In life the agent is a subreaper too.

Signals that reach the warden go to the agent through a pipe, one byte each; when
the warden is killed instead, the agent reads the pipe's end (see `guard`).  Both
stay in the terminal's process group, so that the agent may prompt: what the
terminal sends (Ctrl-C) reaches both, and counts where the warden forwards it.

It forks before anything else is loaded: no threads, no open files, and a warden
of few pages.  So this file imports the standard library's basics only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from aemesh.host.processes import Process, all_processes, descendants, kill_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

# One byte on the pipe for each signal that is passed on.
INTERRUPT = b"i"
TERMINATE = b"t"
_BYTES = {
    signal.SIGINT: INTERRUPT,
    signal.SIGTERM: TERMINATE,
    signal.SIGHUP: TERMINATE,
}
# The first interrupt asks, the second hurries, and the third means it: an agent
# that hangs is killed, and all of its with it.
_INTERRUPTS_TO_KILL = 3
_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
# What hangs in the kernel (on a file server that is away) dies when it returns; no
# use in waiting for it longer than this.
_CLEAR_ROUNDS = 1000
_CLEAR_EVERY = 0.01
_HANDLED = frozenset((*_BYTES, signal.SIGQUIT))


class _Link:
    """The agent's end of the warden's pipe; None in a process without a warden."""

    fd: int | None = None


def events_fd() -> int | None:
    """Return the pipe on which the warden forwards signals, if there is a warden."""
    return _Link.fd


def run_guarded(main: Callable[[], int]) -> int:
    """Run `main` in a child, the agent; return its exit status when nothing is left.

    In the agent it does not return but leaves by `SystemExit`.  A signal that
    killed the agent is told as a shell does: 128 + its number.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    become_subreaper()
    # A signal between the fork and the handlers would be lost, or kill one of both.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    agent = os.fork()
    if agent == 0:
        os.close(writing)
        _be_agent(reading, main)
    os.close(reading)
    code = _see_out(agent, writing)
    end_all_below()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, *_HANDLED})
    return code


def become_subreaper() -> None:
    """Make orphans below this process its children, instead of init's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _be_agent(events: int, main: Callable[[], int]) -> NoReturn:
    become_subreaper()  # not inherited by a fork
    _Link.fd = events
    # A handler that does nothing, not SIG_IGN: jobs would inherit that one.
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave_to_warden)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
    try:
        sys.exit(main())
    finally:
        end_all_below()  # the warden would do it, but it may have been killed


def _leave_to_warden(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the warden got the same signal and forwards it."""


def _see_out(agent: int, writing: int) -> int:
    """Pass signals on to the agent until its end; return its exit status.

    The signals stay blocked and are waited for by name: a handler that runs just
    before a blocking `waitpid` would lose the news until the next one.
    """
    passed_on = {n for n in _BYTES if signal.getsignal(n) is not signal.SIG_IGN}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    # The agent dies of it by itself, and we must outlive it.
    signal.signal(signal.SIGQUIT, _leave_to_warden)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED - passed_on)
    interrupts = 0
    while (code := _buried(agent)) is None:
        number = signal.sigwaitinfo({signal.SIGCHLD, *passed_on}).si_signo
        interrupts += number == signal.SIGINT
        if interrupts >= _INTERRUPTS_TO_KILL:
            os.kill(agent, signal.SIGKILL)  # not buried yet: its number is its own
        elif number != signal.SIGCHLD:
            with contextlib.suppress(BrokenPipeError, BlockingIOError):
                # It is ending, or has many to read already.
                os.write(writing, _BYTES[signal.Signals(number)])
    return code


def _buried(agent: int) -> int | None:
    """Bury whoever has ended, orphans too; return the agent's status if it did."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == agent:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def end_all_below() -> None:
    """Kill all that is left below us, until nothing is."""
    for number in _HANDLED:
        # Nobody is left to forward to; and a handler of ours would be taken off
        # before the interpreter has ended, and our exit status be lost.
        signal.signal(number, signal.SIG_IGN)
    for _ in range(_CLEAR_ROUNDS):
        with contextlib.suppress(OSError):  # files have run out: none to look with
            kill_all(_below())
        if not _bury():
            return
        select.select([], [], [], _CLEAR_EVERY)


def _below() -> list[Process]:
    table = all_processes()
    found = (table[pid] for pid in descendants(table, [os.getpid()]))
    return [process for process in found if process.alive]


def _bury() -> bool:
    """Take the exit status of all dead children; return whether any is alive.

    No child means no descendant: who loses its parent becomes our child.
    """
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True
