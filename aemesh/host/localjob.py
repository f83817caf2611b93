"""A job on this machine: what `plugin.Job` promises, for one local process tree."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import BugError, UnreachableError
from aemesh.host.joboutput import JobOutput
from aemesh.host.jobtree import JobTree
from aemesh.host.processes import all_processes, children, kill, read_memory
from aemesh.model.job import RELEASED, JobExit

if TYPE_CHECKING:
    from aemesh.host.jobsocket import Answer
    from aemesh.host.reaper import Reaper
    from aemesh.model.names import JobId


@dataclass(frozen=True, slots=True)
class Started:
    """What there is of a job once its leader runs."""

    process: trio.Process
    tree: JobTree
    output: JobOutput
    room: Path  # its folder
    socket: socket.socket  # over which it asks us
    wrapped: bool = False  # the leader is bubblewrap, and the job is within


class LocalJob:
    """One running or ended job; `watch` runs beside it, in a task of its runner.

    After its end `output` still gives what is in the pipes, and `wait` the exit.
    """

    def __init__(self, job_id: JobId, started: Started, reaper: Reaper) -> None:
        self.id = job_id
        self.tree = started.tree
        self.room = started.room
        self.socket = started.socket
        self.answer: Answer | None = None  # what answers it; None: it is nobody's yet
        self._process = started.process
        self._wrapped = started.wrapped
        self._reaper = reaper
        self._output = started.output
        self._output_taken = False
        self._sending = trio.Lock()
        self._exit: JobExit | None = None
        self._reason = ""
        # How long the leader may still run; only `end` makes it finite.
        self._patience = trio.CancelScope()
        self._asked = trio.Event()
        self._over = trio.Event()

    @property
    def pid(self) -> int:
        """The process id of the leader; its session has the same number."""
        return self.tree.leader

    @property
    def running(self) -> bool:
        """Whether the leader has not ended yet."""
        return self._process.returncode is None

    @property
    def exit_now(self) -> JobExit | None:
        """How it ended; None while anything of it is left."""
        return self._exit

    async def send(self, data: bytes) -> None:
        """Write to the job's standard input; raises `UnreachableError` if it ended."""
        assert self._process.stdin is not None
        try:
            async with self._sending:
                await self._process.stdin.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            what = f"job {self.id} takes no input"
            raise UnreachableError(what, why="it ended, or closed it") from None

    async def close_input(self) -> None:
        """End the job's standard input."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()

    def output(self) -> JobOutput:
        """Iterate over its output as it comes, once; slow readers slow the job."""
        if self._output_taken:
            what = f"the output of job {self.id} was asked for twice"
            raise BugError(what)
        self._output_taken = True
        return self._output

    async def wait_said(self) -> None:
        """Wait until it has written to its standard output, and leave that there."""
        await self._output.wait_said()

    async def wait(self) -> JobExit:
        """Wait until the job and its children are gone, however that came.

        A job is over when its leader is: children that outlive it are killed.
        """
        await self._over.wait()
        assert self._exit is not None
        return self._exit

    async def end(self, *, term_after: float, reason: str = RELEASED) -> JobExit:
        """Ask the job to end, and end its whole tree after `term_after` seconds.

        Asked again, the shorter span and the first reason count.
        """
        self.end_nowait(term_after=term_after, reason=reason)
        return await self.wait()

    def end_nowait(self, *, term_after: float, reason: str = RELEASED) -> None:
        """Ask as `end` does, without waiting."""
        if self._process.poll() is not None:
            return
        deadline = trio.current_time() + term_after
        self._patience.deadline = min(self._patience.deadline, deadline)
        if not self._reason:
            self._reason = reason
            self._asked.set()
            if not self._wrapped:
                self._ask()

    def _ask(self) -> None:
        """Send the polite signal to the leader's group."""
        if self._process.poll() is None:  # not reaped yet, so the number is its own
            # It may have taken another user's rights.
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)

    async def _ask_within(self) -> None:
        """Wait until it is to be asked, and send the polite signal to what is within.

        Not to bubblewrap, where the job is within: it would end at once, and the rest
        with it.  Before there is anything else, it is the job.
        """
        await self._asked.wait()
        with contextlib.suppress(OSError):  # files have run out: its deadline comes
            if not await trio.to_thread.run_sync(_ask_below, self.pid):
                self._ask()

    def read_memory(self) -> int:
        """Return what its whole tree takes of memory now, in bytes of PSS.

        It takes its time; for a thread.
        """
        members = self.tree.members(all_processes())
        return sum(read_memory(process.pid) for process in members)

    async def watch(self) -> list[int]:
        """Wait for the end, make it complete, and return the pids that remain.

        See `Reaper.end`.  Run once, shielded.
        """
        async with trio.open_nursery() as nursery:
            if self._wrapped:
                nursery.start_soon(self._ask_within)
            with self._patience:
                await self._process.wait()
            nursery.cancel_scope.cancel()
        remaining = await self._reaper.end(self.tree)
        with trio.move_on_after(limits.GONE_AFTER):
            await self._process.wait()
        await self.close_input()
        code = self._process.returncode
        code = -signal.SIGKILL if code is None else code
        self._exit = JobExit(128 - code if code < 0 else code, self._reason)
        self._output.finish()
        self._over.set()
        return remaining

    def __repr__(self) -> str:
        if self._exit is not None:
            state = f"ended with {self._exit.code}"
        elif math.isfinite(self._patience.deadline):
            state = "ending"
        else:
            state = "running"
        return f"LocalJob({self.id}, pid {self.pid}, {state})"


def _ask_below(leader: int) -> bool:
    """Ask the job's own process, and the group without bubblewrap's two; False: none.

    It leads no session there, so it can leave the group, as timeout(1) does; it is
    the oldest child of bubblewrap's inner process, which takes in orphans, too.
    """
    inner = children(leader)
    within = {pid: one for outer in inner for pid, one in children(outer).items()}
    if not within:
        return False
    own = min(within.values(), key=lambda one: (one.started, one.pid))
    waiting = list(within)
    while waiting:
        more = children(waiting.pop())
        waiting += more.keys() - within.keys()
        within |= more
    for process in within.values():
        if process.alive and (process == own or process.group == leader):
            kill(process, signal.SIGTERM)
    return True
